//! Three brokers, one of them killed and replaced again and again: webhooks are answered 200 within `kafka-deadline`
//! plus a sync, and everything is in `raw`, once and in order.

use std::ops::Range;
use std::time::{Duration, Instant};

use portal_sim::player::Player;
use tests::cluster::Names;
use tests::kafka::{self, Brokers};
use tests::load::{Amount, Load};
use tests::process::{Process, Program};
use tests::random::number;
use tests::topics;
use tests::verify::{nothing_acked_is_missing, order_per_portal_is_kept, raw_of};
use tests::wait::{alone, eventually, report};

/// How many kills in all; a few unless told otherwise.
const KILLS: &str = "HOOKLEDGER_TEST_BROKER_KILLS";
const KILLS_USUAL: usize = 3;
/// After so many kills topics and ingress are new, and what was sent is checked and forgotten: so memory is bounded.
const KILLS_PER_LEG: usize = 6;

const BROKERS: u32 = 3;
const PORTALS: u64 = 64;
const CONNECTIONS: usize = 16;
const PAUSE: Duration = Duration::from_millis(10);
/// Answered before the first fault, and after each.
const BETWEEN: u64 = 500;
/// Until another broker leads, and until a broker that is back has caught up. Three of them share two cores.
const HEALED_WITHIN: Duration = Duration::from_secs(120);

/// The default of `kafka-deadline`.
const DEADLINE: Duration = Duration::from_millis(300);
/// How exactly ingress keeps it.
const TICK: Duration = Duration::from_millis(20);

#[test]
fn with_a_broker_killed_over_and_over_answers_take_no_longer_than_the_deadline_and_a_sync() {
    let _alone = alone();
    let test = "with_a_broker_killed_over_and_over_answers_take_no_longer_than_the_deadline_and_a_sync";
    let Some(mut brokers) = kafka::cluster(test, BROKERS) else { return };
    let kills = number(KILLS).map_or(KILLS_USUAL, |kills| usize::try_from(kills).expect("not that many"));
    let mut done = 0;
    while done < kills {
        let more = KILLS_PER_LEG.min(kills - done);
        let leg = Leg::begin(&brokers);
        for kill in done..done + more {
            leg.goes_straight();
            brokers.node(kill).kill();
            leg.leads_again(&brokers);
            brokers.node(kill).restart();
            leg.is_whole(&brokers);
        }
        done += more;
        let said = leg.end();
        report(&format!("cluster_of_brokers: {done} of {kills} kills: {said}"));
    }
}

#[test]
fn a_broker_of_three_that_stands_still_is_done_without_and_comes_back() {
    let _alone = alone();
    let test = "a_broker_of_three_that_stands_still_is_done_without_and_comes_back";
    let Some(mut brokers) = kafka::cluster(test, BROKERS) else { return };
    let leg = Leg::begin(&brokers);
    brokers.node(0).freeze();
    leg.leads_again(&brokers);
    brokers.node(0).thaw();
    leg.is_whole(&brokers);
    let said = leg.end();
    report(&format!("cluster_of_brokers: one stood still: {said}"));
}

/// An ingress under load.
struct Leg {
    names: Names,
    ingress: Process,
    load: Load,
    /// From when until when nothing was broken, and all was warm.
    quiet: Range<Instant>,
}

impl Leg {
    fn begin(brokers: &Brokers) -> Self {
        let names = Names::new(brokers.bootstrap());
        let ingress = names.start(Program::Ingress, "ingress", &[]);
        ingress.ready();
        let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
        let amount = Amount { each: usize::MAX, pause: PAUSE };
        let load = Load::start(ingress.address("webhooks"), portals, CONNECTIONS, amount);
        let mut leg = Self { names, ingress, load, quiet: Instant::now()..Instant::now() };
        leg.is_whole(brokers);
        leg.goes_straight();
        leg.quiet.start = Instant::now();
        leg.load.goes_on(BETWEEN * 4, HEALED_WITHIN);
        leg.quiet.end = Instant::now();
        leg
    }

    /// Nothing is on disk, so that the next fault meets events that go straight to Kafka.
    fn goes_straight(&self) {
        eventually(HEALED_WITHIN, "events go straight to Kafka", || {
            let up = self.ingress.metric("hookledger_kafka_up", "")? > 0.5;
            (up && self.ingress.metric("hookledger_disk_log_events", "")? < 0.5).then_some(())
        });
    }

    /// The others lead all partitions, and take what was kept on disk meanwhile.
    fn leads_again(&self, brokers: &Brokers) {
        self.load.goes_on(BETWEEN, HEALED_WITHIN);
        let topic = self.names.topic("raw");
        eventually(HEALED_WITHIN, "the others lead", || {
            topics::replicas_in_sync(brokers.bootstrap(), &topic).filter(|in_sync| *in_sync < brokers.count())
        });
        self.goes_straight();
        self.load.goes_on(BETWEEN, HEALED_WITHIN);
    }

    /// All replicas are in sync: one more may be lost.
    fn is_whole(&self, brokers: &Brokers) {
        let topic = self.names.topic("raw");
        eventually(HEALED_WITHIN, "all replicas are in sync", || {
            topics::replicas_in_sync(brokers.bootstrap(), &topic).filter(|in_sync| *in_sync == brokers.count())
        });
        self.load.goes_on(BETWEEN, HEALED_WITHIN);
    }

    /// Ends the load and compares with what was promised. Returns the figures.
    fn end(self) -> String {
        let syncs = "hookledger_disk_log_fsync_duration_seconds";
        let sync =
            self.ingress.quantile(syncs, 0.99).expect("the disk was needed, and a sync took less than all buckets");
        let renewed = self.ingress.metric("hookledger_ingress_producers_renewed_total", "").expect("a metric");
        let outcome = self.load.stop();
        assert_eq!(outcome.refused, Vec::<String>::new(), "only 200s");
        assert_eq!((outcome.unanswered.len(), outcome.unsent), (0, 0), "all are answered");

        let raw = raw_of(&self.names, &outcome.acked);
        let doubled = nothing_acked_is_missing(&outcome.acked, &raw);
        if renewed < 0.5 {
            assert_eq!(doubled, 0, "no producer was lost, so nothing is there twice");
            order_per_portal_is_kept(&outcome.acked, &raw);
        }

        let quiet: Vec<_> = outcome.took.iter().filter(|(at, _)| self.quiet.contains(at)).copied().collect();
        let faulty: Vec<_> = outcome.took.iter().filter(|(at, _)| *at >= self.quiet.end).copied().collect();
        let (quiet, faulty) = (sorted(&quiet), sorted(&faulty));
        let on_disk = outcome.acked.iter().filter(|acked| acked.kept == "disk").count();
        assert!(on_disk > 0, "no fault was felt, so this shows nothing");
        let sync = Duration::from_secs_f64(sync);
        // What a machine does to answers that wait for nothing, it does to those that wait for the deadline too.
        let bound = DEADLINE + TICK + sync + part(&quiet, 0.99);
        let said = format!(
            "{} events, {on_disk} by the disk, {doubled} twice; quiet p50 {:?} p99 {:?}; with faults p50 {:?} p99 {:?} \
             p99.9 {:?} slowest {:?}; a sync's p99 {sync:?}, the bound of p99 {bound:?}",
            outcome.acked.len(),
            part(&quiet, 0.5),
            part(&quiet, 0.99),
            part(&faulty, 0.5),
            part(&faulty, 0.99),
            part(&faulty, 0.999),
            part(&faulty, 1.0),
        );
        assert!(part(&faulty, 0.99) < bound, "{said}");
        said
    }
}

fn sorted(took: &[(Instant, Duration)]) -> Vec<Duration> {
    let mut took: Vec<_> = took.iter().map(|(_, took)| *took).collect();
    took.sort_unstable();
    took
}

/// The value below which this part of the values lies.
fn part(sorted: &[Duration], part: f64) -> Duration {
    let count = f64::from(u32::try_from(sorted.len()).expect("fewer than 4 billion"));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place among the values")]
    let place = (count * part).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}
