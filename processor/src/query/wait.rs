//! `?after={event id}&wait=2s`: responds once that event has been folded.

use std::time::Duration;

use event_log::EventId;
use tokio::sync::SemaphorePermit;

use super::context::QueryContext;
use super::parameters::{AFTER, Parameters};
use super::problem::Problem;

#[derive(Clone, Copy, Debug, Default)]
pub struct After {
    after: Option<EventId>,
    wait: Duration,
}

impl After {
    pub fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let after = parameters.parsed(AFTER, "an event's id", |text| EventId::parse_str(text).ok())?;
        Ok(Self { after, wait: parameters.wait()?.unwrap_or_default() })
    }

    /// Fails if the event is not folded in time.
    pub async fn wait(self, context: &QueryContext) -> Result<(), Problem> {
        let Some(id) = self.after else {
            return Ok(());
        };
        if context.recent_events.has(id) {
            return Ok(());
        }
        if self.wait.is_zero() {
            return Err(Problem::NotYet);
        }
        let _place = place(context)?;
        if context.recent_events.wait(id, self.wait).await { Ok(()) } else { Err(Problem::NotYet) }
    }
}

pub fn place(context: &QueryContext) -> Result<SemaphorePermit<'_>, Problem> {
    context.waits.try_acquire().map_err(|_| Problem::TooManyWait)
}
