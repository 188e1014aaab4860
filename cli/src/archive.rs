//! The other end of `save`, `export`, `load` and `import`: a file, or standard input and output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes an archive to `path`, or to standard output without one. A regular file appears only when it is whole.
pub(crate) fn write(path: Option<&Path>, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match path {
        Some(path) if is_special(path) => {
            let file = OpenOptions::new().write(true).open(path).map_err(Error::file("open", path))?;
            filled(file, path, fill).map(drop)
        }
        Some(path) => write_file(path, fill),
        None if io::stdout().is_terminal() => {
            Err(Error::Usage("cowardly refusing to save to a terminal. Use the -o flag or redirect".into()))
        }
        None => {
            let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
            fill(&mut out)?;
            out.flush().map_err(Error::output)
        }
    }
}

/// An archive to read: the file at `path`, or standard input without one (or with `-`).
pub(crate) fn read(path: Option<&Path>) -> Result<Box<dyn Read>> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => Ok(Box::new(File::open(path).map_err(Error::file("open", path))?)),
        None if io::stdin().is_terminal() => {
            Err(Error::Usage("requested load from stdin, but stdin is a terminal".into()))
        }
        None => Ok(Box::new(io::stdin().lock())),
    }
}

/// What is there is written to as it is: `/dev/null`, a fifo.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_socket() || kind.is_block_device()
    })
}

fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file("write", path)(io::ErrorKind::IsADirectory.into()));
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        filled(file.map_err(Error::file("create", path))?, path, fill)?;
        fs::rename(&temporary, path).map_err(Error::file("write", path))
    };
    write().inspect_err(|_failed| {
        // The first error is the one to tell.
        drop(fs::remove_file(&temporary));
    })
}

fn filled(file: File, path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<File> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    fill(&mut out)?;
    out.into_inner().map_err(|error| Error::file("write", path)(error.into_error()))
}

const BUFFER: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let failing = write(Some(&path), |out| {
            out.write_all(b"half").map_err(Error::output)?;
            Err(Error::NoSuchContainer("x".into()))
        });
        assert!(failing.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write(Some(&path), |out| out.write_all(b"whole").map_err(Error::output)).unwrap();
        let mut text = String::new();
        read(Some(&path)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");
        write(Some(Path::new("/dev/null")), |out| out.write_all(b"gone").map_err(Error::output)).unwrap();
        assert!(write(Some(dir.path()), |_| Ok(())).is_err());
        assert!(write(Some(&dir.path().join("none/a.tar")), |_| Ok(())).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
