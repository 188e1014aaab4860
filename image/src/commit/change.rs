//! Dockerfile instructions applied to a container's configuration (`commit --change`, `import --change`).

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

use crate::config::{ContainerConfig, Healthcheck};
use crate::error::Error;

/// Applies `changes` in their order. Nothing is applied if one of them is wrong.
pub(crate) fn apply(config: &mut ContainerConfig, changes: &[String]) -> Result<(), Error> {
    let mut changed = config.clone();
    let mut new_entrypoint = false;
    let mut new_cmd = false;
    for change in changes {
        let fail = |reason: String| Error::Change { change: change.clone(), reason };
        let text = change.trim();
        let (instruction, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let instruction = instruction.to_ascii_uppercase();
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(fail("it has no argument".into()));
        }
        new_entrypoint |= instruction == "ENTRYPOINT";
        new_cmd |= instruction == "CMD";
        one(&mut changed, &instruction, rest).map_err(fail)?;
    }
    if new_entrypoint && !new_cmd {
        // The old arguments were for the old program.
        changed.cmd = None;
    }
    *config = changed;
    Ok(())
}

fn one(config: &mut ContainerConfig, instruction: &str, rest: &str) -> Result<(), String> {
    match instruction {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                let prefix = format!("{name}=");
                let entry = format!("{prefix}{value}");
                match config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
                    Some(known) => *known = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                config.exposed_ports.extend(ports(&port)?.into_iter().map(|port| (port, empty())));
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).map_or_else(|| words(rest), Ok)?;
            config.volumes.extend(paths.into_iter().map(|path| (path, empty())));
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') || config.working_dir.is_empty() {
                format!("/{}", rest.trim_start_matches('/'))
            } else {
                format!("{}/{rest}", config.working_dir.trim_end_matches('/'))
            };
        }
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "SHELL" => config.shell = json_words(rest).ok_or("it wants a JSON list of strings")?,
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(config, rest)?),
        _ => return Err(format!("{instruction} is not an instruction that a commit takes")),
    }
    Ok(())
}

/// The exec form `["a", "b"]`, or the shell form.
fn command(config: &ContainerConfig, rest: &str) -> Vec<String> {
    json_words(rest).unwrap_or_else(|| {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        let mut shell = if config.shell.is_empty() { default() } else { config.shell.clone() };
        shell.push(rest.to_owned());
        shell
    })
}

fn json_words(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `name=value name="other value"`, or the old form `name value with spaces`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(rest)?;
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or("it wants name=value")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not name=value")),
        })
        .collect()
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("{text:?} is no port");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let parse = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `NONE`, or `[--interval=…] … CMD command`.
fn healthcheck(config: &ContainerConfig, rest: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).ok_or("a health check wants CMD")?;
        let (name, value) = option.split_once('=').ok_or_else(|| format!("--{option} wants a value"))?;
        match name {
            "interval" => check.interval = nanoseconds(value)?,
            "timeout" => check.timeout = nanoseconds(value)?,
            "start-period" => check.start_period = nanoseconds(value)?,
            "start-interval" => check.start_interval = nanoseconds(value)?,
            "retries" => check.retries = value.parse().map_err(|_parse| format!("{value:?} is no number"))?,
            _ => return Err(format!("--{name} is no option of a health check")),
        }
        rest = after.trim_start();
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (kind.to_ascii_uppercase().as_str(), command_text.trim()) {
        ("NONE", "") => check.test = vec!["NONE".into()],
        ("CMD", text) if !text.is_empty() => {
            check.test = match json_words(text) {
                Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                None if config.shell.is_empty() => vec!["CMD-SHELL".into(), text.into()],
                None => std::iter::once("CMD".to_owned()).chain(command(config, text)).collect(),
            };
        }
        _ => return Err("a health check is NONE or CMD command".into()),
    }
    Ok(check)
}

/// `1m30s`, `500ms`, as Go writes durations.
fn nanoseconds(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no duration");
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_parse| bad())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    if text.is_empty() || total > 1e18 {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be under 10^18 above")]
    Ok(total as i64)
}

/// Words separated by white space; quotes and backslashes work as in a shell without variables.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        words.push(word(&mut chars)?);
    }
}

fn word(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.extend(chars.next()),
            (c, _) => word.push(c),
        }
    }
    if quote.is_some() { Err("a quote is not closed".into()) } else { Ok(word) }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerConfig, String> {
        let mut config = ContainerConfig {
            cmd: Some(vec!["old".into()]),
            env: vec!["PATH=/bin".into(), "A=1".into()],
            working_dir: "/w".into(),
            ..ContainerConfig::default()
        };
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        apply(&mut config, &changes).map(|()| config).map_err(|error| error.to_string())
    }

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn applies_instructions() {
        let config = changed(&[
            r#"CMD ["a","b"]"#,
            "env A=2 B='x y' C=\"q\\\"r\"",
            "ENV D one two",
            "EXPOSE 80 53/udp 8000-8002",
            "LABEL k=v other=\"a b\"",
            "USER nobody",
            "VOLUME /data /more",
            r#"VOLUME ["/x y"]"#,
            "WORKDIR sub",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost",
        ])
        .unwrap();
        assert_eq!(config.cmd, list(&["a", "b"]));
        assert_eq!(config.env, ["PATH=/bin", "A=2", "B=x y", "C=q\"r", "D=one two"]);
        let ports: Vec<&String> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(config.labels["other"], "a b");
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/more", "/x y"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("nobody", "/w/sub"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://localhost"]);
    }

    #[test]
    fn entrypoint_drops_the_old_command() {
        let config = changed(&["ENTRYPOINT top -b"]).unwrap();
        assert_eq!(config.entrypoint, list(&["/bin/sh", "-c", "top -b"]));
        assert_eq!(config.cmd, None);
        assert_eq!(changed(&["CMD x", r#"ENTRYPOINT ["e"]"#]).unwrap().cmd, list(&["/bin/sh", "-c", "x"]));
    }

    #[test]
    fn refuses_nonsense() {
        for (change, want) in [
            ("", "invalid change \"\": it has no argument"),
            ("RUN x", "invalid change \"RUN x\": RUN is not an instruction that a commit takes"),
            ("ENV A", "invalid change \"ENV A\": it wants name=value"),
            ("ENV A='x", "invalid change \"ENV A='x\": a quote is not closed"),
            ("EXPOSE 99999", "invalid change \"EXPOSE 99999\": \"99999\" is no port"),
            ("SHELL sh", "invalid change \"SHELL sh\": it wants a JSON list of strings"),
            (
                "HEALTHCHECK --interval=5 CMD x",
                "invalid change \"HEALTHCHECK --interval=5 CMD x\": \"5\" is no duration",
            ),
        ] {
            assert_eq!(changed(&[change]).unwrap_err(), want);
        }
    }
}
