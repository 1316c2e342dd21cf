//! The program `ingress`: reads the settings, runs until a stop is requested, reports how it ended.

use std::process::ExitCode;

use ingress::{Config, config, supervisor};
use runtime::lifecycle::Stop;
use runtime::private;
use runtime::settings::read_from_process;
use runtime::telemetry;

fn main() -> ExitCode {
    let settings = read_from_process("ingress", "Takes Bitrix24 webhooks and keeps them in Kafka.", &config::table());
    let config = Config::read(&settings).unwrap_or_else(|error| error.exit());
    if settings.on("check-config") {
        print!("{}", settings.describe());
        return finish(config.check(), |error| eprintln!("error: {error:#}"));
    }
    telemetry::init_logs(config.log_format);
    private::tighten(&config.data_dir);
    let ended = if settings.on("hold") && !supervisor::is_supervised() {
        supervisor::run(&config.webhooks)
    } else {
        settings.warn();
        run(config)
    };
    finish(ended, |error| tracing::error!("{error:#}"))
}

fn run(config: Config) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    supervisor::obey(&stop)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ingress::run(config, stop))
}

fn finish(result: anyhow::Result<()>, report: impl FnOnce(&anyhow::Error)) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}
