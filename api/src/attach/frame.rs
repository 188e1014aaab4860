//! One frame: `stream u8 | length u32be | payload`, for blocking readers and for event loops.

use std::io::{self, Read, Write};

/// The longest payload.
pub const LONGEST: usize = 1 << 20;

const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Bytes for the process's stdin.
    Stdin = 0,
    /// Bytes of its stdout, or of its terminal.
    Stdout = 1,
    /// Bytes of its stderr.
    Stderr = 2,
    /// No more stdin will come. Without payload.
    StdinEnd = 3,
    /// The last frame: one byte, an [`End`].
    End = 4,
}

/// Why the shim ends an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The process has ended and all its output was sent.
    Exited = 0,
    /// The detach keys were typed; the process goes on.
    Detached = 1,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes for the process's stdin.
    Stdin(Vec<u8>),
    /// Bytes of its stdout, or of its terminal.
    Stdout(Vec<u8>),
    /// Bytes of its stderr.
    Stderr(Vec<u8>),
    /// No more stdin will come.
    StdinEnd,
    /// The last frame.
    End(End),
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of an attachment: stream {stream}, {length} bytes")]
pub struct BadFrame {
    stream: u8,
    length: usize,
}

impl From<BadFrame> for io::Error {
    fn from(bad: BadFrame) -> Self {
        Self::new(io::ErrorKind::InvalidData, bad)
    }
}

impl Frame {
    fn new(stream: u8, payload: Vec<u8>) -> Result<Self, BadFrame> {
        match (stream, payload.as_slice()) {
            (0, _) => Ok(Self::Stdin(payload)),
            (1, _) => Ok(Self::Stdout(payload)),
            (2, _) => Ok(Self::Stderr(payload)),
            (3, []) => Ok(Self::StdinEnd),
            (4, [0]) => Ok(Self::End(End::Exited)),
            (4, [1]) => Ok(Self::End(End::Detached)),
            _ => Err(BadFrame { stream, length: payload.len() }),
        }
    }
}

/// The header of a frame. The payload must not be longer than [`LONGEST`].
#[must_use]
pub fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream as u8, a, b, c, d]
}

/// Writes a payload as one frame, or as several when it is long. Two writers of one stream need a lock.
///
/// # Errors
///
/// Those of the writer.
pub fn write(writer: &mut impl Write, stream: Stream, payload: &[u8]) -> io::Result<()> {
    let (first, rest) = payload.split_at(payload.len().min(LONGEST));
    let mut frame = Vec::with_capacity(HEADER + first.len());
    frame.extend_from_slice(&header(stream, first.len()));
    frame.extend_from_slice(first);
    writer.write_all(&frame)?;
    if rest.is_empty() { Ok(()) } else { write(writer, stream, rest) }
}

/// Reads the next frame; `None` at the end of the stream.
///
/// # Errors
///
/// Those of the reader, `UnexpectedEof` inside a frame, `InvalidData` for a [`BadFrame`].
pub fn read(reader: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match reader.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (stream, length) = parse_header(head)?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload)?;
    Ok(Some(Frame::new(stream, payload)?))
}

/// Takes frames out of bytes as they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Adds bytes that arrived. Call [`Decoder::next_frame`] until it has no more before adding further ones: what is
    /// kept is then at most one frame and what was added.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    ///
    /// [`BadFrame`]: the stream cannot be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(head) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let (stream, length) = parse_header(*head)?;
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let payload = self.buffer[HEADER..HEADER + length].to_vec();
        self.buffer.drain(..HEADER + length);
        Frame::new(stream, payload).map(Some)
    }
}

fn parse_header([stream, a, b, c, d]: [u8; HEADER]) -> Result<(u8, usize), BadFrame> {
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if stream > Stream::End as u8 || length > LONGEST { Err(BadFrame { stream, length }) } else { Ok((stream, length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Vec<Frame>) {
        let mut bytes = Vec::new();
        write(&mut bytes, Stream::Stdout, b"out").unwrap();
        write(&mut bytes, Stream::Stderr, b"").unwrap();
        write(&mut bytes, Stream::Stdin, &[7; 70_000]).unwrap();
        write(&mut bytes, Stream::StdinEnd, b"").unwrap();
        write(&mut bytes, Stream::End, &[End::Detached as u8]).unwrap();
        let frames = vec![
            Frame::Stdout(b"out".to_vec()),
            Frame::Stderr(Vec::new()),
            Frame::Stdin(vec![7; 70_000]),
            Frame::StdinEnd,
            Frame::End(End::Detached),
        ];
        (bytes, frames)
    }

    #[test]
    fn both_readers_agree_however_the_bytes_arrive() {
        let (bytes, frames) = sample();
        let mut reader = bytes.as_slice();
        let mut got = Vec::new();
        while let Some(frame) = read(&mut reader).unwrap() {
            got.push(frame);
        }
        assert_eq!(got, frames);
        for step in [1, 2, 5, 4096, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames, "in steps of {step}");
        }
    }

    #[test]
    fn long_payloads_are_split() {
        let mut bytes = Vec::new();
        write(&mut bytes, Stream::Stdout, &vec![1; LONGEST + 1]).unwrap();
        let mut reader = bytes.as_slice();
        assert!(matches!(read(&mut reader).unwrap(), Some(Frame::Stdout(p)) if p.len() == LONGEST));
        assert!(matches!(read(&mut reader).unwrap(), Some(Frame::Stdout(p)) if p.len() == 1));
    }

    #[test]
    fn nonsense_is_refused_before_memory_is_taken_for_it() {
        for bytes in [[9, 0, 0, 0, 0], [1, 0xff, 0xff, 0xff, 0xff], [3, 0, 0, 0, 1], [4, 0, 0, 0, 0]] {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            decoder.push(b"x");
            assert!(decoder.next_frame().is_err(), "{bytes:?}");
        }
        let error = read(&mut [1, 0, 0].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
