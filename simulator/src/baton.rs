//! One thread moves at a time: the one that holds the baton.
//!
//! Each life of a processor has its own thread, so the real loop runs unchanged; but it moves only between two pauses,
//! and the seed decides which thread moves next. So timing on this machine does not matter.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// The result of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    On,
    /// The thread was killed: its further actions have no effect.
    Die,
}

/// The result of a step.
#[derive(Debug)]
pub enum Pause {
    At(&'static str),
    Ended(End),
}

#[derive(Debug)]
pub enum End {
    InOrder,
    Failed(String),
    Killed,
    Panicked(String),
}

/// The scheduler's end of a thread.
pub struct Runner {
    go: SyncSender<Go>,
    paused: Receiver<Pause>,
    thread: Option<JoinHandle<()>>,
    at: &'static str,
}

/// The thread's end of the baton.
pub struct Port {
    go: Mutex<Receiver<Go>>,
    paused: SyncSender<Pause>,
}

/// The payload of a killed thread's panic.
struct Killed;

impl Runner {
    /// Starts a thread that waits for its first step.
    pub fn start(work: impl FnOnce(&std::sync::Arc<Port>) -> anyhow::Result<()> + Send + 'static) -> Self {
        let (go, orders) = sync_channel(1);
        let (pausing, paused) = sync_channel(1);
        let port = std::sync::Arc::new(Port { go: Mutex::new(orders), paused: pausing });
        let body = move || {
            let worked = catch_unwind(AssertUnwindSafe(|| {
                port.wait();
                work(&port)
            }));
            let end = match worked {
                Ok(Ok(())) => End::InOrder,
                Ok(Err(error)) => End::Failed(format!("{error:#}")),
                Err(panic) if panic.is::<Killed>() => End::Killed,
                Err(panic) => End::Panicked(words(&*panic)),
            };
            // The receiver is gone if the schedule was given up.
            let _ = port.paused.send(Pause::Ended(end));
        };
        let thread = thread::Builder::new().name("life".into()).stack_size(1 << 20).spawn(body);
        Self { go, paused, thread: Some(thread.expect("a thread")), at: "its start" }
    }

    /// Runs the thread to its next pause, or to its end.
    pub fn step(&mut self, go: Go) -> Pause {
        if self.go.send(go).is_err() {
            return Pause::Ended(End::Killed);
        }
        let pause = self.paused.recv().unwrap_or(Pause::Ended(End::Killed));
        match pause {
            Pause::At(at) => self.at = at,
            Pause::Ended(_) => self.join(),
        }
        pause
    }

    pub fn at(&self) -> &'static str {
        self.at
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its end was reported before.
            let _ = thread.join();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        while self.thread.is_some() {
            self.step(Go::Die);
        }
    }
}

impl Port {
    /// Hands the baton back. Does not return to a killed thread.
    pub fn pause(&self, at: &'static str) {
        if self.pause_or_die(at) == Go::Die {
            Self::die();
        }
    }

    /// As [`Port::pause`], for a thread that leaves something half done when killed, and then has to [`Port::die`].
    pub fn pause_or_die(&self, at: &'static str) -> Go {
        if self.paused.send(Pause::At(at)).is_err() {
            return Go::Die;
        }
        self.order()
    }

    pub fn die() -> ! {
        resume_unwind(Box::new(Killed))
    }

    fn wait(&self) {
        if self.order() == Go::Die {
            Self::die();
        }
    }

    fn order(&self) -> Go {
        self.go.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or(Go::Die)
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}
