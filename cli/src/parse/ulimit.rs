//! `--ulimit NAME=SOFT[:HARD]`.

use super::Invalid;

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ulimit {
    /// As users write it: `nofile`.
    pub name: String,
    /// `u64::MAX` is unlimited.
    pub soft: u64,
    /// At least `soft`.
    pub hard: u64,
}

const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parses one limit; `-1` and `unlimited` mean no limit.
pub(crate) fn parse(text: &str) -> Result<Ulimit, Invalid> {
    let refuse = |why: &str| Invalid::new("--ulimit", text, why);
    let (name, values) = text.split_once('=').ok_or_else(|| refuse("NAME=SOFT[:HARD] is expected"))?;
    if !NAMES.contains(&name) {
        return Err(refuse("there is no limit of that name"));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_bad| refuse("a limit is a number or unlimited")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(refuse("the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limit = parse("nofile=1024:2048").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("nofile", 1024, 2048));
        assert_eq!(parse("core=-1").unwrap().hard, u64::MAX);
        for bad in ["nofile", "files=1", "nofile=2:1", "nofile=x", "nofile="] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
