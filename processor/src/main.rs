use std::process::{self, ExitCode};
use std::sync::Arc;

use anyhow::Context;
use event_log::contract::Topic;
use kafka_log::{KafkaEventLog, KafkaLogQuery, TopicWriter};
use mimalloc::MiMalloc;
use processor::LogWriter;
use processor::config::{Config, settings};
use processor::run::clock;
use processor::run::identity::Identity;
use processor::service::{self, QuerySources};
use processor::surroundings::Surroundings;
use runtime::abort::on_abort;
use runtime::lifecycle::{Readiness, Stop};
use runtime::settings::{Settings, read_from_process};
use runtime::{memory, private, telemetry};
use tracing::{error, info};

/// The fold makes many short-lived small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Folds Bitrix24 webhooks from Kafka into records, publishes what follows, and answers questions.";

fn main() -> ExitCode {
    memory::without_huge_pages();
    let settings = read_from_process("processor", ABOUT, &settings());
    let config = Config::read(&settings).unwrap_or_else(|error| error.exit());
    if settings.on("check-config") {
        return check(&settings, &config);
    }
    telemetry::init_logs(config.log_format);
    on_abort(exit).expect("a thread at the start");
    settings.warn();
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

/// The only end that waits for no thread.
fn exit(why: &str) {
    error!("exiting: {why}");
    process::exit(1)
}

async fn run(mut config: Config) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("listen for signals")?;
    let identity = Identity::take(&config.service.dir, config.instance_id.as_deref())?;
    info!(instance = identity.id(), version = env!("CARGO_PKG_VERSION"), "starting");
    clock::end_when_set_back(stop.clone())?;

    let registry = telemetry::registry();
    let readiness = Readiness::default();
    let mut admin_limits = admin::LIMITS;
    http_edge::fit_open_files(&mut [&mut config.service.query_limits, &mut admin_limits]);
    let (registered, ready) = (registry.clone(), readiness.clone());
    let (address, admin) = admin::serve(config.admin_listen, admin_limits, registered, ready, || true, stop.clone())?;
    info!(what = "admin", address = %address, "listening");

    let sources = QuerySources {
        commands: LogWriter::Kafka(Box::new(TopicWriter::new(config.kafka.clone(), Topic::Raw))),
        logs: Arc::new(KafkaLogQuery::new(config.kafka.clone())),
        forwarded: LogWriter::Kafka(Box::new(TopicWriter::new(config.kafka.clone(), Topic::Forward))),
        to_forward: Arc::new(KafkaLogQuery::new(config.kafka.clone())),
        surroundings: Surroundings::default(),
    };
    let open = {
        let (kafka, group, instance, stop) = (config.kafka, config.group, identity.id().to_owned(), stop.clone());
        move || KafkaEventLog::open(&kafka, &group, &instance, stop.clone())
    };
    let serving = async {
        let served = service::run(config.service, &registry, &readiness, stop.clone(), sources, open, |_| Ok(())).await;
        // The first of the two to end stops the other, even before it has started.
        stop.request();
        served
    };
    let (served, ended) = tokio::join!(serving, admin);
    served?;
    ended.context("serve metrics")
}

/// Prints the effective settings and checks them without changing anything, also beside a running processor.
fn check(settings: &Settings, config: &Config) -> ExitCode {
    print!("{}", settings.describe());
    match kafka_log::check(&config.kafka) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
