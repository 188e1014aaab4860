//! A byte stream behind one large buffer, from which headers and file contents are handed out without a copy.

use std::io::{self, Read};

use super::BLOCK;
use crate::{Error, Result};

/// The tar's bytes and how many of them went by.
pub(super) struct Stream<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    offset: u64,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, offset: 0 }
    }

    /// Bytes handed out or skipped so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next 512 bytes; `None` at the end of the stream.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        while self.end - self.start < BLOCK {
            if self.fill()? == 0 {
                if self.start == self.end {
                    return Ok(None);
                }
                return Err(truncated());
            }
        }
        let mut block = [0; BLOCK];
        block.copy_from_slice(&self.buffer[self.start..self.start + BLOCK]);
        self.consume(BLOCK);
        Ok(Some(block))
    }

    /// At least one and at most `most` bytes.
    pub(super) fn chunk(&mut self, most: u64) -> Result<&[u8]> {
        if self.start == self.end && self.fill()? == 0 {
            return Err(truncated());
        }
        let start = self.start;
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.end - start);
        self.consume(count);
        Ok(&self.buffer[start..start + count])
    }

    pub(super) fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            count -= self.chunk(count)?.len() as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream, so that whoever hashes below has seen all of it.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            let held = self.end - self.start;
            self.consume(held);
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    fn fill(&mut self) -> Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { source }),
            }
        }
    }
}

fn truncated() -> Error {
    Error::Read { source: io::Error::new(io::ErrorKind::UnexpectedEof, "the tar breaks off inside an entry") }
}

const BUFFER: usize = 512 << 10;
