//! The configuration of librdkafka for each role, and its log lines.
//!
//! An operator's settings win, except where they would break a promise: then the process does not start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::faults::{Fault, FaultReports};
use event_log::EventLogError;
use runtime::settings::KafkaSettings;

mod role;

pub(super) use role::Role;

/// How long the coordinator keeps an open transaction before it aborts it: the longest delay of a dead owner's
/// successor, apart from the broker's own interval.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The record limit of the topics that we create.
pub(super) const RECORD_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// The client's own errors are warnings once in this interval, else debug lines. While a broker is away there are many;
/// with fault reports, none is a warning.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

const HAS_TLS: bool = cfg!(any(feature = "tls", feature = "tls-vendored"));

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    /// An operator's setting would break a promise.
    #[error("kafka-set {name} is refused: {why}")]
    Refused { name: String, why: &'static str },
    /// librdkafka does not know or accept it.
    #[error("kafka-set {name} is not valid: {why}")]
    Invalid {
        name: String,
        /// In librdkafka's words, without the value.
        why: String,
    },
    #[error("make a Kafka client: {0}")]
    Client(String),
}

impl From<KafkaError> for ConfigError {
    fn from(error: KafkaError) -> Self {
        if let KafkaError::ClientConfig(_, why, name, value) = error {
            // librdkafka repeats the value, which may be a password.
            let why = if value.is_empty() { why } else { why.replace(&value, "…") };
            return Self::Invalid { name, why };
        }
        Self::Client(error.to_string())
    }
}

/// A client that tells the event log why it cannot be made.
pub(super) fn create<C: ClientContext, T: FromClientConfigAndContext<C>>(
    settings: &KafkaSettings,
    role: Role<'_>,
    context: C,
) -> Result<T, EventLogError> {
    let made = config(settings, role).and_then(|config| Ok(config.create_with_context(context)?));
    made.map_err(|error| EventLogError::Fatal(error.to_string()))
}

pub(super) fn config(settings: &KafkaSettings, role: Role<'_>) -> Result<ClientConfig, ConfigError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.servers);
    config.set("client.id", "hookledger");
    config.set("enable.metrics.push", "false");
    config.set("socket.keepalive.enable", "true");
    config.set("reconnect.backoff.max.ms", "2000");
    // Brokers whose advertised names are gone are dropped after this time, and the bootstrap servers queried again. The
    // default would wait five minutes after the names are back.
    config.set("metadata.recovery.rebootstrap.trigger.ms", "10000");
    role.set(&mut config);
    for (name, value) in &settings.set {
        if let Some(why) = refused(name, value).or_else(|| (!HAS_TLS && needs_tls(name, value)).then_some(NO_TLS)) {
            return Err(ConfigError::Refused { name: name.clone(), why });
        }
        config.set(name, value);
    }
    // Filtering is tracing's work.
    config.set_log_level(if settings.set.iter().any(|(name, _)| name == "debug") {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    });
    Ok(config)
}

pub(super) fn check(settings: &KafkaSettings) -> Result<(), ConfigError> {
    let roles = [
        Role::RawProducer,
        Role::Transactional { id: "check" },
        Role::Member { group: "check", instance: Some("check") },
        Role::Follower { group: "check" },
        Role::Reader { group: "check" },
        Role::Query,
        Role::Uncommitted,
        Role::Peeker,
        Role::Admin,
    ];
    for role in roles {
        config(settings, role)?.create_native_config()?;
    }
    Ok(())
}

/// Settings that promises rest on: name, allowed values, the broken promise.
const KEPT: &[(&str, &[&str], &str)] = &[
    ("bootstrap.servers", &[], "use the setting kafka"),
    ("metadata.broker.list", &[], "use the setting kafka"),
    ("enable.idempotence", &["true"], "without it a retry writes an event twice or out of order"),
    ("acks", &["all", "-1"], "an event is answered 200 when all in-sync replicas have it"),
    ("request.required.acks", &["all", "-1"], "an event is answered 200 when all in-sync replicas have it"),
    ("message.timeout.ms", &[], "a record that is given up leaves a gap, and its second copy breaks the order"),
    ("delivery.timeout.ms", &[], "a record that is given up leaves a gap, and its second copy breaks the order"),
    ("retries", &[], "a record is tried until Kafka has it"),
    ("message.send.max.retries", &[], "a record is tried until Kafka has it"),
    ("delivery.report.only.error", &["false"], "an event is answered 200 by its report"),
    ("statistics.interval.ms", &[], "readiness is read from the statistics"),
    ("transactional.id", &[], "it follows from the instance-id and fences a process' former self"),
    ("group.id", &[], "use the setting group"),
    ("group.instance.id", &[], "use the setting instance-id"),
    ("group.protocol", &["classic"], "a killed member's successor would be refused until the session ends"),
    ("partition.assignment.strategy", &["range"], "others can leave partitions without an owner for ever"),
    ("isolation.level", &[], "each client has the one that it needs"),
    ("enable.auto.commit", &["false"], "offsets are committed with what follows from the records"),
    ("auto.commit.enable", &["false"], "offsets are committed with what follows from the records"),
    ("enable.auto.offset.store", &["false"], "offsets are committed with what follows from the records"),
    ("auto.offset.reset", &["error"], "deleted records would be skipped silently"),
    ("topic.auto.offset.reset", &["error"], "deleted records would be skipped silently"),
    ("enable.partition.eof", &[], "the end of a take-over is read from it"),
    ("allow.auto.create.topics", &["false"], "a topic that was deleted would come back in the broker's shape"),
];

/// The reason for refusing TLS settings in a build without TLS.
const NO_TLS: &str = "this program was built without TLS: take our Docker image, or build with `cargo build --features tls`, \
     which needs OpenSSL's headers and pkg-config";

fn needs_tls(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match name {
        "security.protocol" => value.contains("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => value.starts_with("scram"),
        _ => name.starts_with("ssl.") || name == "enable.ssl.certificate.verification",
    }
}

fn refused(name: &str, value: &str) -> Option<&'static str> {
    let (_, allowed, why) = KEPT.iter().find(|(kept, _, _)| *kept == name)?;
    (!allowed.contains(&value)).then_some(*why)
}

/// Settings whose value must not be shown.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "token", "key", "jaas", "pem", "oauthbearer.config"].iter().any(|part| name.contains(part))
}

/// Logs a client's reports, with a level, rate-limited, and without an operator's secrets.
#[derive(Debug)]
pub(super) struct LoggingContext {
    role: &'static str,
    hidden: Vec<String>,
    warned_at: Mutex<Option<Instant>>,
    fault_reports: Option<Arc<FaultReports>>,
}

impl LoggingContext {
    pub(super) fn new(settings: &KafkaSettings, role: Role<'_>) -> Self {
        let secret = |(name, value): &(String, String)| (is_secret(name) && value.len() > 3).then(|| value.clone());
        Self {
            role: role.name(),
            hidden: settings.set.iter().filter_map(secret).collect(),
            warned_at: Mutex::new(None),
            fault_reports: None,
        }
    }

    /// For a client whose faults the program logs itself.
    pub(super) fn reporting(settings: &KafkaSettings, role: Role<'_>, fault_reports: &Arc<FaultReports>) -> Self {
        Self { fault_reports: Some(Arc::clone(fault_reports)), ..Self::new(settings, role) }
    }

    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let client = self.role;
        let line = self.harmless(line);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical
                if self.fault_reports.is_none() =>
            {
                tracing::error!(client, facility, "librdkafka: {line}");
            }
            // A producer setting, given to all clients, is not worth a warning per consumer.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" => {
                tracing::debug!(client, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if self.may_warn() => {
                tracing::warn!(client, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(client, facility, "librdkafka: {line}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Debug => {
                tracing::debug!(client, facility, "librdkafka: {line}");
            }
        }
    }

    /// An error of the client as a whole: transient, or found where a call fails.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let client = self.role;
        let reason = self.harmless(reason);
        if let Some(fault_reports) = &self.fault_reports {
            fault_reports.note(Fault::of(error), reason.clone());
        }
        if self.may_warn() {
            tracing::warn!(client, "Kafka: {error}: {reason}");
        } else {
            tracing::debug!(client, "Kafka: {error}: {reason}");
        }
    }

    fn may_warn(&self) -> bool {
        if self.fault_reports.is_some() {
            return false;
        }
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
        if may {
            *warned_at = Some(Instant::now());
        }
        may
    }

    fn harmless(&self, line: &str) -> String {
        self.hidden.iter().fold(line.to_owned(), |line, secret| line.replace(secret, "…"))
    }
}

#[derive(Debug)]
pub(super) struct PlainContext(pub(super) LoggingContext);

impl ClientContext for PlainContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for PlainContext {}

#[cfg(test)]
mod tests {
    use super::*;
    use event_log::contract::Retention;

    fn with(set: &[(&str, &str)]) -> KafkaSettings {
        KafkaSettings {
            servers: "127.0.0.1:1".into(),
            set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            topic_prefix: "hookledger.".into(),
            partitions: 6,
            replication: None,
            retention: Retention::default(),
        }
    }

    #[test]
    fn librdkafka_knows_every_setting_of_ours() {
        assert_eq!(check(&with(&[])), Ok(()));
    }

    #[test]
    fn an_operator_may_set_what_breaks_nothing() {
        assert_eq!(check(&with(&[("linger.ms", "5"), ("acks", "-1"), ("session.timeout.ms", "20000")])), Ok(()));
    }

    #[test]
    fn a_setting_that_would_break_a_promise_is_refused_by_name() {
        let broken = [("enable.idempotence", "false"), ("acks", "1"), ("message.timeout.ms", "1000")];
        let ours = [("transactional.id", "x"), ("group.instance.id", "x"), ("isolation.level", "read_uncommitted")];
        for (name, value) in broken.into_iter().chain(ours) {
            let error = check(&with(&[(name, value)])).expect_err("refused");
            assert!(error.to_string().starts_with(&format!("kafka-set {name} is refused: ")), "{error}");
        }
    }

    #[test]
    fn tls_is_refused_with_what_to_do_by_a_program_that_was_built_without_it() {
        for (name, value) in
            [("security.protocol", "ssl"), ("ssl.ca.location", "/ca"), ("sasl.mechanism", "SCRAM-SHA-256")]
        {
            let checked = check(&with(&[(name, value)])).map_err(|error| error.to_string());
            if HAS_TLS {
                assert!(checked.is_ok() || name == "ssl.ca.location", "{name}: {checked:?}");
            } else {
                let error = checked.expect_err("it cannot");
                assert!(error.contains("built without TLS") && error.contains(name), "{error}");
            }
        }
        assert_eq!(check(&with(&[("security.protocol", "plaintext")])), Ok(()));
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it_and_shows_no_value() {
        let error = check(&with(&[("sasl.pasword", "hunter2hunter2")])).expect_err("no such setting").to_string();
        assert!(error.contains("sasl.pasword") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn secrets_are_seen_neither_in_log_lines_nor_in_settings() {
        let settings = with(&[("sasl.password", "hunter2hunter2"), ("sasl.username", "somebody")]);
        let context = LoggingContext::new(&settings, Role::Admin);
        assert_eq!(context.harmless("somebody:hunter2hunter2@host"), "somebody:…@host");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
