//! Takes webhooks and keeps them.
//!
//! After a `200` the sender can forget the event: it is acknowledged by Kafka or synced to this disk. This crate does not
//! interpret events; see `domain`.
//!
//! The path of a webhook, top to bottom: `http_edge` (sockets, limits, graceful shutdown) → `server` → [`webhook`] (body → raw
//! event → kept → answer) → [`delivery`] (in Kafka within the deadline, else on disk).

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use disk_log::{Delivered, Options};
use http_edge::fit_open_files;
use prometheus::Registry;
use runtime::lifecycle::{Readiness, Stop};
use runtime::telemetry;
use tokio::sync::oneshot;

pub mod admission;
pub mod adopt;
pub mod config;
pub mod delivery;
pub mod metrics;
pub mod notify;
mod problem;
mod server;
pub mod supervisor;
mod webhook;

pub use config::{Config, Webhooks};
pub use delivery::handle::Delivery;
pub use metrics::Metrics;
pub use server::{serve, take_webhooks};
pub use webhook::WebhookHandler;

use delivery::disk;
use delivery::dispatcher::Dispatcher;
use delivery::producer_supervisor::ProducerSupervisor;

pub async fn run(mut config: Config, stop: Stop) -> anyhow::Result<()> {
    let (registry, readiness) = (telemetry::registry(), Readiness::default());
    let asked = stop.clone();
    let stop = after_notice(stop, config.webhooks.stop_notice, readiness.clone());
    let mut admin_limits = admin::LIMITS;
    fit_open_files(&mut [&mut config.webhooks.limits, &mut admin_limits]);
    let metrics = Metrics::new(&registry);
    readiness.unless(metrics.refusing());
    let dispatcher = open(&config, &metrics, &registry, &asked)?;
    let mut threads = DeliveryThreads::start(&dispatcher, &config, &readiness)?;
    readiness.unless({
        let dispatcher = Arc::downgrade(&dispatcher);
        let unavailable =
            |dispatcher: Arc<Dispatcher>| dispatcher.log().fault().is_some() && !dispatcher.status().kafka_up;
        move || dispatcher.upgrade().is_some_and(unavailable).then_some("neither Kafka nor the disk log takes events")
    });

    let delivery = Delivery::Kafka(dispatcher.clone());
    let (_, serving) = take_webhooks(&config.webhooks, &registry, metrics.clone(), delivery, stop.clone())?;

    let alive = threads.alive();
    let admin = admin::serve(config.admin_listen, admin_limits, registry, readiness, alive, stop.clone());
    let (address, admin) = admin.context("answer the admin")?;
    tracing::info!(what = "admin", %address, "listening");

    notify::ready();

    let watch = watch(&dispatcher, &config, &metrics, &asked)?;
    let busy = stop.busy();
    let working = async {
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            served = &mut serving => served.context("serve webhooks"),
            over = &mut threads.over => {
                stop.request();
                let served = serving.await.context("serve webhooks");
                over.unwrap_or_else(|_| Err(anyhow::anyhow!("the producer supervisor ended"))).and(served)
            }
        };
        stop.request();
        let kept = threads.end().await;
        let watched = tokio::task::spawn_blocking(|| watch.map_or(Ok(()), JoinHandle::join)).await;
        let kept = kept.and(watched?.map_err(|_| anyhow::anyhow!("the thread that adopts panicked")));
        drop(busy);
        ended.and(kept)
    };
    let (worked, administered) = tokio::join!(working, admin);
    worked?;
    administered.context("serve the admin")?;
    tracing::info!("stopped; whatever Kafka has not acknowledged is on disk");
    Ok(())
}

/// Delays a requested stop by `notice`: until then only `/readyz` fails, so that proxies use other servers. Must be
/// called on a runtime.
pub fn after_notice(asked: Stop, notice: Duration, readiness: Readiness) -> Stop {
    let stop = Stop::default();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            asked.wait().await;
            let _not_ready = readiness.pending("stopping soon");
            tokio::time::sleep(notice).await;
            stop.request();
        }
    });
    stop
}

fn open(config: &Config, metrics: &Metrics, registry: &Registry, stop: &Stop) -> anyhow::Result<Arc<Dispatcher>> {
    let dir = config.disk_log_dir();
    let options = Options { on_sync: Some(metrics.on_sync()), ..Options::spool(config.disk_log_bytes_max) };
    let log =
        adopt::open_own(&dir, &options, stop).with_context(|| format!("open the disk log in {}", dir.display()))?;
    let delivered = Delivered::load(&log).context("load what Kafka has of the disk log")?;
    let undelivered = delivered.undelivered();
    if undelivered > 0 {
        tracing::info!(undelivered, "{undelivered} events of the last run are on disk and go to Kafka first");
    }
    let dispatcher = Arc::new(Dispatcher::new(log, delivered, config.kafka.partitions, config.rules));
    metrics::register_delivery(registry, Arc::clone(&dispatcher));
    Ok(dispatcher)
}

/// Watches the directories of other ingresses, if there are any in the settings.
fn watch(
    dispatcher: &Arc<Dispatcher>,
    config: &Config,
    metrics: &Metrics,
    stop: &Stop,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    if config.adopt_dirs.is_empty() {
        return Ok(None);
    }
    let watch = adopt::Watch {
        dirs: config.adopt_dirs.clone(),
        after: config.adopt_after,
        kafka: config.kafka.clone(),
        dispatcher: Arc::clone(dispatcher),
        metrics: metrics.clone(),
        who: format!("the ingress with its data in {} (process {})", config.data_dir.display(), std::process::id()),
    };
    let stop = stop.clone();
    Ok(Some(thread::Builder::new().name("adopt".into()).spawn(move || watch.run(&stop))?))
}

struct DeliveryThreads {
    dispatcher: Arc<Dispatcher>,
    disk: JoinHandle<()>,
    supervisor: JoinHandle<()>,
    /// The result of the producer supervisor, should it end before it is stopped.
    over: oneshot::Receiver<anyhow::Result<()>>,
    stop: Stop,
    /// Held by each thread.
    running: Arc<()>,
}

impl DeliveryThreads {
    fn start(dispatcher: &Arc<Dispatcher>, config: &Config, readiness: &Readiness) -> anyhow::Result<Self> {
        let (stop, running) = (Stop::default(), Arc::new(()));
        let disk = thread::Builder::new().name("disk".into()).spawn({
            let (dispatcher, running) = (Arc::clone(dispatcher), Arc::clone(&running));
            move || {
                disk::run(&dispatcher);
                drop(running);
            }
        })?;
        let supervisor = ProducerSupervisor::new(Arc::clone(dispatcher), config.kafka.clone(), stop.clone());
        let ready = readiness.pending("Kafka was not reached yet");
        let (ended, over) = oneshot::channel();
        let supervisor = thread::Builder::new().name("producer".into()).spawn({
            let running = Arc::clone(&running);
            move || {
                // The receiver is gone at an orderly end.
                let _ = ended.send(supervisor.run(Some(ready)));
                drop(running);
            }
        })?;
        Ok(Self { dispatcher: Arc::clone(dispatcher), disk, supervisor, over, stop, running })
    }

    /// Whether all of them are running, or have been over to end.
    fn alive(&self) -> impl Fn() -> bool + Send + Sync + Clone + use<> {
        let (running, stop) = (Arc::downgrade(&self.running), self.stop.clone());
        move || running.strong_count() > 2 || stop.requested()
    }

    /// No further record comes in: unacknowledged ones are written to disk.
    async fn end(self) -> anyhow::Result<()> {
        let join = move || {
            self.stop.request();
            let supervisor = self.supervisor.join();
            self.dispatcher.close();
            (supervisor, self.disk.join())
        };
        let (supervisor, disk) = tokio::task::spawn_blocking(join).await.context("end the threads")?;
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        supervisor.and(disk).map_err(panicked)
    }
}
