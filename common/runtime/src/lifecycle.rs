//! Readiness and shutdown of a process.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{fmt, io, process, thread};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

/// A request to stop. Cheap to clone; once requested, it stays so.
#[derive(Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    tasks: Notify,
    threads: Condvar,
    /// Held while `requested` changes, so that no thread misses the change between its check and its sleep.
    gate: Mutex<()>,
    /// The number of tasks to be finished before the end.
    busy: watch::Sender<usize>,
}

impl Stop {
    pub fn request(&self) {
        let gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.requested.store(true, Ordering::Release);
        drop(gate);
        self.0.threads.notify_all();
        self.0.tasks.notify_waiters();
    }

    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    pub async fn wait(&self) {
        // Created before the check, so that a request in between is not missed.
        let notified = self.0.tasks.notified();
        if !self.requested() {
            notified.await;
        }
    }

    /// For threads: sleeps up to `wait`, or until a stop is requested. Returns whether it is.
    pub fn sleep(&self, wait: Duration) -> bool {
        let gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.0.threads.wait_timeout_while(gate, wait, |()| !self.requested());
        drop(slept);
        self.requested()
    }

    /// A task to be finished before the end, such as a request in flight. Until it is dropped the admin server
    /// answers, so that one can see what the process is waiting for.
    pub fn busy(&self) -> Busy {
        self.0.busy.send_modify(|count| *count += 1);
        Busy(self.clone())
    }

    pub async fn idle(&self) {
        let idle = self.0.busy.subscribe().wait_for(|count| *count == 0).await.map(drop);
        idle.expect("the sender lives in self");
    }

    /// A token that SIGTERM and SIGINT request. A second signal ends the process at once, with code 1.
    ///
    /// The signals have a thread of their own, so that a stuck main thread does not block the second one.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let (listening, heard) = mpsc::sync_channel(1);
        let token = stop.clone();
        thread::Builder::new().name("signals".into()).spawn(move || listen(&token, &listening))?;
        heard.recv().map_err(|_| io::Error::other("the thread for signals ended"))??;
        Ok(stop)
    }
}

impl primitives::Shutdown for Stop {
    fn requested(&self) -> bool {
        Self::requested(self)
    }

    fn wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Self::wait(self))
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("requested", &self.requested()).field("busy", &*self.0.busy.borrow()).finish()
    }
}

#[derive(Debug)]
#[must_use = "it is finished when this is dropped"]
pub struct Busy(Stop);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.send_modify(|count| *count -= 1);
    }
}

/// Requests a stop at the first signal and ends the process at the second. `listening` gets one message.
fn listen(stop: &Stop, listening: &mpsc::SyncSender<io::Result<()>>) {
    let ended = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        runtime.block_on(async {
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            // The receiver may be gone; signals are handled all the same.
            let _ = listening.send(Ok(()));
            for first in [true, false] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if !first {
                    tracing::warn!("{name} again: end at once");
                    process::exit(1);
                }
                tracing::info!("{name}: stop in order; a second signal ends the process at once");
                stop.request();
            }
            Ok(())
        })
    });
    if let Err(error) = ended {
        let _ = listening.send(Err(error));
    }
}

/// Ready when nothing is pending and nothing is in the way. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    pending: Arc<Mutex<Vec<&'static str>>>,
    probes: Arc<Mutex<Vec<Probe>>>,
}

/// Returns the obstacle, if there is one.
type Probe = Box<dyn Fn() -> Option<&'static str> + Send + Sync>;

impl Readiness {
    pub fn pending(&self, what: &'static str) -> Pending {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        Pending { readiness: self.clone(), what }
    }

    /// Adds a check that runs with every probe.
    pub fn unless(&self, probe: impl Fn() -> Option<&'static str> + Send + Sync + 'static) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(probe));
    }

    pub fn ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// The pending steps and obstacles, in words.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.pending.lock().unwrap_or_else(PoisonError::into_inner).clone();
        missing.extend(self.probes.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(|probe| probe()));
        missing
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("missing", &self.missing()).finish()
    }
}

/// A step that has to be completed before the process is ready.
#[derive(Debug)]
#[must_use = "it has come to pass when this is dropped"]
pub struct Pending {
    readiness: Readiness,
    what: &'static str,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut pending = self.readiness.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // Two of the same name are alike: either may go.
        if let Some(index) = pending.iter().position(|what| *what == self.what) {
            pending.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use super::*;

    /// Longer than any test takes: a thread that waits for all of it was not woken.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_request_wakes_a_thread_that_sleeps() {
        let stop = Stop::default();
        assert!(!stop.sleep(Duration::from_millis(1)));
        let sleeper = thread::spawn({
            let stop = stop.clone();
            move || stop.sleep(LONG)
        });
        stop.request();
        assert!(sleeper.join().expect("the sleeper does not panic"));
        assert!(stop.sleep(LONG), "once requested, no thread sleeps");
    }

    #[tokio::test]
    async fn a_request_wakes_every_task_that_waits_now_or_later() {
        let stop = Stop::default();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                tokio::spawn(async move { stop.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!stop.requested());
        stop.request();
        for waiter in waiters {
            waiter.await.expect("the waiter does not panic");
        }
        stop.wait().await;
    }

    #[tokio::test]
    async fn work_under_way_is_waited_for() {
        let stop = Stop::default();
        stop.idle().await;
        let (first, second) = (stop.busy(), stop.busy());
        drop(first);
        let mut idle = Box::pin(stop.idle());
        let early = tokio::time::timeout(Duration::from_millis(1), &mut idle).await;
        assert!(early.is_err(), "one piece is not finished");
        drop(second);
        idle.await;
    }

    #[test]
    fn ready_means_that_nothing_is_pending() {
        let readiness = Readiness::default();
        assert!(readiness.ready());
        let (kafka, store) = (readiness.pending("kafka"), readiness.pending("store"));
        assert_eq!(readiness.missing(), ["kafka", "store"]);
        drop(kafka);
        assert_eq!(readiness.missing(), ["store"]);
        drop(store);
        assert!(readiness.ready());
    }

    #[test]
    fn what_comes_and_goes_is_checked_with_every_probe() {
        let readiness = Readiness::default();
        let full = Arc::new(AtomicBool::new(false));
        let look = Arc::clone(&full);
        readiness.unless(move || look.load(Ordering::Relaxed).then_some("no room"));
        assert!(readiness.ready());
        full.store(true, Ordering::Relaxed);
        assert_eq!(readiness.missing(), ["no room"]);
        full.store(false, Ordering::Relaxed);
        assert!(readiness.ready());
    }

    /// The test starts itself as a process of its own, for it is the process that signals are sent to.
    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        const ROLE: &str = "HOOKLEDGER_TEST_SIGNALS";
        if env::var_os(ROLE).is_some() {
            let stop = Stop::on_signals().expect("listen to signals");
            send_self("TERM");
            assert!(stop.sleep(LONG));
            send_self("INT");
            thread::sleep(LONG);
        }
        let myself = env::current_exe().expect("a test has a file");
        let test = "lifecycle::tests::the_first_signal_asks_and_the_second_ends";
        let ended = Command::new(myself).args([test, "--exact", "--nocapture"]).env(ROLE, "1").output();
        let ended = ended.expect("start the test's own program");
        let shown = String::from_utf8_lossy(&ended.stdout);
        // A panic of the test would end with 101, a signal without a handler with none.
        assert_eq!(ended.status.code(), Some(1), "{shown}");
    }

    fn send_self(name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", process::id())).status();
        assert!(sent.expect("a shell").success());
    }
}
