//! The door of the server: who is inside, and an end that refuses nobody.
//!
//! At the end answers close their connections while new ones are still taken, then accepting pauses, what
//! is under way is answered, and only then the server stops. Without the pause, connections that were
//! accepted and not begun would be dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use tokio::time::sleep;

use primitives::Shutdown;

/// At the end: how much longer than they may idle connections are given to be used once more, or to time out.
const RETIRE_SLACK: Duration = Duration::from_millis(500);
/// At the end: nobody has been inside for so long. A connection that was accepted is known to us after a moment
/// only, however busy the machine is.
const QUIET: Duration = Duration::from_millis(200);
/// At the end: how long those who came last are awaited, for the server drops connections whose request has not begun
/// when it is told to stop. A lost packet comes again within this; whoever connects without need is not waited for
/// longer, since everybody else waits as well.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(1);
/// How exactly the end looks at connections.
const LOOK: Duration = Duration::from_millis(10);

/// Who is inside.
pub(crate) struct Door {
    /// Once it is requested, every answer ends its connection.
    shutdown: Arc<dyn Shutdown>,
    /// How long a connection may idle before it is used for the last time; none where that is not waited for.
    retire_wait: Option<Duration>,
    /// Connections from before the stop.
    kept_alive: AtomicUsize,
    /// All connections.
    open: AtomicUsize,
}

impl Door {
    /// A door that nobody has come through.
    pub(crate) fn new(shutdown: Arc<dyn Shutdown>, retire_wait: Option<Duration>) -> Self {
        Self { shutdown, retire_wait, kept_alive: AtomicUsize::new(0), open: AtomicUsize::new(0) }
    }

    /// Whether an answer ends its connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.shutdown.requested()
    }

    /// Ends, once that was asked for; without refusing a client where idle connections are waited for.
    pub(crate) async fn end(&self, handle: &ServerHandle) {
        if let Some(retire_wait) = self.retire_wait {
            let retired_by = Instant::now() + retire_wait + RETIRE_SLACK;
            while self.kept_alive.load(Ordering::Acquire) > 0 && Instant::now() < retired_by {
                sleep(LOOK).await;
            }
            handle.pause().await;
            self.drain().await;
        }
        handle.stop(true).await;
    }

    /// Waits until nobody is inside, as far as they can be waited for.
    async fn drain(&self) {
        let (started, mut quiet_since) = (Instant::now(), Instant::now());
        while quiet_since.elapsed() < QUIET && started.elapsed() < DRAIN_WAIT_MAX {
            sleep(LOOK).await;
            if self.open.load(Ordering::Acquire) > 0 {
                quiet_since = Instant::now();
            }
        }
    }
}

/// A connection, for as long as it is open.
pub(crate) struct Guest {
    door: Arc<Door>,
    early: bool,
}

impl Guest {
    /// Made when a connection comes in, dropped with it.
    pub(crate) fn new(door: &Arc<Door>) -> Self {
        let early = !door.is_closing();
        door.kept_alive.fetch_add(usize::from(early), Ordering::AcqRel);
        door.open.fetch_add(1, Ordering::AcqRel);
        Self { door: Arc::clone(door), early }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.kept_alive.fetch_sub(usize::from(self.early), Ordering::AcqRel);
        self.door.open.fetch_sub(1, Ordering::AcqRel);
    }
}
