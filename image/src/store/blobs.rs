//! Blobs: content under the name of its digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::{Mode, try_lock};
use super::{Lock, Store};
use crate::cancel::Cancel;
use crate::digest::{Digest, Hasher};
use crate::document::Descriptor;
use crate::error::Error;

impl Store {
    /// Keeps blobs from being deleted while it is held. Taken before the first look at what is there.
    pub(crate) fn lock_shared(&self, cancel: &Cancel) -> Result<Lock, Error> {
        Lock::acquire(&self.root.join("lock"), Mode::Shared, cancel)
    }

    /// Where the blob lies, or would.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether the blob is there with the size its descriptor tells. (A file of another size is damage: fetch again.)
    pub(crate) fn has_blob(&self, descriptor: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&descriptor.digest))
            .is_ok_and(|meta| meta.is_file() && meta.len() == descriptor.size)
    }

    /// Opens a blob for reading; its content is not verified.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::MissingBlob(digest.clone()),
            _ => Error::File { operation: "open", path, source },
        })
    }

    /// Reads a small blob (a document) whole and verifies it.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file.metadata().map_err(Error::file("stat", &path))?.len();
        if size > MAX_DOCUMENT {
            return Err(Error::SizeMismatch { what: path.display().to_string(), expected: MAX_DOCUMENT, actual: size });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        Read::by_ref(&mut file).take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(Error::file("read", &path))?;
        let actual = Digest::with(digest.algorithm(), &bytes);
        if actual != *digest {
            let what = path.display().to_string();
            return Err(Error::DigestMismatch { what, expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// Stores a small blob, unless it is there.
    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        self.write_blob_as(&digest, bytes)?;
        Ok(digest)
    }

    /// Stores a small blob whose digest the caller has verified to be `digest`.
    pub(crate) fn write_blob_as(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        // A damaged one is replaced.
        if self.read_blob(digest).is_ok() {
            return Ok(());
        }
        let mut blob = self.new_blob()?;
        blob.write_all(bytes).map_err(|source| blob.write_error(source))?;
        blob.finish(digest)
    }

    /// Starts a blob whose digest is not known yet.
    pub(crate) fn new_blob(&self) -> Result<NewBlob<'_>, Error> {
        let path = self.root.join("partial").join(temp_name());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(Error::file("create", &path))?;
        // gc deletes the temporary files that nobody holds.
        try_lock(&file, &path, Mode::Exclusive)?;
        Ok(NewBlob { store: self, file, path, finished: false })
    }

    /// Opens the part of a blob that has arrived, waiting until nobody else fetches it. `None`: the blob is complete.
    pub(crate) fn partial(&self, descriptor: &Descriptor, cancel: &Cancel) -> Result<Option<Partial<'_>>, Error> {
        let digest = &descriptor.digest;
        let path = self.root.join("partial").join(format!("{}-{}", digest.algorithm().name(), digest.hex()));
        loop {
            if self.has_blob(descriptor) {
                return Ok(None);
            }
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.map_err(Error::file("create", &path))?;
            if !try_lock(&file, &path, Mode::Exclusive)? {
                cancel.sleep(crate::cancel::TICK)?;
                continue;
            }
            // The file may have been renamed to the blob, or deleted, before we had the lock.
            let meta = file.metadata().map_err(Error::file("stat", &path))?;
            if fs::metadata(&path).is_ok_and(|now| now.ino() == meta.ino()) {
                let mut len = meta.len();
                if len > descriptor.size {
                    // Whatever that is, it is not the beginning of this blob.
                    file.set_len(0).map_err(Error::file("truncate", &path))?;
                    len = 0;
                }
                return Ok(Some(Partial { store: self, digest: digest.clone(), len, file, path }));
            }
        }
    }

    fn publish(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), Error> {
        file.sync_data().map_err(Error::file("flush", path))?;
        let target = self.blob_path(digest);
        fs::rename(path, &target).map_err(Error::file("rename", path))?;
        sync_parent(&target)
    }
}

/// A blob in the making, without a name yet. Dropped unfinished, it is deleted.
#[derive(Debug)]
pub(crate) struct NewBlob<'a> {
    store: &'a Store,
    file: File,
    path: PathBuf,
    finished: bool,
}

impl NewBlob<'_> {
    /// Flushes it and gives it its name. `digest` is what the caller computed.
    pub(crate) fn finish(mut self, digest: &Digest) -> Result<(), Error> {
        self.store.publish(&self.file, &self.path, digest)?;
        self.finished = true;
        Ok(())
    }

    /// Where it lies for now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write_error(&self, source: io::Error) -> Error {
        Error::File { operation: "write", path: self.path.clone(), source }
    }
}

impl Write for NewBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewBlob<'_> {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// What has arrived of a blob. Stays on disk when dropped, for whoever goes on, unless it is nothing.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    store: &'a Store,
    digest: Digest,
    file: File,
    path: PathBuf,
    len: u64,
}

impl<'a> Partial<'a> {
    /// Bytes that are there.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from what is there, at `offset`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        self.file.read_at(buffer, offset).map_err(Error::file("read", &self.path))
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, self.len).map_err(Error::file("write", &self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Checks that the digest of everything (`hasher`) is the right one. A wrong one is thrown away and an error.
    pub(crate) fn verify(self, hasher: Hasher, what: &str) -> Result<Verified<'a>, Error> {
        let actual = hasher.finish();
        if actual != self.digest {
            let expected = self.digest.clone();
            self.discard();
            return Err(Error::DigestMismatch { what: what.to_owned(), expected, actual });
        }
        Ok(Verified(self))
    }

    /// Deletes it.
    pub(crate) fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // The lock is still held; who waits for it sees that the file is gone and makes a new one.
        let is_ours =
            || fs::metadata(&self.path).is_ok_and(|now| self.file.metadata().is_ok_and(|m| m.ino() == now.ino()));
        if self.len == 0
            && is_ours()
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// A partial blob that has turned out complete and right.
#[derive(Debug)]
pub(crate) struct Verified<'a>(Partial<'a>);

impl Verified<'_> {
    /// Flushes it and gives it its name.
    pub(crate) fn publish(self) -> Result<(), Error> {
        self.0.store.publish(&self.0.file, &self.0.path, &self.0.digest)
    }
}

/// Replaces the file at `path` by rename, flushed.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temp = path.with_file_name(format!(".{}", temp_name()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        file.write_all(bytes)?;
        file.seek(SeekFrom::Start(0))?;
        file.sync_data()?;
        fs::rename(&temp, path)
    })();
    if let Err(source) = written {
        if let Err(error) = fs::remove_file(&temp) {
            log::debug!("remove {}: {error}", temp.display());
        }
        return Err(Error::File { operation: "write", path: path.to_owned(), source });
    }
    sync_parent(path)
}

pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file("flush", dir))
}

/// Unique among the living; a name left by the dead makes `create_new` fail, which a restarted counter never repeats
/// because the time is in it.
fn temp_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    format!("tmp-{}-{time}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Manifests and configurations are never larger than this.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;
