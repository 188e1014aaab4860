//! The instance's log of events: what happened to which object, for `dhow events`.
//!
//! Nobody runs all the time, so whoever does something appends a line, and whoever wants to know reads the file and waits
//! for it to grow.
//!
//! ```text
//! RUNROOT/events/log      {"type":"container","action":"die","id":"…","attributes":{"exitCode":"0",…},"time":"…"}
//! RUNROOT/events/log.1    what was in it before it reached 1 MiB
//! ```
//!
//! The directory is locked for the microseconds of an append, so lines are whole and in the order of their times, and a
//! rotation loses none: after the rename nobody writes to the old file. A writer that is killed, or a full disk, leaves at
//! most a torn last line, which the next writer ends and readers skip. Nothing is flushed: events don't survive a boot.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{Error, Timestamp};

/// Bytes after which a new file is begun.
const ROTATE_AT: u64 = 1 << 20;
/// A line that is longer is no event.
const LONGEST: u64 = 256 << 10;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `volume` or `network`.
    #[serde(rename = "type")]
    pub kind: String,
    /// docker's word for it: `start`, `exec_create: sh`, …
    pub action: String,
    /// The object.
    pub id: String,
    /// What is told of it: name, image, labels, exit code, …
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// When; [`EventLog::append`] sets it.
    pub time: Timestamp,
}

impl Event {
    /// An event of now.
    #[must_use]
    pub fn new(kind: &str, action: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            action: action.into(),
            id: id.into(),
            attributes: BTreeMap::new(),
            time: Timestamp::now(),
        }
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attributes.insert(key.to_owned(), value.into());
        self
    }
}

/// The log of one instance. Cheap to make; nothing is opened before the first use.
#[derive(Debug, Clone)]
pub struct EventLog {
    dir: PathBuf,
}

impl EventLog {
    /// The log in `dir` ([`crate::paths::RunRoot::events`]), which need not exist.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory, for who wants to watch it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory, so that it can be watched.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn make_dir(&self) -> Result<(), Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(self.failed("make"))
    }

    /// Appends an event and gives it its time.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; then nothing is appended, or half a line that no reader takes for an event.
    pub fn append(&self, event: &Event) -> Result<(), Error> {
        let lock = self.lock()?;
        let appended = self.append_locked(event).map_err(self.failed("append to"));
        drop(lock);
        appended
    }

    /// Reads from the oldest event on.
    #[must_use]
    pub fn reader(&self) -> EventReader {
        EventReader { log: self.log(), current: None, begun: false, pending: Vec::new() }
    }

    fn lock(&self) -> Result<Flock<File>, Error> {
        let dir = match File::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_dir()?;
                File::open(&self.dir)
            }
            other => other,
        };
        let dir = dir.map_err(self.failed("open"))?;
        Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| self.failed("lock")(errno.into()))
    }

    fn append_locked(&self, event: &Event) -> io::Result<()> {
        let open = || OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.log());
        let mut file = open()?;
        let mut length = file.metadata()?.len();
        if length >= ROTATE_AT {
            std::fs::rename(self.log(), self.dir.join("log.1"))?;
            file = open()?;
            length = 0;
        }
        let mut line = Vec::with_capacity(512);
        if length > 0 {
            file.seek(SeekFrom::Start(length - 1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.push(b'\n');
            }
        }
        // Under the lock, so that the order of the lines is that of the times.
        let event = Event { time: Timestamp::now(), ..event.clone() };
        serde_json::to_writer(&mut line, &event)?;
        line.push(b'\n');
        file.write_all(&line)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.dir.clone();
        move |source| Error::File { action, path, source }
    }
}

/// A place in the log.
#[derive(Debug)]
pub struct EventReader {
    log: PathBuf,
    current: Option<File>,
    /// Whether the older file was looked at.
    begun: bool,
    /// The begin of a line whose end is not there yet.
    pending: Vec<u8>,
}

impl EventReader {
    /// Gives all events that have come since the last call to `take`; more may come later.
    ///
    /// # Errors
    ///
    /// [`Error::File`], and what `take` fails with.
    pub fn read<E: From<Error>>(&mut self, mut take: impl FnMut(Event) -> Result<(), E>) -> Result<(), E> {
        if !self.begun {
            self.begun = true;
            if let Some(older) = self.open(&self.log.with_extension("1"))? {
                self.current = Some(older);
            }
        }
        loop {
            // Looked at before reading: when it is another file already, nobody writes to ours any more.
            let next = self.open(&self.log)?;
            self.drain(&mut take)?;
            let (Some(next), current) = (next, &self.current) else { return Ok(()) };
            let same = current.as_ref().is_some_and(|current| inode(current) == inode(&next));
            if same {
                return Ok(());
            }
            self.pending.clear();
            // Rotated twice since we looked last.
            let before = current.as_ref().and_then(inode);
            if let Some(older) = self.open(&self.log.with_extension("1"))?.filter(|older| inode(older) != before) {
                self.current = Some(older);
                self.drain(&mut take)?;
                self.pending.clear();
            }
            self.current = Some(next);
        }
    }

    fn open(&self, path: &Path) -> Result<Option<File>, Error> {
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { action: "open", path: path.to_owned(), source }),
        }
    }

    fn drain<E: From<Error>>(&mut self, take: &mut impl FnMut(Event) -> Result<(), E>) -> Result<(), E> {
        let Some(file) = &mut self.current else { return Ok(()) };
        // A file is hardly longer than what makes it rotate.
        let read = file.take(ROTATE_AT + LONGEST).read_to_end(&mut self.pending);
        read.map_err(|source| Error::File { action: "read", path: self.log.clone(), source })?;
        let end = self.pending.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.pending.drain(..end).collect();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(event) => take(event)?,
                Err(error) => log::debug!("a line of the event log is skipped: {error}"),
            }
        }
        Ok(())
    }
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(reader: &mut EventReader) -> Vec<String> {
        let mut list = Vec::new();
        reader
            .read(|event| {
                list.push(event.action);
                Ok::<(), Error>(())
            })
            .unwrap();
        list
    }

    #[test]
    fn events_are_read_in_their_order_also_past_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::new(dir.path().join("events"));
        let mut reader = log.reader();
        assert!(actions(&mut reader).is_empty());
        log.append(&Event::new("container", "create", "c").with("name", "web")).unwrap();
        log.append(&Event::new("container", "start", "c")).unwrap();
        assert_eq!(actions(&mut reader), ["create", "start"]);
        let mut file = OpenOptions::new().append(true).open(log.dir().join("log")).unwrap();
        file.write_all(b"{\"type\":\"contai").unwrap();
        assert!(actions(&mut reader).is_empty());
        log.append(&Event::new("container", "die", "c")).unwrap();
        assert_eq!(actions(&mut reader), ["die"]);
        assert_eq!(actions(&mut log.reader()), ["create", "start", "die"]);
        assert_eq!(std::fs::metadata(log.dir().join("log")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_bounded_and_a_rotation_loses_nothing_for_who_follows() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::new(dir.path());
        let mut reader = log.reader();
        let text = "x".repeat(1000);
        let mut seen = Vec::new();
        for n in 0..3000 {
            log.append(&Event::new("container", n.to_string(), "c").with("text", &text)).unwrap();
            if n % 700 == 0 {
                seen.extend(actions(&mut reader));
            }
        }
        seen.extend(actions(&mut reader));
        assert_eq!(seen, (0..3000).map(|n| n.to_string()).collect::<Vec<_>>());
        let size: u64 =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 2 * ROTATE_AT + 4096, "{size}");
        let late = actions(&mut log.reader());
        assert_eq!(late.last().map(String::as_str), Some("2999"));
        assert!(late.len() > 900, "{}", late.len());
    }

    #[test]
    fn writers_don_t_mix() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::new(dir.path());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..200 {
                        log.append(&Event::new("container", n.to_string(), writer.to_string())).unwrap();
                    }
                });
            }
        });
        let (mut count, mut last) = (0, Timestamp::new(0, 0));
        log.reader()
            .read(|event| {
                assert!(event.time >= last, "in the order of their times");
                last = event.time;
                count += 1;
                Ok::<(), Error>(())
            })
            .unwrap();
        assert_eq!(count, 800);
    }
}
