//! The processor: from `raw` in Kafka to facts, records and answers.

use std::process::ExitCode;

use anyhow::Context;
use common::lifecycle::{Readiness, Stop};
use common::log::kafka::KafkaLedger;
use common::private;
use common::settings::{Settings, read_from_process};
use common::telemetry;
use mimalloc::MiMalloc;
use processor::clock;
use processor::config::{Config, settings};
use processor::identity::Identity;
use processor::service;
use tracing::{error, info, warn};

/// Much that is folded is small, and comes and goes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Folds Bitrix24 webhooks from Kafka into records, publishes what follows, and answers questions.";

fn main() -> ExitCode {
    let settings = read_from_process("processor", ABOUT, &settings());
    let config = Config::read(&settings).unwrap_or_else(|error| error.exit());
    if settings.on("check-config") {
        return check(&settings, &config);
    }
    telemetry::init_logs(config.log_format);
    for why in settings.exposed() {
        warn!("{why}");
    }
    if let Some(data_dir) = config.service.dir.parent() {
        private::tighten(data_dir);
    }
    match actix_web::rt::System::new().block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("listen for signals")?;
    let identity = Identity::take(&config.service.dir, config.instance_id.as_deref())?;
    info!(instance = identity.id(), version = env!("CARGO_PKG_VERSION"), "starting");
    clock::end_when_set_back(stop.clone())?;

    let registry = telemetry::registry();
    let readiness = Readiness::default();
    let (address, admin) =
        telemetry::serve_admin(config.admin_listen, registry.clone(), readiness.clone(), || true, stop.clone())
            .with_context(|| format!("listen on {}", config.admin_listen))?;
    info!(what = "admin", address = %address, "listening");

    let open = {
        let (kafka, group, instance, stop) = (config.kafka, config.group, identity.id().to_owned(), stop.clone());
        move || KafkaLedger::open(&kafka, &group, &instance, stop.clone())
    };
    let serving = async {
        let served = service::run(config.service, &registry, &readiness, stop.clone(), open).await;
        // Whoever ends first takes the other along, also before it has begun.
        stop.request();
        served
    };
    let (served, ended) = tokio::join!(serving, admin);
    served?;
    ended.context("serve metrics")
}

/// Prints the effective settings and tests what can be tested without taking anything.
fn check(settings: &Settings, config: &Config) -> ExitCode {
    print!("{}", settings.describe());
    for why in settings.exposed() {
        eprintln!("warning: {why}");
    }
    match Identity::take(&config.service.dir, config.instance_id.as_deref()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
