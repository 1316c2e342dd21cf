//! The connections of a port, as metrics.

use http_edge::{Ended, Observer};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use runtime::telemetry::registered;

pub struct Connections {
    open: IntGauge,
    ended: [IntCounter; Ended::ALL.len()],
}

impl Connections {
    /// Registers them under the port's name.
    pub fn new(registry: &Registry, port: &str) -> Self {
        let about = format!("Connections of the {port} port that are open.");
        let open = registered(registry, IntGauge::new(format!("{port}_connections"), about));
        let about = format!("Connections of the {port} port that we ended, or that failed, by why.");
        let about = Opts::new(format!("{port}_connections_ended_total"), about);
        let ended = registered(registry, IntCounterVec::new(about, &["reason"]));
        Self { open, ended: Ended::ALL.map(|reason| ended.with_label_values(&[reason.label()])) }
    }
}

impl Observer for Connections {
    fn opened(&self) {
        self.open.inc();
    }

    fn closed(&self, why: Option<Ended>) {
        self.open.dec();
        if let Some(why) = why {
            self.ended[why as usize].inc();
        }
    }
}
