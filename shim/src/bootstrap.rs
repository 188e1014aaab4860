//! containerd's way to start a shim and to clean up after one.
//!
//! `start` binds a socket, starts the shim with it, and prints where it is. What containerd says and expects depends on
//! its version:
//!
//! ```text
//!              told by                              answer
//! 1.6, 1.7     flags, TTRPC_ADDRESS                 the address
//! 2.0 – 2.2    the same, MAX_SHIM_VERSION=3         JSON {version, address, protocol}
//! 2.3          BootstrapParams on stdin             BootstrapResult
//! ```
//!
//! A bare address means Task v2, which we serve as well.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use dhow_api::{Timestamp, socket, task};
use dhow_runtime::features;
use dhow_sys::spawn::Detached;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::args::Args;
use crate::error::{Error, Result};
use crate::options::Options;

/// Where containerd's shims have their sockets: a short path.
const SOCKETS: &str = "/run/containerd/s";

/// No message on stdin is longer.
const LONGEST: u64 = 10 << 20;

/// What the service's version is, for those who ask.
const TASK_VERSION: i32 = 3;

/// The runtime specification's features document in JSON, as containerd names the type. Without it Kubernetes gives our
/// containers neither user namespaces nor recursively read-only mounts.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// How containerd wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Address,
    Json,
    Protobuf,
}

/// Starts a shim; returns what to print.
///
/// # Errors
///
/// When the socket is taken by a living shim, and those of starting a process.
pub fn start(args: &Args) -> Result<Vec<u8>> {
    let input = read_stdin()?;
    let max_version = std::env::var("MAX_SHIM_VERSION").ok().and_then(|version| version.parse().ok());
    let (protocol, params) = parse(&input, args, max_version)?;
    let directory = params.as_ref().and_then(|params| params.socket_dir.clone()).filter(|dir| !dir.is_empty());
    let directory = directory.map_or_else(|| PathBuf::from(SOCKETS), PathBuf::from);
    let path = directory.join(format!("dhow-{:032x}", name_hash(&args.address, &args.namespace, &args.id)));
    let listener = socket::listen(&path)?;
    let mut env = vec![("LISTEN_FDS", OsString::from("1"))];
    if let Some(params) = &params {
        env.push(("TTRPC_ADDRESS", OsString::from(&params.containerd_ttrpc_address)));
    }
    let env: Vec<(&str, &OsStr)> = env.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    let program = dhow_sys::exe::path().map_err(Error::file("find", Path::new("our own program")))?;
    let bundle = bundle(args)?;
    let mut arguments: Vec<OsString> = vec!["-namespace".into(), args.namespace.clone().into()];
    arguments.extend(["-id".into(), args.id.clone().into(), "-address".into(), args.address.clone().into()]);
    if args.debug {
        arguments.push("-debug".into());
    }
    arguments.push("serve".into());
    let log = open_log(&bundle);
    let mut fds = vec![(listener.as_fd(), dhow_sys::listen_fds::FIRST)];
    fds.extend(log.as_ref().map(|log| (log.as_fd(), 2)));
    let cwd = Some(bundle.as_path());
    let spawned = Detached { program: &program, args: &arguments, env: &env, cwd, fds: &fds, protected: true }.spawn();
    if let Err(errno) = spawned {
        // Nobody will serve it.
        let _removed = std::fs::remove_file(&path);
        return Err(dhow_api::Error::Start { binary: program, source: errno.into() }.into());
    }
    let address = format!("unix://{}", path.display());
    // containerd 1.6 and 1.7 look here when they are restarted, and `delete` does.
    let file = bundle.join("address");
    dhow_api::documents::replace(&file, address.as_bytes()).map_err(Error::file("write", &file))?;
    reply(protocol, &address)
}

/// Cleans up what a shim that is gone left; returns the DeleteResponse to print.
///
/// # Errors
///
/// When the container cannot be deleted.
pub fn delete(args: &Args) -> Result<Vec<u8>> {
    let bundle = bundle(args)?;
    let options = Options::recall(&bundle, &args.namespace);
    options.runtime().delete(&args.id, true)?;
    if let Ok(address) = std::fs::read_to_string(bundle.join("address"))
        && let Some(path) = address.strip_prefix("unix://")
    {
        for suffix in ["", ".lock"] {
            crate::create::remove_if_there(Path::new(&format!("{path}{suffix}")))?;
        }
    }
    let response = task::DeleteResponse {
        exit_status: 128 + libc::SIGKILL.unsigned_abs(),
        exited_at: Some(Timestamp::now().to_message()).into(),
        ..Default::default()
    };
    encode(&response)
}

/// What `-info` prints.
///
/// # Errors
///
/// None in practice.
pub fn info() -> Result<Vec<u8>> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() };
    let features = Any {
        type_url: FEATURES.to_owned(),
        value: features::document().to_string().into_bytes(),
        ..Default::default()
    };
    let info = RuntimeInfo {
        name: "io.containerd.dhow.v2".to_owned(),
        version: Some(version).into(),
        features: Some(features).into(),
        ..Default::default()
    };
    encode(&info)
}

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(|error| Error::Request { field: "answer", problem: error.to_string() })
}

fn reply(protocol: Protocol, address: &str) -> Result<Vec<u8>> {
    match protocol {
        Protocol::Address => Ok(address.as_bytes().to_vec()),
        Protocol::Json => {
            let json = serde_json::json!({ "version": TASK_VERSION, "address": address, "protocol": "ttrpc" });
            Ok(json.to_string().into_bytes())
        }
        Protocol::Protobuf => encode(&BootstrapResult {
            version: TASK_VERSION,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        }),
    }
}

/// Tells the protocols apart. Before 2.3 stdin has the runtime's options, an `Any`, which parses as parameters as well:
/// with its type's name for an id and nothing beyond the second field.
fn parse(input: &[u8], args: &Args, max_version: Option<u32>) -> Result<(Protocol, Option<BootstrapParams>)> {
    let legacy = if max_version.is_some_and(|version| version >= 3) { Protocol::Json } else { Protocol::Address };
    let Ok(params) = BootstrapParams::parse_from_bytes(input) else { return Ok((legacy, None)) };
    if input.is_empty() {
        return Ok((legacy, None));
    }
    if params.instance_id == args.id && params.namespace == args.namespace {
        return Ok((Protocol::Protobuf, Some(params)));
    }
    let two_fields = BootstrapParams {
        instance_id: params.instance_id.clone(),
        namespace: params.namespace.clone(),
        ..Default::default()
    };
    if params == two_fields {
        return Ok((legacy, None));
    }
    let problem = format!(
        "they are for {}/{}, the flags for {}/{}",
        params.namespace, params.instance_id, args.namespace, args.id
    );
    Err(Error::Request { field: "bootstrap parameters", problem })
}

fn read_stdin() -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        stdin.lock().take(LONGEST).read_to_end(&mut input).map_err(Error::file("read", Path::new("stdin")))?;
    }
    Ok(input)
}

fn bundle(args: &Args) -> Result<PathBuf> {
    match &args.bundle {
        Some(bundle) => Ok(bundle.clone()),
        None => std::env::current_dir().map_err(Error::file("find", Path::new("."))),
    }
}

/// containerd reads shims' messages from a fifo in the bundle. Opened both ways, so that neither its absence nor a full
/// pipe ever holds a message, and the shim, up.
fn open_log(bundle: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::open(&bundle.join("log"), flags, Mode::empty()).ok()
}

/// FNV-1a of 128 bits: a file name for what may be too long for one.
fn name_hash(address: &str, namespace: &str, id: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = [address, "\0", namespace, "\0", id];
    bytes.iter().flat_map(|part| part.bytes()).fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Action;

    fn args() -> Args {
        Args {
            action: Action::Start,
            namespace: "k8s.io".into(),
            id: "abc".into(),
            address: "/run/c.sock".into(),
            bundle: None,
            debug: false,
        }
    }

    #[test]
    fn the_three_protocols() {
        let params = BootstrapParams {
            instance_id: "abc".into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "/run/c.sock.ttrpc".into(),
            ..Default::default()
        };
        let bytes = params.write_to_bytes().unwrap();
        assert_eq!(parse(&bytes, &args(), None).unwrap(), (Protocol::Protobuf, Some(params.clone())));
        let other = BootstrapParams { instance_id: "other".into(), ..params };
        assert!(parse(&other.write_to_bytes().unwrap(), &args(), None).is_err());
        let options = Any { type_url: "containerd.runc.v1.Options".into(), value: vec![8, 1], ..Default::default() };
        let options = options.write_to_bytes().unwrap();
        for input in [options.as_slice(), &[], &[0xff, 0xff]] {
            assert_eq!(parse(input, &args(), Some(3)).unwrap(), (Protocol::Json, None));
            assert_eq!(parse(input, &args(), Some(2)).unwrap(), (Protocol::Address, None));
            assert_eq!(parse(input, &args(), None).unwrap(), (Protocol::Address, None));
        }
    }

    #[test]
    fn replies() {
        assert_eq!(reply(Protocol::Address, "unix:///s").unwrap(), b"unix:///s");
        let json: serde_json::Value = serde_json::from_slice(&reply(Protocol::Json, "unix:///s").unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"version": 3, "address": "unix:///s", "protocol": "ttrpc"}));
        let result = BootstrapResult::parse_from_bytes(&reply(Protocol::Protobuf, "unix:///s").unwrap()).unwrap();
        assert_eq!((result.version, result.address.as_str()), (3, "unix:///s"));
    }

    #[test]
    fn the_information_has_what_kubernetes_asks_for() {
        let info = RuntimeInfo::parse_from_bytes(&info().unwrap()).unwrap();
        assert_eq!(info.features.type_url, FEATURES);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert!(features["mountOptions"].as_array().unwrap().iter().any(|option| option == "rro"));
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(features["linux"]["namespaces"].as_array().unwrap().iter().any(|kind| kind == "user"));
    }

    #[test]
    fn names_differ() {
        let names = [("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"), ("", "b", "c")];
        let hashes: std::collections::BTreeSet<_> = names.iter().map(|(a, n, i)| name_hash(a, n, i)).collect();
        assert_eq!(hashes.len(), names.len());
    }
}
