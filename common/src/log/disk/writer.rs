//! The one thread that writes: all who wait are answered after the one sync that covers their records.
//!
//! A file whose write or sync failed is never written or synced again: what the kernel says of it from
//! then on proves nothing. The records that were not answered yet go to the next segment.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::files::{self, Files, is_full};
use super::frame::{self, Salt};
use super::group::{Batch, Group};
use super::recovery::{Recovered, Tail};
use super::segment::{self, HEADER_BYTES, Header, Segment};
use super::spare::Spares;
use super::state::Shared;
use super::{AppendError, Options};
use crate::time::Timestamp;

/// So many requests are served at once.
const BATCH_REQUESTS_MAX: usize = 16 * 1024;
/// When nothing can be written, the next attempt is so far off: filling a full disk takes time, and others wait.
const RETRY_AFTER: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1_000 });

/// What is asked of the writer.
pub(super) enum Request {
    /// Keep these.
    Append(Group),
    /// End the current segment if all its records are older than this.
    Retire(Timestamp, oneshot::Sender<()>),
}

/// The file that is being written to.
struct Current {
    file: File,
    /// The file's size.
    room: u64,
    segment: Segment,
    begun_at: Instant,
}

/// Adds to the log.
pub(super) struct Writer {
    shared: Arc<Shared>,
    options: Options,
    files: Files,
    spares: Spares,
    number: u64,
    /// None once it has ended or failed.
    current: Option<Current>,
    /// When nothing could be written, and why.
    failed_at: Option<(Instant, io::ErrorKind)>,
}

impl Writer {
    /// Begins a segment with what recovery left to be written, then tidies up.
    pub fn open(shared: Arc<Shared>, options: Options, files: Files, mut found: Recovered) -> io::Result<Self> {
        let spares = Spares::new(shared.dir.clone(), files.clone(), options.segment_bytes)?;
        let number = found.number;
        let mut writer = Self { shared, options, files, spares, number, current: None, failed_at: None };
        writer.begin(&mut found.tail)?;
        for number in found.void {
            files::remove(&segment::path(&writer.shared.dir, number))?;
        }
        for former in &found.segments {
            writer.trim(former);
        }
        Ok(writer)
    }

    /// Serves requests until nobody is left who could make one.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::new();
        while queue.blocking_recv_many(&mut requests, BATCH_REQUESTS_MAX) > 0 {
            let mut batch = Batch::default();
            for request in requests.drain(..) {
                match request {
                    Request::Append(group) => self.add(group, &mut batch),
                    Request::Retire(at, done) => {
                        self.commit(&mut batch);
                        self.retire(at);
                        let _ = done.send(());
                    }
                }
            }
            self.commit(&mut batch);
        }
    }

    /// Adds a group to the batch; commits what cannot share a write with it.
    fn add(&mut self, group: Group, batch: &mut Batch) {
        // It may be the first of a segment, with a header.
        let taken = || self.shared.bytes() + batch.bytes() + HEADER_BYTES + group.bytes();
        if self.options.bytes_max.is_some_and(|max| taken() > max) {
            return group.refuse(AppendError::Full);
        }
        if !batch.is_empty() && batch.bytes() + group.bytes() > self.room() {
            self.commit(batch);
        }
        if batch.is_empty() && (group.bytes() > self.room() || self.is_old()) {
            self.current = None;
        }
        batch.push(group);
    }

    /// What fits into the current segment, or into the next one if this one has ended.
    fn room(&self) -> u64 {
        match &self.current {
            Some(current) => current.room.saturating_sub(current.segment.bytes),
            None => self.options.segment_bytes.saturating_sub(HEADER_BYTES),
        }
    }

    /// Whether the current segment has records and has been open for long enough.
    fn is_old(&self) -> bool {
        let Some(current) = &self.current else { return false };
        let old = self.options.segment_age_max.is_some_and(|max| current.begun_at.elapsed() >= max);
        old && !current.segment.is_empty()
    }

    /// Writes and syncs a batch, in the current segment or a new one, and answers.
    fn commit(&mut self, batch: &mut Batch) {
        let mut batch = std::mem::take(batch);
        if batch.is_empty() {
            return;
        }
        let first = self.shared.bounds().1;
        let kept = self.keep(&mut batch.tail).map(|()| first);
        batch.answer(
            &kept.map_err(|error| if is_full(&error) { AppendError::Full } else { AppendError::Io(error.into()) }),
        );
    }

    /// Writes and syncs, and once more elsewhere if that fails.
    fn keep(&mut self, tail: &mut Tail) -> io::Result<()> {
        if let Some((at, kind)) = self.failed_at
            && at.elapsed() < RETRY_AFTER
        {
            return Err(kind.into());
        }
        let kept = match self.current.take() {
            Some(current) => self.extend(current, tail),
            None => self.begin(tail),
        };
        let kept = kept.or_else(|error| {
            error!(%error, "go on in another file of the disk log in {}: {error}", self.shared.dir.display());
            self.begin(tail)
        });
        self.failed_at = kept.as_ref().err().map(|error| (Instant::now(), error.kind()));
        kept
    }

    /// Adds to the current segment. It stays the current one only if that succeeds.
    fn extend(&mut self, mut current: Current, tail: &mut Tail) -> io::Result<()> {
        frame::seal(&mut tail.frames, Salt::of(current.segment.id), current.segment.end);
        self.files.write(&current.file, &tail.frames, current.segment.bytes)?;
        self.sync(&current.file)?;
        current.segment.bytes += tail.frames.len() as u64;
        current.segment.end += tail.records;
        current.segment.latest = current.segment.latest.max(tail.latest);
        self.shared.grow(current.segment);
        self.current = Some(current);
        Ok(())
    }

    /// Begins a segment with these records, of which there may be none.
    fn begin(&mut self, tail: &mut Tail) -> io::Result<()> {
        let bytes = HEADER_BYTES + tail.frames.len() as u64;
        let (file, path) = self.spares.take(bytes.max(self.options.segment_bytes))?;
        let number = self.number;
        self.number += 1;
        let (id, base) = (Uuid::now_v7(), self.shared.bounds().1);
        let header = Header { number, id, log: self.shared.log, base, previous: self.shared.previous() };
        frame::seal(&mut tail.frames, Salt::of(id), base);

        let home = segment::path(&self.shared.dir, number);
        let placed = self.place(&file, &header, tail).and_then(|()| {
            fs::rename(&path, &home)?;
            files::sync_dir(&self.shared.dir)
        });
        if placed.is_err() {
            // Should it remain, the next segment begins where it does, and it counts for nothing.
            let _ = files::remove(&path).and_then(|()| files::remove(&home));
        }
        self.spares.prepare();
        placed?;

        let segment = Segment { number, id, base, end: base + tail.records, bytes, latest: tail.latest };
        let room = bytes.max(self.options.segment_bytes);
        self.current = Some(Current { file, room, segment, begun_at: Instant::now() });
        if let Some(former) = self.shared.begin(segment) {
            self.tidy(&former);
        }
        Ok(())
    }

    fn place(&self, file: &File, header: &Header, tail: &Tail) -> io::Result<()> {
        self.files.write(file, &header.encode(), 0)?;
        self.files.write(file, &tail.frames, HEADER_BYTES)?;
        if tail.frames.is_empty() { self.files.sync(file) } else { self.sync(file) }
    }

    /// A sync that somebody waits for.
    fn sync(&self, file: &File) -> io::Result<()> {
        let begun_at = Instant::now();
        self.files.sync(file)?;
        if let Some(on_sync) = &self.options.on_sync {
            on_sync(begun_at.elapsed());
        }
        Ok(())
    }

    /// Ends the current segment, so that it can be deleted.
    fn retire(&mut self, at: Timestamp) {
        let Some(current) = self.shared.current() else { return };
        if current.is_empty() || current.latest >= at {
            return;
        }
        match self.begin(&mut Tail::default()) {
            Ok(()) => info!("ended segment {} of the disk log in {}", current.number, self.shared.dir.display()),
            Err(error) => warn!(%error, "begin a segment of the disk log in {}: {error}", self.shared.dir.display()),
        }
    }

    /// A segment that has ended takes no more room than its records do.
    fn tidy(&self, former: &Segment) {
        if !former.is_empty() {
            self.trim(former);
        } else if let Err(error) = files::remove(&segment::path(&self.shared.dir, former.number)) {
            warn!(%error, "remove an empty segment of the disk log in {}: {error}", self.shared.dir.display());
        }
    }

    fn trim(&self, former: &Segment) {
        let path = segment::path(&self.shared.dir, former.number);
        let trimmed = File::options()
            .write(true)
            .open(&path)
            .and_then(|file| if file.metadata()?.len() > former.bytes { file.set_len(former.bytes) } else { Ok(()) });
        if let Err(error) = trimmed
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "cut {} to its records: {error}", path.display());
        }
    }
}
