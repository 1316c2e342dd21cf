//! Groups and batches: the records of one append, and the appends of one write.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::frame;
use super::options::AppendError;
use super::recovery::Tail;
use event_log::Record;
use primitives::time::Timestamp;

type Answer = oneshot::Sender<Result<u64, AppendError>>;

pub(super) type Awaited = (Group, oneshot::Receiver<Result<u64, AppendError>>);

/// Records that are kept together or not at all, as frames.
pub(super) struct Group {
    frames: Vec<u8>,
    records: u64,
    latest: Timestamp,
    answer: Answer,
    /// Room in the queue, released with the answer.
    pub place: Option<OwnedSemaphorePermit>,
}

impl Group {
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

    pub fn refuse(self, error: AppendError) {
        let _ = self.answer.send(Err(error));
    }

    /// Bytes in the queue and in a segment, without the mark of its write.
    pub fn bytes(&self) -> u64 {
        self.frames.len() as u64
    }
}

/// The caller of a group, and the number of records before it in the write.
struct Waiting {
    before: u64,
    answer: Answer,
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
pub(super) struct Batch {
    pub tail: Tail,
    /// The most bytes that it takes.
    pub room: u64,
    /// Free bytes, less those reserved for derived records, when the batch was begun.
    pub free: u64,
    waiting: Vec<Waiting>,
}

impl Batch {
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

    /// Bytes in a segment.
    pub fn bytes(&self) -> u64 {
        self.tail.frames.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// `first` is the offset of the first record.
    pub fn answer(self, kept: &Result<u64, AppendError>) {
        for waiting in self.waiting {
            let _ = waiting.answer.send(kept.clone().map(|first| first + waiting.before));
        }
    }
}
