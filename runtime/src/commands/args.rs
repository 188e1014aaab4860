//! The command line's grammar: Go's `flag` as runc's callers use it.
//!
//! `--name value`, `--name=value`, the same with one dash, and `-n value` for a flag's short name. A switch takes
//! `=true`, `=false` and Go's other words for them only. Flags may stand before and after the positional arguments; `--` ends them, and so does, for
//! a command that takes a program to run, the first word of that program.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use super::Failure;

/// A flag that a command knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes_value: bool,
    pub(crate) help: &'static str,
}

impl Flag {
    pub(crate) const fn value(long: &'static str, help: &'static str) -> Self {
        Self { long, short: None, takes_value: true, help }
    }

    pub(crate) const fn switch(long: &'static str, help: &'static str) -> Self {
        Self { long, short: None, takes_value: false, help }
    }

    pub(crate) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }
}

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    flags: Vec<(&'static str, String)>,
    /// In order.
    pub(crate) positional: Vec<String>,
}

impl Parsed {
    /// Takes `words` apart. After `literal_after` positional arguments the rest is taken as it stands, and so is the
    /// first word that follows them and is no flag.
    pub(crate) fn parse(words: Vec<OsString>, flags: &[Flag], literal_after: Option<usize>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut words = words.into_iter();
        let mut literal = false;
        while let Some(word) = words.next() {
            let word = text(word)?;
            if literal || word == "-" || !word.starts_with('-') {
                parsed.positional.push(word);
                literal |= literal_after.is_some_and(|limit| parsed.positional.len() > limit);
                continue;
            }
            if word == "--" {
                literal = true;
                continue;
            }
            let bare = word.strip_prefix("--").unwrap_or(&word[1..]);
            if bare.starts_with(['-', '=']) {
                return Err(Failure::flag(format!("bad flag syntax: {word}")));
            }
            let (name, inline) = match bare.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (bare, None),
            };
            let flag = flags
                .iter()
                .find(|flag| flag.long == name || flag.short.is_some_and(|short| name.chars().eq([short])))
                .ok_or_else(|| Failure::flag(format!("flag provided but not defined: -{name}")))?;
            let value = match (flag.takes_value, inline) {
                (true, Some(value)) => value,
                (true, None) => {
                    text(words.next().ok_or_else(|| Failure::flag(format!("flag needs an argument: -{name}")))?)?
                }
                (false, value) => value.unwrap_or_else(|| "true".into()),
            };
            if !flag.takes_value && boolean(&value).is_none() {
                return Err(Failure::flag(format!("invalid boolean value {value:?} for -{name}: parse error")));
            }
            parsed.flags.push((flag.long, value));
        }
        Ok(parsed)
    }

    /// The flag's last value.
    pub(crate) fn value(&self, long: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All its values.
    pub(crate) fn values<'s>(&'s self, long: &'s str) -> impl Iterator<Item = &'s str> {
        self.flags.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.value(long).and_then(boolean).unwrap_or(false)
    }

    /// The flag's value as a number.
    pub(crate) fn number<T: FromStr>(&self, long: &str) -> Result<Option<T>, Failure> {
        self.value(long)
            .map(|value| {
                value.parse().map_err(|_unspecific| {
                    Failure::flag(format!("invalid value {value:?} for flag -{long}: parse error"))
                })
            })
            .transpose()
    }

    /// The positional arguments when there are exactly `count`, else the complaint that runc makes.
    pub(crate) fn exactly(&self, command: &str, count: usize) -> Result<&[String], Failure> {
        if self.positional.len() == count {
            return Ok(&self.positional);
        }
        Err(Failure::arguments(command, format_args!("exactly {count}")))
    }

    /// At least `least` and at most `most` positional arguments.
    pub(crate) fn between(&self, command: &str, least: usize, most: usize) -> Result<&[String], Failure> {
        match self.positional.len() {
            n if n < least => Err(Failure::arguments(command, format_args!("a minimum of {least}"))),
            n if n > most => Err(Failure::arguments(command, format_args!("a maximum of {most}"))),
            _ => Ok(&self.positional),
        }
    }
}

/// A truth value in the words of Go's `strconv`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Splits the words at the first that is no flag: the global flags, and the command with its own.
pub(crate) fn split_global(words: Vec<OsString>, flags: &[Flag]) -> (Vec<OsString>, Vec<OsString>) {
    let mut global = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if !bytes.starts_with(b"-") || bytes == b"-" {
            return (global, std::iter::once(word).chain(words).collect());
        }
        let name = word.to_string_lossy().trim_start_matches('-').to_owned();
        let wants_next = flags.iter().any(|flag| flag.takes_value && flag.long == name);
        global.push(word);
        if wants_next {
            global.extend(words.next());
        }
    }
    (global, Vec::new())
}

fn text(word: OsString) -> Result<String, Failure> {
    word.into_string().map_err(|word| Failure::new(format!("argument {} is not valid UTF-8", word.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] =
        [Flag::value("bundle", "").short('b'), Flag::switch("tty", "").short('t'), Flag::value("env", "").short('e')];

    fn parse(words: &[&str], literal_after: Option<usize>) -> Result<Parsed, String> {
        Parsed::parse(words.iter().map(OsString::from).collect(), &FLAGS, literal_after).map_err(|f| f.message())
    }

    #[test]
    fn flags_stand_anywhere() {
        for words in
            [&["-b", "/x", "--tty", "id"][..], &["id", "--bundle=/x", "-t"], &["-bundle", "/x", "id", "--tty=true"]]
        {
            let parsed = parse(words, None).unwrap();
            assert_eq!((parsed.value("bundle"), parsed.on("tty")), (Some("/x"), true), "{words:?}");
            assert_eq!(parsed.positional, ["id"], "{words:?}");
        }
    }

    #[test]
    fn a_program_keeps_its_own_flags() {
        let parsed = parse(&["-t", "id", "-e", "A=1", "sh", "-e", "-c", "true"], Some(1)).unwrap();
        assert_eq!(parsed.positional, ["id", "sh", "-e", "-c", "true"]);
        assert_eq!(parsed.values("env").collect::<Vec<_>>(), ["A=1"]);
        let parsed = parse(&["id", "--", "-t"], Some(1)).unwrap();
        assert_eq!((parsed.positional.len(), parsed.on("tty")), (2, false));
    }

    #[test]
    fn whatever_follows_the_id_belongs_to_ps() {
        let parsed = parse(&["-b", "x", "id", "-e", "-t", "--env"], Some(0)).unwrap();
        assert_eq!((parsed.positional.join(" ").as_str(), parsed.on("tty")), ("id -e -t --env", false));
    }

    #[test]
    fn complaints_name_the_flag() {
        assert_eq!(parse(&["--nope"], None).unwrap_err(), "flag provided but not defined: -nope");
        assert_eq!(parse(&["-b"], None).unwrap_err(), "flag needs an argument: -b");
        assert_eq!(parse(&["--tty=maybe"], None).unwrap_err(), "invalid boolean value \"maybe\" for -tty: parse error");
        assert_eq!(parse(&["---tty"], None).unwrap_err(), "bad flag syntax: ---tty");
    }

    #[test]
    fn global_flags_end_at_the_command() {
        let words = ["--bundle", "x", "--tty", "run", "--tty"].map(OsString::from).to_vec();
        let (global, rest) = split_global(words, &FLAGS);
        assert_eq!((global.len(), rest.len()), (3, 2));
    }
}
