//! Environment variables: `--env NAME[=VALUE]`, `--env-file`, and how lists of them are merged.

use super::Invalid;

/// One request: a variable to set, or one to take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `NAME=VALUE`
    Set(String),
    /// A name that has no value here: removed from the image's list.
    Unset(String),
}

/// Parses `--env`. A name alone takes its value from `lookup` (the caller's environment).
pub(crate) fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Entry, Invalid> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(Invalid::new("--env", text, "the name is empty"));
    }
    if text.contains('\0') {
        return Err(Invalid::new("--env", text, "it holds a zero byte"));
    }
    if text.len() > name.len() {
        return Ok(Entry::Set(text.to_owned()));
    }
    Ok(match lookup(name) {
        Some(value) => Entry::Set(format!("{name}={value}")),
        None => Entry::Unset(name.to_owned()),
    })
}

/// Parses the text of an `--env-file`: one `NAME[=VALUE]` per line, `#` starts a comment line.
pub(crate) fn parse_file(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Entry>, Invalid> {
    let mut entries = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Err(Invalid::new("--env-file line", line, "the name holds a space"));
        }
        // A name without a value that is not set here is left out, not removed.
        match parse(line, lookup)? {
            entry @ Entry::Set(_) => entries.push(entry),
            Entry::Unset(_) => {}
        }
    }
    Ok(entries)
}

/// `base` with `changes` applied: a later value replaces an earlier one in its place, new names go to the end.
/// Entries of `base` without `=` are dropped: execve would pass them on and libc's disagree on what they mean.
pub(crate) fn merge(base: &[String], changes: &[Entry]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut list: Vec<String> = Vec::with_capacity(base.len() + changes.len());
    let set = |list: &mut Vec<String>, entry: &str| match list.iter_mut().find(|e| name(e) == name(entry)) {
        Some(place) => entry.clone_into(place),
        None => list.push(entry.to_owned()),
    };
    for entry in base.iter().filter(|e| e.contains('=') && !e.starts_with('=')) {
        set(&mut list, entry);
    }
    for change in changes {
        match change {
            Entry::Set(entry) => set(&mut list, entry),
            Entry::Unset(gone) => list.retain(|e| name(e) != *gone),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn entries() {
        assert_eq!(parse("A=1=2", &lookup), Ok(Entry::Set("A=1=2".into())));
        assert_eq!(parse("A=", &lookup), Ok(Entry::Set("A=".into())));
        assert_eq!(parse("HOME", &lookup), Ok(Entry::Set("HOME=/root".into())));
        assert_eq!(parse("NONE", &lookup), Ok(Entry::Unset("NONE".into())));
        assert!(parse("=x", &lookup).is_err());
        assert!(parse("", &lookup).is_err());
    }

    #[test]
    fn files() {
        let text = "# comment\n\n  A=1 # kept\nHOME\nNONE\nB='q'\n";
        let want: Vec<_> = ["A=1 # kept", "HOME=/root", "B='q'"].map(|e| Entry::Set(e.into())).into();
        assert_eq!(parse_file(text, &lookup), Ok(want));
        assert!(parse_file("A B=1", &lookup).is_err());
    }

    #[test]
    fn merging() {
        let base = ["A=1", "junk", "B=2", "=x", "A=3"].map(str::to_owned);
        let changes = [Entry::Set("C=3".into()), Entry::Set("B=9".into()), Entry::Unset("A".into())];
        assert_eq!(merge(&base, &changes), ["B=9", "C=3"]);
        assert_eq!(merge(&base, &[]), ["A=3", "B=2"]);
    }
}
