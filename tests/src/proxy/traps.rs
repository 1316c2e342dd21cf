//! Catches a client in the middle of a transaction: a request, or the answer to one, is held back until it is let go.
//!
//! The client is known by its `client.id`, the point by the number that Kafka's protocol gives to each kind of
//! request. Nothing is changed or lost; a client that is caught merely waits, and can be stopped while it does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::produce::{i16_at, i32_at};

const PRODUCE: i16 = 0;
const ADD_PARTITIONS: i16 = 24;
const ADD_OFFSETS: i16 = 25;
const END: i16 = 26;
const COMMIT_OFFSETS: i16 = 28;

/// Where a transaction can be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A batch was read and folded, and nothing that follows from it has reached the broker.
    Begin,
    /// The records are there, the offsets are not.
    Sent,
    /// Records and offsets are there, and the transaction is open.
    Commit,
    /// The transaction is committed, and the client has not been told.
    Apply,
}

impl Point {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Begin, Self::Sent, Self::Commit, Self::Apply];

    fn holds_request(self, kind: i16) -> bool {
        match self {
            Self::Begin => kind == ADD_PARTITIONS || kind == ADD_OFFSETS,
            Self::Sent => kind == COMMIT_OFFSETS,
            Self::Commit => kind == END,
            Self::Apply => false,
        }
    }

    fn holds_answer(self, kind: i16) -> bool {
        self == Self::Apply && kind == END
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on.
    Passes,
    /// It waits, and is asked about again.
    Waits,
    /// It is gone, and so is its connection.
    IsLost,
}

/// The traps that are set, by the client's name.
#[derive(Debug, Default)]
pub struct Traps(Mutex<BTreeMap<String, Trap>>);

#[derive(Debug)]
struct Trap {
    point: Point,
    is_caught: bool,
    /// A client that is caught is not released.
    hangs_up: bool,
    /// Requests to take records since the trap was set, and answers to them.
    produced: (u64, u64),
}

impl Traps {
    /// For the next transaction of that client.
    pub fn set(&self, client: &str, point: Point) {
        self.traps().insert(client.to_owned(), Trap { point, is_caught: false, hangs_up: false, produced: (0, 0) });
    }

    /// Whether it is held back, and at [`Point::Sent`] whether its records are there.
    pub fn has_caught(&self, client: &str) -> bool {
        self.traps().get(client).is_some_and(|trap| {
            let (asked, answered) = trap.produced;
            trap.is_caught && (trap.point != Point::Sent || (answered > 0 && asked == answered))
        })
    }

    /// Lets it go.
    pub fn open(&self, client: &str) {
        self.traps().remove(client);
    }

    /// Hangs up on it in the place of letting it go: for a client that is dead.
    pub fn hang_up(&self, client: &str) {
        if let Some(trap) = self.traps().get_mut(client) {
            trap.hangs_up = true;
        }
    }

    fn asks(&self, client: &str, kind: i16) -> Fate {
        self.meets(client, |trap| {
            trap.produced.0 += u64::from(kind == PRODUCE);
            trap.point.holds_request(kind)
        })
    }

    fn hears(&self, client: &str, kind: i16) -> Fate {
        self.meets(client, |trap| {
            // One that was asked before the trap was set is none of its business.
            trap.produced.1 += u64::from(kind == PRODUCE && trap.produced.1 < trap.produced.0);
            trap.point.holds_answer(kind)
        })
    }

    fn meets(&self, client: &str, holds: impl Fn(&mut Trap) -> bool) -> Fate {
        let mut traps = self.traps();
        let Some(trap) = traps.get_mut(client) else { return Fate::Passes };
        if !holds(trap) {
            return Fate::Passes;
        }
        trap.is_caught = true;
        if !trap.hangs_up {
            return Fate::Waits;
        }
        traps.remove(client);
        Fate::IsLost
    }

    fn traps(&self) -> MutexGuard<'_, BTreeMap<String, Trap>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of a client.
#[derive(Debug)]
pub struct Client {
    traps: Arc<Traps>,
    /// Requests of a transaction that were not answered yet: who asked, and for what.
    open: Mutex<HashMap<i32, (String, i16)>>,
}

impl Client {
    /// One that has said nothing yet.
    pub fn new(traps: Arc<Traps>) -> Self {
        Self { traps, open: Mutex::default() }
    }

    /// What becomes of a request.
    pub fn asks(&self, request: &[u8]) -> Fate {
        let Some((kind, number, name)) = head(request) else { return Fate::Passes };
        let fate = self.traps.asks(name, kind);
        if fate == Fate::Passes && (kind == PRODUCE || kind == END) {
            self.open().insert(number, (name.to_owned(), kind));
        }
        fate
    }

    /// What becomes of an answer.
    pub fn hears(&self, answer: &[u8]) -> Fate {
        let asked = i32_at(answer, 4).and_then(|number| Some((number, self.open().get(&number).cloned()?)));
        let Some((number, (name, kind))) = asked else { return Fate::Passes };
        let fate = self.traps.hears(&name, kind);
        if fate == Fate::Passes {
            self.open().remove(&number);
        }
        fate
    }

    fn open(&self) -> MutexGuard<'_, HashMap<i32, (String, i16)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request is about, its number, and its client: they stand at the same places in all versions.
fn head(request: &[u8]) -> Option<(i16, i32, &str)> {
    let kind = i16_at(request, 4)?;
    let number = i32_at(request, 8)?;
    let length = usize::try_from(i16_at(request, 12)?).ok()?;
    let name = request.get(14..14 + length)?;
    Some((kind, number, std::str::from_utf8(name).ok()?))
}

#[cfg(test)]
mod tests {
    use super::Fate::{IsLost, Passes, Waits};
    use super::*;

    fn request(kind: i16, number: i32) -> Vec<u8> {
        let body = [&kind.to_be_bytes()[..], &[0, 3], &number.to_be_bytes(), &[0, 2], b"me", b"the rest"].concat();
        [&i32::try_from(body.len()).expect("short").to_be_bytes()[..], &body].concat()
    }

    fn answer(number: i32) -> Vec<u8> {
        [&8_i32.to_be_bytes()[..], &number.to_be_bytes(), &[0; 4]].concat()
    }

    fn check(point: Point, held_request: Option<i16>) {
        let traps = Arc::new(Traps::default());
        let client = Client::new(Arc::clone(&traps));
        traps.set("another client", Point::Begin);
        traps.set("me", point);
        for (number, kind) in (0..).zip([ADD_PARTITIONS, PRODUCE, ADD_OFFSETS, COMMIT_OFFSETS, END]) {
            let passes = client.asks(&request(kind, number)) == Fate::Passes;
            assert_eq!(passes, Some(kind) != held_request, "{point:?}: request {kind}");
            assert_eq!(traps.has_caught("me"), !passes, "{point:?}");
            if !passes {
                traps.open("me");
                assert_eq!(client.asks(&request(kind, number)), Fate::Passes, "it was let go");
                return;
            }
            let hears = client.hears(&answer(number)) == Fate::Passes;
            assert_eq!(hears, kind != END, "{point:?}: the answer to {kind}");
        }
        assert!(traps.has_caught("me"));
        traps.open("me");
        assert_eq!(client.hears(&answer(4)), Fate::Passes, "it was let go");
    }

    #[test]
    fn a_transaction_is_caught_at_each_of_its_points_and_let_go() {
        check(Point::Begin, Some(ADD_PARTITIONS));
        check(Point::Sent, Some(COMMIT_OFFSETS));
        check(Point::Commit, Some(END));
        check(Point::Apply, None);
    }

    #[test]
    fn records_count_as_there_when_all_are_answered() {
        let traps = Arc::new(Traps::default());
        let client = Client::new(Arc::clone(&traps));
        traps.set("me", Point::Sent);
        let asks = |kind, number| client.asks(&request(kind, number));
        assert_eq!([asks(PRODUCE, 1), asks(PRODUCE, 2), asks(COMMIT_OFFSETS, 3)], [Passes, Passes, Waits]);
        assert!(client.hears(&answer(1)) == Passes && !traps.has_caught("me"), "one is still on its way");
        assert!(client.hears(&answer(2)) == Passes && traps.has_caught("me"));
        traps.hang_up("me");
        assert_eq!([asks(COMMIT_OFFSETS, 3), asks(COMMIT_OFFSETS, 1)], [IsLost, Passes], "one is lost, and no more");
    }
}
