//! What the loop does when the logs or the group do not let it go on, on logs in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use event_log::contract::Topic;
use event_log::memory::{MemoryEventLog, MemoryFacts, Script};
use event_log::{LogEvent, Position};
use runtime::lifecycle::Readiness;

use super::*;
use crate::run::inconsistency::What;
use crate::state::Store;
use crate::state::memory::Memory;

#[test]
fn partitions_without_an_owner_for_too_long_make_us_leave_the_group_and_come_back() {
    let world = World::default();
    world.run(&|opened, turns| Play { unowned: Some(2), ends: opened == 3 && turns == 1, ..Play::default() });
    assert_eq!(world.opened.load(Ordering::Relaxed), 3);
    assert_eq!(world.joined.load(Ordering::Relaxed), 3);
}

#[test]
fn a_group_at_rest_or_between_two_generations_is_not_left() {
    for unowned in [Some(0), None] {
        let world = World::default();
        world.run(&|_, turns| Play { unowned, ends: turns == 20, ..Play::default() });
        assert_eq!(world.opened.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_transaction_that_hangs_makes_us_open_the_logs_again_once() {
    let world = World::default();
    world.run(&|opened, turns| Play { undecided: Some(7), ends: opened == 2 && turns == 20, ..Play::default() });
    assert_eq!(world.opened.load(Ordering::Relaxed), 2);
    let world = World::default();
    // And once more for each other one.
    world.run(&|opened, turns| Play {
        undecided: Some(opened.min(3) as u64),
        ends: opened == 4 && turns == 20,
        ..Play::default()
    });
    assert_eq!(world.opened.load(Ordering::Relaxed), 4);
}

#[test]
fn what_hangs_is_ended_again_after_a_broker_went_away() {
    let world = World::default();
    world.run(&|opened, turns| Play {
        undecided: Some(7),
        lost_a_broker: opened == 2 && turns == 10,
        ends: opened == 3 && turns == 20,
        ..Play::default()
    });
    assert_eq!(world.opened.load(Ordering::Relaxed), 3);
}

#[test]
fn a_halted_processor_joins_no_group_says_why_and_resumes_by_itself() {
    let world = World::default();
    let why = world.processor().metrics.standing_still();
    // The group has read what facts do not tell; that is corrected before the fourth check.
    world.run(&|opened, turns| {
        assert_eq!(why().is_some(), (2..5).contains(&opened) && turns == 0, "{opened} {turns}: {:?}", why());
        Play { committed: (opened < 4).then_some(7), ends: opened == 4 && turns == 3, ..Play::default() }
    });
    assert_eq!(world.opened.load(Ordering::Relaxed), 4);
    // When it took the partition over, and when it went on.
    assert_eq!(world.joined.load(Ordering::Relaxed), 2);
    assert_eq!(why(), None);
}

#[test]
fn without_room_for_the_state_it_leaves_the_logs_to_others_until_there_is_some() {
    let world = World::default();
    let why = world.processor().metrics.standing_still();
    world.full.store(2, Ordering::Relaxed);
    world.run(&|opened, turns| {
        let waits = why() == Some("the state waits for room on its disk");
        // The second turn brings something that is folded.
        assert!(turns == 2 || waits == (opened == 2 && turns < 2), "{opened} {turns}: {:?}", why());
        Play { brings: true, ends: opened == 2 && turns == 4, ..Play::default() }
    });
    assert_eq!((world.opened.load(Ordering::Relaxed), world.full.load(Ordering::Relaxed)), (2, 0));
    assert_eq!((why(), world.metrics.state_waits().get()), (None, 0));
}

#[test]
fn a_loop_that_may_not_wait_ends_with_the_inconsistency() {
    let world = World { timings: Timings { check_again: None, ..World::default().timings }, ..World::default() };
    let error = world.try_run(&|_, _| Play { committed: Some(7), ..Play::default() }).expect_err("it ends");
    let inconsistency = error.downcast_ref::<Inconsistency>().expect("it says how");
    assert_eq!(inconsistency.what, What::FactsLost);
    assert!(error.to_string().contains("hookledger resume --accept"), "{error}");
}

/// What the logs and the group say, when they were opened so often and brought so many turns.
#[derive(Default)]
struct Play {
    committed: Option<u64>,
    unowned: Option<usize>,
    /// A transaction is open in `events`, behind this place.
    undecided: Option<u64>,
    /// And a broker went away.
    lost_a_broker: bool,
    /// The second turn brings something of `raw`.
    brings: bool,
    /// The loop is asked to stop.
    ends: bool,
}

struct World {
    timings: Timings,
    opened: AtomicUsize,
    joined: AtomicUsize,
    /// So many looks still find no room for the state.
    full: Arc<AtomicUsize>,
    metrics: Metrics,
    stop: Stop,
}

impl Default for World {
    fn default() -> Self {
        let none = Duration::ZERO;
        Self {
            timings: Timings {
                make_room: Duration::from_millis(1),
                backoff: none,
                measure_every: none,
                check_again: Some(none),
                unowned_wait: Duration::from_millis(1),
                away: none,
                open_max: none,
            },
            opened: AtomicUsize::new(0),
            joined: AtomicUsize::new(0),
            full: Arc::default(),
            metrics: Metrics::new(&runtime::telemetry::registry()),
            stop: Stop::default(),
        }
    }
}

impl World {
    fn processor(&self) -> Processor {
        Processor {
            vouching: None,
            vault: None,
            forwarding: None,
            state_dir: Box::new(Missing(self.full.clone())),
            timings: self.timings,
            limits: Limits::default(),
            trusts: Trusts::default(),
            shared: Shared::default(),
            recent_events: RecentEvents::default(),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        }
    }

    fn run(&self, play: &(dyn Fn(usize, usize) -> Play + Sync)) {
        self.try_run(play).expect("an orderly end");
    }

    fn try_run(&self, play: &(dyn Fn(usize, usize) -> Play + Sync)) -> anyhow::Result<()> {
        let open = || {
            let opened = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
            let turns = Turns { world: self, play, opened, taken: 0 };
            Ok(MemoryEventLog::new(vec![MemoryFacts::of(0, 0, [])], true, turns))
        };
        self.processor().run(open, Readiness::default().pending("facts"))
    }
}

/// One empty partition, which is ours at the first turn.
struct Turns<'a> {
    world: &'a World,
    play: &'a (dyn Fn(usize, usize) -> Play + Sync),
    opened: usize,
    taken: usize,
}

impl Turns<'_> {
    fn play(&self) -> Play {
        (self.play)(self.opened, self.taken)
    }
}

impl Script for Turns<'_> {
    fn committed(&mut self) -> Option<u64> {
        self.play().committed
    }

    fn joined(&mut self) {
        self.world.joined.fetch_add(1, Ordering::Relaxed);
    }

    fn next(&mut self) -> LogEvent {
        self.taken += 1;
        if self.play().ends {
            self.world.stop.request();
        }
        match self.taken {
            1 => LogEvent::Assigned(vec![0]),
            2 if self.play().brings => LogEvent::Raw(vec![]),
            _ => LogEvent::Quiet,
        }
    }

    fn unowned(&mut self) -> Option<usize> {
        self.play().unowned
    }

    fn lost_a_broker(&mut self) -> bool {
        self.play().lost_a_broker
    }

    fn undecided(&mut self) -> Vec<(Topic, Position)> {
        let place = |offset| (Topic::Events, Position { partition: 0, offset });
        self.play().undecided.map(place).into_iter().collect()
    }
}

/// A state in memory, gone with its store.
struct Missing(Arc<AtomicUsize>);

impl StateDir for Missing {
    fn open(&self, log: &str, partitions: u32, trusts: Trusts, _: &Patience) -> Result<Store, StoreError> {
        Store::open(Box::new(Memory::default()), log, partitions, trusts)
    }

    fn has_room(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    fn quarantine(&self) -> anyhow::Result<String> {
        Ok("missing".to_owned())
    }

    fn open_beside(
        &self,
        log: &str,
        partitions: u32,
        trusts: Trusts,
        patience: &Patience,
    ) -> Result<Store, StoreError> {
        self.open(log, partitions, trusts, patience)
    }

    fn throw_away_beside(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn swap(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
