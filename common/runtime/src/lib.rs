//! Shared by every process: settings, logs and metrics, an orderly end, memory, private files.

pub mod abort;
pub mod lifecycle;
pub mod memory;
pub mod private;
pub mod settings;
pub mod telemetry;
