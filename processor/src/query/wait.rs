//! `?after={event id}&wait=2s`: responds once that event has been folded.

use std::time::Duration;

use event_log::EventId;
use serde::{Deserialize, Deserializer, de};
use tokio::sync::SemaphorePermit;

use super::QueryContext;
use super::problem::Problem;

pub const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct After {
    after: Option<EventId>,
    #[serde(default, deserialize_with = "wait")]
    wait: Option<Duration>,
}

impl After {
    /// Fails if the event is not folded in time.
    pub async fn wait(self, context: &QueryContext) -> Result<(), Problem> {
        let Some(id) = self.after else {
            return Ok(());
        };
        let wait = self.wait.unwrap_or_default().min(WAIT_MAX);
        if context.recent_events.has(id) {
            return Ok(());
        }
        if wait.is_zero() {
            return Err(Problem::NotYet);
        }
        let _place = place(context)?;
        if context.recent_events.wait(id, wait).await { Ok(()) } else { Err(Problem::NotYet) }
    }
}

pub fn place(context: &QueryContext) -> Result<SemaphorePermit<'_>, Problem> {
    context.waits.try_acquire().map_err(|_| Problem::TooManyWait)
}

pub fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| primitives::time::duration(&text).ok_or_else(|| de::Error::custom("wait is a duration such as 2s")))
        .transpose()
}
