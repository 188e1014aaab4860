//! Content digests computed while bytes pass by.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256, Sha512};

/// The algorithms of the OCI image specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256, what everybody uses.
    Sha256,
    /// SHA-512, which everybody must accept.
    Sha512,
}

impl Algorithm {
    /// The name before the colon of a digest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The number of hexadecimal digits after the colon.
    #[must_use]
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest in the making.
#[derive(Debug, Clone)]
pub struct Hasher {
    state: State,
    bytes: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// A digest of nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::new(Sha512::new())),
        };
        Self { state, bytes: 0 }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes were taken in.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest as OCI writes it: `sha256:` and lower-case hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        match self.state {
            State::Sha256(state) => text(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => text(Algorithm::Sha512, &state.finalize()),
        }
    }
}

fn text(algorithm: Algorithm, bytes: &[u8]) -> String {
    let mut text = format!("{}:", algorithm.name());
    for byte in bytes {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// A reader that hashes what it hands on.
#[derive(Debug)]
pub struct HashReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashReader<R> {
    /// Hashes everything read from `inner`.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self { inner, hasher: Hasher::new(algorithm) }
    }

    /// The reader and the digest of what was read so far.
    pub fn into_parts(self) -> (R, Hasher) {
        (self.inner, self.hasher)
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A writer that hashes what it hands on.
#[derive(Debug)]
pub struct HashWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashWriter<W> {
    /// Hashes everything that `inner` accepts.
    pub fn new(inner: W, algorithm: Algorithm) -> Self {
        Self { inner, hasher: Hasher::new(algorithm) }
    }

    /// The writer and the digest of what was written so far.
    pub fn into_parts(self) -> (W, Hasher) {
        (self.inner, self.hasher)
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC_256: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn reader_and_writer_agree_with_the_known_answer() {
        let mut reader = HashReader::new(&b"abc"[..], Algorithm::Sha256);
        let mut writer = HashWriter::new(Vec::new(), Algorithm::Sha256);
        io::copy(&mut reader, &mut writer).unwrap();
        assert_eq!(reader.into_parts().1.finish(), ABC_256);
        let (bytes, hasher) = writer.into_parts();
        assert_eq!((bytes.as_slice(), hasher.bytes()), (&b"abc"[..], 3));
        assert_eq!(hasher.finish(), ABC_256);
    }

    #[test]
    fn sha512_has_its_length() {
        let text = Hasher::new(Algorithm::Sha512).finish();
        assert!(text.starts_with("sha512:cf83e1357eefb8bd"));
        assert_eq!(text.len(), "sha512:".len() + Algorithm::Sha512.hex_len());
    }
}
