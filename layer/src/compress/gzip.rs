//! Parallel gzip: blocks of fixed size, each deflated by itself with the 32 KiB before it as dictionary, joined on byte
//! borders into one member. Block borders depend on the input alone, so the bytes are the same for any number of threads.
//!
//! ```text
//! header | deflate(block 0) sync | deflate(block 1, dictionary = tail of 0) sync | … | final empty block | crc32 size
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// A parallel gzip writer. Must be [finished](Gzip::finish); dropped before, its threads end and the output lacks its end.
pub struct Gzip<W: Write> {
    inner: W,
    header_written: bool,
    level: u32,
    threads: NonZeroUsize,
    pool: Option<Pool>,
    block: Vec<u8>,
    previous: Option<Arc<Vec<u8>>>,
    waiting: VecDeque<Receiver<io::Result<Deflated>>>,
    crc: Crc,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

struct Job {
    block: Arc<Vec<u8>>,
    previous: Option<Arc<Vec<u8>>>,
    answer: SyncSender<io::Result<Deflated>>,
}

struct Pool {
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

impl<W: Write> Gzip<W> {
    /// gzip's own default.
    pub const DEFAULT_LEVEL: u32 = 6;

    /// Compresses into `inner` at `level` (0 to 9) with up to `threads` threads, which start with the second block.
    pub fn new(inner: W, level: u32, threads: NonZeroUsize) -> Self {
        Self {
            inner,
            header_written: false,
            level: level.min(9),
            threads,
            pool: None,
            block: Vec::with_capacity(BLOCK),
            previous: None,
            waiting: VecDeque::new(),
            crc: Crc::new(),
        }
    }

    /// Writes what is still held and ends the member.
    ///
    /// # Errors
    /// When the writer below fails.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.waiting.is_empty() {
            self.collect()?;
        }
        self.write_header()?;
        // A final block with nothing in it (fixed codes, end of block), then the trailer.
        self.inner.write_all(&[0x03, 0x00])?;
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }

    fn write_header(&mut self) -> io::Result<()> {
        if !self.header_written {
            self.header_written = true;
            // No name, no time, unknown system: nothing that differs between two runs or two machines.
            self.inner.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        }
        Ok(())
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        let previous = self.previous.replace(Arc::clone(&block));
        let (answer, result) = sync_channel(1);
        if self.waiting.len() >= self.threads.get() * 2 {
            self.collect()?;
        }
        self.waiting.push_back(result);
        let job = Job { block, previous, answer };
        if self.threads.get() == 1 {
            job.run(self.level);
            return self.collect();
        }
        let pool = self.pool.get_or_insert_with(|| Pool::start(self.threads, self.level));
        match &pool.jobs {
            Some(jobs) if jobs.send(job).is_ok() => Ok(()),
            _ => Err(io::Error::other("the compression threads are gone")),
        }
    }

    /// Waits for the oldest block and writes it.
    fn collect(&mut self) -> io::Result<()> {
        let Some(oldest) = self.waiting.pop_front() else { return Ok(()) };
        let deflated = oldest.recv().map_err(io::Error::other)??;
        self.write_header()?;
        self.crc.combine(&deflated.crc);
        self.inner.write_all(&deflated.bytes)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(count)
    }

    /// Does nothing: ending a block at a moment that the caller happens to choose would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> fmt::Debug for Gzip<W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Gzip").field("level", &self.level).field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Job {
    fn run(self, level: u32) {
        let result = deflate(&self.block, self.previous.as_deref().map(Vec::as_slice), level);
        // Nobody waits any more when the writer was dropped half-way.
        self.answer.send(result).unwrap_or_default();
    }
}

fn deflate(block: &[u8], previous: Option<&[u8]>, level: u32) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(block);
    let mut engine = Compress::new(Compression::new(level), false);
    if let Some(previous) = previous {
        engine.set_dictionary(&previous[previous.len().saturating_sub(WINDOW)..]).map_err(io::Error::other)?;
    }
    let mut bytes = Vec::with_capacity(block.len() / 2 + 1024);
    let mut taken = 0;
    loop {
        if bytes.capacity() - bytes.len() < 1024 {
            bytes.reserve(BLOCK / 4);
        }
        let status = engine.compress_vec(&block[taken..], &mut bytes, FlushCompress::Sync).map_err(io::Error::other)?;
        taken = usize::try_from(engine.total_in()).map_err(io::Error::other)?;
        // The flush is complete when output room is left over; asking again would append another empty block.
        if taken == block.len() && bytes.len() < bytes.capacity() {
            return Ok(Deflated { bytes, crc });
        }
        if matches!(status, Status::StreamEnd) {
            return Err(io::Error::other("deflate ended by itself"));
        }
    }
}

impl Pool {
    fn start(threads: NonZeroUsize, level: u32) -> Self {
        let (jobs, queue) = sync_channel::<Job>(threads.get());
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads.get())
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        job.run(level);
                    }
                })
            })
            .collect();
        Self { jobs: Some(jobs), workers }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            worker.join().unwrap_or_default();
        }
    }
}

/// Large enough that the five bytes of each border and the cold start do not show in the size.
const BLOCK: usize = 256 << 10;
/// What deflate can look back.
const WINDOW: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn gzip(text: &[u8], threads: usize, chunk: usize) -> Vec<u8> {
        let mut encoder = Gzip::new(Vec::new(), 6, NonZeroUsize::new(threads).unwrap());
        text.chunks(chunk.max(1)).for_each(|part| encoder.write_all(part).unwrap());
        encoder.finish().unwrap()
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // One member: the plain decoder must read all of it.
        flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn round_trips_at_block_borders() {
        let mut seed = 1u64;
        let noise: Vec<u8> = (0..3 * BLOCK)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as u8
            })
            .collect();
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK] {
            for text in [&noise[..len], &vec![b'a'; len][..]] {
                assert_eq!(gunzip(&gzip(text, 3, 70_000)), text, "{len}");
            }
        }
    }

    #[test]
    fn same_bytes_for_any_number_of_threads_and_any_chunking() {
        let text: Vec<u8> = (0..1_000_000u32).flat_map(|n| (n.wrapping_mul(n) >> 13).to_le_bytes()).collect();
        let want = gzip(&text, 1, 1 << 20);
        for (threads, chunk) in [(2, 65_537), (3, 4096), (8, text.len()), (16, 300_000)] {
            assert!(gzip(&text, threads, chunk) == want, "{threads} threads, chunks of {chunk}");
        }
    }

    #[test]
    fn dictionaries_keep_the_size_near_the_serial_one() {
        let text: Vec<u8> = (0..60_000u32).flat_map(|n| format!("line {} of the text\n", n / 3).into_bytes()).collect();
        let mut serial = flate2::write::GzEncoder::new(Vec::new(), Compression::new(6));
        serial.write_all(&text).unwrap();
        let (serial, ours) = (serial.finish().unwrap().len(), gzip(&text, 4, 1 << 16).len());
        assert!(ours < serial + serial / 50 + 64, "{ours} against {serial}");
    }

    #[test]
    fn a_failing_writer_is_reported_and_threads_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut encoder = Gzip::new(Full, 1, NonZeroUsize::new(4).unwrap());
        let error = encoder.write_all(&vec![7; 64 * BLOCK]).and_then(|()| encoder.finish().map(drop)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
