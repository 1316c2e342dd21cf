//! The entry to the delivery: a record is kept once [`DeliveryHandle::keep`] returns.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use disk_log::DiskLog;
use event_log::Record;

use crate::delivery::dispatcher::WorkerSide;
use crate::delivery::state::Reply;
use crate::delivery::worker::Worker;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Acknowledged by Kafka with `acks=all`.
    Kafka,
    /// Durable in our disk log.
    Disk,
}

impl Kept {
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

#[derive(Clone)]
pub enum Delivery {
    /// To a disk log alone: the standalone form.
    Disk(DiskLog),
    /// To Kafka within the deadline, else to the disk log until Kafka has them: the cluster form.
    Kafka(Arc<dyn WorkerSide>),
}

impl Delivery {
    pub fn for_worker(&self) -> DeliveryHandle {
        match self {
            Self::Disk(log) => DeliveryHandle::Disk { log: log.clone(), failing: Cell::new(false) },
            Self::Kafka(dispatcher) => DeliveryHandle::Kafka(Worker::start(Arc::clone(dispatcher))),
        }
    }
}

pub enum DeliveryHandle {
    Disk {
        log: DiskLog,
        /// The last write failed, which was logged.
        failing: Cell<bool>,
    },
    Kafka(Rc<Worker>),
}

impl DeliveryHandle {
    /// Resolves once the record is durable.
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
