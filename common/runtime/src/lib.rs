//! What every process has: settings, logs and metrics, an orderly end, files that nobody else reads.

pub mod lifecycle;
pub mod private;
pub mod settings;
pub mod telemetry;
