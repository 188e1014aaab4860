//! zstd with libzstd's own workers, which cut the input into jobs by size alone, so that their number is not in the bytes.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

/// A parallel zstd writer: one frame with a checksum. Must be [finished](Zstd::finish).
pub struct Zstd<W: Write> {
    encoder: zstd::stream::write::Encoder<'static, W>,
}

impl<W: Write> Zstd<W> {
    /// zstd's own default: faster than gzip's and smaller.
    pub const DEFAULT_LEVEL: i32 = 3;

    /// Compresses into `inner` with up to `threads` threads.
    ///
    /// # Errors
    /// When the context or its threads cannot be made.
    pub fn new(inner: W, level: i32, threads: NonZeroUsize) -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(inner, level)?;
        encoder.include_checksum(true)?;
        // At least one worker: with none, libzstd takes another path and writes other bytes.
        encoder.multithread(u32::try_from(threads.get()).unwrap_or(MAX_THREADS).min(MAX_THREADS))?;
        Ok(Self { encoder })
    }

    /// Writes what is still held and ends the frame.
    ///
    /// # Errors
    /// When the writer below fails.
    pub fn finish(self) -> io::Result<W> {
        self.encoder.finish()
    }
}

impl<W: Write> Write for Zstd<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    /// Does nothing: ending a block at a moment that the caller happens to choose would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> fmt::Debug for Zstd<W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Zstd").finish_non_exhaustive()
    }
}

const MAX_THREADS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_bytes_for_any_number_of_threads_and_any_chunking() {
        let text: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n.wrapping_mul(n) >> 13).to_le_bytes()).collect();
        let mut outputs = Vec::new();
        for (threads, chunk) in [(1, 1 << 20), (2, 65_537), (5, 4096), (8, text.len())] {
            let mut encoder = Zstd::new(Vec::new(), 3, NonZeroUsize::new(threads).unwrap()).unwrap();
            text.chunks(chunk).for_each(|part| encoder.write_all(part).unwrap());
            outputs.push(encoder.finish().unwrap());
        }
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(zstd::decode_all(&outputs[0][..]).unwrap(), text);
    }
}
