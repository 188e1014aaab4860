//! Running other programs: quietly, loudly, and with what they said when they fail.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a chore could not be done; printed once, by `main`.
#[derive(Debug)]
pub(crate) enum Error {
    /// A program could not be started or waited for.
    Start { program: String, source: std::io::Error },
    /// A program ran and failed.
    Failed { program: String, code: Option<i32>, said: String },
    /// A file could not be read, written or removed.
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    /// Something was looked for and is not as it should be.
    Check(String),
}

/// What every chore returns.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start { program, source } => write!(f, "cannot run {program}: {source}"),
            Self::Failed { program, code: Some(code), said } if said.is_empty() => {
                write!(f, "{program}: exit code {code}")
            }
            Self::Failed { program, code: Some(code), said } => write!(f, "{program}: exit code {code}\n{said}"),
            Self::Failed { program, code: None, said } => write!(f, "{program}: killed by a signal\n{said}"),
            Self::File { what, path, source } => write!(f, "cannot {what} {}: {source}", path.display()),
            Self::Check(what) => f.write_str(what),
        }
    }
}

/// Turns a file operation's error into one that names the file.
pub(crate) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

/// A command from a program and its arguments.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// The command as a person would type it.
pub(crate) fn typed(command: &Command) -> String {
    let mut line = quoted(&command.get_program().to_string_lossy());
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&arg.to_string_lossy()));
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs it with our own output, standard input closed; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = typed(command);
    let status =
        command.stdin(Stdio::null()).status().map_err(|source| Error::Start { program: program.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { program, code: status.code(), said: String::new() }) }
}

/// Runs it silently and returns its standard output; when it fails the error holds what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = typed(command);
    let out =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Start { program: program.clone(), source })?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(stdout);
    }
    let said = format!("{stdout}{}", String::from_utf8_lossy(&out.stderr)).trim_end().to_owned();
    Err(Error::Failed { program, code: out.status.code(), said })
}

/// Where a program lies in PATH or in the directories of a superuser.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The workspace's root directory.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// The cargo that runs us.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace());
    command
}
