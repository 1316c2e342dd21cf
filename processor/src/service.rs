//! Folding and the query server together, for any event log: one thread folds, a server responds.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use event_log::{EventLog, EventLogError, LogQuery};
use primitives::time::Timestamp;
use prometheus::Registry;
use runtime::lifecycle::{Readiness, Stop};
use tokio::task::spawn_blocking;
use tracing::info;

use crate::config::ServiceConfig;
use crate::forward::Forwarding;
use crate::log_writer::LogWriter;
use crate::metrics::Metrics;
use crate::query::feed::Feed;
use crate::query::handout::Handout;
use crate::query::page::surroundings::{Backlog, Surroundings};
use crate::query::{QueryContext, serve};
use crate::run::limits::Limits;
use crate::run::recent_events::RecentEvents;
use crate::run::session::{Processor, Timings};
use crate::run::shared::Shared;
use crate::state::watchdog;
use crate::vault::Vault;
use crate::vault::index::VaultIndex;
use crate::vouch::Vouching;

/// What the query server uses beside the state.
pub struct QuerySources {
    pub commands: LogWriter,
    pub logs: Arc<dyn LogQuery>,
    /// How far events were forwarded.
    pub forwarded: LogWriter,
    /// What is forwarded: beside queries, so that neither waits for the other.
    pub to_forward: Arc<dyn LogQuery>,
    pub surroundings: Surroundings,
}

/// Runs until asked to stop; the first of the two to end stops the other. `listening` is called with the address of the
/// query server.
pub async fn run<L: EventLog>(
    config: ServiceConfig,
    registry: &Registry,
    readiness: &Readiness,
    stop: Stop,
    sources: QuerySources,
    open: impl FnMut() -> Result<L, EventLogError> + Send + 'static,
    listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let dir = config.dir.join("state");
    watchdog::end_with(&dir);
    let QuerySources { commands, logs, forwarded, to_forward, mut surroundings } = sources;
    let commands = Arc::new(commands);
    let vouching = Vouching::start(config.vouch, Arc::clone(&commands), registry, stop.clone())?;
    let vault = Vault::start(config.vault, registry);
    let index = |vault: &Arc<Vault>| VaultIndex::start(Arc::clone(&logs), vault, stop.clone());
    let index = vault.as_ref().map(index).transpose()?;
    let handout = Arc::new(Handout::new(vault.clone().zip(index), registry));
    let forwarding = Forwarding::start(config.forward, to_forward, forwarded, registry, stop.clone())?;
    let processor = Processor {
        vouching,
        vault,
        forwarding: forwarding.clone(),
        state_dir: Box::new(dir),
        timings: Timings::default(),
        limits: Limits { untrusted: config.untrusted_limit, ..Limits::default() },
        trusts: config.trusts,
        shared: Shared::default(),
        recent_events: RecentEvents::default(),
        metrics: Metrics::new(registry).with_apps(config.apps),
        stop: stop.clone(),
    };
    let limits = config.query_limits;
    let (shared, recent_events) = (processor.shared.clone(), processor.recent_events.clone());
    let tokens = config.query_tokens;
    let feed = Feed::new(Arc::clone(&logs), config.feed, limits.connections_max, registry, stop.clone());
    let context = QueryContext::new(shared, recent_events, tokens, limits.connections_max, commands, logs, feed);
    let lag = processor.metrics.lag.clone();
    surroundings.backlog = Some(Arc::new(move || {
        let (events, waiting) = lag.total(Timestamp::now());
        Backlog { events, waiting }
    }));
    surroundings.fault = Some(Arc::new(processor.metrics.standing_still()));
    let context = QueryContext { handout, ..context }.forwarding(forwarding.clone());
    let context = context.with_surroundings(surroundings);
    readiness.unless(processor.metrics.standing_still());
    let (address, serving) = serve(config.query_listen, limits, context, registry, stop.clone())?;
    info!(what = "queries", address = %address, "listening");
    listening(address)?;

    let caught_up = readiness.pending("the state has not caught up with facts yet");
    let mut folding = spawn_blocking(move || processor.run(open, caught_up));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        folded = &mut folding => {
            stop.request();
            serving.await.context("answer questions")?;
            folded.map_err(|panic| anyhow!("folding panicked: {panic}"))?
        }
        served = &mut serving => {
            stop.request();
            folding.await.map_err(|panic| anyhow!("folding panicked: {panic}"))??;
            served.context("answer questions")
        }
    };
    if let Some(forwarding) = forwarding {
        forwarding.finish();
    }
    ended
}
