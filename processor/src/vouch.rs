//! Vouching: asks Bitrix24's authorisation server whether the access token of an event belongs to its portal and to
//! our app. If it does, the event's principal is attested, by a command in `raw`.
//!
//! The owner of a partition offers events of principals without an attestation. Nothing waits for the answer. A
//! processor has a part of the budget for each partition that it owns, so the group keeps the budget together.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bitrix24::form::Form;
use bitrix24::{AppName, Installation};
use domain::{Attest, Attestation, Event};
use event_log::RawEvent;
use primitives::secret::{Fingerprint, Secret};
use primitives::time::Timestamp;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use runtime::lifecycle::Stop;
use runtime::telemetry::registered;
use tracing::{info, warn};

use crate::log_writer::LogWriter;
use queue::{Offered, Queue, Request};
pub use server::Servers;
use server::{Answer, ask};

mod queue;
mod server;

/// One slow server must not hold all of them.
const WORKERS: usize = 4;
/// An access token lives no longer.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);
const TOKEN_BYTES_MAX: usize = 512;
/// How often workers look whether to stop.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// The settings; without a client id in any app nothing is asked.
#[derive(Clone, Debug)]
pub struct VouchConfig {
    pub client_ids: BTreeMap<AppName, String>,
    pub servers: Servers,
    /// Calls a second of all processors of the group together.
    pub budget: f64,
}

pub struct Vouching {
    config: VouchConfig,
    commands: Arc<LogWriter>,
    queue: Mutex<Queue>,
    changed: Condvar,
    outcomes: IntCounterVec,
    waiting: IntGauge,
    stop: Stop,
}

impl Vouching {
    /// Starts the workers, if an app has a client id.
    pub fn start(
        config: VouchConfig,
        commands: Arc<LogWriter>,
        registry: &Registry,
        stop: Stop,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if config.client_ids.is_empty() {
            return Ok(None);
        }
        let outcomes = Opts::new("vouch_total", "Queries to the authorisation server, by outcome.");
        let outcomes = registered(registry, IntCounterVec::new(outcomes, &["outcome"]));
        for answer in Answer::ALL {
            outcomes.with_label_values(&[answer.label()]);
        }
        outcomes.with_label_values(&[Offered::Full.label()]);
        let about = "Events whose access token waits to be shown to the authorisation server.";
        let waiting = registered(registry, IntGauge::new("vouch_queue_events", about));
        let vouching = Arc::new(Self {
            queue: Mutex::new(Queue::new(Instant::now())),
            config,
            commands,
            changed: Condvar::new(),
            outcomes,
            waiting,
            stop,
        });
        for number in 0..WORKERS {
            let vouching = Arc::clone(&vouching);
            thread::Builder::new().name(format!("vouch-{number}")).spawn(move || vouching.work())?;
        }
        Ok(Some(vouching))
    }

    /// Sets the part of the budget: this processor owns so many of all partitions.
    pub(crate) fn own(&self, owned: usize, partitions: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a topic has few partitions")]
        let part = owned as f64 / partitions.max(1) as f64;
        self.queue().set_rate(self.config.budget * part, Instant::now());
        self.changed.notify_all();
    }

    /// Whether events of this app can be vouched for.
    pub(crate) fn asks_about(&self, app: &AppName) -> bool {
        self.config.client_ids.contains_key(app)
    }

    /// Queues an event of a principal without an attestation, if it has an access token that lives.
    pub(crate) fn offer(&self, raw: &RawEvent, event: &Event) {
        let form = Form::parse(&raw.body);
        let token = form.text("auth[access_token]").filter(|token| {
            (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let Some(token) = token else { return };
        let life = form.text("auth[expires_in]").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let age = Timestamp::now().since(event.stamp.received_at);
        let Some(left) = life.unwrap_or(TOKEN_LIFE).min(TOKEN_LIFE).checked_sub(age) else { return };
        let now = Instant::now();
        let request = Request {
            installation: event.installation.clone(),
            principal: event.principal,
            token: Secret::new(token),
            server: self.config.servers.named(form.text("auth[server_endpoint]")),
            until: now + left,
            next: now,
            tries: 0,
        };
        let offered = self.queue().offer(request, now);
        if offered == Offered::Full {
            self.outcomes.with_label_values(&[offered.label()]).inc();
        }
        self.changed.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while !self.stop.requested() {
            let Some(request) = self.take() else { continue };
            let Some(client_id) = self.config.client_ids.get(&request.installation.app) else { continue };
            let server = self.config.servers.url(request.server);
            let answer = ask(server, &request.token, client_id, request.installation.member_id.as_str());
            self.outcomes.with_label_values(&[answer.label()]).inc();
            let (installation, principal) = (request.installation.clone(), request.principal);
            if answer == Answer::Vouched && !self.attest(installation.clone(), principal) {
                self.queue().again(request, Instant::now());
                continue;
            }
            info!(%installation, outcome = answer.label(), "asked {server} about an access token: {}", answer.label());
            let mut queue = self.queue();
            if answer.may_change() {
                queue.again(request, Instant::now());
            } else {
                queue.answered(&request);
            }
        }
    }

    /// The next request, once it is time.
    fn take(&self) -> Option<Request> {
        let mut queue = self.queue();
        let now = Instant::now();
        let request = queue.take(now);
        self.waiting.set(i64::try_from(queue.waiting()).unwrap_or(i64::MAX));
        if request.is_none() {
            let wait = queue.next(now).map_or(CHECK_EVERY, |wait| wait.min(CHECK_EVERY));
            drop(self.changed.wait_timeout(queue, wait.max(Duration::from_millis(1))));
        }
        request
    }

    fn attest(&self, installation: Installation, principal: Fingerprint) -> bool {
        let attest =
            Attest { principal, attestation: Attestation::Vouched, domain: None, version: None, installed_at: None };
        let appended = self.commands.append_events(vec![attest.into_raw(installation, Timestamp::now())]);
        if let Err(error) = &appended {
            warn!("what the authorisation server said cannot be kept, and is asked again: {error:#}");
        }
        appended.is_ok()
    }
}
