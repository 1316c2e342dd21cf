//! All connections of one worker thread. When there are too many, or their bodies take too much memory,
//! the slowest ones are closed. A request that is being answered is never closed for others.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::connection::{Connection, Phase};
use crate::limits::Limits;
use crate::networks::Networks;
use crate::observer::Observer;
use crate::pace::Pace;

/// Each connection includes this much of its body: only bytes beyond it are counted, so that smaller bodies never
/// lose their memory. Bitrix24's have one or two kilobytes.
pub(super) const BODY_BYTES_FREE: usize = 8 * 1024;

/// The connections of a worker, and the memory that their bodies share.
pub(super) struct Connections {
    limits: Limits,
    /// A proxy forwards many clients, so its number of connections does not count.
    proxies: Networks,
    guarded: RefCell<BTreeMap<u64, Place>>,
    sources: RefCell<HashMap<IpAddr, usize>>,
    next: Cell<u64>,
    /// Bytes in use of the memory for bodies.
    held: Cell<usize>,
    /// Tasks that wait for memory.
    waiting: RefCell<Vec<Waker>>,
    pace: Rc<Pace>,
    observer: Arc<dyn Observer>,
}

struct Place {
    connection: Rc<Connection>,
    source: IpAddr,
}

impl Connections {
    pub(super) fn new(limits: Limits, proxies: Networks, observer: Arc<dyn Observer>) -> Rc<Self> {
        Rc::new(Self {
            limits,
            proxies,
            guarded: RefCell::default(),
            sources: RefCell::default(),
            next: Cell::new(0),
            held: Cell::new(0),
            waiting: RefCell::default(),
            pace: Rc::new(Pace::new(limits.large_bytes_per_second, limits.connections_max, Instant::now())),
            observer,
        })
    }

    /// Adds a connection; if there are too many, another one is closed.
    pub(super) fn enter(self: &Rc<Self>, peer: IpAddr) -> Guard {
        let (pace, observer) = (Rc::clone(&self.pace), Arc::clone(&self.observer));
        let connection = Rc::new(Connection::new(self.limits, pace, observer, Instant::now()));
        if self.guarded.borrow().len() >= self.limits.connections_max {
            self.send_one_away();
        }
        let (id, source) = (self.next.get(), network(peer));
        self.next.set(id + 1);
        self.guarded.borrow_mut().insert(id, Place { connection: Rc::clone(&connection), source });
        *self.sources.borrow_mut().entry(source).or_default() += 1;
        Guard { connections: Rc::clone(self), connection, id }
    }

    /// Reserves more bytes for a connection's body. When there are none left, the incomplete body that started first
    /// loses all it has, which may be this one. It waits only if every other body with reserved memory is complete.
    fn hold(&self, connection: &Connection, bytes: usize, task: &Context<'_>) -> Poll<()> {
        while self.held.get() + bytes > self.limits.request_bytes_max {
            let Some(slowest) = self.slowest_but(connection) else {
                self.wait(task.waker());
                return Poll::Pending;
            };
            if connection.doing().1 < slowest.doing().1 {
                self.release(connection);
                connection.lose_body();
                return Poll::Ready(());
            }
            self.release(&slowest);
            slowest.lose_body();
        }
        self.held.set(self.held.get() + bytes);
        connection.held.set(connection.held.get() + bytes);
        Poll::Ready(())
    }

    fn release(&self, connection: &Connection) {
        let held = connection.held.take();
        if held > 0 {
            self.held.set(self.held.get() - held);
            self.waiting.take().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Closes the slowest connection of the source with the most connections, unless it is being answered.
    fn send_one_away(&self) {
        let (guarded, sources) = (self.guarded.borrow(), self.sources.borrow());
        let waits = |place: &&Place| !place.connection.is_over() && place.connection.doing().0 != Phase::Work;
        let of_source = |place: &Place| {
            let many = self.proxies.contains(place.source);
            if many { 0 } else { sources.get(&place.source).copied().unwrap_or_default() }
        };
        let longest = guarded.values().filter(waits).max_by(|one, other| {
            let since = |place: &Place| place.connection.doing().1;
            of_source(one).cmp(&of_source(other)).then_with(|| since(other).cmp(&since(one)))
        });
        if let Some(place) = longest {
            place.connection.send_away();
        }
    }

    /// The incomplete body with reserved memory that started first, except this one.
    fn slowest_but(&self, other: &Connection) -> Option<Rc<Connection>> {
        let guarded = self.guarded.borrow();
        let coming = guarded.values().map(|place| &place.connection).filter(|connection| {
            let takes = connection.held.get() > 0 && connection.doing().0 == Phase::Body;
            takes && !std::ptr::eq(Rc::as_ptr(connection), other)
        });
        coming.min_by_key(|connection| connection.doing().1).cloned()
    }

    fn wait(&self, task: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(task)) {
            waiting.push(task.clone());
        }
    }

    fn leave_source(&self, source: IpAddr) {
        let mut sources = self.sources.borrow_mut();
        if let Some(count) = sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&source);
            }
        }
    }
}

/// A connection's place in the connections, for as long as it is open.
pub(super) struct Guard {
    connections: Rc<Connections>,
    pub(super) connection: Rc<Connection>,
    id: u64,
}

impl Guard {
    /// Reserves more bytes for its body, as [`Connections::hold`] says.
    pub(super) fn hold(&self, bytes: usize, task: &Context<'_>) -> Poll<()> {
        self.connections.hold(&self.connection, bytes, task)
    }

    /// Releases the memory of its body.
    pub(super) fn release(&self) {
        self.connections.release(&self.connection);
    }

    /// Sets the client that a proxy named.
    pub(super) fn comes_from(&self, client: IpAddr) {
        let source = network(client);
        let mut guarded = self.connections.guarded.borrow_mut();
        let place = guarded.get_mut(&self.id).expect("it has its place until it is dropped");
        let proxy = std::mem::replace(&mut place.source, source);
        drop(guarded);
        self.connections.leave_source(proxy);
        *self.connections.sources.borrow_mut().entry(source).or_default() += 1;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.release();
        let left = self.connections.guarded.borrow_mut().remove(&self.id);
        if let Some(place) = left {
            self.connections.leave_source(place.source);
        }
    }
}

/// The owner of one IPv6 address has a whole network of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll::{Pending, Ready};

    use super::*;
    use crate::observer;

    const ANN: [u8; 4] = [203, 0, 113, 1];
    const BOB: [u8; 4] = [203, 0, 113, 2];
    const EVE: [u8; 4] = [198, 51, 100, 6];

    fn connections(connections_max: usize, proxies: &[&str]) -> Rc<Connections> {
        let limits = Limits { connections_max, request_bytes_max: 1_000, ..Limits::default() };
        Connections::new(limits, Networks::parse(proxies.iter().copied()).expect("networks"), observer::ignored())
    }

    fn enter<const N: usize>(connections: &Rc<Connections>, peers: [[u8; 4]; N]) -> [Guard; N] {
        peers.map(|peer| connections.enter(peer.into()))
    }

    fn sent_away<const N: usize>(guarded: &[Guard; N]) -> [bool; N] {
        std::array::from_fn(|at| guarded[at].connection.is_over())
    }

    #[test]
    fn whoever_has_the_most_connections_pays_first_with_the_one_that_waits_longest() {
        let connections = connections(5, &[]);
        let guarded = enter(&connections, [ANN, EVE, EVE, BOB, EVE]);
        let _late = connections.enter(BOB.into());
        assert_eq!(sent_away(&guarded), [false, true, false, false, false]);
        let _later = connections.enter(BOB.into());
        assert_eq!(sent_away(&guarded), [false, true, true, false, false]);
    }

    #[test]
    fn who_comes_through_a_proxy_counts_for_who_it_is_and_a_proxy_for_nobody() {
        let connections = connections(4, &["203.0.113.2"]);
        let guarded = enter(&connections, [ANN, BOB, BOB, BOB]);
        guarded[3].comes_from(ANN.into());
        let _late = connections.enter(EVE.into());
        assert_eq!(sent_away(&guarded), [true, false, false, false]);
    }

    #[test]
    fn a_request_that_waits_for_us_is_never_given_up() {
        let connections = connections(2, &[]);
        let guarded = enter(&connections, [EVE, EVE]);
        guarded[0].connection.begin(crate::request_line::BodyLength::Bytes(0));
        let late = enter(&connections, [ANN]);
        assert_eq!(sent_away(&guarded), [false, true]);
        late[0].connection.begin(crate::request_line::BodyLength::Bytes(0));
        let _later = connections.enter(BOB.into());
        assert_eq!((sent_away(&guarded), sent_away(&late)), ([false, true], [false]));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let one = network("2001:db8::1".parse().expect("an address"));
        assert_eq!(one, network("2001:db8::ffff:1:2:3".parse().expect("an address")));
        assert_ne!(one, network("2001:db8:0:1::1".parse().expect("an address")));
        assert_eq!(network("::ffff:203.0.113.1".parse().expect("an address")), IpAddr::from(ANN));
    }

    #[test]
    fn of_bodies_the_one_that_is_coming_for_longest_loses_and_who_has_come_is_waited_for() {
        let (connections, task) = (connections(9, &[]), Context::from_waker(Waker::noop()));
        let guarded = enter(&connections, [ANN, BOB, EVE]);
        let [slow, fast, third] = std::array::from_fn(|at| &guarded[at].connection);
        slow.await_body();
        assert_eq!(connections.hold(slow, 600, &task), Ready(()));
        fast.await_body();
        assert_eq!(connections.hold(fast, 900, &task), Ready(()));
        assert_eq!((slow.body_is_lost(), fast.body_is_lost(), slow.held.get()), (true, false, 0));

        third.await_body();
        fast.work();
        assert_eq!(connections.hold(third, 200, &task), Pending);
        connections.release(fast);
        assert_eq!(connections.hold(third, 200, &task), Ready(()));
        drop(guarded);
        assert_eq!((connections.held.get(), connections.sources.borrow().len()), (0, 0));
    }
}
