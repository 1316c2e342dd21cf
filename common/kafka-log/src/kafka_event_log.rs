//! All topics as one event log: read our share of `raw`, follow `facts`, publish the derived records in one
//! transaction. One thread uses it; after an error it is dropped and opened again.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;

use super::client::TRANSACTION_TIMEOUT;
use super::facts::Follower;
use super::group::Member;
use super::hanging::Opening;
use super::reader::Reader;
use super::topics::{self, MayCreate, TopicsError};
use super::transaction::{Publisher, stopping};
use event_log::contract::Topic;
use event_log::hanging::{Doubts, end_what_hangs};
use event_log::{Applied, EventLog, EventLogError, FactOffsets, LogEvent, LogReader, Output, Position, Visit};
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

/// The longest wait on one log before the other is polled.
const SLICE: Duration = Duration::from_millis(20);
/// The interval of attempts, each logged, to find the topics.
const TOPICS_WAIT: Duration = Duration::from_secs(10);
/// The longest wait for closing the clients; then they are abandoned.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long ended members may stay in the group: the session timeout, another one for a member that joined while
/// the group waited for the first, and a margin.
const SESSION_WAIT: Duration = Duration::from_secs(25);
/// In the transactional id of commands: of two at a time the first is fenced.
const COMMAND: &str = "command";

/// Within this time the group reports a process with our member id: a heartbeat and its answer.
const TWIN_WAIT: Duration = Duration::from_secs(5);

/// The logs in Kafka of one processor.
pub struct KafkaEventLog {
    identity: String,
    group: String,
    raw: String,
    partitions: u32,
    stop: Stop,
    /// The last records were raw ones: facts are next, so that neither starves.
    after_raw: bool,
    doubts: Doubts,
    /// None once the event log is closed.
    clients: Option<Clients>,
}

/// The transactional id, and whether the group has a static member of it.
#[derive(Clone, Copy)]
struct Instance<'a> {
    id: &'a str,
    is_lasting: bool,
}

struct Clients {
    publisher: Arc<Publisher>,
    publication: Option<Publication>,
    member: Member,
    follower: Follower,
    reader: Reader,
}

/// A publication that is under way, on a thread of its own.
struct Publication {
    began: Instant,
    thread: JoinHandle<Result<FactOffsets, EventLogError>>,
}

impl Publication {
    fn begin(
        publisher: &Arc<Publisher>,
        outputs: Vec<Output>,
        read: &[Position],
        member: Option<Arc<ConsumerGroupMetadata>>,
        stop: &Stop,
    ) -> Result<Self, EventLogError> {
        let (publisher, read, stop) = (Arc::clone(publisher), read.to_vec(), stop.clone());
        let publish = move || publisher.publish(&outputs, &read, member.as_deref(), &stop);
        let thread = thread::Builder::new().name("kafka-publish".into()).spawn(publish);
        let thread = thread.map_err(|error| EventLogError::Reopen(format!("start a thread: {error}")))?;
        Ok(Self { began: Instant::now(), thread })
    }

    fn end(self) -> Result<FactOffsets, EventLogError> {
        self.thread.join().unwrap_or_else(|_| Err(EventLogError::Reopen("a publication panicked".into())))
    }
}

impl KafkaEventLog {
    /// Checks the topics and fences the instance's former process. Waits for Kafka until it answers or `stop` is
    /// requested.
    pub fn open(settings: &KafkaSettings, group: &str, instance_id: &str, stop: Stop) -> Result<Self, EventLogError> {
        ensure_topics(settings, MayCreate::Yes, &stop)?;
        Self::open_as(settings, group, Instance { id: instance_id, is_lasting: true }, stop)
    }

    /// For a command that publishes while no processor runs: creates no topic, and fails while the group has other
    /// members. Its membership ends with it.
    pub fn open_alone(settings: &KafkaSettings, group: &str, stop: Stop) -> Result<Self, EventLogError> {
        ensure_topics(settings, MayCreate::No, &stop)?;
        wait_until_empty(&Reader::new(settings, group, stop.clone())?, group, &stop)?;
        let mut event_log = Self::open_as(settings, group, Instance { id: COMMAND, is_lasting: false }, stop)?;
        event_log.recover(&[])?;
        Ok(event_log)
    }

    fn open_as(
        settings: &KafkaSettings,
        group: &str,
        instance: Instance<'_>,
        stop: Stop,
    ) -> Result<Self, EventLogError> {
        // Before anything is read: this decides a transaction that our former process left open.
        let publisher = Arc::new(Publisher::open(settings, &format!("{group}-{}", instance.id), &stop)?);
        let cluster = loop {
            if let Some(cluster) = publisher.cluster_id() {
                break cluster;
            }
            if stop.requested() {
                return Err(stopping());
            }
        };
        let clients = Clients {
            publisher,
            publication: None,
            follower: Follower::new(settings, Topic::Facts, group)?,
            reader: Reader::new(settings, group, stop.clone())?,
            member: Member::new(settings, group, instance.is_lasting.then_some(instance.id))?,
        };
        Ok(Self {
            identity: format!("kafka:{cluster}:{}", settings.topic_prefix),
            group: group.to_owned(),
            raw: settings.topic(Topic::Raw),
            partitions: settings.partitions,
            stop,
            after_raw: false,
            doubts: Doubts::default(),
            clients: Some(clients),
        })
    }

    /// Closes the clients; returns whether they ended in time. A static member keeps its place in the group for the
    /// session timeout, so that a quick restart changes nothing for others.
    pub fn close(mut self) -> bool {
        self.let_go()
    }

    fn clients(&mut self) -> &mut Clients {
        self.clients.as_mut().expect("there until dropped")
    }

    /// Closing a client waits for its threads, and for a broker that may never answer: so it runs on another thread.
    fn let_go(&mut self) -> bool {
        let Some(mut clients) = self.clients.take() else { return true };
        let (gone, went) = mpsc::channel();
        let began = Instant::now();
        let parting = thread::Builder::new().name("kafka-close".into()).spawn(move || {
            if let Some(publication) = clients.publication.take() {
                // Its outcome is for the next to find out, as after a crash.
                drop(publication.end());
            }
            drop(clients);
            // The receiver may be gone.
            let _ = gone.send(());
        });
        let in_time = parting.is_ok() && went.recv_timeout(CLOSE_WAIT_MAX).is_ok();
        if in_time {
            tracing::debug!(ms = began.elapsed().as_millis(), "closed the Kafka clients");
        } else {
            tracing::warn!("Kafka's clients did not close in {} s and are left behind", CLOSE_WAIT_MAX.as_secs());
        }
        in_time
    }

    fn raw(&mut self, wait: Duration) -> Result<Option<LogEvent>, EventLogError> {
        let clients = self.clients();
        let batch = clients.member.collect(wait).map_err(|error| clients.explain(error))?;
        if let Some(change) = clients.member.change() {
            return Ok(Some(change));
        }
        let turn = (!batch.is_empty()).then(|| LogEvent::Raw(batch));
        self.after_raw |= turn.is_some();
        Ok(turn)
    }

    fn doubt(&mut self) {
        if self.clients().publisher.lost_a_broker() {
            self.doubts.doubt(self.partitions);
        }
    }

    /// Waits until all is decided that must be before these are published.
    fn make_sure(&mut self, outputs: &[Output]) -> Result<(), EventLogError> {
        self.doubt();
        for partition in self.doubts.due(outputs) {
            self.committed(partition)?;
            self.doubts.decided(partition);
        }
        Ok(())
    }

    fn facts(&mut self, wait: Duration) -> Result<Option<LogEvent>, EventLogError> {
        self.after_raw = false;
        let clients = self.clients();
        if !clients.follower.follows() {
            return Ok(None);
        }
        let batch = clients.follower.collect(wait).map_err(|error| clients.explain(error))?;
        Ok((!batch.is_empty()).then(|| LogEvent::Facts(batch)))
    }
}

impl Clients {
    /// Interprets a failed publication after Kafka had ended its transaction because of its timeout: either side
    /// was frozen. Kafka's error is the same as for a second process with our identity. But such a process has our
    /// place in the group too, which the group reports; then we must not take it back.
    fn tell_apart(&mut self, error: EventLogError, stop: &Stop) -> EventLogError {
        let reason = match error {
            EventLogError::Fenced(reason) | EventLogError::Reopen(reason) => reason,
            error @ (EventLogError::Fatal(_) | EventLogError::Partitions(_) | EventLogError::TooLarge(_)) => {
                return error;
            }
        };
        let began = Instant::now();
        while began.elapsed() < TWIN_WAIT && !stop.requested() {
            if let Err(error @ EventLogError::Fenced(_)) = self.member.hear(SLICE) {
                return error;
            }
        }
        let open_s = TRANSACTION_TIMEOUT.as_secs();
        EventLogError::Reopen(format!("a transaction was open for more than {open_s} s, when Kafka ends it: {reason}"))
    }

    /// An out-of-range offset is reported without its partition: find it. Opening again determines the meaning, or that
    /// all are in range by now, as after a change of leaders.
    fn explain(&self, error: EventLogError) -> EventLogError {
        let EventLogError::Fatal(reason) = error else { return error };
        let raw = self.reader.out_of_range(Topic::Raw, &self.member.positions());
        match raw.or_else(|| self.reader.out_of_range(Topic::Facts, &self.follower.positions())) {
            Some(found) => EventLogError::Reopen(format!("{reason}: {found}")),
            None => EventLogError::Reopen(reason),
        }
    }
}

impl LogReader for KafkaEventLog {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn tells_progress(&self) -> bool {
        true
    }

    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError> {
        let Clients { reader, member, .. } = self.clients();
        let committed = reader.left_off(partition)?;
        // Starting behind a hanging transaction in some topic would make it impossible to determine its outcome.
        reader.wait_until_published(partition, &mut || member.serve())?;
        Ok(committed)
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        self.clients().reader.bounds(topic, partition)
    }

    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        let Clients { reader, member, .. } = self.clients();
        reader.read(topic, from, until, visit, &mut || member.serve())
    }

    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError> {
        self.clients().reader.offset_at(partition, at)
    }
}

impl EventLog for KafkaEventLog {
    /// Our next commit would also commit hanging records in the same partitions.
    fn recover(&mut self, applied: &[Applied]) -> Result<(), EventLogError> {
        let Clients { publisher, reader, .. } = self.clients.as_ref().expect("there until dropped");
        let published_in = end_what_hangs(&Opening { publisher, reader, stop: &self.stop }, applied)?;
        self.doubts.published(published_in);
        Ok(())
    }

    fn join(&mut self) -> Result<(), EventLogError> {
        self.clients().member.join()
    }

    fn next(&mut self, wait: Duration) -> Result<LogEvent, EventLogError> {
        self.join()?;
        let until = Instant::now() + wait;
        loop {
            if let Some(change) = self.clients().member.change() {
                return Ok(change);
            }
            if self.after_raw
                && let Some(turn) = self.facts(Duration::ZERO)?
            {
                return Ok(turn);
            }
            let left = until.saturating_duration_since(Instant::now());
            let slice = left.min(SLICE);
            let clients = self.clients();
            let idle = !clients.member.has_started() && clients.follower.follows();
            let (raw_wait, facts_wait) = if idle { (Duration::ZERO, slice) } else { (slice, Duration::ZERO) };
            if let Some(turn) = self.raw(raw_wait)? {
                return Ok(turn);
            }
            if let Some(turn) = self.facts(facts_wait)? {
                return Ok(turn);
            }
            if left.is_zero() {
                return Ok(LogEvent::Quiet);
            }
        }
    }

    fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.clients().member.start(starts)
    }

    fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.clients().follower.follow(starts)
    }

    fn unowned(&mut self) -> Option<usize> {
        let partitions = self.partitions;
        let (group, topic) = (self.group.clone(), self.raw.clone());
        self.clients().reader.unowned(&group, &topic, partitions)
    }

    fn lost_a_broker(&mut self) -> bool {
        self.doubt();
        self.doubts.take_news()
    }

    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        self.doubt();
        let reader = &self.clients.as_ref().expect("there until dropped").reader;
        let published = reader.published()?;
        let open = published.iter().filter(|published| published.is_open());
        let mut open: Vec<(Topic, Position)> = open.map(|open| (open.topic, open.place())).collect();
        let unknown = self.doubts.doubtful().iter().filter(|partition| !reader.tells_where_left_off(**partition));
        open.extend(unknown.map(|partition| (Topic::Raw, Position { partition: *partition, offset: 0 })));
        self.doubts.keep(&open);
        Ok(open)
    }

    fn begin_publication(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<(), EventLogError> {
        self.make_sure(&outputs)?;
        let stop = self.stop.clone();
        let Clients { publisher, publication, member, .. } = self.clients();
        *publication = Some(Publication::begin(publisher, outputs, read, member.generation(), &stop)?);
        Ok(())
    }

    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError> {
        let stop = self.stop.clone();
        let clients = self.clients();
        let Some(publication) = clients.publication.take() else { return Ok(FactOffsets::new()) };
        let began = publication.began;
        match publication.end() {
            Err(error) if began.elapsed() >= TRANSACTION_TIMEOUT => Err(clients.tell_apart(error, &stop)),
            published => published,
        }
    }
}

impl Drop for KafkaEventLog {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Ended members stay in the group until their session times out.
fn wait_until_empty(reader: &Reader, group: &str, stop: &Stop) -> Result<(), EventLogError> {
    let began = Instant::now();
    loop {
        let members = reader.members(group)?;
        if members.is_empty() {
            return Ok(());
        }
        if began.elapsed() >= SESSION_WAIT {
            return Err(EventLogError::Fatal(format!(
                "processors of the group {group} are running: {}. Stop them first",
                members.join(", ")
            )));
        }
        if stop.sleep(Duration::from_millis(500)) {
            return Err(stopping());
        }
    }
}

fn ensure_topics(settings: &KafkaSettings, may_create: MayCreate, stop: &Stop) -> Result<(), EventLogError> {
    loop {
        match topics::ensure(settings, may_create, TOPICS_WAIT) {
            Ok(()) => return Ok(()),
            Err(_) if stop.requested() => return Err(stopping()),
            Err(TopicsError::Missing(why)) if may_create == MayCreate::No => return Err(EventLogError::Fatal(why)),
            Err(TopicsError::Partitions(why)) => return Err(EventLogError::Partitions(why)),
            Err(error) if error.needs_a_person() => return Err(EventLogError::Fatal(error.to_string())),
            Err(error) => tracing::warn!("wait for Kafka: {error}"),
        }
        if stop.sleep(Duration::from_secs(1)) {
            return Err(stopping());
        }
    }
}
