//! What every crate needs and no library has: secrets, points in time, paths and plain text.

pub mod clock;
pub mod path;
pub mod plain;
pub mod secret;
mod shutdown;
pub mod time;

pub use shutdown::Shutdown;
