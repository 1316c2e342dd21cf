//! The vocabulary of every crate: secrets, points in time, paths and plain text.

mod block;
pub mod clock;
pub mod path;
pub mod plain;
pub mod secret;
mod shutdown;
pub mod time;

pub use block::block_on;
pub use shutdown::Shutdown;
