//! Reads a topic while it is being written, and writes into the book what it finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::book::{Book, Made, Sighting};
use crate::topics;

/// Without any record for so long, while there are some to come, something is broken.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Without any record for so long, another client is tried.
const NEW_CLIENT_AFTER: Duration = Duration::from_secs(10);

/// A reader in a thread of its own.
pub struct Reader {
    servers: String,
    topic: String,
    /// Where to end, once it is known.
    ends: Arc<Mutex<Option<BTreeMap<i32, i64>>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Begins at the first record of a topic that exists.
    pub fn start(servers: &str, topic: &str, book: &Arc<Book>) -> Self {
        let ends = Arc::new(Mutex::new(None));
        let reading = Reading {
            servers: servers.to_owned(),
            topic: topic.to_owned(),
            next: topics::ends(servers, topic).into_keys().map(|partition| (partition, 0)).collect(),
            book: Arc::clone(book),
            ends: Arc::clone(&ends),
            made: Made::default(),
        };
        let thread = std::thread::Builder::new().name("reader".into()).spawn(move || reading.run());
        let thread = thread.expect("a thread");
        Self { servers: servers.to_owned(), topic: topic.to_owned(), ends, thread }
    }

    /// Reads to what is the topic's end now.
    pub fn finish(self) {
        let ends = topics::ends(&self.servers, &self.topic);
        let ends = ends.into_iter().map(|(partition, (_, end))| (partition, end)).collect();
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends);
        self.thread.join().expect("the reader comes to the topic's end");
    }
}

struct Reading {
    servers: String,
    topic: String,
    /// What is read next of each partition.
    next: BTreeMap<i32, i64>,
    book: Arc<Book>,
    ends: Arc<Mutex<Option<BTreeMap<i32, i64>>>>,
    made: Made,
}

impl Reading {
    fn run(mut self) {
        let mut consumer = self.consumer();
        let (mut read_at, mut begun_at) = (Instant::now(), Instant::now());
        loop {
            // A broker that is away is an error too, and comes back.
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                let next = self.next.get_mut(&message.partition()).expect("a partition that was assigned");
                // What a client reads again after an error of its own is no second copy.
                if message.offset() >= *next {
                    *next = message.offset() + 1;
                    look(&message, &self.book, &mut self.made);
                }
                read_at = Instant::now();
                continue;
            }
            if let Some(missing) = self.missing() {
                if missing.is_empty() {
                    return;
                }
                assert!(read_at.elapsed() < SILENCE_MAX, "no record of {}: {missing:?}", self.topic);
            }
            // A client may be long in finding a leader that was away and is back. It is not what is tested.
            if read_at.max(begun_at).elapsed() > NEW_CLIENT_AFTER {
                consumer = self.consumer();
                begun_at = Instant::now();
            }
        }
    }

    /// A client that goes on where the last one was.
    fn consumer(&self) -> BaseConsumer {
        let consumer = consumer(&self.servers);
        let mut from = TopicPartitionList::new();
        for (partition, next) in &self.next {
            from.add_partition_offset(&self.topic, *partition, Offset::Offset(*next)).expect("a partition");
        }
        consumer.assign(&from).expect("assign");
        consumer
    }

    /// Partitions that were not read to where the reader shall end; none before that is known.
    fn missing(&self) -> Option<Vec<(i32, i64, i64)>> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |(partition, end): (&i32, &i64)| {
            let next = self.next.get(partition).copied().unwrap_or(0);
            (next < *end).then_some((*partition, next, *end))
        };
        ends.as_ref().map(|ends| ends.iter().filter_map(behind).collect())
    }
}

fn look(message: &BorrowedMessage<'_>, book: &Book, made: &mut Made) {
    let header = |name: &str| {
        let mut headers = message.headers()?.iter();
        headers.find(|header| header.key == name).and_then(|header| header.value)
    };
    let record = Sighting {
        place: (message.partition(), message.offset()),
        key: message.key(),
        body: message.payload(),
        id: header("ce_id"),
        content_type: header("content-type"),
        resent: header("hl_resent") == Some(b"1"),
    };
    book.found(&record, made);
}

/// Large fetches: the broker has better things to do than to answer many small ones.
fn consumer(servers: &str) -> BaseConsumer {
    topics::client(servers)
        .set("group.id", "tests")
        .set("isolation.level", "read_uncommitted")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.min.bytes", "65536")
        .set("fetch.wait.max.ms", "200")
        .set("queued.max.messages.kbytes", "16384")
        .create()
        .expect("a consumer")
}
