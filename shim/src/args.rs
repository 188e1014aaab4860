//! The command line: containerd's, which is that of Go's `flag` package.
//!
//! ```text
//! containerd-shim-dhow-v2 [-namespace NS] [-id ID] [-address SOCK] [-publish-binary PATH] [-bundle DIR] [-debug] ACTION
//! containerd-shim-dhow-v2 -v | -info
//! ```

use std::path::PathBuf;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// containerd's: start a shim and print its address.
    Start,
    /// containerd's: clean up after a shim that is gone.
    Delete,
    /// Be the shim; the listening socket is descriptor 3.
    Serve,
    /// Print the version.
    Version,
    /// Print what this shim is, as protobuf.
    Info,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// The namespace; `dhow` under our own command line.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// containerd's main socket.
    pub address: String,
    /// The bundle, when it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// More messages.
    pub debug: bool,
}

/// A command line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArgs {
    /// No such flag.
    #[error("unknown flag {0}")]
    Unknown(String),
    /// The flag needs a value.
    #[error("flag {0} needs a value")]
    NoValue(String),
    /// No such action, or none.
    #[error("the action must be start, delete or serve, not {0:?}")]
    Action(String),
    /// An id is needed and may be neither empty nor a path.
    #[error("invalid container id {0:?}")]
    Id(String),
}

impl Args {
    /// Parses the arguments, without the program's name.
    ///
    /// # Errors
    ///
    /// [`BadArgs`].
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, BadArgs> {
        let mut parsed = Self {
            action: Action::Serve,
            namespace: "default".to_owned(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let mut args = args.into_iter();
        let mut action = None;
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                action = Some(arg);
                break;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "v" | "version" => return Ok(Self { action: Action::Version, ..parsed }),
                "info" => return Ok(Self { action: Action::Info, ..parsed }),
                "debug" => parsed.debug = inline.is_none_or(|value| value != "false"),
                "namespace" | "id" | "address" | "publish-binary" | "bundle" | "socket" | "debug-socket" => {
                    let value = inline.or_else(|| args.next()).ok_or_else(|| BadArgs::NoValue(arg.clone()))?;
                    match name {
                        "namespace" => parsed.namespace = value,
                        "id" => parsed.id = value,
                        "address" => parsed.address = value,
                        "bundle" => parsed.bundle = Some(value.into()),
                        // Events go to containerd by ttrpc, sockets are passed as descriptors: these are not needed.
                        _ => {}
                    }
                }
                _ => return Err(BadArgs::Unknown(arg)),
            }
        }
        parsed.action = match action.as_deref() {
            Some("start") => Action::Start,
            Some("delete") => Action::Delete,
            Some("serve") => Action::Serve,
            other => return Err(BadArgs::Action(other.unwrap_or_default().to_owned())),
        };
        let file_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
        if file_name(&parsed.id) && file_name(&parsed.namespace) { Ok(parsed) } else { Err(BadArgs::Id(parsed.id)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, BadArgs> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerd_and_our_own() {
        let args = parse(
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a1 -bundle /b -debug start",
        );
        let args = args.unwrap();
        assert_eq!((args.action, args.namespace.as_str(), args.id.as_str()), (Action::Start, "k8s.io", "a1"));
        assert_eq!((args.bundle, args.debug), (Some("/b".into()), true));
        assert_eq!(parse("--namespace=dhow -id x serve").unwrap().action, Action::Serve);
        assert_eq!(parse("-id x delete").unwrap().namespace, "default");
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn nonsense() {
        assert_eq!(parse("-id x"), Err(BadArgs::Action(String::new())));
        assert_eq!(parse("-id x stop"), Err(BadArgs::Action("stop".into())));
        assert_eq!(parse("-id"), Err(BadArgs::NoValue("-id".into())));
        assert_eq!(parse("-what x start"), Err(BadArgs::Unknown("-what".into())));
        for id in ["../x", "a/b", ".."] {
            assert_eq!(parse(&format!("-id {id} start")), Err(BadArgs::Id(id.into())));
        }
        assert_eq!(parse("serve"), Err(BadArgs::Id(String::new())));
    }
}
