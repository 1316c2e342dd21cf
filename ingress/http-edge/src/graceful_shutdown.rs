//! Open connections, and a graceful shutdown that refuses no client.
//!
//! At shutdown answers close their connections while new ones are still accepted, then accepting pauses, requests in
//! flight are answered, and only then the server stops. Without the pause, connections that were
//! accepted and not begun would be dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use tokio::time::sleep;

use primitives::Shutdown;

/// At shutdown: the time beyond their idle timeout that idle connections have for one more request.
const RETIRE_SLACK: Duration = Duration::from_millis(500);
/// At shutdown: how long there must be no connection. An accepted connection is counted only after a moment on a busy
/// machine.
const QUIET: Duration = Duration::from_millis(200);
/// At shutdown: how long the last clients are awaited, since the server then drops connections without a request.
/// Enough for one retransmission; a client that connects without need must not delay the others.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(1);
/// The interval of checks at shutdown.
const CHECK_WAIT: Duration = Duration::from_millis(10);

pub(crate) struct GracefulShutdown {
    /// Once it is requested, every answer ends its connection.
    shutdown: Arc<dyn Shutdown>,
    /// How long a connection may idle before its last request; none where that is not awaited.
    retire_wait: Option<Duration>,
    /// Connections from before the stop.
    kept_alive: AtomicUsize,
    open: AtomicUsize,
}

impl GracefulShutdown {
    pub(crate) fn new(shutdown: Arc<dyn Shutdown>, retire_wait: Option<Duration>) -> Self {
        Self { shutdown, retire_wait, kept_alive: AtomicUsize::new(0), open: AtomicUsize::new(0) }
    }

    /// Whether an answer ends its connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.shutdown.requested()
    }

    /// Shuts down on request; without refusing a client where idle connections are awaited.
    pub(crate) async fn end(&self, handle: &ServerHandle) {
        if let Some(retire_wait) = self.retire_wait {
            let retired_by = Instant::now() + retire_wait + RETIRE_SLACK;
            while self.kept_alive.load(Ordering::Acquire) > 0 && Instant::now() < retired_by {
                sleep(CHECK_WAIT).await;
            }
            handle.pause().await;
            self.drain().await;
        }
        handle.stop(true).await;
    }

    /// Waits until no connection is open, within the limits.
    async fn drain(&self) {
        let (started, mut quiet_since) = (Instant::now(), Instant::now());
        while quiet_since.elapsed() < QUIET && started.elapsed() < DRAIN_WAIT_MAX {
            sleep(CHECK_WAIT).await;
            if self.open.load(Ordering::Acquire) > 0 {
                quiet_since = Instant::now();
            }
        }
    }
}

pub(crate) struct InFlight {
    graceful_shutdown: Arc<GracefulShutdown>,
    early: bool,
}

impl InFlight {
    pub(crate) fn new(graceful_shutdown: &Arc<GracefulShutdown>) -> Self {
        let early = !graceful_shutdown.is_closing();
        graceful_shutdown.kept_alive.fetch_add(usize::from(early), Ordering::AcqRel);
        graceful_shutdown.open.fetch_add(1, Ordering::AcqRel);
        Self { graceful_shutdown: Arc::clone(graceful_shutdown), early }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.graceful_shutdown.kept_alive.fetch_sub(usize::from(self.early), Ordering::AcqRel);
        self.graceful_shutdown.open.fetch_sub(1, Ordering::AcqRel);
    }
}
