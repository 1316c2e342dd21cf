//! What ingress and processor must agree on.
//!
//! The raw event and its form in a log, the topics, the words of every log with its two
//! implementations (Kafka and disk), settings, and what every process has: telemetry, health,
//! an orderly end. What an event *means* is not here; see `processor::domain`.

pub mod admin;
pub mod clock;
pub mod contract;
pub mod event;
pub mod form;
pub mod lifecycle;
pub mod log;
pub mod path;
pub mod plain;
pub mod private;
pub mod proxied;
pub mod secret;
pub mod settings;
pub mod telemetry;
pub mod time;
