//! Reads a container's log: json-file lines, over rotated files, from the end, between times, and as it grows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;

use crate::error::{Error, Result};

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Line {
    /// The bytes, with the newline if there was one. Bytes that are no UTF-8 were replaced when it was written.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// RFC 3339.
    pub time: String,
}

/// What to show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Nothing before.
    pub since: Option<Timestamp>,
    /// Nothing after.
    pub until: Option<Timestamp>,
}

/// A log, read from the oldest file on.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    current: Option<File>,
    pending: Vec<u8>,
}

/// A line longer than this is not of the shim's making.
const LONGEST: usize = 64 << 20;

impl Reader {
    /// Opens the log whose current file is `path`.
    pub(crate) fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), current: None, pending: Vec::new() }
    }

    /// The lines there are now that `selection` wants, handed to `show` in order; the reader then stands at the end.
    /// `show` says whether to go on.
    pub(crate) fn read(&mut self, selection: &Selection, mut show: impl FnMut(&Line) -> Result<bool>) -> Result<bool> {
        let mut tail = std::collections::VecDeque::new();
        let keep = selection.tail;
        if keep == Some(0) {
            self.skip_to_end()?;
            return Ok(true);
        }
        let mut go_on = true;
        self.each(&mut |line| {
            if !wanted(line, selection) {
                return Ok(true);
            }
            if let Some(most) = keep {
                if tail.len() == most {
                    tail.pop_front();
                }
                tail.push_back(line.clone());
                return Ok(true);
            }
            go_on = show(line)?;
            Ok(go_on)
        })?;
        for line in tail {
            go_on = go_on && show(&line)?;
        }
        Ok(go_on)
    }

    /// All lines from where the reader stands to the end, rotated files first.
    fn each(&mut self, show: &mut dyn FnMut(&Line) -> Result<bool>) -> Result<()> {
        if self.current.is_none() {
            for older in self.rotated() {
                self.current = Some(File::open(&older).map_err(Error::file("open", older))?);
                if !self.drain(show)? {
                    return Ok(());
                }
            }
            self.pending.clear();
            self.current = open_maybe(&self.path)?;
        }
        loop {
            if !self.drain(show)? || !self.advance()? {
                return Ok(());
            }
        }
    }

    fn skip_to_end(&mut self) -> Result<()> {
        self.current = open_maybe(&self.path)?;
        if let Some(file) = &mut self.current {
            file.seek(SeekFrom::End(0)).map_err(Error::file("read", &self.path))?;
        }
        Ok(())
    }

    /// Older files, oldest first.
    fn rotated(&self) -> Vec<PathBuf> {
        let numbered = |n: usize| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        let mut list: Vec<_> = (1..).map(numbered).take_while(|path| path.exists()).collect();
        list.reverse();
        list
    }

    /// Reads what the current file still has.
    fn drain(&mut self, show: &mut dyn FnMut(&Line) -> Result<bool>) -> Result<bool> {
        let Some(file) = &mut self.current else { return Ok(true) };
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = file.read(&mut buffer).map_err(Error::file("read", &self.path))?;
            if count == 0 {
                return Ok(true);
            }
            self.pending.extend_from_slice(&buffer[..count]);
            let mut start = 0;
            while let Some(end) = self.pending[start..].iter().position(|b| *b == b'\n') {
                let bytes = &self.pending[start..start + end];
                start += end + 1;
                // A torn line (the shim was killed in the middle) is passed over, not fatal.
                if let Ok(line) = serde_json::from_slice::<Line>(bytes)
                    && !show(&line)?
                {
                    return Ok(false);
                }
            }
            self.pending.drain(..start);
            if self.pending.len() > LONGEST {
                self.pending.clear();
            }
        }
    }

    /// Goes to the next file if the current one was rotated away.
    fn advance(&mut self) -> Result<bool> {
        let Some(next) = open_maybe(&self.path)? else { return Ok(false) };
        let identity =
            |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).map_err(Error::file("stat", &self.path));
        if let Some(current) = &self.current
            && identity(current)? == identity(&next)?
        {
            return Ok(false);
        }
        self.pending.clear();
        self.current = Some(next);
        Ok(true)
    }
}

/// Waits for news of a log's directory: growth, rotation, `exit.json`, removal.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Inotify,
}

impl Watch {
    /// Watches `directory`.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(Error::system("watch files"))?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(directory, flags).map_err(Error::system("watch the container's directory"))?;
        Ok(Self { inotify })
    }

    /// Waits until something has changed, or `also` (a pidfd) has become readable.
    pub(crate) fn wait(&self, also: Option<&impl AsFd>) -> Result<()> {
        let mut fds = vec![PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        fds.extend(also.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        // Without a process to watch nothing tells when the shim is killed: that is looked at now and then.
        let timeout = if also.is_some() { PollTimeout::NONE } else { PollTimeout::from(1000_u16) };
        self.wait_with(&mut fds, timeout)
    }

    /// Waits until something has changed, at most so long.
    pub(crate) fn wait_for(&self, longest: Option<Duration>) -> Result<()> {
        // A millisecond too late rather than too early; what is longer than can be said is waited for again.
        let timeout = longest.map_or(PollTimeout::NONE, |longest| {
            PollTimeout::try_from(longest + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        self.wait_with(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout)
    }

    fn wait_with(&self, fds: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<()> {
        match poll(fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("wait for news of the log")(errno)),
        }
        // What exactly has changed does not matter: everything is looked at again.
        match self.inotify.read_events() {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(Error::system("wait for news of the log")(errno)),
        }
    }
}

fn open_maybe(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "open", path: path.to_owned(), source }),
    }
}

fn wanted(line: &Line, selection: &Selection) -> bool {
    if selection.since.is_none() && selection.until.is_none() {
        return true;
    }
    let Ok(time) = line.time.parse::<Timestamp>() else { return true };
    selection.since.is_none_or(|since| time >= since) && selection.until.is_none_or(|until| time <= until)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn line(n: u32) -> String {
        format!("{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{n:02}.000000000Z\"}}\n")
    }

    fn texts(reader: &mut Reader, selection: &Selection) -> Vec<String> {
        let mut list = Vec::new();
        reader
            .read(selection, |line| {
                list.push(line.log.trim().to_owned());
                Ok(true)
            })
            .unwrap();
        list
    }

    #[test]
    fn reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(texts(&mut Reader::open(&path), &Selection::default()).is_empty());
        fs::write(dir.path().join("log.2"), line(1)).unwrap();
        fs::write(dir.path().join("log.1"), line(2) + "{\"log\":\"torn").unwrap();
        fs::write(&path, line(3) + &line(4)).unwrap();
        let mut reader = Reader::open(&path);
        assert_eq!(texts(&mut reader, &Selection::default()), ["1", "2", "3", "4"]);
        assert!(texts(&mut reader, &Selection::default()).is_empty());

        // It grows, is rotated, and grows again.
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(line(5).as_bytes()).unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, line(6)).unwrap();
        assert_eq!(texts(&mut reader, &Selection::default()), ["5", "6"]);

        let of = |tail, since: Option<&str>, until: Option<&str>| {
            let time = |text: &str| text.parse().unwrap();
            let selection = Selection { tail, since: since.map(time), until: until.map(time) };
            texts(&mut Reader::open(&path), &selection)
        };
        assert_eq!(of(Some(2), None, None), ["5", "6"]);
        assert!(of(Some(0), None, None).is_empty());
        assert_eq!(of(None, Some("2026-01-01T00:00:04Z"), Some("2026-01-01T00:00:05Z")), ["4", "5"]);
    }
}
