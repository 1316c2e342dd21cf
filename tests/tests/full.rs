//! While storage is unavailable, events are answered 503 and nothing else; with room or Kafka back all goes on by itself.
//!
//! What was answered 200 is in `raw` afterwards, once and in order, however full it was. Ingress is not ready
//! while it refuses, and counts what it refused.

use std::sync::Arc;
use std::time::Duration;

use tests::cluster::{Names, PARTITIONS};
use tests::kafka::{self, Broker};
use tests::process::{Process, Program};
use tests::random::of_this_run;
use tests::tmpfs::Tmpfs;
use tests::topics;
use tests::truth::{Book, Plan, Reader, Senders, Verdict};
use tests::wait::{alone, eventually, eventually_ok, not_run, report};

const CONNECTIONS: usize = 16;
const PORTALS_OF_EACH: usize = 10;

/// So many refusals are seen each time; at first each of them takes its time.
const REFUSED: u64 = 2 * CONNECTIONS as u64;

/// What is waited for takes moments, but for Kafka's return.
const SOON: Duration = Duration::from_secs(60);

const MIB: u64 = 1024 * 1024;

/// A file system for two full segments, the spare one, and other people's files.
const SMALL_BYTES: u64 = 14 * MIB;
/// Segments are a quarter of it; it is never reached there.
const LIMIT_BEYOND_SMALL: &str = "16MiB";
/// Other people's files: one segment more or less.
const OTHERS_BYTES: usize = 5 * 1024 * 1024;

#[test]
fn at_the_limit_of_the_disk_log_events_are_refused_until_kafka_is_back() {
    let test = "at_the_limit_of_the_disk_log_events_are_refused_until_kafka_is_back";
    let _alone = alone();
    let Some(broker) = kafka::own(test) else { return };
    let names = Names::new(broker.bootstrap());
    let ingress = names.start(Program::Ingress, "ingress", &["--disk-log-limit", "4MiB"]);
    let mut scene = Scene::begin(test, broker, &names, ingress);
    scene.fill_without_kafka();
    scene.kafka_comes_back();
    scene.end();
}

#[test]
fn on_a_full_file_system_events_are_refused_until_there_is_room_or_kafka_is_back() {
    let test = "on_a_full_file_system_events_are_refused_until_there_is_room_or_kafka_is_back";
    let _alone = alone();
    let Some(small) = small(test) else { return };
    let Some(broker) = kafka::own(test) else { return };
    let names = Names::new(broker.bootstrap());
    small.take_room(OTHERS_BYTES).expect("there is room");
    let ingress = start_in(&small, &names);
    let mut scene = Scene::begin(test, broker, &names, ingress);
    scene.fill_without_kafka();
    assert!(small.free().expect("look") < 5 * MIB, "not even a segment fits in there");

    small.make_room().expect("the file is there");
    scene.goes_on_by_disk();
    scene.fill_without_kafka();
    scene.kafka_comes_back();
    scene.end();
}

#[test]
fn an_ingress_that_is_killed_on_a_full_file_system_starts_again_and_brings_all_to_kafka() {
    let test = "an_ingress_that_is_killed_on_a_full_file_system_starts_again_and_brings_all_to_kafka";
    let _alone = alone();
    let Some(small) = small(test) else { return };
    let Some(broker) = kafka::own(test) else { return };
    let names = Names::new(broker.bootstrap());
    let ingress = start_in(&small, &names);
    let mut scene = Scene::begin(test, broker, &names, ingress);
    scene.fill_without_kafka();
    // Down to the last byte, as other people's files do it.
    small.take_all_room().expect("fill it");
    scene.ingress.kill9();
    scene.ingress.restart();
    scene.kafka_comes_back();
    scene.end();
}

/// A broker that goes and comes, an ingress in front of it, and a sender all the while.
struct Scene<'a> {
    test: &'a str,
    broker: Broker,
    ingress: Process,
    book: Arc<Book>,
    reader: Reader,
    senders: Senders,
}

impl<'a> Scene<'a> {
    /// All is well.
    fn begin(test: &'a str, broker: Broker, names: &Names, ingress: Process) -> Self {
        ingress.ready();
        let raw = names.topic("raw");
        let partitions = topics::partitions(broker.bootstrap(), &raw);
        assert_eq!(partitions, usize::try_from(PARTITIONS).ok(), "ingress has made its topics");
        let mut random = of_this_run("full");
        let book = Arc::new(Book::new(CONNECTIONS, PORTALS_OF_EACH));
        let reader = Reader::start(broker.bootstrap(), &raw, &book);
        let senders = Senders::start(ingress.address("webhooks"), &book, Plan::default(), &mut random);
        senders.goes_on(1_000, SOON);
        Self { test, broker, ingress, book, reader, senders }
    }

    /// Kafka goes away, the disk fills, and then nothing is taken any more.
    fn fill_without_kafka(&mut self) {
        self.broker.kill();
        let before = self.book.storage_unavailable();
        // Each may have waited for Kafka until the last moment.
        eventually(SOON, "events are refused", || (self.book.storage_unavailable() > before + REFUSED).then_some(()));
        eventually_ok(SOON, "it is not ready while it refuses", || {
            let answer = self.ingress.admin().get("/readyz")?;
            anyhow::ensure!(answer.status == 503 && answer.text().contains("events are refused"), "{answer:?}");
            Ok(())
        });
        assert_eq!(
            self.ingress.admin().get("/livez").expect("an answer").status,
            200,
            "it lives, and needs no restart"
        );
    }

    /// There is room again, and still no Kafka.
    fn goes_on_by_disk(&self) {
        let (kafka, disk) = self.book.kept();
        eventually(SOON, "events are kept on disk again", || (self.book.kept().1 > disk + 100).then_some(()));
        assert_eq!(self.book.kept().0, kafka, "there is no Kafka");
    }

    /// All that waited goes to Kafka, and so does what comes.
    fn kafka_comes_back(&mut self) {
        self.broker.restart();
        let kafka = self.book.kept().0;
        let straight = "events go straight to Kafka again";
        eventually(3 * SOON, straight, || (self.book.kept().0 > kafka + 1_000).then_some(()));
        // And not merely for moments between refusals.
        eventually(SOON, "nothing is refused any more", || {
            let (refused, kept) = (self.book.storage_unavailable(), self.book.kept().0);
            eventually(SOON, straight, || (self.book.kept().0 > kept + 2_000).then_some(()));
            (self.book.storage_unavailable() == refused).then_some(())
        });
        self.ingress.ready();
    }

    /// Everything that was answered 200 is in `raw`.
    fn end(self) {
        let Self { test, broker, ingress, book, reader, senders } = self;
        let (_, not_connected) = senders.stop();
        book.comes_to_rest(&ingress);
        reader.finish();
        let (verdict, offences) = book.verdict();
        report(&format!("full, {test}: {verdict}"));
        let counted = ingress.metric("hookledger_ingress_events_total", "outcome=\"storage_unavailable\"");
        drop((ingress, broker));
        let expected = Verdict {
            requests: verdict.requests,
            kafka: verdict.kafka,
            disk: verdict.disk,
            storage_unavailable: verdict.storage_unavailable,
            found: verdict.found,
            ..Verdict::default()
        };
        if verdict.unanswered == 0 {
            assert_eq!((verdict, not_connected), (expected, 0), "{offences:#?}");
            assert_eq!(counted, Some(as_metric(verdict.storage_unavailable)), "each refusal is counted");
        } else {
            // It was killed.
            let Verdict { unanswered, resent, .. } = verdict;
            assert_eq!(verdict, Verdict { unanswered, resent, ..expected }, "{offences:#?}");
        }
    }
}

fn small(test: &str) -> Option<Tmpfs> {
    Tmpfs::mount(SMALL_BYTES).map_err(|error| not_run(test, &format!("{error:#}"))).ok()
}

fn start_in(small: &Tmpfs, names: &Names) -> Process {
    let mut arguments = names.arguments_in(small.path());
    arguments.extend(["--disk-log-limit".to_owned(), LIMIT_BEYOND_SMALL.to_owned()]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Process::start_inside(&small.entrance(), Program::Ingress, &arguments, &[], &names.home("ingress.log"))
}

fn as_metric(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("not so many"))
}
