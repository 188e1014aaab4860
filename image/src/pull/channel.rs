//! A bounded pipe of buffers between two threads of a pipeline.
//!
//! It has an end that the writer must send: a writer that goes away without it (because something failed) makes the
//! reader fail, so that a cut stream is never taken for a whole one. Emptied buffers go back to the writer.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};

/// The writer has gone without an end, or the reader has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

enum Message {
    Data(Vec<u8>),
    End,
}

/// The end that is written to.
pub(super) struct Writer {
    sender: SyncSender<Message>,
    empty: Receiver<Vec<u8>>,
}

/// The end that is read from.
pub(super) struct Reader {
    receiver: Receiver<Message>,
    recycle: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

/// A pipe that holds at most `depth` buffers.
pub(super) fn pipe(depth: usize) -> (Writer, Reader) {
    let (sender, receiver) = sync_channel(depth);
    let (recycle, empty) = channel();
    (Writer { sender, empty }, Reader { receiver, recycle, current: Vec::new(), position: 0, ended: false })
}

impl Writer {
    /// A buffer of [`BUFFER`] bytes with anything in it.
    pub(super) fn buffer(&self) -> Vec<u8> {
        match self.empty.try_recv() {
            Ok(mut buffer) => {
                buffer.resize(BUFFER, 0);
                buffer
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => vec![0; BUFFER],
        }
    }

    /// Hands a buffer over, waiting for room.
    pub(super) fn send(&self, buffer: Vec<u8>) -> Result<(), Gone> {
        self.sender.send(Message::Data(buffer)).map_err(|_unsent| Gone)
    }

    /// Says that everything was sent. A reader that has gone has its own reason.
    pub(super) fn finish(self) {
        drop(self.sender.send(Message::End));
    }
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.recv() {
                Ok(Message::Data(buffer)) => {
                    let emptied = std::mem::replace(&mut self.current, buffer);
                    self.position = 0;
                    // A writer that has finished needs it no more.
                    drop(self.recycle.send(emptied));
                }
                Ok(Message::End) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream was cut")),
            }
        }
        let count = out.len().min(self.current.len() - self.position);
        out[..count].copy_from_slice(&self.current[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// Bytes of a buffer.
pub(super) const BUFFER: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_bytes_to_the_end() {
        let (writer, mut reader) = pipe(2);
        let sum = std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..100u8 {
                    let mut buffer = writer.buffer();
                    buffer.truncate(1000);
                    buffer.fill(n);
                    writer.send(buffer).unwrap();
                }
                writer.finish();
            });
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 100_000);
            all.iter().map(|&b| u64::from(b)).sum::<u64>()
        });
        assert_eq!(sum, 4950 * 1000);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_cut_is_no_end() {
        let (writer, mut reader) = pipe(2);
        writer.send(vec![1, 2]).unwrap();
        drop(writer);
        let mut all = Vec::new();
        assert_eq!(reader.read_to_end(&mut all).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (writer, reader) = pipe(2);
        drop(reader);
        assert_eq!(writer.send(vec![1]), Err(Gone));
    }
}
