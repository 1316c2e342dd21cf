//! Gives the client's threads a lower priority than the thread that feeds them.
//!
//! The first record of a batch wakes the client's thread. On a busy machine it takes the core from the thread that
//! was about to add the second record, and sends the first alone: two requests in place of one. As batch threads,
//! the client's threads still run whenever there is room, but preempt no other thread.

use std::thread;

use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// Normal niceness: 48 of 99 is zero on the scale of niceness.
const NICE: u8 = 48;

/// Threads inherit the batch policy from the thread that creates them. Needs no privilege; a failure is ignored.
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
