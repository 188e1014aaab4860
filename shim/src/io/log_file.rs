//! The container's log: docker's json-file format, rotated by size.
//!
//! ```text
//! {"log":"a line\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}
//! ```
//!
//! A line longer than 16 KiB becomes several records, all but the last without `\n`; what a process leaves unfinished is
//! written when it ends. Memory is bounded by that length per stream. A record never spans two files, and a file is
//! longer than the limit only when one record is.
//!
//! What cannot be written (a full disk) is dropped and counted: a container must not hang or die of its log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dhow_api::Timestamp;
use dhow_api::attach::Stream;

use crate::error::{Error, Result};

/// The longest `log` text of a record, in bytes of output.
const LONGEST: usize = 16 * 1024;

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    max_files: u32,
    generation: u64,
    partial: [Vec<u8>; 2],
    dropped: u64,
}

/// Where a log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The current file.
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) offset: u64,
    /// How often a new file was begun by this process.
    pub(crate) generation: u64,
}

impl LogFile {
    /// Opens the log to append; a record that a killed predecessor left unfinished is ended.
    pub(crate) fn open(path: &Path, max_size: u64, max_files: u32) -> Result<Self> {
        let mut file = create(path).map_err(Error::file("open", path))?;
        let size = file.seek(SeekFrom::End(0)).map_err(Error::file("open", path))?;
        let mut log = Self {
            path: path.to_owned(),
            file,
            size,
            max_size: max_size.max(1),
            max_files: max_files.max(1),
            generation: 0,
            partial: [Vec::new(), Vec::new()],
            dropped: 0,
        };
        if log.ends_unfinished() {
            log.append(b"\n");
        }
        Ok(log)
    }

    /// Takes output of a process as it comes.
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let now = Timestamp::now();
        let mut records = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 128);
        let mut partial = std::mem::take(&mut self.partial[index(stream)]);
        while !bytes.is_empty() {
            let room = LONGEST - partial.len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    let (line, rest) = bytes.split_at(end + 1);
                    if partial.is_empty() {
                        self.record(&mut records, stream, line, now);
                    } else {
                        partial.extend_from_slice(line);
                        self.record(&mut records, stream, &partial, now);
                        partial.clear();
                    }
                    bytes = rest;
                }
                None => {
                    let (taken, rest) = bytes.split_at(window.len());
                    partial.extend_from_slice(taken);
                    bytes = rest;
                    if partial.len() == LONGEST {
                        // A character that the cut would divide goes into the next record.
                        let end = partial.len() - unfinished_character(&partial);
                        self.record(&mut records, stream, &partial[..end], now);
                        partial.drain(..end);
                    }
                }
            }
        }
        self.append(&records);
        self.partial[index(stream)] = partial;
    }

    /// Writes what is left of a stream that has ended.
    pub(crate) fn flush(&mut self, stream: Stream) {
        let partial = std::mem::take(&mut self.partial[index(stream)]);
        if !partial.is_empty() {
            let mut records = Vec::with_capacity(partial.len() + 128);
            self.record(&mut records, stream, &partial, Timestamp::now());
            self.append(&records);
        }
    }

    /// Where the log stands.
    pub(crate) fn position(&self) -> Position {
        Position { path: self.path.clone(), offset: self.size, generation: self.generation }
    }

    /// Adds a record to those that wait to be appended; begins a new file before it when it would not fit.
    fn record(&mut self, records: &mut Vec<u8>, stream: Stream, text: &[u8], now: Timestamp) {
        let begin = records.len();
        records.extend_from_slice(b"{\"log\":\"");
        escape(records, text);
        records.extend_from_slice(match stream {
            Stream::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
            _ => b"\",\"stream\":\"stdout\",\"time\":\"",
        });
        now.write_to(records);
        records.extend_from_slice(b"\"}\n");
        let waiting = self.size + begin as u64;
        if waiting > 0 && waiting + (records.len() - begin) as u64 > self.max_size {
            let record = records.split_off(begin);
            self.append(records);
            *records = record;
            if let Err(error) = self.rotate() {
                self.complain(&error);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        match self.file.write_all(bytes) {
            Ok(()) => self.size += bytes.len() as u64,
            Err(error) => {
                self.complain(&error);
                // What was written of it stays; the next record must still begin on a line of its own.
                self.size = self.file.metadata().map_or(self.size, |metadata| metadata.len());
                if self.ends_unfinished() && self.file.write_all(b"\n").is_ok() {
                    self.size += 1;
                }
            }
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let numbered = |number: u32| match number {
            0 => self.path.clone(),
            _ => PathBuf::from(format!("{}.{number}", self.path.display())),
        };
        for number in (1..self.max_files).rev() {
            match std::fs::rename(numbered(number - 1), numbered(number)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.max_files == 1 {
            // A new inode and not a truncation, so that whoever follows the old file can read it to its end.
            std::fs::remove_file(&self.path)?;
        }
        self.file = create(&self.path)?;
        self.size = 0;
        self.generation += 1;
        Ok(())
    }

    fn ends_unfinished(&self) -> bool {
        let mut last = [0];
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)
        };
        self.size > 0 && { read }().is_ok() && last != *b"\n"
    }

    fn complain(&mut self, error: &std::io::Error) {
        if self.dropped == 0 {
            log::error!("output is lost: write {}: {error}", self.path.display());
        }
        self.dropped += 1;
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// Writes bytes as the inside of a JSON string; what is not UTF-8 becomes U+FFFD.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid().as_bytes();
        let mut plain = 0;
        for (at, byte) in text.iter().enumerate() {
            let short: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 | 0x7f => b"",
                _ => continue,
            };
            out.extend_from_slice(&text[plain..at]);
            plain = at + 1;
            if short.is_empty() {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            } else {
                out.extend_from_slice(short);
            }
        }
        out.extend_from_slice(&text[plain..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Length of a UTF-8 sequence at the end that has begun and not ended; 0 when there is none.
fn unfinished_character(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(value["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
                (value["log"].as_str().unwrap().to_owned(), value["stream"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    fn log(max_size: u64, max_files: u32) -> (tempfile::TempDir, PathBuf, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogFile::open(&path, max_size, max_files).unwrap();
        (dir, path, log)
    }

    #[test]
    fn lines_of_two_streams_keep_apart() {
        let (_dir, path, mut log) = log(1 << 20, 3);
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"err\n");
        log.write(Stream::Stdout, b"o\n\nend");
        let expected = |lines: &[(&str, &str)]| -> Vec<(String, String)> {
            lines.iter().map(|(text, stream)| ((*text).to_owned(), (*stream).to_owned())).collect()
        };
        let mut all = vec![("one\n", "stdout"), ("err\n", "stderr"), ("two\n", "stdout"), ("\n", "stdout")];
        assert_eq!(lines(&path), expected(&all));
        log.flush(Stream::Stdout);
        log.flush(Stream::Stderr);
        all.push(("end", "stdout"));
        assert_eq!(lines(&path), expected(&all));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let (_dir, path, mut log) = log(1 << 20, 3);
        let text = "ä".repeat(LONGEST / 2).replacen('ä', "x", 1) + "\n" + &"y".repeat(LONGEST) + "\n";
        for piece in text.as_bytes().chunks(1000) {
            log.write(Stream::Stdout, piece);
        }
        let records = lines(&path);
        assert_eq!(records.iter().map(|(text, _)| text.as_str()).collect::<String>(), text);
        assert!(records.iter().all(|(text, _)| text.len() <= LONGEST));
        assert_eq!(records.len(), 3, "{:?}", records.iter().map(|r| r.0.len()).collect::<Vec<_>>());
    }

    #[test]
    fn anything_is_valid_json() {
        let (_dir, path, mut log) = log(1 << 20, 3);
        let every: Vec<u8> = (0..=255).filter(|b| *b != b'\n').collect();
        log.write(Stream::Stdout, &every);
        log.write(Stream::Stdout, b"\n");
        let records = lines(&path);
        assert_eq!(records[0].0, String::from_utf8_lossy(&every) + "\n");
    }

    #[test]
    fn rotation_keeps_whole_records_and_the_newest_files() {
        let (dir, path, mut log) = log(500, 3);
        for number in 0..100 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let mut all = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            let file = dir.path().join(name);
            assert!(std::fs::metadata(&file).unwrap().len() <= 500);
            all.extend(lines(&file).into_iter().map(|(text, _)| text));
        }
        let first = 100 - all.len();
        let expected: Vec<_> = (first..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(all, expected);
        let position = log.position();
        assert_eq!((position.path.clone(), position.offset), (path.clone(), std::fs::metadata(&path).unwrap().len()));
        assert!(position.generation > 3);
    }

    #[test]
    fn a_batch_larger_than_a_file_is_spread() {
        let (dir, _path, mut log) = log(1000, 100);
        let text: String = (0..200).map(|n| format!("{n}\n")).collect();
        log.write(Stream::Stdout, text.as_bytes());
        let mut count = 0;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            assert!(std::fs::metadata(&path).unwrap().len() <= 1000);
            count += lines(&path).len();
        }
        assert_eq!(count, 200);
    }

    #[test]
    fn one_file_only_and_records_longer_than_it() {
        let (dir, path, mut log) = log(10, 1);
        log.write(Stream::Stdout, b"a\nb\n");
        assert_eq!(lines(&path), [("b\n".to_owned(), "stdout".to_owned())]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_successor_ends_an_unfinished_record() {
        let (_dir, path, mut log) = log(1 << 20, 2);
        log.write(Stream::Stdout, b"a\n");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"log\":\"cut").unwrap();
        let mut log = LogFile::open(&path, 1 << 20, 2).unwrap();
        log.write(Stream::Stdout, b"b\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().last().unwrap().starts_with("{\"log\":\"b\\n\""));
    }

    #[test]
    fn a_full_disk_loses_output_only() {
        // /dev/full answers every write with ENOSPC.
        let mut log = LogFile::open(Path::new("/dev/full"), 1 << 20, 2).unwrap();
        for _ in 0..3 {
            log.write(Stream::Stdout, b"lost\n");
        }
        assert_eq!(log.dropped, 3);
    }
}
