//! Unpacks and packs layers from the command line, to measure and to try: `extract BLOB DIR`, `diff DIR BLOB [gzip|zstd]`.
#![expect(clippy::print_stdout, reason = "a tool for people")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use dhow_layer::compress::Encoder;
use dhow_layer::decompress::{Compression, Decoder};
use dhow_layer::digest::{Algorithm, HashReader, HashWriter};
use dhow_layer::{DiffOptions, ExtractOptions, diff, extract};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let start = Instant::now();
    match words.as_slice() {
        ["extract", blob, dir] => unpack(blob, dir.as_ref())?,
        ["diff", dir, blob] => pack(dir, blob, Compression::None)?,
        ["diff", dir, blob, "gzip"] => pack(dir, blob, Compression::Gzip)?,
        ["diff", dir, blob, "zstd"] => pack(dir, blob, Compression::Zstd)?,
        _ => return Err("usage: layer extract BLOB DIR | diff DIR BLOB [gzip|zstd]".into()),
    }
    println!("{:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// As a pull: one thread inflates and hashes, the other makes files.
fn unpack(blob: &str, dir: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let target = File::open(dir)?;
    let blob = File::open(blob)?;
    let (sender, chunks) = sync_channel(8);
    let inflater = std::thread::spawn(move || -> io::Result<String> {
        let mut reader = HashReader::new(Decoder::new(blob)?, Algorithm::Sha256);
        loop {
            let mut chunk = vec![0; CHUNK];
            let count = reader.read(&mut chunk)?;
            chunk.truncate(count);
            if count == 0 || sender.send(chunk).is_err() {
                return Ok(reader.into_parts().1.finish());
            }
        }
    });
    let extracted = extract(Chunks { chunks, current: Vec::new(), at: 0 }, target.as_fd(), &ExtractOptions::default())?;
    extracted.settle.save_beside(dir)?;
    let digest = inflater.join().map_err(|_panic| "the inflater panicked")??;
    println!("{} entries, {} bytes, {digest}", extracted.entries, extracted.bytes);
    Ok(())
}

fn pack(dir: &str, blob: &str, compression: Compression) -> Result<(), Box<dyn Error>> {
    let out = HashWriter::new(BufWriter::with_capacity(CHUNK, File::create(blob)?), Algorithm::Sha256);
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut encoder = HashWriter::new(Encoder::new(out, compression, threads)?, Algorithm::Sha256);
    let diffed = diff(File::open(dir)?.as_fd(), &[], &mut encoder, &DiffOptions::default())?;
    let (encoder, tar) = encoder.into_parts();
    let (mut file, packed) = encoder.finish()?.into_parts();
    io::Write::flush(&mut file)?;
    println!("{} entries, {} bytes, tar {}, blob {}", diffed.entries, diffed.bytes, tar.finish(), packed.finish());
    Ok(())
}

struct Chunks {
    chunks: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            (self.current, self.at) = (chunk, 0);
        }
        let count = buffer.len().min(self.current.len() - self.at);
        buffer[..count].copy_from_slice(&self.current[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

const CHUNK: usize = 256 << 10;
