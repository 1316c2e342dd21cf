//! The way in: a record is kept once [`DeliveryHandle::keep`] returns, and the result says where.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use disk_log::DiskLog;
use event_log::Record;

use crate::delivery::dispatcher::Dispatcher;
use crate::delivery::state::Reply;
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

/// The delivery of a process.
#[derive(Clone)]
pub enum Delivery {
    /// To a disk log alone: the standalone form.
    Disk(DiskLog),
    /// To Kafka within the deadline, else to the disk log until Kafka has them: the cluster form.
    Kafka(Arc<Dispatcher>),
}

impl Delivery {
    /// The handle for one worker thread, made on that thread.
    pub fn for_worker(&self) -> DeliveryHandle {
        match self {
            Self::Disk(log) => DeliveryHandle::Disk { log: log.clone(), failing: Cell::new(false) },
            Self::Kafka(dispatcher) => DeliveryHandle::Kafka(Worker::start(Arc::clone(dispatcher))),
        }
    }
}

/// The delivery as one worker thread uses it.
pub enum DeliveryHandle {
    /// To a disk log alone.
    Disk {
        /// The log.
        log: DiskLog,
        /// The last event was not written, which the log has said.
        failing: Cell<bool>,
    },
    /// To Kafka or to the disk log.
    Kafka(Rc<Worker>),
}

impl DeliveryHandle {
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
                Reply::Kafka => Ok(Kept::Kafka),
                Reply::Disk => Ok(Kept::Disk),
                Reply::StorageUnavailable => Err(StorageUnavailable),
            },
        }
    }
}
