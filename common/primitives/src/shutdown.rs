//! The end of a process, as its parts see it.

use std::future::Future;
use std::pin::Pin;

pub trait Shutdown: Send + Sync + 'static {
    fn requested(&self) -> bool;

    /// Resolves when the end is requested.
    fn wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
