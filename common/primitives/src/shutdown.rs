//! The end of a process, as its parts see it.

use std::future::Future;
use std::pin::Pin;

/// Says when to end.
pub trait Shutdown: Send + Sync + 'static {
    /// Whether the end was asked for.
    fn requested(&self) -> bool;

    /// Resolves when the end is asked for.
    fn wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
