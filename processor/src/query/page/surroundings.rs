//! What the page shows of the process that is neither in the logs nor in the state.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use primitives::time::Timestamp;

type Ask<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Each is asked when a page is shown.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Known once the process listens.
    pub hints: Arc<OnceLock<Hints>>,
    pub backlog: Option<Ask<Backlog>>,
    /// Why the processor stands still.
    pub fault: Option<Ask<Option<&'static str>>>,
    /// Only where ingress is in the same process.
    pub ingress: Option<Ask<Ingress>>,
}

/// What to do while nothing has come in.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Where webhooks go.
    pub urls: Vec<String>,
    /// None if no command of ours reaches the port.
    pub command: Option<String>,
}

/// Events of `raw` that this processor has yet to fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub events: u64,
    pub waiting: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Ingress {
    pub unknown_apps: Vec<UnknownApp>,
    /// The first ones of the table of apps. Empty if any name is accepted.
    pub apps: Vec<String>,
    pub log_bytes: u64,
    /// None if that cannot be found out.
    pub log_room: Option<u64>,
    pub log_fault: Option<String>,
}

/// Webhooks that were refused for their URL.
#[derive(Clone, Debug)]
pub struct UnknownApp {
    pub what: String,
    pub count: u64,
    pub last: Timestamp,
}
