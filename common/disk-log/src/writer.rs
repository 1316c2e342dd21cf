//! The one thread that writes: all waiting appends are answered after the one sync that covers their records.
//!
//! A file whose write or sync failed is never written or synced again: the kernel's later answers about it prove
//! nothing. Records that were not acknowledged go to the next segment.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::files::{is_full, write};
use super::frame::{self, MARK_BYTES, Salt};
use super::group::{Batch, Group};
use super::options::{AppendError, GO_ON_BYTES, Options, RETRY_AFTER};
use super::recovery::{Recovered, Tail};
use super::segment::{self, HEADER_BYTES, Header, Segment};
use super::spare::Spares;
use super::state::Shared;
use super::storage::StorageFile;
use primitives::time::Timestamp;

mod failure;

const BATCH_REQUESTS_MAX: usize = 16 * 1024;
/// Unusable files that could not be removed; beyond this no segment is begun.
const LEFTOVERS_MAX: usize = 16;

pub(super) enum Request {
    Append(Group),
    /// Close the current segment if all its records are older than this.
    Retire(Timestamp, oneshot::Sender<()>),
    /// Find out whether the disk has recovered.
    Probe,
}

struct Current {
    file: StorageFile,
    room: u64,
    segment: Segment,
    begun_at: Instant,
    /// Whether a mark stands behind the last record.
    is_marked: bool,
}

impl Current {
    fn left(&self) -> u64 {
        self.room.saturating_sub(self.segment.bytes)
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    options: Options,
    spares: Spares,
    number: u64,
    /// None after a failure, and while there is no room for a segment.
    current: Option<Current>,
    /// When beginning a segment failed, and why.
    failed_at: Option<(Instant, AppendError)>,
    /// The size of the group that had no room: with less free space, a retry is useless.
    wanted: u64,
    /// Since when appends are refused because the room is reserved for derived records.
    short_at: Option<Instant>,
    requests: mpsc::WeakSender<Request>,
}

impl Writer {
    /// Begins a segment with the tail that recovery returned, then tidies up.
    pub fn open(
        shared: Arc<Shared>,
        options: Options,
        found: Recovered,
        requests: mpsc::WeakSender<Request>,
    ) -> io::Result<Self> {
        let spares = Spares::new(shared.dir.clone(), shared.files.clone(), options.segment_bytes)?;
        let (number, current, failed_at, wanted, short_at) = (found.number, None, None, 0, None);
        let mut writer = Self { shared, options, spares, number, current, failed_at, wanted, short_at, requests };
        for former in &found.older {
            writer.trim(former);
        }
        for number in found.void {
            writer.shared.files.remove(&segment::path(&writer.shared.dir, number))?;
        }
        let mut tail = found.tail;
        // A bad block may be anywhere; a full disk is full everywhere.
        let begun = writer.begin(&mut tail);
        let begun = begun.or_else(|error| if is_full(&error) { Err(error) } else { writer.begin(&mut tail) });
        match (begun, found.newest) {
            (Err(error), Some(newest)) if is_full(&error) => writer.do_without(newest, tail, error)?,
            // A new log, nothing of which is on the disk until there is room for it.
            (Err(error), None) if is_full(&error) => _ = writer.fail(error),
            (begun, _) => begun?,
        }
        writer.shared.use_all();
        let leaves = writer.options.leaves;
        if leaves.times_unused > 0 && writer.shared.room_with_what_follows(leaves).is_ok_and(|room| room < GO_ON_BYTES)
        {
            writer.stop_taking();
        }
        Ok(writer)
    }

    /// Serves requests until all senders are gone.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::new();
        while queue.blocking_recv_many(&mut requests, BATCH_REQUESTS_MAX) > 0 {
            self.serve(requests.drain(..));
            if queue.is_empty() {
                self.mark();
            }
        }
        self.close();
    }

    /// In order.
    pub fn serve(&mut self, requests: impl IntoIterator<Item = Request>) {
        let mut batch = Batch::default();
        for request in requests {
            match request {
                Request::Append(group) => self.add(group, &mut batch),
                Request::Retire(at, done) => {
                    self.commit(&mut batch);
                    self.retire(at);
                    let _ = done.send(());
                }
                Request::Probe => {
                    self.commit(&mut batch);
                    self.probe();
                }
            }
        }
        self.commit(&mut batch);
        self.spares.tend();
    }

    /// Commits the batch first if the group cannot share its write.
    fn add(&mut self, group: Group, batch: &mut Batch) {
        // It may be the first of a segment, with a header and a mark.
        let taken = || self.shared.bytes() + batch.bytes() + HEADER_BYTES + MARK_BYTES as u64 + group.bytes();
        if self.options.bytes_max.is_some_and(|max| taken() > max) {
            return group.refuse(AppendError::Full);
        }
        if !batch.is_empty() && batch.bytes() + group.bytes() > batch.room {
            self.commit(batch);
        }
        if self.is_short_of(batch, group.bytes()) {
            return group.refuse(AppendError::Full);
        }
        if batch.is_empty() {
            batch.room = self.room_for(MARK_BYTES as u64 + group.bytes());
        }
        batch.push(group);
    }

    /// Whether the free room is reserved for records derived from earlier ones. Queries the disk once for each write.
    fn is_short_of(&mut self, batch: &mut Batch, bytes: u64) -> bool {
        if self.options.leaves.times_unused == 0 {
            return false;
        }
        self.check_room();
        if self.short_at.is_some() {
            return true;
        }
        if batch.is_empty() {
            // If the query fails, the write finds out.
            batch.free = self.shared.room_with_what_follows(self.options.leaves).unwrap_or(u64::MAX);
        }
        if batch.bytes() + bytes <= batch.free {
            return false;
        }
        self.stop_taking();
        true
    }

    fn stop_taking(&mut self) {
        self.short_at = Some(self.shared.files.now());
        error!(
            "the disk under the log in {} has room only for records derived from accepted events: it accepts no more \
             until there is room. Make room",
            self.shared.dir.display()
        );
        self.shared.set_fault(Some("the disk has no room for what would follow from more events".to_owned()));
        self.probe_later();
    }

    /// Resumes once some events, with the records derived from them, fit again.
    fn check_room(&mut self) {
        if self.short_at.is_none_or(|at| self.shared.files.since(at) < RETRY_AFTER) {
            return;
        }
        if self.shared.room_with_what_follows(self.options.leaves).is_ok_and(|room| room < GO_ON_BYTES) {
            self.short_at = Some(self.shared.files.now());
            return self.probe_later();
        }
        self.short_at = None;
        if self.failed_at.is_none() {
            self.shared.set_fault(None);
            info!("the disk log in {} takes events again", self.shared.dir.display());
        }
    }

    /// The most that a write takes that begins with this many bytes.
    fn room_for(&self, bytes: u64) -> u64 {
        let current = self.current.as_ref().filter(|current| !self.is_old(current)).map_or(0, Current::left);
        if bytes <= current { current } else { self.options.segment_bytes.saturating_sub(HEADER_BYTES) }
    }

    /// Whether the segment has records and has reached its maximum age.
    fn is_old(&self, current: &Current) -> bool {
        let old = self.options.segment_age_max.is_some_and(|max| self.shared.files.since(current.begun_at) >= max);
        old && !current.segment.is_empty()
    }

    fn commit(&mut self, batch: &mut Batch) {
        let mut batch = std::mem::take(batch);
        if batch.is_empty() {
            return;
        }
        let first = self.shared.bounds().1;
        let kept = self.keep(&mut batch.tail).map(|()| first);
        batch.answer(&kept);
    }

    /// Writes and syncs; if that fails, tries once more in a new segment.
    fn keep(&mut self, tail: &mut Tail) -> Result<(), AppendError> {
        let bytes = tail.frames.len() as u64;
        self.keep_here_or_elsewhere(tail)
            .inspect_err(|error| self.wanted = if matches!(error, AppendError::Full) { bytes } else { 0 })
    }

    fn keep_here_or_elsewhere(&mut self, tail: &mut Tail) -> Result<(), AppendError> {
        let fits = |current: &Current| tail.frames.len() as u64 <= current.left() && !self.is_old(current);
        let mut failed = None;
        if self.current.as_ref().is_some_and(fits)
            && let Some(current) = self.current.take()
        {
            match self.extend(current, tail) {
                Ok(()) => return Ok(()),
                Err(error) => failed = Some(error),
            }
        }
        if let Some((at, error)) = &self.failed_at
            && self.shared.files.since(*at) < RETRY_AFTER
        {
            return Err(error.clone());
        }
        if failed.is_none() {
            match self.begin(tail) {
                Err(error) if !is_full(&error) => failed = Some(error),
                begun => return self.begun(begun),
            }
        }
        if let Some(error) = failed {
            let dir = self.shared.dir.display();
            error!(%error, "the disk failed under the disk log in {dir}: {error}. Acknowledged records are on it; \
                            continue in another file");
        }
        let begun = self.begin(tail);
        self.begun(begun)
    }

    fn begun(&mut self, begun: io::Result<()>) -> Result<(), AppendError> {
        begun.map_err(|error| self.fail(error))?;
        self.mended();
        Ok(())
    }

    /// It stays the current segment only if that succeeds.
    fn extend(&mut self, mut current: Current, tail: &mut Tail) -> io::Result<()> {
        frame::seal(&mut tail.frames, Salt::of(current.segment.id), current.segment.end);
        write(&current.file, &tail.frames, current.segment.bytes)?;
        self.sync(&current.file)?;
        current.segment.bytes += tail.frames.len() as u64;
        current.segment.end += tail.records;
        current.segment.latest = current.segment.latest.max(tail.latest);
        current.is_marked = false;
        self.shared.grow(current.segment);
        self.current = Some(current);
        Ok(())
    }

    /// The records may be empty. On failure, the current segment stays.
    fn begin(&mut self, tail: &mut Tail) -> io::Result<()> {
        let files = self.shared.files.clone();
        if self.shared.remove_leftovers() > LEFTOVERS_MAX {
            return Err(io::Error::other("files of failed attempts cannot be removed"));
        }
        let bytes = HEADER_BYTES + tail.frames.len() as u64;
        let spare = self.spares.take(bytes)?;
        let number = self.number;
        self.number += 1;
        let (id, base) = (Uuid::now_v7(), self.shared.bounds().1);
        let header = Header { number, id, log: self.shared.log, base, previous: self.shared.previous() };
        frame::seal(&mut tail.frames, Salt::of(id), base);

        let home = segment::path(&self.shared.dir, number);
        let placed = self.place(&spare.file, &header, tail).and_then(|()| {
            files.rename(&spare.path, &home)?;
            files.sync_dir(&self.shared.dir)
        });
        if placed.is_err() {
            if files.remove(&spare.path).is_err() {
                self.spares.spoil();
            }
            // While the file remains, the next segment begins where it does, and it is void.
            if files.remove(&home).is_err() {
                self.shared.leave(home);
            }
        }
        self.spares.prepare();
        placed?;

        let segment = Segment { number, id, base, end: base + tail.records, bytes, latest: tail.latest };
        let (file, room, begun_at) = (spare.file, spare.bytes, files.now());
        self.current = Some(Current { file, room, segment, begun_at, is_marked: false });
        if let Some(former) = self.shared.begin(segment) {
            self.tidy(&former);
        }
        Ok(())
    }

    fn place(&self, file: &StorageFile, header: &Header, tail: &Tail) -> io::Result<()> {
        write(file, &header.encode(), 0)?;
        if tail.frames.is_empty() {
            return file.sync_data();
        }
        write(file, &tail.frames, HEADER_BYTES)?;
        self.sync(file)
    }

    fn sync(&self, file: &StorageFile) -> io::Result<()> {
        let begun_at = self.shared.files.now();
        file.sync_data()?;
        if let Some(on_sync) = &self.options.on_sync {
            on_sync(self.shared.files.since(begun_at));
        }
        Ok(())
    }

    /// There is no room even for a small segment: existing records can be read and delivered, which frees room again.
    fn do_without(&mut self, newest: Segment, mut tail: Tail, error: io::Error) -> io::Result<()> {
        let path = segment::path(&self.shared.dir, newest.number);
        let bytes = newest.bytes + tail.frames.len() as u64;
        self.shared.files.cut(&path, bytes)?;
        if self.begin(&mut tail).is_ok() {
            return Ok(());
        }
        if !tail.frames.is_empty() {
            // Written again in its place, every page is dirty again, and the sync is reliable.
            let file = self.shared.files.open_to_write(&path)?;
            frame::seal(&mut tail.frames, Salt::of(newest.id), newest.end);
            write(&file, &tail.frames, newest.bytes)?;
            file.sync_data()?;
            let (end, latest) = (newest.end + tail.records, newest.latest.max(tail.latest));
            self.shared.grow(Segment { end, bytes, latest, ..newest });
        }
        self.fail(error);
        Ok(())
    }

    /// Closes the current segment, so that it can be deleted.
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

    /// Writes a mark behind the last record while idle. The next write begins with the same bytes.
    pub fn mark(&mut self) {
        let Some(current) = &mut self.current else { return };
        if current.is_marked || current.segment.is_empty() || current.left() < MARK_BYTES as u64 {
            return;
        }
        let mut mark = Vec::with_capacity(MARK_BYTES);
        frame::lay_mark(&mut mark);
        frame::seal(&mut mark, Salt::of(current.segment.id), current.segment.end);
        match write(&current.file, &mark, current.segment.bytes) {
            Ok(()) => current.is_marked = true,
            Err(error) => {
                warn!(%error, "the disk failed under the disk log in {}: {error}", self.shared.dir.display());
                self.current = None;
            }
        }
    }

    /// At an orderly end the last mark is synced, so that the next opening knows all records as durable.
    pub fn close(&mut self) {
        self.mark();
        let Some(current) = self.current.take().filter(|current| current.is_marked) else { return };
        if let Err(error) = current.file.sync_data() {
            warn!(%error, "mark the end of the disk log in {}: {error}", self.shared.dir.display());
        }
    }

    /// Cuts an ended segment to the size of its records.
    fn tidy(&self, former: &Segment) {
        let path = segment::path(&self.shared.dir, former.number);
        if !former.is_empty() {
            self.trim(former);
        } else if let Err(error) = self.shared.files.remove(&path) {
            warn!(%error, "remove an empty segment of the disk log in {}: {error}", self.shared.dir.display());
            self.shared.leave(path);
        }
    }

    fn trim(&self, former: &Segment) {
        let path = segment::path(&self.shared.dir, former.number);
        if let Err(error) = self.shared.files.cut(&path, former.bytes)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "cut {} to its records: {error}", path.display());
        }
    }
}
