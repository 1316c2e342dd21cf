//! The settings that programs share: their tables, their types, and all known names.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use super::files::read_text;
use super::{KafkaSettings, Setting, Settings, SettingsError};
use crate::telemetry::LogFormat;
use event_log::contract::{Retention, Topic};

const CONNECTIONS_MAX: u32 = 1_000_000;

const PARTITIONS_MAX: u32 = 10_000;

const TOPIC_BYTES_MAX: usize = 249;

/// Settings of every process.
pub const PROCESS: &[Setting] = &[
    Setting::new("data-dir").default("./hookledger-data").help("The directory of disk logs and state."),
    Setting::new("apps").repeated().help(
        "The known apps, by the names in their URLs, separated by commas. None means any name, on loopback only.",
    ),
    Setting::new("log-format").help("`text` or `json`; unless set, text on a terminal, else JSON."),
    Setting::new("check-config").switch().help("Prints the effective settings, tests what can be tested, and ends."),
];

/// Settings of every process with a Kafka client.
pub const KAFKA: &[Setting] = &[
    Setting::new("kafka").help("Kafka's bootstrap servers."),
    Setting::new("kafka-set").repeated().help("Any librdkafka setting as `key=value`; it overrides ours."),
    Setting::new("kafka-set-file")
        .help("A file with `key=value` lines for kafka-set, which overrides it; for passwords."),
    Setting::new("topic-prefix").default("hookledger.").help("The prefix of every topic's name."),
    Setting::new("partitions").default("6").help("The number of partitions of every topic."),
    Setting::new("replication").help("The number of replicas of new topics; the broker decides by default."),
    Setting::new("raw-retention").default("14d").help("How long raw events are kept."),
    Setting::new("events-retention").default("30d").help("How long the events for subscribers are kept."),
];

pub const TRUSTED_PROXIES: Setting = Setting::new("trusted-proxies").repeated().help(
    "Networks of the proxies in front, such as `10.0.0.0/8`: they are trusted with the client's address. Needs \
           apps, and query-tokens where queries are answered.",
);

/// The port of `/livez`, `/readyz` and `/metrics`; each program has its own default.
pub const fn admin_listen(default: &'static str) -> Setting {
    Setting::new("admin-listen").default(default).help("The address for `/livez`, `/readyz` and `/metrics`.")
}

impl Settings {
    /// None without servers.
    pub fn kafka(&self) -> Result<Option<KafkaSettings>, SettingsError> {
        if self.text("kafka").is_none() {
            return Ok(None);
        }
        let servers = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
        let topic_prefix = |text: &str| good_topic_prefix(text).then(|| text.to_owned());
        let partitions = |text: &str| text.parse().ok().filter(|count| (1..=PARTITIONS_MAX).contains(count));
        let replication = |text: &str| text.parse::<i16>().ok().filter(|count| *count > 0).map(i32::from);
        Ok(Some(KafkaSettings {
            servers: self.parsed("kafka", servers, "a list of bootstrap servers", "localhost:9092")?,
            set: self.kafka_set()?,
            topic_prefix: self.parsed(
                "topic-prefix",
                topic_prefix,
                "the beginning of a topic's name",
                "hookledger.",
            )?,
            partitions: self.parsed("partitions", partitions, "a number of partitions from 1 to 10000", "6")?,
            replication: match self.text("replication") {
                Some(_) => Some(self.parsed("replication", replication, "a number of replicas from 1", "3")?),
                None => None,
            },
            retention: self.retention()?,
        }))
    }

    /// More than zero, and at most `most`.
    pub fn wait(&self, name: &str, most: Duration) -> Result<Duration, SettingsError> {
        match self.duration(name)? {
            wait if wait.is_zero() || wait > most => {
                let most = humantime::format_duration(most);
                Err(SettingsError(format!("{name} must be more than zero and at most {most}")))
            }
            wait => Ok(wait),
        }
    }

    pub fn connections(&self, name: &str) -> Result<usize, SettingsError> {
        match self.number(name)? {
            Some(count @ 1..=CONNECTIONS_MAX) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => Err(SettingsError(format!("{name} is a number from 1 to {CONNECTIONS_MAX}"))),
        }
    }

    pub fn retention(&self) -> Result<Retention, SettingsError> {
        let kept = |name| match self.duration(name)? {
            Duration::ZERO => Err(SettingsError(format!("{name} must not be zero: nothing would be kept"))),
            kept => Ok(kept),
        };
        Ok(Retention { raw: kept("raw-retention")?, events: kept("events-retention")? })
    }

    /// As set; by default text on a terminal.
    pub fn log_format(&self) -> Result<LogFormat, SettingsError> {
        let parse = |text: &str| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        };
        match self.text("log-format") {
            Some(_) => self.parsed("log-format", parse, "`text` or `json`", "json"),
            None if io::stderr().is_terminal() => Ok(LogFormat::Text),
            None => Ok(LogFormat::Json),
        }
    }

    fn kafka_set(&self) -> Result<Vec<(String, String)>, SettingsError> {
        let mut pairs = match self.text("kafka-set-file") {
            Some(path) => kafka_set_file(path)?,
            None => Vec::new(),
        };
        for given in self.all("kafka-set") {
            let wrong = || SettingsError("kafka-set takes `key=value`; for example `--kafka-set client.id=crm`".into());
            pairs.push(pair(&given).ok_or_else(wrong)?);
        }
        Ok(pairs)
    }
}

/// One setting a line; `#` begins a comment line.
fn kafka_set_file(path: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let error = |what: String| SettingsError(format!("kafka-set-file: {what}"));
    let text = read_text(Path::new(path)).map_err(|io_error| error(format!("read {path}: {io_error}")))?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let given = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    given
        .map(|(number, line)| {
            pair(line)
                .ok_or_else(|| error(format!("line {number} of {path} takes `key=value`, such as `client.id=crm`")))
        })
        .collect()
}

/// A `key=value`. Errors do not show it: it may be a password.
fn pair(given: &str) -> Option<(String, String)> {
    let (key, value) = given.split_once('=')?;
    (!key.trim().is_empty()).then(|| (key.trim().to_owned(), value.trim().to_owned()))
}

/// Whether every topic's name with this prefix is valid in Kafka.
fn good_topic_prefix(prefix: &str) -> bool {
    let longest = Topic::ALL.iter().map(|topic| topic.name().len()).max().unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    prefix.len() + longest <= TOPIC_BYTES_MAX && prefix.bytes().all(good)
}
