//! All layers of an image: several at once, committed in order.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::pipeline::{Flow, Target, fetch, replay};
use crate::cancel::Cancel;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::Error;
use crate::progress::{Event, LayerStatus, Progress};
use crate::registry::Client;
use crate::sink::LayerSink;
use crate::store::{Image, LayerBlob, Store};

/// One layer to be brought in.
#[derive(Debug, Clone)]
pub(super) struct Job {
    layer: Descriptor,
    diff_id: Digest,
    chain: Digest,
    parent: Option<Digest>,
}

/// Where missing blobs come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Registry {
        client: &'a Client,
        repository: &'a str,
    },
    /// They must be there.
    Store,
}

/// The work on the layers of one image.
pub(super) struct Layers<'a> {
    pub(super) store: &'a Store,
    pub(super) sink: &'a dyn LayerSink,
    pub(super) source: Source<'a>,
    pub(super) progress: &'a dyn Progress,
    /// Of this work only: set when one layer fails, to stop the others.
    pub(super) cancel: Cancel,
    pub(super) parallel: usize,
}

/// A directory that is aborted unless it gets committed.
struct Prepared<'a> {
    sink: &'a dyn LayerSink,
    key: String,
    committed: bool,
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.sink.abort(&self.key);
        }
    }
}

impl Job {
    /// The jobs of a local image.
    pub(super) fn of(image: &Image) -> Vec<Self> {
        let layers: Vec<Descriptor> = image.layers.iter().map(LayerBlob::descriptor).collect();
        Self::list(&layers, &image.config)
    }

    /// The jobs of an image, base first. The caller has checked that there are as many diff ids as layers.
    pub(super) fn list(layers: &[Descriptor], config: &ImageConfig) -> Vec<Self> {
        let chains = config.chain_ids();
        let parents = std::iter::once(None).chain(chains.iter().cloned().map(Some));
        layers
            .iter()
            .zip(&config.rootfs.diff_ids)
            .zip(chains.iter().zip(parents))
            .map(|((layer, diff_id), (chain, parent))| Self {
                layer: layer.clone(),
                diff_id: diff_id.clone(),
                chain: chain.clone(),
                parent,
            })
            .collect()
    }
}

impl Layers<'_> {
    /// Brings every layer into the store and the sink, or fails with the first error; then nothing half-done is left
    /// but what was downloaded.
    pub(super) fn run(&self, jobs: &[Job]) -> Result<(), Error> {
        let present = self.present(jobs)?;
        let open: Vec<usize> = (0..jobs.len()).filter(|&n| !(n < present && self.has_blob(&jobs[n]))).collect();
        for (n, job) in jobs.iter().enumerate() {
            let status = if open.contains(&n) { LayerStatus::Waiting } else { LayerStatus::Exists };
            self.tell(job, status);
        }
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.parallel.max(1).min(open.len()) {
                let (sender, next, open) = (sender.clone(), &next, &open);
                scope.spawn(move || {
                    while let Some(&n) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.one(&jobs[n], n < present);
                        if result.is_err() {
                            self.cancel.cancel();
                        }
                        // The receiver waits for every sender.
                        drop(sender.send((n, result)));
                    }
                });
            }
            drop(sender);
            self.commit_all(jobs, present, &receiver)
        })
    }

    /// How many layers from the base on the sink has. What has a child has all below.
    fn present(&self, jobs: &[Job]) -> Result<usize, Error> {
        for (n, job) in jobs.iter().enumerate().rev() {
            if self.sink.has(&job.chain).map_err(sink_error("look up", &job.chain))? {
                return Ok(n + 1);
            }
        }
        Ok(0)
    }

    /// Commits layers as they and their parents are ready. Ends when all workers have.
    fn commit_all(
        &self,
        jobs: &[Job],
        mut next: usize,
        results: &mpsc::Receiver<(usize, Result<Option<Prepared<'_>>, Error>)>,
    ) -> Result<(), Error> {
        let mut ready = BTreeMap::new();
        let mut failure: Option<Error> = None;
        for (n, result) in results {
            match result {
                Ok(Some(prepared)) => drop(ready.insert(n, prepared)),
                Ok(None) => {}
                // The others stop because of the first.
                Err(Error::Cancelled) if failure.is_some() => {}
                Err(error) if failure.as_ref().is_none_or(|first| matches!(first, Error::Cancelled)) => {
                    failure = Some(error);
                }
                Err(error) => log::debug!("after the first failure: {error}"),
            }
            while failure.is_none()
                && let Some(prepared) = ready.remove(&next)
            {
                if let Err(error) = self.commit(&jobs[next], prepared) {
                    self.cancel.cancel();
                    failure = Some(error);
                }
                next += 1;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn commit(&self, job: &Job, mut prepared: Prepared<'_>) -> Result<(), Error> {
        self.cancel.check()?;
        let committed = self.sink.commit(&prepared.key, &job.chain, job.parent.as_ref());
        committed.map_err(sink_error("commit", &job.chain))?;
        prepared.committed = true;
        self.tell(job, LayerStatus::Complete);
        Ok(())
    }

    /// Brings one layer's blob into the store, and its files into a directory unless the sink has them.
    fn one(&self, job: &Job, unpacked: bool) -> Result<Option<Prepared<'_>>, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let local = self.has_blob(job);
            match self.attempt(job, unpacked) {
                // Parts of an earlier try, or the store's own blob, were damaged; they are gone now. Once more.
                Err(error @ Error::DigestMismatch { .. })
                    if tries == 1
                        && matches!(self.source, Source::Registry { .. })
                        && error.concerns(&job.layer.digest) =>
                {
                    log::info!("{error}: fetched anew");
                    if local {
                        let path = self.store.blob_path(&job.layer.digest);
                        fs::remove_file(&path).map_err(Error::file("remove", path))?;
                    }
                }
                result => return result,
            }
        }
    }

    fn attempt(&self, job: &Job, unpacked: bool) -> Result<Option<Prepared<'_>>, Error> {
        self.cancel.check()?;
        let partial = match self.source {
            Source::Registry { .. } => self.store.partial(&job.layer, &self.cancel)?,
            Source::Store => None,
        };
        // Whoever was before us at this blob may have committed the layer.
        let prepared = if unpacked || self.sink.has(&job.chain).map_err(sink_error("look up", &job.chain))? {
            None
        } else {
            let made = self.sink.prepare(&job.chain).map_err(sink_error("prepare", &job.chain))?;
            Some((Prepared { sink: self.sink, key: made.key, committed: false }, made.dir))
        };
        let target = prepared.as_ref().map(|(_, dir)| Target { dir, diff_id: &job.diff_id });
        let total = job.layer.size;
        match (partial, self.source) {
            (Some(partial), Source::Registry { client, repository }) => {
                let on_retry = |delay, reason: &str| self.tell(job, LayerStatus::Retrying { delay, reason });
                let passed = |done| self.tell(job, LayerStatus::Downloading { done, total });
                let stream = client.blob(repository, &job.layer, partial.len(), &on_retry);
                fetch(&Flow { layer: &job.layer, cancel: &self.cancel, passed: &passed }, partial, stream, target)?;
                self.tell(job, LayerStatus::Downloaded);
            }
            _ => {
                if let Some(target) = target {
                    let passed = |done| self.tell(job, LayerStatus::Extracting { done, total });
                    let blob = self.store.open_blob(&job.layer.digest)?;
                    replay(&Flow { layer: &job.layer, cancel: &self.cancel, passed: &passed }, blob, target)?;
                }
            }
        }
        if prepared.is_none() {
            self.tell(job, LayerStatus::Complete);
        }
        Ok(prepared.map(|(prepared, _)| prepared))
    }

    fn has_blob(&self, job: &Job) -> bool {
        self.store.has_blob(&job.layer)
    }

    fn tell(&self, job: &Job, status: LayerStatus<'_>) {
        self.progress.event(&Event::Layer { digest: &job.layer.digest, status });
    }
}

fn sink_error(operation: &'static str, chain: &Digest) -> impl FnOnce(crate::sink::SinkError) -> Error {
    let chain = chain.clone();
    move |source| Error::Sink { operation, chain, source }
}
