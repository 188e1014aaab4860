//! Compression of layers: in parallel, and the same bytes for any number of threads.

mod gzip;
mod zstd;

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

pub use gzip::Gzip;
pub use zstd::Zstd;

use crate::decompress::Compression;

/// A writer that compresses with what it was asked for. Must be [finished](Encoder::finish).
pub enum Encoder<W: Write> {
    /// Bytes pass as they are.
    Plain(W),
    /// Parallel gzip.
    Gzip(Gzip<W>),
    /// Parallel zstd.
    Zstd(Zstd<W>),
}

impl<W: Write> Encoder<W> {
    /// Compresses into `inner` at the usual level with up to `threads` threads.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new(inner: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(inner),
            Compression::Gzip => Self::Gzip(Gzip::new(inner, Gzip::<W>::DEFAULT_LEVEL, threads)),
            Compression::Zstd => Self::Zstd(Zstd::new(inner, Zstd::<W>::DEFAULT_LEVEL, threads)?),
        })
    }

    /// Writes what is still held and the end marks.
    ///
    /// # Errors
    /// When the writer below fails.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(inner) => Ok(inner),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Plain(_) => "Encoder::Plain",
            Self::Gzip(_) => "Encoder::Gzip",
            Self::Zstd(_) => "Encoder::Zstd",
        })
    }
}
