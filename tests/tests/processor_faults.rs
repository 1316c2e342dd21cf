//! Processors that are killed, stand still, come and go, run out of disk, and live by a clock that is set:
//! `facts` and all that follows stay what `raw` says, once and in order, and all states are the same.
//!
//! What is true in the end is looked at in [`tests::group::Group::is_exact`].

use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

use tests::clock::Clock;
use tests::cluster::Names;
use tests::group::{Group, IMPATIENT, IMPATIENT_WAIT, harm_state};
use tests::guard::signal;
use tests::kafka::{self, Broker};
use tests::proxy::{Language, Point, Proxy};
use tests::random::{Rng, milliseconds, number, of_this_run};
use tests::tmpfs::Tmpfs;
use tests::topics::Isolation;
use tests::wait::{eventually, eventually_ok, not_run, report};

/// How many processors are killed.
const KILLS: &str = "HOOKLEDGER_TEST_PROCESSOR_KILLS";
const KILLS_IN_CI: u64 = 50;
/// So many processors that stand still in a transaction.
const ZOMBIES: &str = "HOOKLEDGER_TEST_ZOMBIES";
const ZOMBIES_IN_CI: u64 = 8;
/// How long processors come and go.
const STORM: &str = "HOOKLEDGER_TEST_STORM_MINUTES";
const STORM_IN_CI: u64 = 1;
/// How often each way of taking over is measured with the real sessions and transactions, and compared with what is
/// promised. Otherwise each is measured once, and they are short.
const TIMES: &str = "HOOKLEDGER_TEST_TIMES";

/// How many processors come and go; and partitions, so that each has one.
const MANY: usize = 8;
const PARTITIONS_OF_MANY: u32 = 8;

/// A fault shows, or is over.
const SOON: Duration = Duration::from_secs(90);

#[test]
fn whatever_is_killed_at_whatever_moment_nothing_is_lost_doubled_or_out_of_order() {
    let test = "processor kills";
    let Some(mut broker) = kafka::own(test) else { return };
    let kills = number(KILLS).unwrap_or(KILLS_IN_CI);
    let mut random = of_this_run(test);
    let mut group = Group::start(Names::new(broker.bootstrap()), 2, &IMPATIENT);
    let load = group.stream(Duration::from_secs(kills * 2));
    let (mut killed, mut blows, mut brokers) = (0, 0_u64, 0);
    while killed < kills {
        // Any moment of a start, a take-over, a transaction, and of what comes behind it.
        thread::sleep(milliseconds(&mut random, 0..=1_500));
        group.start_who_ended();
        let blow = Blow::any(&mut random);
        brokers += u64::from(blow.is_of_broker());
        killed += blow.strike(&mut group, &mut broker, &mut random);
        blows += 1;
        if blows.is_multiple_of(10) {
            group.goes_on();
            report(&format!("{test}: {killed} of {kills}"));
        }
    }
    group.goes_on();
    let said =
        |what: &str| -> usize { group.processors.iter().map(|process| process.logs().matches(what).count()).sum() };
    let (starts, opened) = (said("\"message\":\"starting\""), said("opened the state and verified"));
    let (again, aside) = (said("opening the logs again"), said("setting the state aside"));
    let read = |isolation| group.names.read("events", isolation).len();
    // In this order, since the stream goes on.
    let committed = read(Isolation::Committed);
    let aborted = read(Isolation::Uncommitted).saturating_sub(committed);
    report(&format!(
        "{test}: {killed} kills, {brokers} of them of the broker; {opened} of {starts} starts came so far as to open a \
         state, {aside} states were set aside, {aborted} events lie there aborted, logs were opened again {again} times, {} processors ended by themselves",
        group.ends.len()
    ));
    assert!(aborted > 0, "some were killed in a transaction");
    group.is_exact(test, load);
}

/// What is killed, and what is done to it while it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Processor,
    /// Beyond its session.
    ForLong,
    Both,
    WithoutState,
    HalfOfState,
    /// State and identity.
    WithoutAnything,
    Broker,
    BrokerAndProcessor,
    Everything,
}

impl Blow {
    fn any(random: &mut Rng) -> Self {
        match random.u64(..28) {
            0..12 => Self::Processor,
            12 => Self::ForLong,
            13..17 => Self::Both,
            17..19 => Self::WithoutState,
            19..21 => Self::HalfOfState,
            21 => Self::WithoutAnything,
            22..24 => Self::Broker,
            24..26 => Self::BrokerAndProcessor,
            _ => Self::Everything,
        }
    }

    fn is_of_broker(self) -> bool {
        matches!(self, Self::Broker | Self::BrokerAndProcessor | Self::Everything)
    }

    /// Returns how many were killed.
    fn strike(self, group: &mut Group, broker: &mut Broker, random: &mut Rng) -> u64 {
        let index = random.usize(..group.processors.len());
        if self.is_of_broker() || self == Self::WithoutAnything {
            // A transaction that a broker forgets, of a processor that then loses its identity, is never resolved: that is outside the promise.
            group.goes_on();
        }
        if self.is_of_broker() {
            thread::sleep(milliseconds(random, 0..=500));
            broker.kill();
            if self == Self::Broker {
                thread::sleep(milliseconds(random, 0..=2_000));
                broker.restart();
                return 1;
            }
        }
        group.processors[index].kill9();
        let mut killed = 1 + u64::from(self.is_of_broker());
        match self {
            Self::Processor | Self::Broker => {}
            Self::BrokerAndProcessor => broker.restart_without_waiting(),
            Self::Everything => {
                let other = 1 - index;
                group.processors[other].kill9();
                killed += 1;
                broker.restart_without_waiting();
                thread::sleep(milliseconds(random, 0..=3_000));
                group.processors[other].restart_without_waiting();
            }
            Self::ForLong => thread::sleep(IMPATIENT_WAIT + milliseconds(random, 0..=1_000)),
            Self::Both => {
                let other = 1 - index;
                group.processors[other].kill9();
                group.processors[other].restart_without_waiting();
                killed += 1;
            }
            Self::WithoutState => harm_state(&group.state(index), true, random),
            Self::HalfOfState => harm_state(&group.state(index), false, random),
            Self::WithoutAnything => harm_state(&group.home(index), true, random),
        }
        group.processors[index].restart_without_waiting();
        if self.is_of_broker() {
            broker.is_back();
        }
        killed
    }
}

#[test]
fn a_processor_that_stands_still_in_a_transaction_until_others_have_its_partitions_changes_nothing() {
    let test = "zombies";
    let mut proxy = Proxy::bind();
    let Some(broker) = kafka::own_behind(test, proxy.port()) else { return };
    proxy.serve(broker.back(), Language::Transactions);
    let zombies = number(ZOMBIES).unwrap_or(ZOMBIES_IN_CI);
    let mut random = of_this_run(test);
    let names = Names::new(&format!("127.0.0.1:{}", proxy.port()));
    let mut group = Group::start(Names { partitions: PARTITIONS_OF_MANY, ..names }, MANY, &IMPATIENT);
    let load = group.stream(Duration::from_secs(zombies * 5));
    let (mut stood, mut slowest) = (0, Duration::ZERO);
    while stood < zombies {
        let wave = Wave { proxy: &proxy, early: random.bool(), late: random.bool() };
        slowest = slowest.max(wave.break_over(&mut group, &mut random));
        stood += Point::ALL.len() as u64;
        report(&format!("{test}: {stood} of {zombies}"));
    }
    let fenced = group.ends.len();
    for end in &group.ends {
        assert!(end.contains("another process has taken our identity"), "{end}");
    }
    report(&format!(
        "{test}: {stood} stood still, the same number at each of {:?}; others had their partitions after {slowest:.1?} at \
         most, with {IMPATIENT_WAIT:?} for session and transaction; {fenced} were fenced and ended",
        Point::ALL
    ));
    group.is_exact(test, load);
    drop(broker);
}

/// Four processors that stand still, one at each point, while four go on.
struct Wave<'a> {
    proxy: &'a Proxy,
    /// What was held back comes to the broker as soon as they stand still; else when they go on.
    early: bool,
    /// It comes before they go on, if it is not early; else behind what they say first.
    late: bool,
}

impl Wave<'_> {
    /// Returns after how long the others had folded what came meanwhile.
    fn break_over(&self, group: &mut Group, random: &mut Rng) -> Duration {
        let mut order: Vec<_> = (0..MANY).collect();
        random.shuffle(&mut order);
        let (still, others) = order.split_at(Point::ALL.len());
        let caught: Vec<_> = still.iter().copied().zip(Point::ALL).collect();
        for (index, point) in &caught {
            self.proxy.set_trap(&Group::client(*index), *point);
        }
        let mut walking = caught.clone();
        eventually(SOON, &format!("processors are caught at {walking:?}"), || {
            walking.retain(|(index, _)| {
                let is_caught = self.proxy.has_caught(&Group::client(*index));
                if is_caught {
                    signal(group.processors[*index].pid(), "STOP").expect("it stands still");
                }
                !is_caught
            });
            walking.is_empty().then_some(())
        });
        let began = Instant::now();
        if self.early {
            self.let_go(still);
        }
        let sent = group.probe();
        for index in others {
            group.knows(*index, &sent);
        }
        let took = began.elapsed();
        if self.late {
            self.let_go(still);
        }
        for index in still {
            signal(group.processors[*index].pid(), "CONT").expect("it goes on");
        }
        self.let_go(still);
        group.goes_on();
        took
    }

    fn let_go(&self, still: &[usize]) {
        for index in still {
            self.proxy.open_trap(&Group::client(*index));
        }
    }
}

#[test]
fn while_processors_come_and_go_nothing_is_left_out_or_doubled() {
    let test = "storm";
    let Some(servers) = kafka::shared(test) else { return };
    let minutes = number(STORM).unwrap_or(STORM_IN_CI);
    let mut random = of_this_run(test);
    let names = Names { partitions: PARTITIONS_OF_MANY, ..Names::new(servers) };
    let mut group = Group::start(names, MANY, &IMPATIENT);
    let lasts = Duration::from_secs(minutes * 60);
    let load = group.stream(lasts);
    let (began, mut rounds, mut killed, mut left) = (Instant::now(), 0, 0, 0);
    while began.elapsed() < lasts {
        let mut order: Vec<_> = (0..MANY).collect();
        random.shuffle(&mut order);
        let (stays, goes) = order.split_first().expect("many");
        for index in goes {
            if random.bool() {
                group.processors[*index].kill9();
                killed += 1;
            } else {
                let status = group.processors[*index].terminate();
                assert!(status.success(), "it ended with {status}");
                left += 1;
            }
            thread::sleep(milliseconds(&mut random, 0..=300));
        }
        let sent = group.probe();
        group.knows(*stays, &sent);
        for index in goes {
            group.processors[*index].restart_without_waiting();
            thread::sleep(milliseconds(&mut random, 0..=600));
        }
        group.goes_on();
        rounds += 1;
        report(&format!("{test}: {rounds} rounds in {:.0?}", began.elapsed()));
    }
    let assigned: usize =
        group.processors.iter().map(|process| process.logs().matches("\"assigned partitions").count()).sum();
    report(&format!(
        "{test}: from {MANY} to 1 and back {rounds} times in {:.0?}, {killed} killed and {left} ended in order; \
         partitions were assigned {assigned} times; {} ended by themselves",
        began.elapsed(),
        group.ends.len(),
    ));
    assert_eq!(group.ends, Vec::<String>::new(), "no processor ends by itself");
    group.is_exact(test, load);
}

#[test]
fn how_long_it_takes_until_events_are_folded_again() {
    let test = "times";
    let mut proxy = Proxy::bind();
    let Some(mut broker) = kafka::own_behind(test, proxy.port()) else { return };
    proxy.serve(broker.back(), Language::Transactions);
    let by_hand = number(TIMES);
    let settings: &[&str] = if by_hand.is_some() { &[] } else { &IMPATIENT };
    let mut group = Group::start(Names::new(&format!("127.0.0.1:{}", proxy.port())), 2, settings);
    let load = group.stream(SOON);
    for way in Way::ALL.into_iter().filter(|way| by_hand.is_some() || way.in_ci()) {
        let measure = |_| way.measure(&mut group, &mut broker, &proxy);
        let mut took: Vec<_> = (0..by_hand.unwrap_or(1)).map(measure).collect();
        took.sort_unstable();
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        report(&format!("{test}: {}: {median:.2?} (median of {}), {most:.2?} at most", way.what(), took.len()));
        assert!(by_hand.is_none() || most <= PROMISED, "{}: {most:?} is more than {PROMISED:?}", way.what());
    }
    group.is_exact(test, load);
}

/// The longer of session (10 s) and transaction (10 s, and 2 s until the broker looks), and 2 s.
const PROMISED: Duration = Duration::from_secs(14);

/// What happens to an owner, and who goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    KilledBack,
    KilledInTransactionBack,
    EndedBack,
    KilledTaken,
    KilledInTransactionTaken,
    StoppedInTransactionTaken,
    EndedTaken,
    KilledInTransactionWithoutIdentity,
    BrokerStopped,
    BrokerKilled,
}

impl Way {
    const ALL: [Self; 10] = [
        Self::KilledBack,
        Self::KilledInTransactionBack,
        Self::EndedBack,
        Self::KilledTaken,
        Self::KilledInTransactionTaken,
        Self::StoppedInTransactionTaken,
        Self::EndedTaken,
        Self::KilledInTransactionWithoutIdentity,
        Self::BrokerStopped,
        Self::BrokerKilled,
    ];

    fn what(self) -> &'static str {
        match self {
            Self::KilledBack => "killed, the same is back at once",
            Self::KilledInTransactionBack => "killed between offsets and commit, the same is back at once",
            Self::EndedBack => "ended in order, the same is back at once",
            Self::KilledTaken => "killed, another takes over",
            Self::KilledInTransactionTaken => "killed between offsets and commit, another takes over",
            Self::StoppedInTransactionTaken => "stands still between offsets and commit, another takes over",
            Self::EndedTaken => "ended in order, another takes over",
            Self::KilledInTransactionWithoutIdentity => {
                "killed between offsets and commit, back at once without its directory"
            }
            Self::BrokerStopped => "the broker stood still for 5 s, from when it goes on",
            Self::BrokerKilled => "the broker was killed, from when it answers again",
        }
    }

    /// Enough to see that measuring works.
    fn in_ci(self) -> bool {
        matches!(self, Self::KilledInTransactionBack | Self::KilledInTransactionTaken)
    }

    /// Until what is sent afterwards is folded in all partitions.
    fn measure(self, group: &mut Group, broker: &mut Broker, proxy: &Proxy) -> Duration {
        group.goes_on();
        group.owns(&group.processors[0], 1);
        let mut began = Instant::now();
        if self.is_in_transaction() {
            proxy.set_trap(&Group::client(0), Point::Commit);
            group.probe();
            eventually(SOON, "a transaction is caught", || proxy.has_caught(&Group::client(0)).then_some(()));
            began = Instant::now();
        }
        let owner = &mut group.processors[0];
        match self {
            Self::EndedBack | Self::EndedTaken => assert!(owner.terminate().success(), "it ends in order"),
            Self::StoppedInTransactionTaken => signal(owner.pid(), "STOP").expect("it stands still"),
            Self::BrokerStopped => {
                broker.freeze();
                thread::sleep(Duration::from_secs(5));
                broker.thaw();
                began = Instant::now();
            }
            Self::BrokerKilled => {
                broker.restart();
                began = Instant::now();
            }
            Self::KilledBack
            | Self::KilledInTransactionBack
            | Self::KilledTaken
            | Self::KilledInTransactionTaken
            | Self::KilledInTransactionWithoutIdentity => owner.kill9(),
        }
        if self.is_in_transaction() && self != Self::StoppedInTransactionTaken {
            proxy.hang_up_on(&Group::client(0));
        }
        if self == Self::KilledInTransactionWithoutIdentity {
            harm_state(&group.home(0), true, &mut Rng::with_seed(0));
        }
        if self.is_back() {
            group.processors[0].restart_without_waiting();
        }
        let sent = group.probe();
        group.knows(usize::from(!self.is_back()), &sent);
        let took = began.elapsed();
        self.end(group, proxy);
        took
    }

    /// All is as before.
    fn end(self, group: &mut Group, proxy: &Proxy) {
        match self {
            Self::StoppedInTransactionTaken => {
                proxy.open_trap(&Group::client(0));
                signal(group.processors[0].pid(), "CONT").expect("it goes on");
            }
            Self::KilledTaken | Self::KilledInTransactionTaken | Self::EndedTaken => {
                group.processors[0].restart_without_waiting();
            }
            Self::KilledBack
            | Self::KilledInTransactionBack
            | Self::EndedBack
            | Self::KilledInTransactionWithoutIdentity
            | Self::BrokerStopped
            | Self::BrokerKilled => {}
        }
    }

    fn is_in_transaction(self) -> bool {
        matches!(
            self,
            Self::KilledInTransactionBack
                | Self::KilledInTransactionTaken
                | Self::StoppedInTransactionTaken
                | Self::KilledInTransactionWithoutIdentity
        )
    }

    fn is_back(self) -> bool {
        matches!(
            self,
            Self::KilledBack
                | Self::KilledInTransactionBack
                | Self::EndedBack
                | Self::KilledInTransactionWithoutIdentity
        )
    }
}

/// Enough for a state and no more than a little beyond.
const SMALL_BYTES: u64 = 32 * 1024 * 1024;

#[test]
fn a_processor_whose_disk_is_full_says_so_lets_others_work_and_goes_on_when_there_is_room() {
    let test = "full disk";
    let small = match Tmpfs::mount(SMALL_BYTES) {
        Ok(small) => small,
        Err(error) => return not_run(test, &format!("{error:#}")),
    };
    let Some(servers) = kafka::shared(test) else { return };
    let names = Names::new(servers);
    symlink(small.from_outside(), names.home("processor-2")).expect("a link");
    let mut group = Group::start(names, 2, &IMPATIENT);
    let load = group.stream(SOON);
    group.goes_on();
    small.take_all_room().expect("fill it");
    let waits = |group: &mut Group| {
        let full = &mut group.processors[1];
        eventually_ok(SOON, "it says what it waits for", || {
            let answer = full.admin().get("/readyz")?;
            anyhow::ensure!(answer.text().contains("the state waits for room on its disk"), "{answer:?}");
            Ok(())
        });
        assert!(full.ended().is_none(), "it lives");
    };
    waits(&mut group);
    // Others take over what it had, and a start comes up.
    let sent = group.probe();
    group.knows(0, &sent);
    group.processors[1].kill9();
    group.processors[1].restart();
    waits(&mut group);
    let sent = group.probe();
    group.knows(0, &sent);
    small.make_room().expect("the file is there");
    group.goes_on();
    assert!(group.ends.is_empty(), "none ended: {:?}", group.ends);
    group.is_exact(test, load);
}

/// Where the clock is set, in hours from the right one. Not back by a day: the `ts` of events would be so far ahead that
/// their time of receipt is taken, which the second fold knows to the second only.
const HOURS: [i64; 5] = [72, 0, -20, 1_080, 0];

#[test]
fn wherever_the_clock_is_set_nothing_is_lost_doubled_or_out_of_order() {
    let test = "clock";
    let clock = match Clock::make() {
        Ok(clock) => clock,
        Err(error) => return not_run(test, &format!("{error:#}")),
    };
    let Some(servers) = kafka::shared(test) else { return };
    let mut group = Group::start_with(Names::new(servers), 2, &IMPATIENT, &clock.environment());
    let load = group.stream(SOON);
    group.goes_on();
    for (nth, hours) in (0..).zip(HOURS) {
        report(&format!("{test}: {hours} hours ahead"));
        clock.set(hours * 60 * 60);
        group.goes_on();
        // One that begins by this clock.
        group.processors[nth % 2].kill9();
        group.processors[nth % 2].restart_without_waiting();
        group.goes_on();
    }
    // Those that were there when it was set back.
    assert!(!group.ends.is_empty());
    for end in &group.ends {
        assert!(end.contains("the clock was set back"), "{end}");
    }
    report(&format!(
        "{test}: set {} times; {} processors ended because it was set back",
        HOURS.len(),
        group.ends.len()
    ));
    group.is_exact(test, load);
}
