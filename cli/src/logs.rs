//! The logs that the operator's commands read, and those that they publish to.

use std::path::Path;

use anyhow::Context;
use disk_log::{DiskEventLog, DiskLog, Options, Upkeep};
use event_log::{EventLog, LogReader};
use kafka_log::KafkaLogReader;
use processor::config::PROCESSOR;
use processor::run::exclusive;
use runtime::lifecycle::Stop;
use runtime::settings::{KAFKA, PROCESS, Setting, Settings};

use crate::state::{is_missing, setting_names};

/// The settings of the state and of the logs from which it is made.
pub fn settings() -> Vec<Setting> {
    let process = PROCESS.iter().filter(|setting| setting_names().contains(&setting.name));
    let group = PROCESSOR.iter().filter(|setting| setting.name == "group");
    KAFKA.iter().chain(process).chain(group).copied().collect()
}

/// The logs in Kafka, or without it those of the standalone in `data_dir`, whose lock the caller has.
pub fn logs(settings: &Settings, data_dir: &Path, stop: &Stop) -> anyhow::Result<Box<dyn LogReader>> {
    if let Some(kafka) = settings.kafka()? {
        let group = settings.text("group").unwrap_or_default();
        return Ok(Box::new(KafkaLogReader::open(&kafka, group, stop)?));
    }
    Ok(Box::new(disk_logs(settings, data_dir, stop)?))
}

/// The same for a command that publishes: it becomes the only owner of all partitions.
pub fn own_logs(settings: &Settings, data_dir: &Path, stop: &Stop) -> anyhow::Result<Box<dyn EventLog>> {
    if let Some(kafka) = settings.kafka()? {
        let group = settings.text("group").unwrap_or_default();
        return Ok(Box::new(exclusive::open(&kafka, group, stop)?));
    }
    Ok(Box::new(disk_logs(settings, data_dir, stop)?))
}

fn disk_logs(settings: &Settings, data_dir: &Path, stop: &Stop) -> anyhow::Result<DiskEventLog> {
    let logs = data_dir.join("logs");
    if !logs.join("facts").is_dir() {
        return Err(is_missing(&logs));
    }
    let raw = DiskLog::open(&logs.join("raw"), Options::log()).context("open the log raw")?;
    let upkeep = Upkeep::new(settings.retention()?).until(stop.clone());
    DiskEventLog::open_with(&logs, raw, upkeep)
}
