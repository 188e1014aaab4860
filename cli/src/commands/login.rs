//! `dhow login`

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;

use clap::{ArgAction, Args};
use dhow_image::auth::{AuthFile, Credentials, storage_key};
use dhow_image::{Cancel, DEFAULT_REGISTRY};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::app::Run;
use crate::context::{Context, docker_config, registry_options};
use crate::error::{Error, Result};
use crate::signals::Interrupt;
use crate::terminal;

/// Log in to a registry
///
/// The credentials are checked and kept in docker's config.json, or in the credential helper that it names. Give the
/// password on standard input (--password-stdin) or type it.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The user
    #[arg(short = 'u', long, value_name = "USER")]
    username: Option<String>,
    /// The password; others see it in the process list
    #[arg(short = 'p', long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Check TLS certificates, and refuse plain http except on loopback
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    tls_verify: bool,
    /// The registry (default docker.io)
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// No password is longer.
const LONGEST: u64 = 64 << 10;

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let registry = host(self.registry.as_deref().unwrap_or(DEFAULT_REGISTRY));
        if self.password_stdin && self.username.is_none() {
            return Err(Error::Usage("Must provide --username with --password-stdin".into()));
        }
        let username = match self.username {
            Some(name) => name,
            None => prompt("Username: ", true)?,
        };
        if self.password.is_some() {
            ctx.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin => from_stdin()?,
            None => prompt("Password: ", false)?,
        };
        if username.is_empty() || password.is_empty() {
            return Err(Error::Usage("a user and a password are needed".into()));
        }
        let cancel = Cancel::new();
        let _interrupt = Interrupt::watch(&cancel)?;
        let credentials = Credentials::Basic { username, password };
        let options = registry_options(self.tls_verify);
        let kept = dhow_image::login(registry, &credentials, &options, &cancel)?;
        let path = docker_config();
        if let Some(parent) = path.parent() {
            crate::files::make_dir(parent)?;
        }
        let mut file = AuthFile::open(&path)?;
        if file.stores_in_file(storage_key(registry)) {
            ctx.note(&format!("WARNING! Your credentials are stored unencrypted in '{}'.", path.display()));
        }
        file.store(storage_key(registry), &kept)?;
        ctx.say("Login Succeeded")?;
        Ok(0)
    }
}

/// The registry's host from what people paste: without a scheme and a path.
pub(crate) fn host(text: &str) -> &str {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let text = text.split('/').next().unwrap_or(text);
    if text == "index.docker.io" || text == "registry-1.docker.io" { DEFAULT_REGISTRY } else { text }
}

/// All of standard input without the newline at its end.
fn from_stdin() -> Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(LONGEST).read_to_string(&mut text);
    read.map_err(|source| Error::System { action: "read the password", source })?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

/// Asks on the terminal; what is typed shows only where `echo` says so.
fn prompt(question: &str, echo: bool) -> Result<String> {
    if !terminal::stdin_is_terminal() {
        return Err(Error::Usage(
            "cannot ask for credentials: standard input is no terminal (see --password-stdin)".into(),
        ));
    }
    let fail = |source| Error::System { action: "ask on the terminal", source };
    let stdin = io::stdin();
    let before = tcgetattr(stdin.as_fd()).map_err(Error::system("read the terminal's settings"))?;
    io::stderr().write_all(question.as_bytes()).map_err(fail)?;
    if !echo {
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &silent).map_err(Error::system("hide what is typed"))?;
    }
    let mut line = String::new();
    let read = stdin.lock().take(LONGEST).read_line(&mut line);
    if !echo {
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &before).map_err(Error::system("show what is typed"))?;
        io::stderr().write_all(b"\n").map_err(fail)?;
    }
    read.map_err(fail)?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, want) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://r.example/v2/", "r.example"),
        ] {
            assert_eq!(host(text), want);
        }
    }
}
