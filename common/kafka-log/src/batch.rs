//! Lets the client's threads come behind whoever feeds them, the only place that knows thread priorities.
//!
//! The first record of a batch wakes the client's thread. On a busy machine it takes the core from the thread that
//! was about to add the second record, sends the first alone, and the broker is paid for two requests in place of
//! one. As batch threads the client's still run whenever there is room, but do not push anybody aside.

use std::thread;

use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// As nice as everybody else: 48 of 99 is nought on the scale of niceness.
const NICE: u8 = 48;

/// Makes something whose threads are batch threads: they inherit that from the one that makes them.
///
/// Needs no right, and where it does not work the threads are what they would have been.
pub(super) fn with_batch_threads<T: Send>(make: impl FnOnce() -> T + Send) -> T {
    let made = thread::scope(|scope| {
        scope
            .spawn(|| {
                let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
                let nice = ThreadPriorityValue::try_from(NICE).map(ThreadPriority::Crossplatform);
                let nice = nice.unwrap_or(ThreadPriority::Min);
                let set = set_thread_priority_and_policy(thread_native_id(), nice, policy);
                if let Err(error) = set {
                    tracing::debug!("make batch threads: {error}");
                }
                make()
            })
            .join()
    });
    made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
