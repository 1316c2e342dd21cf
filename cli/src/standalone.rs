//! `hookledger standalone`: webhooks, fold, queries and metrics in one process, without a broker.
//!
//! The same parts as in the cluster form, with logs on the local disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{ArgMatches, Command};
use disk_log::{DiskEventLog, DiskLog, DiskLogQuery, Options, Upkeep};
use event_log::EventLogError;
use event_log::contract::{Retention, Topic};
use http_edge::fit_open_files;
use ingress::{Delivery, Metrics, Webhooks, notify, supervisor};
use processor::LogWriter;
use processor::config::{FOLDING, FORWARDING, QUERIES, ServiceConfig};
use processor::run::identity::Identity;
use processor::service::{self, QuerySources};
use processor::vault::{VaultKeys, make_key_file};
use runtime::lifecycle::{Readiness, Stop};
use runtime::private;
use runtime::settings::{KAFKA, PROCESS, Setting, Settings, SettingsError, admin_listen};
use runtime::telemetry::{self, LogFormat};
use tracing::warn;

use crate::output::print;
use crate::vault;
use welcome::Welcome;
pub(crate) use welcome::reachable;

mod page;
mod welcome;

pub fn command() -> Command {
    runtime::settings::command("standalone", "Runs everything in one process, without a broker", &settings())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let settings = Settings::from_matches_and_process(&settings(), arguments)?;
    let only_check = settings.on("check-config");
    if only_check {
        print(&settings.describe())?;
    }
    let config = Config::read(&settings)?;
    if only_check {
        return config.check();
    }
    telemetry::init_logs(config.log_format);
    if config.hold && !supervisor::is_supervised() {
        return supervisor::run(&config.webhooks);
    }
    settings.warn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

const UNVERIFIED_LIMIT: Setting = Setting::new("unverified-limit")
    .default("256MiB")
    .help("How large the log unverified may become; beyond it the oldest give way.");
/// Only whole segments are deleted, and a large step has a segment of its own.
const UNVERIFIED_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Of Kafka's settings only the retention.
fn settings() -> Vec<Setting> {
    let retention = KAFKA.iter().filter(|setting| setting.name.ends_with("-retention")).copied();
    let own = [ingress::config::WEBHOOKS, FOLDING, FORWARDING, QUERIES, PROCESS].concat();
    own.into_iter().chain(retention).chain([UNVERIFIED_LIMIT, admin_listen("127.0.0.1:9080")]).collect()
}

struct Config {
    webhooks: Webhooks,
    hold: bool,
    service: ServiceConfig,
    admin_listen: SocketAddr,
    data_dir: PathBuf,
    retention: Retention,
    unverified_bytes_max: u64,
    log_format: LogFormat,
}

impl Config {
    fn read(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            webhooks: Webhooks::read(settings)?,
            hold: settings.on("hold"),
            service: ServiceConfig::read(settings)?,
            admin_listen: settings.address("admin-listen")?,
            data_dir: settings.path("data-dir")?,
            retention: settings.retention()?,
            unverified_bytes_max: unverified_limit(settings)?,
            log_format: settings.log_format()?,
        })
    }

    /// What a start would refuse. It takes no lock: a supervisor checks settings while its server runs.
    fn check(&self) -> anyhow::Result<()> {
        self.webhooks.check()?;
        let dir = &self.service.dir;
        private::make_dir(dir).with_context(|| format!("make the directory {}", dir.display()))
    }
}

fn unverified_limit(settings: &Settings) -> Result<u64, SettingsError> {
    let limit = settings.size("unverified-limit")?;
    if limit < UNVERIFIED_BYTES_MIN {
        return Err(SettingsError("unverified-limit is at least 16MiB".into()));
    }
    Ok(limit)
}

async fn serve(mut config: Config) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("listen for signals")?;
    supervisor::obey(&stop).context("listen to the parent")?;
    private::tighten(&config.data_dir);
    let _identity = Identity::take(&config.service.dir, None)?;
    if config.service.vault.is_none() {
        config.service.vault = Some(own_key(&config.data_dir.join(vault::FILE))?);
    }
    let mut admin_limits = admin::LIMITS;
    fit_open_files(&mut [&mut config.webhooks.limits, &mut config.service.query_limits, &mut admin_limits]);
    let (registry, readiness) = (telemetry::registry(), Readiness::default());
    let stop = ingress::after_notice(stop, config.webhooks.stop_notice, readiness.clone());
    let metrics = Metrics::new(&registry);
    readiness.unless(metrics.refusing());

    let logs = config.data_dir.join("logs");
    let raw = logs.join("raw");
    let options = Options { on_sync: Some(metrics.on_sync()), ..Options::source() };
    let raw = DiskLog::open(&raw, options).with_context(|| format!("open the disk log in {}", raw.display()))?;
    ingress::metrics::register_disk_log(&registry, raw.clone());
    let log = raw.clone();
    readiness.unless(move || log.fault().is_some().then_some("the disk log takes no events"));

    let delivery = Delivery::Disk(raw.clone());
    let (webhooks, serving) =
        ingress::take_webhooks(&config.webhooks, &registry, metrics.clone(), delivery, stop.clone())?;
    let (registered, ready) = (registry.clone(), readiness.clone());
    let (admin, administering) =
        admin::serve(config.admin_listen, admin_limits, registered, ready, || true, stop.clone())?;
    tracing::info!(what = "admin", address = %admin, "listening");
    notify::ready();

    let upkeep = Upkeep::new(config.retention).with_unverified_limit(config.unverified_bytes_max).until(stop.clone());
    upkeep.register(&registry, &readiness);
    let surroundings = page::surroundings(&config.webhooks, metrics.unknown_apps().clone(), raw.clone());
    let hints = Arc::clone(&surroundings.hints);
    let welcome = {
        let apps = config.webhooks.apps.iter().map(|(name, app)| (name.clone(), app.path_key.is_some())).collect();
        let has_tokens = !config.service.query_tokens.is_empty();
        let is_tls = config.webhooks.tls.is_some();
        move |queries| {
            let data_dir = config.data_dir;
            let welcome = Welcome { webhooks, queries, admin, apps, is_tls, has_tokens, data_dir };
            hints.set(welcome.hints()).ok();
            welcome.print()
        }
    };
    let stop_all = stop.clone();
    let dir = logs.join(Topic::Forward.name());
    let forward =
        DiskLog::open(&dir, Options::progress()).with_context(|| format!("open the log {}", dir.display()))?;
    let queried = DiskLogQuery::new(raw.clone()).with_forward(forward.clone());
    let sources = QuerySources {
        commands: LogWriter::Disk(raw.clone()),
        logs: Arc::new(queried.clone()),
        forwarded: LogWriter::Disk(forward),
        to_forward: Arc::new(queried.clone()),
        surroundings,
    };
    let open = move || {
        queried.close();
        let event_log = DiskEventLog::open_with(&logs, raw.clone(), upkeep.clone());
        event_log.inspect(|logs| queried.open(logs)).map_err(|error| EventLogError::Fatal(format!("{error:#}")))
    };
    let folding = async {
        let folded = service::run(config.service, &registry, &readiness, stop.clone(), sources, open, welcome).await;
        // The first thread to end stops the others.
        stop_all.request();
        folded
    };
    let taking = async {
        let served = serving.await;
        stop_all.request();
        served
    };
    let (folded, served, administered) = tokio::join!(folding, taking, administering);
    folded?;
    served.context("serve webhooks")?;
    administered.context("serve metrics")
}

/// The key of a standalone without another one, made at the first start.
fn own_key(file: &Path) -> anyhow::Result<VaultKeys> {
    if !file.try_exists().with_context(|| format!("look for {}", file.display()))? {
        let id = make_key_file(file).with_context(|| format!("make {}", file.display()))?;
        warn!(
            key = id,
            "made the key {id} of the vault in {}: keep a copy of the file elsewhere, because without it the tokens in \
             the vault cannot be opened",
            file.display()
        );
    }
    vault::read(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs of one machine share the environment and a file of settings.
    #[test]
    fn no_program_refuses_a_setting_of_another() {
        let tables = [ingress::config::table(), processor::config::settings(), settings()];
        let variable = |setting: &Setting| format!("HOOKLEDGER_{}", setting.name.replace('-', "_").to_uppercase());
        let own = [admin_listen("127.0.0.1:9080")];
        for setting in tables.iter().flatten().filter(|setting| setting.kind != runtime::settings::Kind::Switch) {
            let read = runtime::settings::read("other", "", &own, ["other".into()], &|_| None, [variable(setting)]);
            assert!(read.is_ok(), "{}: {}", setting.name, read.expect_err("refused"));
        }
    }
}
