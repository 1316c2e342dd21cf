//! What all queries share.

use std::sync::Arc;

use event_log::LogQuery;
use prometheus::Registry;
use tokio::sync::Semaphore;

use super::feed::Feed;
use super::handout::Handout;
use super::page::latest::Latest;
use super::page::surroundings::Surroundings;
use super::problem::Problem;
use super::tokens::QueryToken;
use crate::forward::Forwarding;
use crate::log_writer::LogWriter;
use crate::run::recent_events::RecentEvents;
use crate::run::shared::Shared;
use crate::state::Store;

/// Concurrent scans of many installations; further ones queue.
const SCANS_MAX: usize = 4;
/// Concurrent reads of the logs; further ones queue.
const LOG_READS_MAX: usize = 2;

#[derive(Clone)]
pub struct QueryContext {
    pub shared: Shared,
    pub recent_events: RecentEvents,
    /// Empty on loopback without tokens.
    pub tokens: Arc<Vec<QueryToken>>,
    /// Permits for queries that wait for an event or a decision.
    pub waits: Arc<Semaphore>,
    /// Where commands go, and the permit to write there.
    pub commands: Arc<LogWriter>,
    pub writes: Arc<Semaphore>,
    /// The logs, for queries about what is not in the state.
    pub logs: Arc<dyn LogQuery>,
    pub feed: Feed,
    pub handout: Arc<Handout>,
    /// None if no app has a target.
    pub forwarding: Option<Arc<Forwarding>>,
    /// The last events, for all who look at the page.
    pub latest: Latest,
    pub surroundings: Surroundings,
    /// Permits for queries that scan many installations.
    pub scans: Arc<Semaphore>,
    /// Permits for queries that read the logs, which may take long to answer.
    pub log_reads: Arc<Semaphore>,
}

impl QueryContext {
    /// Without a vault. At most half of `connections_max` may wait, so the others are answered.
    pub fn new(
        shared: Shared,
        recent_events: RecentEvents,
        tokens: Vec<QueryToken>,
        connections_max: usize,
        commands: Arc<LogWriter>,
        logs: Arc<dyn LogQuery>,
        feed: Feed,
    ) -> Self {
        Self {
            commands,
            logs,
            feed,
            handout: Arc::new(Handout::new(None, &Registry::new())),
            forwarding: None,
            latest: Latest::default(),
            surroundings: Surroundings::default(),
            writes: Arc::new(Semaphore::new(1)),
            shared,
            recent_events,
            tokens: Arc::new(tokens),
            waits: Arc::new(Semaphore::new((connections_max / 2).clamp(1, Semaphore::MAX_PERMITS))),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            log_reads: Arc::new(Semaphore::new(LOG_READS_MAX)),
        }
    }

    #[must_use]
    pub fn forwarding(self, forwarding: Option<Arc<Forwarding>>) -> Self {
        Self { forwarding, ..self }
    }

    #[must_use]
    pub fn with_surroundings(self, surroundings: Surroundings) -> Self {
        Self { surroundings, ..self }
    }

    pub fn store(&self) -> Result<Arc<Store>, Problem> {
        self.shared.get().ok_or(Problem::NotOpen)
    }
}
