//! One layer: its bytes from a registry or the store, through three threads, into a directory.
//!
//! ```text
//! feed (caller's thread)          inflate                      untar
//! socket ─▶ hash, partial file ─▶ decompress, hash (diff id) ─▶ files in the sink's directory
//! ```
//!
//! The end of the stream is sent only when the blob's digest was right, so a corrupt blob never unpacks completely.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dhow_layer::decompress::Decoder;
use dhow_layer::{ExtractOptions, extract};

use super::channel::{BUFFER, Gone, Reader, Writer, pipe};
use crate::cancel::Cancel;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::document::Descriptor;
use crate::error::Error;
use crate::registry::BlobStream;
use crate::store::Partial;

/// Where a layer is unpacked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) dir: &'a Path,
    pub(super) diff_id: &'a Digest,
}

/// What moves through a pipeline and who watches.
pub(super) struct Flow<'a> {
    pub(super) layer: &'a Descriptor,
    pub(super) cancel: &'a Cancel,
    /// Called with the bytes of the blob that have passed.
    pub(super) passed: &'a (dyn Fn(u64) + Sync),
}

/// Fetches the rest of a blob into `partial`, verifies it and gives it its name; and unpacks it meanwhile.
pub(super) fn fetch(
    flow: &Flow<'_>,
    mut partial: Partial<'_>,
    mut stream: BlobStream<'_>,
    target: Option<Target<'_>>,
) -> Result<(), Error> {
    let kept = partial.len();
    with_unpacker(flow, target, |pipe| {
        let mut feed = Feed::new(flow, pipe);
        while feed.offset < kept {
            let mut buffer = feed.buffer();
            let want = usize::try_from(kept - feed.offset).unwrap_or(BUFFER).min(BUFFER);
            let count = partial.read_at(&mut buffer[..want], feed.offset)?;
            if count == 0 {
                break;
            }
            buffer.truncate(count);
            feed.pass(buffer)?;
        }
        loop {
            let mut buffer = feed.buffer();
            let count = fill(&mut buffer, |rest| stream.read(rest))?;
            if count == 0 {
                break;
            }
            buffer.truncate(count);
            if let Err(error) = partial.append(&buffer) {
                if error.kind() == crate::error::ErrorKind::NoSpace {
                    partial.discard();
                }
                return Err(error);
            }
            feed.pass(buffer)?;
        }
        let what = format!("layer {}", flow.layer.digest);
        let verified = partial.verify(feed.hasher.clone(), &what)?;
        feed.end();
        // The flush goes on while the last files are written.
        verified.publish()
    })
}

/// Unpacks a blob of the store, verifying it once more.
pub(super) fn replay(flow: &Flow<'_>, mut blob: File, target: Target<'_>) -> Result<(), Error> {
    with_unpacker(flow, Some(target), |pipe| {
        let mut feed = Feed::new(flow, pipe);
        loop {
            let mut buffer = feed.buffer();
            let count = fill(&mut buffer, |rest| blob.read(rest))
                .map_err(Error::file("read the blob", flow.layer.digest.as_str()))?;
            if count == 0 {
                break;
            }
            buffer.truncate(count);
            feed.pass(buffer)?;
        }
        let actual = feed.hasher.clone().finish();
        if actual != flow.layer.digest {
            let what = format!("layer {} in the image store", flow.layer.digest);
            return Err(Error::DigestMismatch { what, expected: flow.layer.digest.clone(), actual });
        }
        feed.end();
        Ok(())
    })
}

/// Runs `feed` here and the unpacker beside it. An error of the feed (network, digest) explains one of the unpacker
/// (which then sees nonsense or a cut stream), so it goes first.
fn with_unpacker(
    flow: &Flow<'_>,
    target: Option<Target<'_>>,
    feed: impl FnOnce(Option<(Writer, &AtomicBool)>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(target) = target else { return feed(None) };
    let (writer, reader) = pipe(DEPTH);
    let hopeless = AtomicBool::new(false);
    thread::scope(|scope| {
        let unpacker = scope.spawn(|| {
            let result = unpack(flow, reader, target);
            if let Err(error) = &result {
                hopeless.store(error.is_local(), Ordering::Relaxed);
            }
            result
        });
        let fed = feed(Some((writer, &hopeless)));
        let unpacked = join(unpacker);
        match (fed, unpacked) {
            // The feed stopped because the unpacker could not go on.
            (Err(Error::Cancelled), Err(error)) if !flow.cancel.is_cancelled() => Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(()),
        }
    })
}

/// Inflates on a thread of its own, untars on this one.
fn unpack(flow: &Flow<'_>, blob: Reader, target: Target<'_>) -> Result<(), Error> {
    let fail = |source| Error::Unpack { layer: flow.layer.digest.clone(), source };
    let dir = File::open(target.dir).map_err(Error::file("open", target.dir))?;
    let (writer, reader) = pipe(DEPTH);
    thread::scope(|scope| {
        let inflater = scope.spawn(|| inflate(blob, writer, target.diff_id.algorithm()));
        let extracted = extract(reader, dir.as_fd(), &ExtractOptions::default());
        let inflated = join(inflater);
        match (inflated, extracted) {
            (Err(Inflate::Failed(error)), _) => Err(fail(Box::new(error))),
            (_, Err(error)) => Err(fail(Box::new(error))),
            (Err(Inflate::Gone), Ok(_)) => Err(fail("the tar ends before its stream".into())),
            (Ok(actual), Ok(_)) if actual != *target.diff_id => Err(Error::DigestMismatch {
                what: format!("layer {}, uncompressed,", flow.layer.digest),
                expected: target.diff_id.clone(),
                actual,
            }),
            (Ok(_), Ok(extracted)) => extracted.settle.save_beside(target.dir).map_err(|error| fail(Box::new(error))),
        }
    })
}

enum Inflate {
    Failed(std::io::Error),
    Gone,
}

impl From<Gone> for Inflate {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

fn inflate(blob: Reader, writer: Writer, algorithm: Algorithm) -> Result<Digest, Inflate> {
    let mut decoder = Decoder::new(blob).map_err(Inflate::Failed)?;
    let mut hasher = Hasher::new(algorithm);
    loop {
        let mut buffer = writer.buffer();
        let count = fill(&mut buffer, |rest| decoder.read(rest)).map_err(Inflate::Failed)?;
        if count == 0 {
            break;
        }
        buffer.truncate(count);
        hasher.update(&buffer);
        writer.send(buffer)?;
    }
    writer.finish();
    Ok(hasher.finish())
}

/// The first stage: hashes what passes and hands it on.
struct Feed<'a> {
    flow: &'a Flow<'a>,
    hasher: Hasher,
    offset: u64,
    pipe: Option<(Writer, &'a AtomicBool)>,
}

impl<'a> Feed<'a> {
    fn new(flow: &'a Flow<'a>, pipe: Option<(Writer, &'a AtomicBool)>) -> Self {
        Self { flow, hasher: Hasher::new(flow.layer.digest.algorithm()), offset: 0, pipe }
    }

    fn buffer(&self) -> Vec<u8> {
        self.pipe.as_ref().map_or_else(|| vec![0; BUFFER], |(writer, _)| writer.buffer())
    }

    /// If the unpacker has given up on a bad layer the download still ends: then the blob is either found corrupt,
    /// which says more, or is there for the next try. If this machine is at fault it stops at once.
    fn pass(&mut self, buffer: Vec<u8>) -> Result<(), Error> {
        self.flow.cancel.check()?;
        self.hasher.update(&buffer);
        self.offset += buffer.len() as u64;
        (self.flow.passed)(self.offset);
        if let Some((writer, hopeless)) = &self.pipe
            && writer.send(buffer) == Err(Gone)
        {
            if hopeless.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            self.pipe = None;
        }
        Ok(())
    }

    fn end(self) {
        if let Some((writer, _)) = self.pipe {
            writer.finish();
        }
    }
}

/// Reads until the buffer is full or the source is at its end.
fn fill<E>(buffer: &mut [u8], mut read: impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Buffers between two stages: 2 MiB.
const DEPTH: usize = 8;
