//! One life of a processor: its identity, and its way to pause.

use std::sync::Arc;

use runtime::lifecycle::Stop;

use crate::baton::Port;
use crate::world::{Handle, Life};

/// The text of all injected errors: a processor may end with it.
pub const INJECTED: &str = "as the schedule wants it";

/// The identity of a life.
#[derive(Clone)]
pub struct Being {
    pub life: Life,
    /// The static member id, and the transactional id.
    pub instance: String,
    pub world: Handle,
    pub port: Arc<Port>,
    pub stop: Stop,
}

impl Being {
    pub fn pause(&self, at: &'static str) {
        self.port.pause(at);
    }
}
