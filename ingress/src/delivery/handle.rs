//! Keeps a record: resolves once it cannot be lost any more, and says where it is.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use common::log::Record;
use common::log::disk::DiskLog;

use crate::delivery::dispatcher::Dispatcher;
use crate::delivery::state::Answer;
use crate::delivery::worker::Worker;

/// Where a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Acknowledged by Kafka with `acks=all`.
    Kafka,
    /// Durable in our disk log.
    Disk,
}

impl Kept {
    /// As it stands in answers and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Disk => "disk",
        }
    }
}

/// Kafka did not acknowledge the record, and the disk log had no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageUnavailable;

/// Where records are kept, for the whole process.
#[derive(Clone)]
pub enum Keeper {
    /// In a disk log alone, which somebody reads: the standalone form.
    Disk(DiskLog),
    /// In Kafka within the deadline, else in the disk log until Kafka has them: the cluster form.
    Kafka(Arc<Dispatcher>),
}

impl Keeper {
    /// The same for one worker thread, to be called there.
    pub fn for_worker(&self) -> Hand {
        match self {
            Self::Disk(log) => Hand::Disk { log: log.clone(), failing: Cell::new(false) },
            Self::Kafka(dispatcher) => Hand::Kafka(Worker::start(Arc::clone(dispatcher))),
        }
    }
}

/// Where one worker thread keeps records.
pub enum Hand {
    /// In a disk log alone.
    Disk {
        /// The log.
        log: DiskLog,
        /// It did not take the last event, which has been said.
        failing: Cell<bool>,
    },
    /// In Kafka or in the disk log.
    Kafka(Rc<Worker>),
}

impl Hand {
    /// Resolves once the record cannot be lost any more.
    pub async fn keep(&self, record: Record) -> Result<Kept, StorageUnavailable> {
        match self {
            Self::Disk { log, failing } => match log.append(vec![record]).await {
                Ok(_) => {
                    failing.set(false);
                    Ok(Kept::Disk)
                }
                Err(error) => {
                    if !failing.replace(true) {
                        tracing::error!(%error, "events cannot be kept and are answered 503: {error}");
                    }
                    Err(StorageUnavailable)
                }
            },
            Self::Kafka(worker) => match worker.keep(record).await {
                Answer::Kafka => Ok(Kept::Kafka),
                Answer::Disk => Ok(Kept::Disk),
                Answer::StorageUnavailable => Err(StorageUnavailable),
            },
        }
    }
}
