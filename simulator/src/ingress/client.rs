//! A simulated librdkafka, to which the dispatcher sends records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_log::Record;
use event_log::contract::header;
use ingress::delivery::dispatcher::Client;
use kafka_log::{Fault, SendError};

use super::disk::pause;
use super::mutation::Mutation;
use super::stage::Handle;

pub struct SimClient {
    stage: Handle,
    line: u64,
    alive: Arc<AtomicBool>,
}

impl SimClient {
    pub fn connect(stage: &Handle, seat: usize, life: u32, is_successor: bool, alive: &Arc<AtomicBool>) -> Self {
        let line = stage.lock().broker.open(seat, life, is_successor);
        Self { stage: stage.clone(), line, alive: alive.clone() }
    }
}

impl Client for SimClient {
    fn send(&self, partition: u32, record: &Record, ticket: u64) -> Result<(), SendError> {
        pause("send");
        let mut stage = self.stage.lock();
        if stage.broker.is_done_for(self.line) {
            return Err(SendError::Fatal);
        }
        let mut record = record.clone();
        if stage.has(Mutation::ForgetsMark) {
            record.headers.retain(|(name, _)| name != header::RESENT);
        }
        stage.send(self.line, partition, record, ticket)
    }

    fn fatal(&self) -> Option<(Fault, String)> {
        let is_done_for = self.stage.lock().broker.is_done_for(self.line);
        is_done_for.then(|| (Fault::Other, "it is done for".to_owned()))
    }

    fn give_up(&self, in_flight: bool) {
        self.stage.lock().give_up(self.line, in_flight);
    }
}

impl Drop for SimClient {
    /// A killed producer reports nothing.
    fn drop(&mut self) {
        if self.alive.load(Ordering::SeqCst) {
            self.stage.lock().let_go(self.line);
        }
    }
}
