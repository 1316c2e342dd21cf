//! Ends the process when the system clock is set back, since librdkafka may block for as long.
//!
//! librdkafka waits until times of day. A wait of 100 ms that starts before the clock is set back by a day ends a day
//! later, unless a message arrives; the run loop can block in one where none can arrive. Nothing can interrupt that
//! wait. Ending loses nothing: the next process starts with the new time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use primitives::time::Timestamp;
use runtime::abort::abort;
use runtime::lifecycle::Stop;
use tracing::warn;

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Smaller steps are waited out. Equals the session timeout, after which another processor takes over.
const SET_BACK_MAX: Duration = Duration::from_secs(10);

pub fn end_when_set_back(stop: Stop) -> anyhow::Result<()> {
    let watch = move || {
        let mut before = (Timestamp::now(), Instant::now());
        while !stop.sleep(CHECK_EVERY) {
            let now = (Timestamp::now(), Instant::now());
            let back = before.0.plus(now.1.duration_since(before.1)).since(now.0);
            before = now;
            if back > SET_BACK_MAX {
                end(back);
            } else if back > CHECK_EVERY {
                warn!("the clock was set back by {} s; Kafka's client may block for as long", back.as_secs());
            }
        }
    };
    thread::Builder::new().name("clock".into()).spawn(watch).map(drop).context("watch the clock")
}

fn end(back: Duration) -> ! {
    let seconds = back.as_secs();
    abort(format!(
        "the clock was set back by {seconds} s, and Kafka's client may block for as long. Nothing is lost: the next process \
         continues from here. Configure time synchronisation to slew the clock, not to step it"
    ))
}
