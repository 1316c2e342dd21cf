//! When something of a principal came in, by the clock of ingress.

use primitives::time::Timestamp;

use crate::Principal;

impl Principal {
    /// The newest fact in the order of the log.
    pub fn last_fact_at(&self) -> Option<Timestamp> {
        self.claims.last_fact.as_ref().map(|last| last.stamp.received_at)
    }
}
