//! The events that came in last, for the first page of all viewers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::list::{Selection, rows};
use super::row::Row;
use crate::query::access::Caller;
use crate::query::context::QueryContext;
use crate::query::problem::Problem;

/// The logs are read once in this time, however many look.
const KEPT: Duration = Duration::from_secs(1);
pub const SHOWN: usize = 30;

/// Those that a token sees that is not limited to apps. None if the logs could not be read: viewers do not wait for that
/// one after the other.
#[derive(Clone, Default)]
pub struct Latest(Arc<Mutex<Option<Reading>>>);

type Reading = (Instant, Option<Arc<Vec<Row>>>);

impl Latest {
    pub async fn rows(&self, context: &QueryContext, caller: &Caller) -> Result<Arc<Vec<Row>>, Problem> {
        if caller.is_limited() {
            let (rows, _) = rows(context, caller.clone(), Selection::default(), None, SHOWN).await?;
            return Ok(Arc::new(rows));
        }
        let mut known = self.0.lock().await;
        if let Some((read_at, rows)) = &*known
            && read_at.elapsed() < KEPT
        {
            return rows.clone().ok_or(Problem::NotReadable);
        }
        let read = rows(context, caller.clone(), Selection::default(), None, SHOWN).await;
        let read = read.map(|(rows, _)| Arc::new(rows));
        *known = Some((Instant::now(), read.as_ref().ok().cloned()));
        read
    }
}
