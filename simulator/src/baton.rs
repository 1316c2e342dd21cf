//! One thread moves at a time: whoever holds the baton, until it hands it back.
//!
//! Each life of a processor has a thread of its own, so that the real loop runs as it is; but the thread moves only
//! between two pauses, and which one moves next is drawn from the seed. So no timing of this machine matters.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What a thread is told at the end of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Go on.
    On,
    /// You were killed: nothing that you do from here on is seen by anybody.
    Die,
}

/// What becomes of a thread that was told to go on.
#[derive(Debug)]
pub enum Pause {
    /// It waits there.
    At(&'static str),
    /// It came to its end.
    Ended(End),
}

/// How a thread came to its end.
#[derive(Debug)]
pub enum End {
    /// As it was asked to.
    InOrder,
    /// With an error, in words.
    Failed(String),
    /// It was killed.
    Killed,
    /// It panicked, with these words.
    Panicked(String),
}

/// A thread, as the scheduler holds it.
pub struct Runner {
    go: SyncSender<Go>,
    paused: Receiver<Pause>,
    thread: Option<JoinHandle<()>>,
    at: &'static str,
}

/// The baton, as the thread holds it.
pub struct Port {
    go: Mutex<Receiver<Go>>,
    paused: SyncSender<Pause>,
}

/// What a killed thread unwinds with.
struct Killed;

impl Runner {
    /// A thread that waits for its first step.
    pub fn start(work: impl FnOnce(&std::sync::Arc<Port>) -> anyhow::Result<()> + Send + 'static) -> Self {
        let (go, told) = sync_channel(1);
        let (pausing, paused) = sync_channel(1);
        let port = std::sync::Arc::new(Port { go: Mutex::new(told), paused: pausing });
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
            // Nobody listens where the whole schedule was given up.
            let _ = port.paused.send(Pause::Ended(end));
        };
        let thread = thread::Builder::new().name("life".into()).stack_size(1 << 20).spawn(body);
        Self { go, paused, thread: Some(thread.expect("a thread")), at: "its start" }
    }

    /// Lets the thread go on to its next pause, or to its end.
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

    /// Where it waits.
    pub fn at(&self) -> &'static str {
        self.at
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its end has been told.
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
    /// Hands the baton back; does not return to who was killed meanwhile.
    pub fn pause(&self, at: &'static str) {
        if self.pause_or_die(at) == Go::Die {
            Self::die();
        }
    }

    /// As [`Port::pause`], for who leaves something half done when it is killed, and then has to [`Port::die`].
    pub fn pause_or_die(&self, at: &'static str) -> Go {
        if self.paused.send(Pause::At(at)).is_err() {
            return Go::Die;
        }
        self.told()
    }

    /// Ends the thread without a word.
    pub fn die() -> ! {
        resume_unwind(Box::new(Killed))
    }

    fn wait(&self) {
        if self.told() == Go::Die {
            Self::die();
        }
    }

    fn told(&self) -> Go {
        self.go.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or(Go::Die)
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}
