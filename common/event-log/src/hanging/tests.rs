//! How what hangs is judged, on simulated logs.

use std::cell::RefCell;

use super::*;

/// What is there: causes of what is committed, then of what is open.
type Log = (Topic, &'static [u64], &'static [u64]);
/// What tells of it, the logs, where the group left off; which topics are committed, and which are aborted.
type Case = (&'static str, &'static [Log], Option<u64>, &'static [Topic], &'static [Topic]);

/// Instead of a cause: all before it is decided, as far as `raw` was read to 4.
const NOOP: u64 = u64::MAX;
const FACTS: Topic = Topic::Facts;
const EVENTS: Topic = Topic::Events;
const UNVERIFIED: Topic = Topic::Unverified;

#[test]
fn what_hangs_is_committed_where_anything_tells_of_its_step_for_the_first_time() {
    let cases: [Case; 11] = [
        ("nothing tells of it", &[(FACTS, &[0, 3], &[4]), (EVENTS, &[3], &[4])], Some(4), &[], &[FACTS, EVENTS]),
        ("the first step, and nothing tells of it", &[(FACTS, &[], &[0])], None, &[], &[FACTS]),
        ("the group's offset", &[(FACTS, &[0, 3], &[4]), (EVENTS, &[3], &[4])], Some(6), &[FACTS, EVENTS], &[]),
        ("facts", &[(FACTS, &[3, 5], &[]), (EVENTS, &[3], &[4])], Some(4), &[EVENTS], &[]),
        ("facts of a later record", &[(FACTS, &[3, 5], &[]), (EVENTS, &[3], &[5])], None, &[EVENTS], &[]),
        (
            "a topic, of what facts are silent about",
            &[(FACTS, &[3], &[5]), (EVENTS, &[4], &[])],
            Some(4),
            &[FACTS],
            &[],
        ),
        ("a topic, in the first step", &[(FACTS, &[], &[1]), (EVENTS, &[0], &[])], None, &[FACTS], &[]),
        (
            "one that begins behind what tells of it",
            &[(FACTS, &[3], &[4]), (EVENTS, &[4], &[]), (UNVERIFIED, &[2], &[6])],
            Some(4),
            &[FACTS, UNVERIFIED],
            &[],
        ),
        (
            "a noop record tells of no step",
            &[(FACTS, &[3], &[]), (EVENTS, &[], &[NOOP]), (UNVERIFIED, &[2], &[4])],
            Some(4),
            &[],
            &[EVENTS, UNVERIFIED],
        ),
        ("the step behind such a record", &[(FACTS, &[5], &[]), (EVENTS, &[], &[NOOP, 4])], None, &[EVENTS], &[]),
        ("the second time", &[(FACTS, &[3, 7], &[4]), (EVENTS, &[3, 6], &[5])], Some(8), &[], &[FACTS, EVENTS]),
    ];
    for (what, logs, committed, commits, aborts) in cases {
        let simulated = SimulatedLogs { logs, committed, is_known: true, ended: RefCell::default() };
        let published_in = end_what_hangs(&simulated, &[]).expect("ends");
        let ended = simulated.ended.into_inner();
        assert_eq!((ended.commits.as_slice(), ended.aborts.as_slice()), (commits, aborts), "{what}");
        assert_eq!(ended.void, [], "{what}");
        assert_eq!(published_in, BTreeSet::from([0]), "{what}");
    }
}

#[test]
fn what_our_state_applied_was_committed() {
    let facts_hang: &[Log] = &[(FACTS, &[3], &[4, 4]), (EVENTS, &[3], &[4])];
    let facts_tell: &[Log] = &[(FACTS, &[3, 4, 4], &[]), (EVENTS, &[3], &[6])];
    // The first open fact lies at 1; of a partition whose facts were recreated a state may have applied anything.
    for (what, logs, facts, is_committed) in [
        ("it applied the first of what hangs", facts_hang, 2, true),
        ("it applied all", facts_hang, 3, true),
        ("it had come to where it hangs", facts_hang, 1, false),
        ("it applied other facts", facts_hang, 4, false),
        ("facts tell more", facts_tell, 3, false),
    ] {
        let simulated = SimulatedLogs { logs, committed: None, is_known: true, ended: RefCell::default() };
        let applied = |partition| Applied { partition, facts, raw: 7 };
        end_what_hangs(&simulated, &[applied(1), applied(0)]).expect("ends");
        assert_eq!(!simulated.ended.borrow().commits.is_empty(), is_committed, "{what}");
        assert_eq!(!simulated.ended.borrow().aborts.is_empty(), !is_committed, "{what}");
    }
}

#[test]
fn offsets_that_are_not_told_are_aborted_and_what_is_decided_is_left() {
    let settled: &[Log] = &[(FACTS, &[3], &[]), (EVENTS, &[3], &[])];
    let simulated = SimulatedLogs { logs: settled, committed: Some(4), is_known: true, ended: RefCell::default() };
    assert_eq!(end_what_hangs(&simulated, &[]).expect("nothing to do"), BTreeSet::new());

    let simulated = SimulatedLogs { is_known: false, ..simulated };
    assert_eq!(end_what_hangs(&simulated, &[]).expect("ends"), BTreeSet::from([0]));
    let ended = simulated.ended.into_inner();
    assert_eq!((ended.commits, ended.aborts), (vec![], vec![]));
    assert_eq!(ended.void, [Position { partition: 0, offset: 0 }]);
}

/// One partition.
struct SimulatedLogs {
    logs: &'static [Log],
    committed: Option<u64>,
    is_known: bool,
    ended: RefCell<Ended>,
}

#[derive(Default)]
struct Ended {
    commits: Vec<Topic>,
    aborts: Vec<Topic>,
    void: Vec<Position>,
}

impl SimulatedLogs {
    fn log(&self, topic: Topic) -> Log {
        *self.logs.iter().find(|(simulated, _, _)| *simulated == topic).expect("it is simulated")
    }
}

impl Recovering for SimulatedLogs {
    fn undecided(&self) -> Result<Undecided, EventLogError> {
        let published = self.logs.iter().map(|(topic, committed, open)| {
            let stable = committed.len() as u64;
            Published { topic: *topic, partition: 0, stable, end: stable + open.len() as u64 }
        });
        let published: Vec<Published> = published.collect();
        let hanging = published.iter().filter(|published| published.is_open()).map(|published| (published.topic, 0));
        let left_off = if self.is_known {
            LeftOff {
                known: self.committed.map(|committed| (0, committed)).into_iter().collect(),
                unknown: BTreeSet::new(),
            }
        } else {
            LeftOff { known: BTreeMap::new(), unknown: BTreeSet::from([0]) }
        };
        Ok(Undecided { hanging: hanging.collect(), published, left_off })
    }

    fn newest(&self, published: &Published, visit: &mut dyn FnMut(&Entry)) -> Result<bool, EventLogError> {
        let (_, committed, _) = self.log(published.topic);
        committed.iter().map(|cause| because_of(*cause)).for_each(|entry| visit(&entry));
        Ok(true)
    }

    fn open(
        &self,
        published: &Published,
        visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError> {
        let (_, _, open) = self.log(published.topic);
        for cause in open {
            if visit(&because_of(*cause)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, outputs: &[Output]) -> Result<(), EventLogError> {
        self.ended.borrow_mut().commits.extend(outputs.iter().map(|output| output.topic));
        Ok(())
    }

    fn abort(&self, outputs: &[Output], read: &[Position]) -> Result<(), EventLogError> {
        let mut ended = self.ended.borrow_mut();
        ended.aborts.extend(outputs.iter().map(|output| output.topic));
        ended.void.extend(read);
        Ok(())
    }
}

fn because_of(cause: u64) -> Entry {
    if cause == NOOP {
        let Output { record, .. } = noop(FACTS, 0, 4);
        return Entry { position: Position { partition: 0, offset: 0 }, record };
    }
    let headers = vec![(header::RAW_OFFSET.into(), cause.to_string().into_bytes())];
    let record = Record { key: None, value: None, headers, at: Timestamp::from_s(0) };
    Entry { position: Position { partition: 0, offset: 0 }, record }
}
