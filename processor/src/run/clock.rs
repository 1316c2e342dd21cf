//! Ends the process when the machine's clock is set back, since Kafka's client may then stand still for as long.
//!
//! The client waits for times of day. A wait of a tenth of a second that has begun before the clock is set back by a day
//! ends a day later, unless something arrives; the thread that folds can be caught in one in which nothing can.
//! Nothing can wake it, and nothing is lost by ending: the next process begins with the clock as it is then.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use tracing::{error, warn};

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What is waited out: as long as a session, after which another processor takes over.
const SET_BACK_MAX: Duration = Duration::from_secs(10);

/// Looks at the clock from now on, until asked to stop.
pub fn end_when_set_back(stop: Stop) -> anyhow::Result<()> {
    let watch = move || {
        let mut before = (Timestamp::now(), Instant::now());
        while !stop.sleep(LOOK) {
            let now = (Timestamp::now(), Instant::now());
            let back = before.0.plus(now.1.duration_since(before.1)).since(now.0);
            before = now;
            if back > SET_BACK_MAX {
                end(back);
            } else if back > LOOK {
                warn!("the clock was set back by {} s; Kafka's client may stand still for as long", back.as_secs());
            }
        }
    };
    thread::Builder::new().name("clock".into()).spawn(watch).map(drop).context("look at the clock")
}

fn end(back: Duration) -> ! {
    let seconds = back.as_secs();
    error!(
        seconds,
        "ending at once: the clock was set back by {seconds} s, and Kafka's client may stand still for as long. Nothing \
         is lost: the next process goes on where this one was. Let the clock be slewed, not set"
    );
    process::exit(1)
}
