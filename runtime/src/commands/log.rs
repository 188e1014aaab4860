//! Where errors and warnings go: one line each, as text or JSON, in the shape that logrus gives runc's.
//!
//! Engines read the last `error` line of the JSON log to tell their user what happened, so without `--log` the line goes
//! to stderr, and with it both the log gets the line and stderr the bare message.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Failure;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What `--debug` asks for.
    Debug,
    /// Something was asked for and left out.
    Warning,
    /// The command failed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    least: Level,
}

impl Log {
    /// To stderr, as text.
    pub(crate) fn stderr() -> Self {
        Self { file: None, format: Format::Text, least: Level::Warning }
    }

    /// To `path`, which is appended to and made when missing, or to stderr.
    pub(crate) fn open(path: Option<&Path>, format: &str, least: &str) -> Result<Self, Failure> {
        let format = match format {
            "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(Failure::new(format!("invalid log-format: {other:?}"))),
        };
        let least = match least {
            "error" => Level::Error,
            "warning" => Level::Warning,
            "debug" => Level::Debug,
            other => return Err(Failure::new(format!("invalid log-level: {other:?}"))),
        };
        let file = path
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .open(path)
                    .map_err(|e| Failure::because(format_args!("open {}", path.display()), e))
            })
            .transpose()?;
        Ok(Self { file, format, least })
    }

    /// Writes one line, when it is grave enough. A log that can't be written to must not fail what it tells of.
    pub(crate) fn line(&self, level: Level, message: &str) {
        if level < self.least {
            return;
        }
        let line = format_line(self.format, level, message, &jiff::Timestamp::now());
        let written = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
        drop(written);
    }

    /// The last words of a command that failed; on stderr `bare` when they are the container's.
    pub(crate) fn fatal(&self, message: &str, bare: bool) {
        if self.file.is_some() || !bare {
            self.line(Level::Error, message);
        }
        if self.file.is_some() || bare {
            drop(writeln!(std::io::stderr(), "{message}"));
        }
    }
}

fn format_line(format: Format, level: Level, message: &str, time: &jiff::Timestamp) -> String {
    let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
    let quoted = serde_json::Value::from(message);
    match format {
        Format::Text => format!("time=\"{time}\" level={} msg={quoted}\n", level.name()),
        Format::Json => format!("{{\"level\":\"{}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n", level.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_field_s_shape() {
        let time = jiff::Timestamp::UNIX_EPOCH;
        assert_eq!(
            format_line(Format::Json, Level::Error, "a \"b\"", &time),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert_eq!(
            format_line(Format::Text, Level::Warning, "x", &time),
            "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"x\"\n"
        );
    }
}
