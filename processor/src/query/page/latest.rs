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

/// Those that a token sees that is not limited to apps.
#[derive(Clone, Default)]
pub struct Latest(Arc<Mutex<Option<(Instant, Arc<Vec<Row>>)>>>);

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
            return Ok(Arc::clone(rows));
        }
        let (rows, _) = rows(context, caller.clone(), Selection::default(), None, SHOWN).await?;
        let rows = Arc::new(rows);
        *known = Some((Instant::now(), Arc::clone(&rows)));
        Ok(rows)
    }
}
