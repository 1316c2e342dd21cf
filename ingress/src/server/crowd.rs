//! All connections of one worker thread: when there are too many, or their bodies take too much memory,
//! those go who keep us waiting longest, and nobody hangs.
//!
//! A request that is being answered is never given up for others: it waits for us.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::connection::{Connection, Phase};
use super::limits::Limits;
use crate::proxies::Proxies;

/// So much of each body has its place in what every connection may take: only what goes beyond it is
/// counted, so bodies that are not larger lose nothing to anybody. Bitrix24's have one or two kilobytes.
pub(super) const BODY_BYTES_FREE: usize = 8 * 1024;

/// The connections of a worker, and the memory that their bodies share.
pub(super) struct Crowd {
    limits: Limits,
    /// Through them come many clients: how many connections they have says nothing.
    proxies: Proxies,
    members: RefCell<BTreeMap<u64, Place>>,
    sources: RefCell<HashMap<IpAddr, usize>>,
    next: Cell<u64>,
    /// Of the memory for bodies, what is taken.
    held: Cell<usize>,
    /// Who waits for some of it.
    waiting: RefCell<Vec<Waker>>,
}

struct Place {
    connection: Rc<Connection>,
    source: IpAddr,
}

impl Crowd {
    pub(super) fn new(limits: Limits, proxies: Proxies) -> Rc<Self> {
        Rc::new(Self {
            limits,
            proxies,
            members: RefCell::default(),
            sources: RefCell::default(),
            next: Cell::new(0),
            held: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// Lets a connection in; if there are too many, another one has to go.
    pub(super) fn enter(self: &Rc<Self>, peer: IpAddr) -> Member {
        let connection = Rc::new(Connection::new(self.limits, Rc::clone(self), Instant::now()));
        if self.members.borrow().len() >= self.limits.connections_max {
            self.send_one_away();
        }
        let (id, source) = (self.next.get(), network(peer));
        self.next.set(id + 1);
        self.members.borrow_mut().insert(id, Place { connection: Rc::clone(&connection), source });
        *self.sources.borrow_mut().entry(source).or_default() += 1;
        Member { crowd: Rc::clone(self), connection, id }
    }

    /// Takes so many more bytes for a connection's body. When there are none left, the body that is coming for
    /// longest loses all it has; that may be this one. Only where every other body that takes some has come
    /// already, and waits for us, there is something to wait for.
    pub(super) fn hold(&self, connection: &Connection, bytes: usize, task: &Context<'_>) -> Poll<()> {
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

    /// Gives back what a connection's body took.
    pub(super) fn release(&self, connection: &Connection) {
        let held = connection.held.take();
        if held > 0 {
            self.held.set(self.held.get() - held);
            self.waiting.take().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Of those who keep us waiting: from the source with the most connections, the one that does so for longest.
    fn send_one_away(&self) {
        let (members, sources) = (self.members.borrow(), self.sources.borrow());
        let waits = |place: &&Place| !place.connection.is_over() && place.connection.doing().0 != Phase::Work;
        let of_source = |place: &Place| {
            let many = self.proxies.trusts(place.source);
            if many { 0 } else { sources.get(&place.source).copied().unwrap_or_default() }
        };
        let longest = members.values().filter(waits).max_by(|one, other| {
            let since = |place: &Place| place.connection.doing().1;
            of_source(one).cmp(&of_source(other)).then_with(|| since(other).cmp(&since(one)))
        });
        if let Some(place) = longest {
            place.connection.send_away();
        }
    }

    /// The body that is coming for longest, among those that take memory and are not this one's.
    fn slowest_but(&self, other: &Connection) -> Option<Rc<Connection>> {
        let members = self.members.borrow();
        let coming = members.values().map(|place| &place.connection).filter(|connection| {
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

/// A connection's place among the others, for as long as it is open.
pub(super) struct Member {
    crowd: Rc<Crowd>,
    pub(super) connection: Rc<Connection>,
    id: u64,
}

impl Member {
    /// It speaks for somebody else: a proxy said so.
    pub(super) fn comes_from(&self, client: IpAddr) {
        let source = network(client);
        let mut members = self.crowd.members.borrow_mut();
        let place = members.get_mut(&self.id).expect("it has its place until it is dropped");
        let proxy = std::mem::replace(&mut place.source, source);
        drop(members);
        self.crowd.leave_source(proxy);
        *self.crowd.sources.borrow_mut().entry(source).or_default() += 1;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.release(&self.connection);
        let left = self.crowd.members.borrow_mut().remove(&self.id);
        if let Some(place) = left {
            self.crowd.leave_source(place.source);
        }
    }
}

/// Who has one address of IPv6 has a whole network of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}
