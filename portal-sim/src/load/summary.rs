//! The results of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Latencies;

#[derive(Clone, Debug, Default)]
pub struct LoadSummary {
    /// Events that were sent, or would have been with a reachable server.
    pub sent: u64,
    pub kept_kafka: u64,
    pub kept_disk: u64,
    /// Every other answer, by status; a 200 without a promise is among them.
    pub other: BTreeMap<u16, u64>,
    /// No answer at all.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// From the first event to the last answer.
    pub elapsed: Duration,
    /// Of promises.
    pub latencies: Latencies,
}

impl LoadSummary {
    /// Events with a promise.
    pub fn acked(&self) -> u64 {
        self.kept_kafka + self.kept_disk
    }

    /// Promises a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn acked_per_s(&self) -> f64 {
        self.acked() as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Whether there was an event, and every one got a promise.
    pub fn all_good(&self) -> bool {
        self.sent > 0 && self.sent == self.acked()
    }

    pub fn to_json(&self) -> Value {
        let other: BTreeMap<String, u64> = self.other.iter().map(|(code, count)| (code.to_string(), *count)).collect();
        json!({
            "sent": self.sent,
            "kept": {"kafka": self.kept_kafka, "disk": self.kept_disk},
            "other": other,
            "failed": self.failed,
            "first_failure": self.first_failure,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "acked_per_s": self.acked_per_s(),
            "latency_ms": {
                "p50": ms(self.latencies.percentile(50)),
                "p99": ms(self.latencies.percentile(99)),
                "max": ms(self.latencies.max()),
            },
        })
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_good_only_if_every_event_was_promised() {
        let mut summary = LoadSummary { sent: 3, kept_kafka: 2, kept_disk: 1, ..LoadSummary::default() };
        assert!(summary.all_good());
        summary.sent = 4;
        summary.other.insert(503, 1);
        assert!(!summary.all_good());
        assert!(!LoadSummary::default().all_good(), "nothing was sent");
    }
}
