//! What is known of one connection: what it is doing, since when, and how long it may.
//!
//! Four look at it, all on the thread that the connection lives on: the wire tells what comes and goes, the
//! handler what becomes of a request, the crowd whom to send away, and the watch ends what takes too long.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use tokio::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::pace::{PORTION_BYTES, SMALL_REQUEST_BYTES};
use crate::{Ended, Limits};

/// The longest head, all fields together. Bitrix24's have some 500 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take to end its side after an answer that ends the connection.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Said to a head that does not come to its end.
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Said to a head that is too long.
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before HTTP: the proxy's header, the TLS handshake.
    Greeting,
    /// Nothing of the next request has come.
    Idle,
    /// A head is coming.
    Head,
    /// A body is coming.
    Body,
    /// A request is here and is being answered: it waits for us, not we for it.
    Work,
    /// It has had its last answer.
    Closing,
}

/// A connection.
pub(super) struct Connection {
    limits: Limits,
    crowd: Rc<Crowd>,
    phase: Cell<Phase>,
    /// Since when it is in this phase.
    since: Cell<Instant>,
    /// Bytes that came in this phase, where they are counted.
    came: Cell<usize>,
    /// Bytes of the current request, head and body together.
    of_request: Cell<usize>,
    /// Of a large request, what may be read without another look at the pace.
    promised: Cell<usize>,
    /// A large request is read on then, and waits since the first of the two.
    paused: Cell<Option<(Instant, Instant)>>,
    /// When an answer that the client does not read is given up.
    blocked_until: Cell<Option<Instant>>,
    /// What the current body takes of the memory for bodies.
    pub(super) held: Cell<usize>,
    /// The body of the current request has not been received to its end.
    has_body_left: Cell<bool>,
    /// A proxy opened it for itself, and said so.
    is_proxys_own: Cell<bool>,
    /// The body has lost its place in memory to faster ones, or its time is over.
    body_is_lost: Cell<bool>,
    /// Said in place of an answer; then nothing is read any more.
    farewell: Cell<Option<&'static [u8]>>,
    /// Why it is ended by us.
    ended: Cell<Option<Ended>>,
    /// It ends now, whatever it is doing.
    is_over: Cell<bool>,
    /// The wire did not read on although the server would have.
    is_starved: Cell<bool>,
    task: RefCell<Waker>,
}

impl Connection {
    pub(super) fn new(limits: Limits, crowd: Rc<Crowd>, now: Instant) -> Self {
        Self {
            limits,
            crowd,
            phase: Cell::new(Phase::Greeting),
            since: Cell::new(now),
            came: Cell::new(0),
            of_request: Cell::new(0),
            promised: Cell::new(0),
            paused: Cell::new(None),
            blocked_until: Cell::new(None),
            held: Cell::new(0),
            has_body_left: Cell::new(false),
            is_proxys_own: Cell::new(false),
            body_is_lost: Cell::new(false),
            farewell: Cell::new(None),
            ended: Cell::new(None),
            is_over: Cell::new(false),
            is_starved: Cell::new(false),
            task: RefCell::new(Waker::noop().clone()),
        }
    }

    /// The crowd that it belongs to.
    pub(super) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// What it may do.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it is doing, and since when.
    pub(super) fn doing(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    /// Why it was ended by us, if it was.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }

    // What the handler tells.

    /// Who it is has been settled; now the first head may come, in what is left of its time.
    pub(super) fn greeted(&self) {
        self.phase.set(Phase::Head);
        self.came.set(0);
    }

    /// The proxy at its other end speaks for itself.
    pub(super) fn set_proxys_own(&self) {
        self.is_proxys_own.set(true);
    }

    /// Whether the proxy at its other end speaks for itself.
    pub(super) fn is_proxys_own(&self) -> bool {
        self.is_proxys_own.get()
    }

    /// A request is here, with a body that is still to be received or without one.
    pub(super) fn begin(&self, has_body: bool) {
        self.has_body_left.set(has_body);
        self.enter(Phase::Work, self.since.get());
    }

    /// Its body is awaited.
    pub(super) fn await_body(&self) {
        self.body_is_lost.set(false);
        self.enter(Phase::Body, Instant::now());
    }

    /// Its body is here.
    pub(super) fn work(&self) {
        self.has_body_left.set(false);
        self.enter(Phase::Work, self.since.get());
    }

    /// The request is answered; whether that ends the connection.
    pub(super) fn answered(&self, last: bool) {
        self.of_request.set(0);
        self.promised.set(0);
        self.enter(if last { Phase::Closing } else { Phase::Idle }, Instant::now());
        self.feed();
    }

    /// Whether there is a body that was not received to its end.
    pub(super) fn has_body_left(&self) -> bool {
        self.has_body_left.get()
    }

    /// Whether the body that is awaited has lost.
    pub(super) fn body_is_lost(&self) -> bool {
        self.body_is_lost.get()
    }

    // What the wire tells and asks.

    /// Whether more may be read. Who sends the next request before the last is answered waits.
    pub(super) fn may_read(&self) -> bool {
        let waits = self.blocked_until.get().is_some() || self.phase.get() == Phase::Work && self.came.get() > 0;
        self.is_starved.set(waits);
        !waits
    }

    /// So many bytes came.
    pub(super) fn came(&self, bytes: usize) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
        self.came.set(self.came.get().saturating_add(bytes));
        let small = SMALL_REQUEST_BYTES.saturating_sub(self.of_request.get());
        self.of_request.set(self.of_request.get().saturating_add(bytes));
        let large = bytes.saturating_sub(small);
        if large > 0 {
            let promised = self.promised.get();
            self.promised.set(promised.saturating_sub(large));
            self.crowd.pace().pay(large.saturating_sub(promised), Instant::now());
        }
    }

    /// How much of the current request may be read now. None: a large one waits, and is read on by itself.
    pub(super) fn may_take(&self) -> Option<usize> {
        if self.paused.get().is_some() {
            return None;
        }
        let (pace, now) = (self.crowd.pace(), Instant::now());
        let small = SMALL_REQUEST_BYTES.saturating_sub(self.of_request.get());
        if self.promised.get() > 0 {
            return Some(self.promised.get());
        }
        if !pace.is_behind(now) {
            return Some(usize::MAX);
        }
        if small > 0 {
            return Some(small);
        }
        self.paused.set(Some((now, pace.promise(now))));
        self.promised.set(PORTION_BYTES);
        self.crowd.paused();
        None
    }

    /// The server has looked at all that was handed over: a head that still has no end is told so.
    pub(super) fn turn(&self) {
        if self.phase.get() == Phase::Head && self.came.get() > HEAD_BYTES_MAX {
            self.end(Ended::LargeHead, HEAD_TOO_LARGE);
        }
    }

    /// What is to be said before the connection is closed for reading, if it is to be.
    pub(super) fn farewell(&self) -> Option<&'static [u8]> {
        self.farewell.get()
    }

    /// The client does not take what we write.
    pub(super) fn blocked(&self) {
        if self.blocked_until.get().is_none() {
            self.blocked_until.set(Some(Instant::now() + self.limits.idle_timeout));
        }
    }

    /// Everything has been written.
    pub(super) fn flushed(&self) {
        if self.blocked_until.take().is_some() {
            self.feed();
        }
    }

    // What the crowd tells.

    /// Ends it at once, for others.
    pub(super) fn send_away(&self) {
        self.ended.set(Some(Ended::Crowded));
        self.is_over.set(true);
        self.task.borrow().wake_by_ref();
    }

    /// Its body loses what it holds in memory, for others.
    pub(super) fn lose_body(&self) {
        self.body_is_lost.set(true);
        self.task.borrow().wake_by_ref();
    }

    // What the watch asks and tells.

    /// Whoever polls it now.
    pub(super) fn attend(&self, task: &Waker) {
        self.task.borrow_mut().clone_from(task);
    }

    /// Whether it ends at once.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Until when it may go on as it does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some((_, until)) = self.paused.get() {
            return Some(until);
        }
        let wait = match self.phase.get() {
            Phase::Greeting | Phase::Head => Some(self.limits.head_timeout),
            Phase::Idle => Some(self.limits.idle_timeout),
            Phase::Body if self.body_is_lost.get() => Some(self.limits.body_timeout + CLOSE_WAIT_MAX),
            Phase::Body => Some(self.limits.body_timeout),
            Phase::Work => None,
            Phase::Closing => Some(CLOSE_WAIT_MAX),
        };
        let until = wait.map(|wait| self.since.get() + wait);
        self.blocked_until.get().into_iter().chain(until).min()
    }

    /// Its deadline has passed.
    pub(super) fn expire(&self, now: Instant) {
        if let Some((since, _)) = self.paused.take() {
            // What we made it wait is no fault of the client's.
            self.since.set(self.since.get() + (now - since));
            self.task.borrow().wake_by_ref();
            return;
        }
        if self.blocked_until.get().is_some_and(|until| until <= now) {
            self.ended.set(Some(Ended::Unread));
            self.is_over.set(true);
            return;
        }
        match self.phase.get() {
            Phase::Greeting => {
                self.ended.set(Some(Ended::SlowHead));
                self.is_over.set(true);
            }
            // Who said nothing is told nothing.
            Phase::Head if self.came.get() == 0 => self.end(Ended::Idle, b""),
            Phase::Head => self.end(Ended::SlowHead, HEAD_TOO_SLOW),
            Phase::Idle => self.end(Ended::Idle, b""),
            Phase::Body if self.body_is_lost.get() => self.is_over.set(true),
            Phase::Body => self.body_is_lost.set(true),
            Phase::Closing => self.is_over.set(true),
            Phase::Work => {}
        }
    }

    fn enter(&self, phase: Phase, since: Instant) {
        self.phase.set(phase);
        self.since.set(since);
        self.came.set(0);
    }

    fn end(&self, why: Ended, words: &'static [u8]) {
        self.ended.set(Some(why));
        self.farewell.set(Some(words));
        self.enter(Phase::Closing, Instant::now());
    }

    /// Has the wire asked again if it was told to wait.
    fn feed(&self) {
        if self.is_starved.take() {
            self.task.borrow().wake_by_ref();
        }
    }
}
