//! Mounts: `--volume [SOURCE:]TARGET[:OPTIONS]`, `--mount key=value,…` and `--tmpfs TARGET[:OPTIONS]`.

use serde::{Deserialize, Serialize};

use super::{Invalid, size};

/// One mount that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// What is mounted.
    pub source: Source,
    /// An absolute path in the container, normalised.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// A path on the host.
    Bind {
        /// An absolute path.
        path: String,
        /// Make a missing directory (`--volume` does, `--mount` refuses).
        create: bool,
        /// Without the mounts below it.
        non_recursive: bool,
        /// Mount propagation (`rprivate`, `rslave`, …); empty: private.
        propagation: String,
    },
    /// A volume.
    Volume {
        /// None: an anonymous one is made.
        name: Option<String>,
        /// Don't copy the image's content into a new volume.
        no_copy: bool,
    },
    /// Memory.
    Tmpfs {
        /// Mount options as the kernel takes them (`size=64m`, `mode=1777`, `noexec`).
        options: Vec<String>,
    },
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Parses `--volume`. `cwd` makes relative sources (`./x`) absolute.
pub(crate) fn parse_volume(text: &str, cwd: &str) -> Result<Mount, Invalid> {
    let refuse = |why: &str| Invalid::new("--volume", text, why);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(refuse("[SOURCE:]TARGET[:OPTIONS] is expected")),
    };
    let target = self::target(target).map_err(refuse)?;
    let mut read_only = false;
    let mut no_copy = false;
    let mut chosen = String::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "nocopy" => no_copy = true,
            // Consistency levels and SELinux relabelling mean nothing here, and scripts written for elsewhere pass them.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            other if PROPAGATIONS.contains(&other) => other.clone_into(&mut chosen),
            other => return Err(refuse(&format!("the option {other:?} is unknown"))),
        }
    }
    let source = match source {
        None => Source::Volume { name: None, no_copy },
        Some("") => return Err(refuse("the source is empty")),
        Some(path) if path.starts_with('/') || path.starts_with('.') || path.starts_with('~') => {
            let path = if path.starts_with('/') { path.to_owned() } else { format!("{cwd}/{path}") };
            Source::Bind { path, create: true, non_recursive: false, propagation: chosen }
        }
        Some(name) => {
            volume_name(name).map_err(refuse)?;
            Source::Volume { name: Some(name.to_owned()), no_copy }
        }
    };
    Ok(Mount { source, target, read_only })
}

/// Parses `--tmpfs`.
pub(crate) fn parse_tmpfs(text: &str) -> Result<Mount, Invalid> {
    let refuse = |why: &str| Invalid::new("--tmpfs", text, why);
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = self::target(target).map_err(refuse)?;
    let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    Ok(Mount { source: Source::Tmpfs { options }, target, read_only: false })
}

/// Parses `--mount`.
pub(crate) fn parse_mount(text: &str, cwd: &str) -> Result<Mount, Invalid> {
    let refuse = |why: &str| Invalid::new("--mount", text, why);
    let mut fields = Fields { kind: "volume".to_owned(), ..Fields::default() };
    for field in text.split(',') {
        fields.take(field.trim()).map_err(|why| refuse(&why))?;
    }
    let target = target(fields.target.as_deref().ok_or_else(|| refuse("a target is missing"))?).map_err(refuse)?;
    let source = match fields.kind.as_str() {
        "bind" => {
            let path = fields.source.filter(|s| !s.is_empty()).ok_or_else(|| refuse("a bind mount needs a source"))?;
            let path = if path.starts_with('/') { path } else { format!("{cwd}/{path}") };
            let (non_recursive, propagation) = (fields.non_recursive, fields.propagation);
            Source::Bind { path, create: false, non_recursive, propagation }
        }
        "volume" => {
            if let Some(name) = &fields.source {
                volume_name(name).map_err(refuse)?;
            }
            Source::Volume { name: fields.source, no_copy: fields.no_copy }
        }
        "tmpfs" => {
            if fields.source.is_some() {
                return Err(refuse("a tmpfs has no source"));
            }
            Source::Tmpfs { options: fields.tmpfs }
        }
        other => return Err(refuse(&format!("the type {other:?} is none of bind, volume, tmpfs"))),
    };
    Ok(Mount { source, target, read_only: fields.read_only })
}

/// What `--mount` has said so far.
#[derive(Default)]
struct Fields {
    kind: String,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    non_recursive: bool,
    propagation: String,
    no_copy: bool,
    tmpfs: Vec<String>,
}

impl Fields {
    fn take(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let truth = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key} is neither true nor false but {other:?}")),
        };
        let text = || value.map(str::to_owned).ok_or_else(|| format!("{key} needs a value"));
        match key {
            "type" => self.kind = text()?,
            "source" | "src" => self.source = Some(text()?),
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "readonly" | "ro" => self.read_only = truth()?,
            "rw" => self.read_only = !truth()?,
            "bind-nonrecursive" => self.non_recursive = truth()?,
            "bind-recursive" => self.non_recursive = text()? == "disabled",
            "bind-propagation" => {
                self.propagation = text()?;
                if !PROPAGATIONS.contains(&self.propagation.as_str()) {
                    return Err(format!("the propagation {:?} is unknown", self.propagation));
                }
            }
            "volume-nocopy" => self.no_copy = truth()?,
            "tmpfs-size" => {
                let bytes = size::parse(&text()?).map_err(|e| e.to_string())?;
                self.tmpfs.push(format!("size={bytes}"));
            }
            "tmpfs-mode" => {
                let mode = text()?;
                u32::from_str_radix(&mode, 8).map_err(|_bad| format!("the mode {mode:?} is not octal"))?;
                self.tmpfs.push(format!("mode={mode}"));
            }
            "consistency" => {}
            other => return Err(format!("the key {other:?} is unknown")),
        }
        Ok(())
    }
}

/// A normalised absolute path that is not `/`.
fn target(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("the target in the container is not an absolute path");
    }
    match normalise(text).as_str() {
        "/" => Err("the target in the container is /"),
        path => Ok(path.to_owned()),
    }
}

/// `text` with `.`, `..` and doubled slashes resolved by name alone, as docker cleans paths.
pub(crate) fn normalise(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Checks a volume's name: letters, digits, `_`, `.`, `-`, starting with a letter or digit, two at least.
pub(crate) fn volume_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if name.len() >= 2 && name.len() <= 255 && starts && name.bytes().all(plain) {
        Ok(())
    } else {
        Err("a volume's name has two or more letters, digits, '_', '.' or '-' and starts with a letter or digit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &str, target: &str, read_only: bool) -> Mount {
        let source = Source::Bind { path: path.into(), create: true, non_recursive: false, propagation: String::new() };
        Mount { source, target: target.into(), read_only }
    }

    #[test]
    fn volumes() {
        assert_eq!(parse_volume("/a:/b", "/w"), Ok(bind("/a", "/b", false)));
        assert_eq!(parse_volume("/a:/b/../c:ro,z", "/w"), Ok(bind("/a", "/c", true)));
        assert_eq!(parse_volume("./a:/b", "/w"), Ok(bind("/w/./a", "/b", false)));
        let named = Source::Volume { name: Some("data".into()), no_copy: true };
        assert_eq!(parse_volume("data:/b:nocopy", "/w").unwrap().source, named);
        assert_eq!(parse_volume("/b", "/w").unwrap().source, Source::Volume { name: None, no_copy: false });
        for bad in ["", "b", "a:b", "/a:/", ":/b", "/a:/b:zz", "/a:/b:ro:x", "a!b:/c", "/a:/b/.."] {
            assert!(parse_volume(bad, "/w").is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        let mount = parse_mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rslave", "/w").unwrap();
        let want =
            Source::Bind { path: "/a".into(), create: false, non_recursive: false, propagation: "rslave".into() };
        assert_eq!(mount, Mount { source: want, target: "/b".into(), read_only: true });
        let mount = parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", "/w").unwrap();
        assert_eq!(mount.source, Source::Tmpfs { options: vec!["size=1048576".into(), "mode=700".into()] });
        let mount = parse_mount("src=v1,dst=/t,ro=false", "/w").unwrap();
        assert_eq!(mount.source, Source::Volume { name: Some("v1".into()), no_copy: false });
        for bad in
            ["type=bind,target=/b", "type=x,target=/b", "source=aa", "type=tmpfs,source=a,target=/b", "target=/b,ro=2"]
        {
            assert!(parse_mount(bad, "/w").is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs() {
        let mount = parse_tmpfs("/run:size=64m,noexec").unwrap();
        assert_eq!(mount.source, Source::Tmpfs { options: vec!["size=64m".into(), "noexec".into()] });
        assert!(parse_tmpfs("run").is_err());
    }
}
