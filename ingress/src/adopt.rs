//! Sends the events in the disk log of another ingress to Kafka, each at least once, in their order.
//!
//! The dispatcher and the producer supervisor work as for an ingress' own disk log, but nothing is added to it. Every
//! event is flagged: its owner may have sent it before. Progress is saved each second, so that a kill costs only some
//! flagged second copies.
//!
//! The adopter of a directory holds its lock and leaves a mark in it. An ingress that returns to its directory removes
//! the mark to ask for it, and gets it within moments: webhooks are waiting for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use disk_log::{Delivered, DiskLog, Inspection, InspectionError, Options};
use kafka_log::{Fault, FaultReport};
use runtime::lifecycle::Stop;
use runtime::private;
use runtime::settings::KafkaSettings;

use crate::delivery::dispatcher::Dispatcher;
use crate::delivery::producer_supervisor::ProducerSupervisor;
use crate::delivery::state::{Input, ProducerState, Rules, Status};

mod vacancy;
mod watch;

pub use watch::Watch;

/// The file that marks an adopted directory.
const MARK: &str = "adopted-by";
/// Below a data directory, the disk log of ingress.
const INGRESS: &str = "ingress";
/// The least space that opening the log needs, on a disk that may be full.
const SEGMENT_BYTES: u64 = 64 * 1024;
const TICK: Duration = Duration::from_millis(20);
/// How often the mark is checked.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Without progress for this long, a warning is logged.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often a busy directory of ours is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// How long it is tried: inspections, and an ingress that is ending, need moments.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long we wait for a directory after removing the mark: Kafka's last acknowledgements are awaited for up to 10 s,
/// and a shared file system may show the removal to the adopter up to a minute late. systemd waits for 90 s.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(80);

/// Part of the limits of an ingress, whose own traffic comes first.
const RULES: Rules = Rules {
    disk_first: false,
    deadline: SILENCE_MAX,
    report_wait_max: SILENCE_MAX,
    records_max: 10_000,
    bytes_max: 16 * 1024 * 1024,
    // Nothing is added to the log.
    move_parked_above_bytes: u64::MAX,
};

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is nothing to adopt, or the directory is not available.
    #[error(transparent)]
    Inspection(#[from] InspectionError),
    /// Another kind of log. To send and delete it would destroy what others read.
    #[error("{0} is a log of the standalone form, which is no ingress' disk log: it stays as it is")]
    Standalone(PathBuf),
    #[error("adopt the disk log in {0}: {1}")]
    Disk(PathBuf, io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All events are in Kafka, and that is saved durably.
    AllDelivered,
    AskedBack,
    /// Kafka rejects the rest: the events are larger than the topic allows.
    Refused,
    Stopped,
}

impl Ending {
    pub fn why(self) -> String {
        match self {
            Self::AllDelivered => "nothing is left".to_owned(),
            Self::AskedBack => "its ingress has returned and sends them itself".to_owned(),
            Self::Refused => {
                format!("Kafka refuses them, they are larger than it takes: {}", Fault::TooLarge.remedy())
            }
            Self::Stopped => "stopped".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub brought: u64,
    pub left: u64,
}

/// Inspects the disk log in a data directory of ingress, or in the log's own directory.
pub fn inspect(dir: &Path) -> Result<Inspection, AdoptError> {
    let below = dir.join(INGRESS);
    let dir = if below.is_dir() { below } else { dir.to_owned() };
    if [dir.with_file_name("facts"), dir.join("logs").join("facts")].iter().any(|facts| facts.is_dir()) {
        return Err(AdoptError::Standalone(dir));
    }
    Ok(Inspection::of(&dir)?)
}

pub struct Adoption {
    // Dropped first: with the mark gone, the lock may be taken.
    mark: Mark,
    dispatcher: Arc<Dispatcher>,
    events: u64,
}

impl Adoption {
    /// Takes over a log that was inspected. `who` is shown to others that want it.
    pub fn open(inspection: Inspection, partitions: u32, who: &str) -> Result<Self, AdoptError> {
        let dir = inspection.dir().to_owned();
        // Its lock would conflict with ours.
        drop(inspection);
        let options = Options { segment_bytes: SEGMENT_BYTES, bytes_max: None, ..Options::log() };
        let log = DiskLog::open(&dir, options).map_err(|error| InspectionError::new(&dir, error))?;
        let failed = |error| AdoptError::Disk(dir.clone(), error);
        let mark = Mark::set(&dir, who).map_err(failed)?;
        let delivered = Delivered::load(&log).map_err(failed)?;
        let events = delivered.undelivered();
        Ok(Self { mark, dispatcher: Arc::new(Dispatcher::new(log, delivered, partitions, RULES)), events })
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn progress(&self) -> Progress {
        let left = self.dispatcher.delivered().undelivered();
        Progress { brought: self.events.saturating_sub(left), left }
    }

    /// Sends everything to Kafka, however long that takes; `report` gets the progress periodically.
    pub fn run(&self, kafka: &KafkaSettings, stop: &Stop, report: impl FnMut(Progress)) -> anyhow::Result<Ending> {
        let supervisor_stop = Stop::default();
        let supervisor =
            ProducerSupervisor::adopting(Arc::clone(&self.dispatcher), kafka.clone(), supervisor_stop.clone());
        let span = tracing::Span::current();
        let supervisor = thread::Builder::new()
            .name("adopt-producer".into())
            .spawn(move || span.in_scope(|| supervisor.run(None)))?;
        let mut report = report;
        let ending = self.wait(stop, || supervisor.is_finished(), &mut report);
        supervisor_stop.request();
        let ended = supervisor.join().map_err(|_| anyhow::anyhow!("the producer supervisor panicked"))?;
        self.dispatcher.delivered().save().context("save what Kafka has acknowledged")?;
        let progress = self.progress();
        report(progress);
        if progress.left == 0 {
            return Ok(Ending::AllDelivered);
        }
        ended.map(|()| ending)
    }

    /// Waits for the end, and for every reason to end early.
    fn wait(&self, stop: &Stop, over: impl Fn() -> bool, report: &mut impl FnMut(Progress)) -> Ending {
        let (mut checked_at, mut silence) = (Instant::now(), Silence::default());
        loop {
            self.dispatcher.handle([Input::Tick]);
            let progress = self.progress();
            report(progress);
            if progress.left == 0 {
                return Ending::AllDelivered;
            }
            if checked_at.elapsed() >= CHECK_EVERY {
                checked_at = Instant::now();
                if !self.mark.is_there() {
                    return Ending::AskedBack;
                }
                let Status { producer, open, parked, .. } = self.dispatcher.status();
                if parked as u64 == progress.left && open == 0 {
                    return Ending::Refused;
                }
                silence.observe(&self.dispatcher, progress.brought, producer != ProducerState::Up || open > 0);
            }
            if over() || stop.sleep(TICK) {
                return Ending::Stopped;
            }
        }
    }
}

/// Logs once when Kafka takes nothing, and once when it does again.
#[derive(Default)]
struct Silence {
    /// The number of sent events, and since when it has not changed.
    since: Option<(u64, Instant)>,
    is_logged: bool,
}

impl Silence {
    fn observe(&mut self, dispatcher: &Dispatcher, brought: u64, waiting: bool) {
        let now = Instant::now();
        let (before, since) = self.since.filter(|_| waiting).unwrap_or((brought, now));
        let silent = brought == before && now - since > SILENCE_MAX;
        self.since = Some(if brought == before { (before, since) } else { (brought, now) });
        if silent && !self.is_logged {
            log_silence(dispatcher.fault_reports().most_specific(since).as_ref());
        } else if self.is_logged && brought > before {
            tracing::info!("Kafka takes events again");
        }
        self.is_logged = silent || (self.is_logged && brought == before);
    }
}

fn log_silence(cause: Option<&FaultReport>) {
    if let Some(FaultReport { fault, reason, .. }) = cause {
        tracing::warn!(
            fault = fault.label(),
            "Kafka takes no events: {reason}. They stay on disk until it does. What to do: {}",
            fault.remedy()
        );
    } else {
        tracing::warn!(
            "Kafka takes no events and reports no fault. They stay on disk until it does. What to do: check the \
             brokers, which are slow or stopped"
        );
    }
}

/// Opens the disk log of this ingress. If it was adopted meanwhile, it is asked back.
///
/// Usually blocks for moments, and for 80 s at most.
pub(crate) fn open_own(dir: &Path, options: &Options, stop: &Stop) -> anyhow::Result<DiskLog> {
    let (started, mark) = (Instant::now(), dir.join(MARK));
    let mut wait_max = BUSY_WAIT_MAX;
    loop {
        let busy = match DiskLog::open(dir, options.clone()) {
            Ok(log) => {
                // A killed adopter leaves its mark.
                remove(&mark).with_context(|| format!("remove {}", mark.display()))?;
                return Ok(log);
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => error,
            Err(error) => return Err(error.into()),
        };
        if let Ok(who) = fs::read_to_string(&mark) {
            wait_max = RETURN_WAIT_MAX;
            remove(&mark).with_context(|| format!("remove {}", mark.display()))?;
            let (dir, who) = (dir.display(), who.trim());
            tracing::warn!(
                "{who} is sending the events in {dir} to Kafka; asked it to let go, webhooks wait until then"
            );
        }
        if started.elapsed() >= wait_max || stop.sleep(RETRY_EVERY) {
            return Err(busy.into());
        }
    }
}

/// Marks an adopted directory. Removed by the adopter, or by an owner that wants the directory back.
struct Mark(PathBuf);

impl Mark {
    fn set(dir: &Path, who: &str) -> io::Result<Self> {
        let path = dir.join(MARK);
        private::write(&path, format!("{who}\n"))?;
        Ok(Self(path))
    }

    fn is_there(&self) -> bool {
        self.0.exists()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(%error, "remove {}: {error}", self.0.display());
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use event_log::Record;
    use primitives::time::Timestamp;

    use super::*;

    fn record(number: u64) -> Record {
        Record { key: None, value: None, headers: vec![], at: Timestamp::from_s(number) }
    }

    /// The log of an ingress that is gone, with so many events.
    fn left_behind(data_dir: &Path, events: u64) -> PathBuf {
        let dir = data_dir.join(INGRESS);
        let log = DiskLog::open(&dir, Options::spool(1 << 20)).expect("open");
        log.append_blocking((0..events).map(record).collect()).expect("append");
        dir
    }

    #[test]
    fn a_data_directory_and_the_log_in_it_are_the_same() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let dir = left_behind(data_dir.path(), 3);
        for named in [data_dir.path(), &dir] {
            assert_eq!(inspect(named).expect("a log").undelivered(), 3);
        }
    }

    #[test]
    fn a_log_of_the_standalone_form_is_never_adopted() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let logs = data_dir.path().join("logs");
        for name in ["raw", "facts"] {
            drop(DiskLog::open(&logs.join(name), Options::log()).expect("open"));
        }
        for named in [data_dir.path(), &logs.join("raw")] {
            assert!(matches!(inspect(named), Err(AdoptError::Standalone(_))), "{}", named.display());
        }
    }

    #[test]
    fn nothing_is_made_where_there_was_no_log() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(inspect(dir.path()), Err(AdoptError::Inspection(InspectionError::Nothing(_)))));
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn an_ingress_that_comes_back_is_given_its_directory() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let dir = left_behind(data_dir.path(), 3);
        let adoption = Adoption::open(inspect(&dir).expect("a log"), 1, "a test").expect("adopted");
        assert_eq!(adoption.progress(), Progress { brought: 0, left: 3 });
        let adopter = thread::spawn(move || {
            let ending = adoption.wait(&Stop::default(), || false, &mut |_| {});
            (ending, adoption.progress().left)
        });
        let log = open_own(&dir, &Options::spool(1 << 20), &Stop::default()).expect("given back");
        assert_eq!(adopter.join().expect("no panic"), (Ending::AskedBack, 3));
        assert_eq!(log.bounds(), (0, 3));
        assert!(!dir.join(MARK).exists());
    }

    #[test]
    fn the_mark_of_a_killed_adopter_delays_no_owner() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let dir = left_behind(data_dir.path(), 1);
        fs::write(dir.join(MARK), "another ingress").expect("a mark");
        let log = open_own(&dir, &Options::spool(1 << 20), &Stop::default());
        assert!(log.is_ok() && !dir.join(MARK).exists());
        let stopped = Stop::default();
        stopped.request();
        assert!(open_own(&dir, &Options::spool(1 << 20), &stopped).is_err(), "a second one is refused");
    }
}
