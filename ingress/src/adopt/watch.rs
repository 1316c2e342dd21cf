//! Watches the directories of other ingresses, and adopts those whose owner stays away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk_log::InspectionError;
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

use super::vacancy::{Seen, Vacancy};
use super::{AdoptError, Adoption, Ending, Progress, inspect};
use crate::delivery::dispatcher::Dispatcher;
use crate::metrics::Metrics;

/// At least this many observations precede an adoption, at intervals of at most [`WAIT_MAX`].
const OBSERVATIONS_MIN: u32 = 8;
const WAIT_MAX: Duration = Duration::from_secs(10);
const WAIT_MIN: Duration = Duration::from_millis(50);

pub struct Watch {
    pub dirs: Vec<PathBuf>,
    pub after: Duration,
    pub kafka: KafkaSettings,
    /// Our own dispatcher: while it has no Kafka, adoption would only keep a directory from its owner.
    pub dispatcher: Arc<Dispatcher>,
    pub metrics: Metrics,
    pub who: String,
}

impl Watch {
    /// Adopts one directory at a time.
    pub fn run(self, stop: &Stop) {
        let mut vacancies = vec![Vacancy::default(); self.dirs.len()];
        let every = (self.after / OBSERVATIONS_MIN).clamp(WAIT_MIN, WAIT_MAX);
        while !stop.sleep(every) {
            for (dir, vacancy) in self.dirs.iter().zip(&mut vacancies) {
                let due = vacancy.observe(Instant::now(), seen(dir), self.after);
                if due && self.dispatcher.status().kafka_up && !stop.requested() {
                    // The next attempt is as far off as the first was.
                    *vacancy = Vacancy::default();
                    tracing::info_span!("adopt", dir = %dir.display()).in_scope(|| self.adopt(dir, stop));
                }
            }
        }
    }

    fn adopt(&self, dir: &Path, stop: &Stop) {
        let opened = inspect(dir).and_then(|inspection| Adoption::open(inspection, self.kafka.partitions, &self.who));
        let adoption = match opened {
            Ok(adoption) => adoption,
            // Its owner or another ingress was quicker.
            Err(AdoptError::Inspection(InspectionError::InUse(_) | InspectionError::Nothing(_))) => return,
            Err(error) => {
                return tracing::error!(%error, "the events in {} stay there, an operator is required: {error}", dir.display());
            }
        };
        let (dir, events) = (dir.display(), adoption.events());
        tracing::warn!(events, "{dir} has had no owner for a while: sending its {events} events to Kafka");
        let mut counted = 0;
        let report = |Progress { brought, .. }| {
            self.metrics.adopted(brought - counted);
            counted = brought;
        };
        match adoption.run(&self.kafka, stop, report) {
            Ok(Ending::AllDelivered) => tracing::info!(events, "all {events} events of {dir} are in Kafka"),
            Ok(ending) => {
                let (Progress { brought, left }, why) = (adoption.progress(), ending.why());
                tracing::warn!(
                    brought,
                    left,
                    "let {dir} go: {brought} events are in Kafka, {left} are left there: {why}"
                );
            }
            Err(error) => {
                let left = adoption.progress().left;
                tracing::error!(left, "let {dir} go with {left} events left there; tried again later: {error:#}");
            }
        }
    }
}

fn seen(dir: &Path) -> Seen {
    match inspect(dir) {
        Ok(inspection) if inspection.undelivered() > 0 => Seen::Left(inspection.openings()),
        // Damage is logged when the directory is to be adopted: until then its owner reports it.
        Err(AdoptError::Inspection(InspectionError::Damaged(_)) | AdoptError::Standalone(_)) => Seen::Left(0),
        Ok(_) | Err(AdoptError::Inspection(_) | AdoptError::Disk(..)) => Seen::Fine,
    }
}
