//! What is kept together: the records of one append, and the appends of one write.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::AppendError;
use super::frame;
use super::recovery::Tail;
use event_log::Record;
use primitives::time::Timestamp;

/// Where an append is answered: the first record's offset.
type Answer = oneshot::Sender<Result<u64, AppendError>>;

/// A group, and where its answer will be.
pub(super) type Awaited = (Group, oneshot::Receiver<Result<u64, AppendError>>);

/// Records that are kept together or not at all, as frames.
pub(super) struct Group {
    frames: Vec<u8>,
    records: u64,
    latest: Timestamp,
    answer: Answer,
    /// Its place in the queue, given back when it is answered.
    pub place: Option<OwnedSemaphorePermit>,
}

impl Group {
    /// Of these records, and where the answer will be.
    pub fn new(records: &[Record]) -> Result<Awaited, AppendError> {
        let mut frames = Vec::with_capacity(records.iter().map(Record::size).sum());
        for (index, record) in records.iter().enumerate() {
            frame::lay(record, index + 1 < records.len(), &mut frames)
                .map_err(|error| AppendError::Io(Arc::new(io::Error::new(io::ErrorKind::InvalidInput, error))))?;
        }
        let latest = records.iter().map(|record| record.at).max().unwrap_or_default();
        let (answer, answered) = oneshot::channel();
        Ok((Self { frames, records: records.len() as u64, latest, answer, place: None }, answered))
    }

    /// It is not kept.
    pub fn refuse(self, error: AppendError) {
        let _ = self.answer.send(Err(error));
    }

    /// What it takes in the queue and in a segment, but for the mark of its write.
    pub fn bytes(&self) -> u64 {
        self.frames.len() as u64
    }
}

/// Who waits for a group, and how many records of the write are before it.
struct Waiting {
    before: u64,
    answer: Answer,
    _place: Option<OwnedSemaphorePermit>,
}

/// Groups that go to the disk in one write.
#[derive(Default)]
pub(super) struct Batch {
    /// Their records.
    pub tail: Tail,
    /// It takes no more bytes.
    pub room: u64,
    /// So many bytes could be taken with all that follows from them, when it was begun.
    pub free: u64,
    waiting: Vec<Waiting>,
}

impl Batch {
    /// Adds a group behind the others.
    pub fn push(&mut self, group: Group) {
        let Group { frames, records, latest, answer, place } = group;
        if self.is_empty() {
            frame::lay_mark(&mut self.tail.frames);
        }
        self.waiting.push(Waiting { before: self.tail.records, answer, _place: place });
        self.tail.frames.extend_from_slice(&frames);
        self.tail.records += records;
        self.tail.latest = self.tail.latest.max(latest);
    }

    /// What it takes in a segment.
    pub fn bytes(&self) -> u64 {
        self.tail.frames.len() as u64
    }

    /// Whether nobody waits for it.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers all who wait, `first` being the offset of the first record.
    pub fn answer(self, kept: &Result<u64, AppendError>) {
        for waiting in self.waiting {
            let _ = waiting.answer.send(kept.clone().map(|first| first + waiting.before));
        }
    }
}
