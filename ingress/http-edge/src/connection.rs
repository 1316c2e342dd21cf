//! The state of one connection: its phase, since when, and its deadline.
//!
//! Four tasks use it, all on the connection's thread: the stream reports bytes, the handler reports
//! requests, `connections` evicts connections, and the watch enforces deadlines.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::limits::Limits;
use crate::observer::{Ended, Observer};
use crate::pace::{PORTION_BYTES, Pace, SMALL_REQUEST_BYTES};
use crate::request_line::BodyLength;

/// All fields together. Bitrix24's heads have some 500 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take to close its side after the last answer.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before HTTP: the proxy's header, the TLS handshake.
    Handshake,
    /// No byte of the next request has come.
    Idle,
    Head,
    Body,
    /// A request is complete and is being answered: the client waits for the server.
    Work,
    /// The last answer was sent.
    Closing,
}

pub(super) struct Connection {
    limits: Limits,
    pace: Rc<Pace>,
    observer: Arc<dyn Observer>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Bytes received in this phase, where they are counted.
    came: Cell<usize>,
    /// Bytes of the current request, head and body together.
    of_request: Cell<usize>,
    /// Bytes of a large request that may be read without asking the pace again.
    promised: Cell<usize>,
    /// Since when a large request is paused, and when it is read on.
    paused: Cell<Option<(Instant, Instant)>>,
    /// When an answer that the client does not read is given up.
    blocked_until: Cell<Option<Instant>>,
    /// The current body's share of the memory for bodies.
    pub(super) held: Cell<usize>,
    body_length: Cell<BodyLength>,
    /// The length of an answered request's body, until the stream has seen it.
    answered: Cell<Option<BodyLength>>,
    /// The body of the current request has not been received to its end.
    has_body_left: Cell<bool>,
    /// The proxy opened it for itself, by its own header.
    is_proxys_own: Cell<bool>,
    /// The body has lost its memory to faster ones, or its time is over.
    body_is_lost: Cell<bool>,
    /// The response that ends the connection; nothing is read after it.
    final_response: Cell<Option<&'static [u8]>>,
    ended: Cell<Option<Ended>>,
    /// It ends now, in any phase.
    is_over: Cell<bool>,
    /// A read by the server was deferred; it is woken once reading may go on.
    is_read_deferred: Cell<bool>,
    task: RefCell<Waker>,
    is_peer_closed: Cell<bool>,
    peer_closed: Notify,
}

impl Connection {
    pub(super) fn new(limits: Limits, pace: Rc<Pace>, observer: Arc<dyn Observer>, now: Instant) -> Self {
        Self {
            limits,
            pace,
            observer,
            phase: Cell::new(Phase::Handshake),
            since: Cell::new(now),
            came: Cell::new(0),
            of_request: Cell::new(0),
            promised: Cell::new(0),
            paused: Cell::new(None),
            blocked_until: Cell::new(None),
            held: Cell::new(0),
            body_length: Cell::new(BodyLength::Unknown),
            answered: Cell::new(None),
            has_body_left: Cell::new(false),
            is_proxys_own: Cell::new(false),
            body_is_lost: Cell::new(false),
            final_response: Cell::new(None),
            ended: Cell::new(None),
            is_over: Cell::new(false),
            is_read_deferred: Cell::new(false),
            task: RefCell::new(Waker::noop().clone()),
            is_peer_closed: Cell::new(false),
            peer_closed: Notify::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn doing(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }

    // Called by the handler.

    /// The greeting is complete; the first head may use the rest of its time.
    pub(super) fn handshake_done(&self) {
        self.phase.set(Phase::Head);
        self.came.set(0);
    }

    /// The proxy opened it for itself.
    pub(super) fn set_proxys_own(&self) {
        self.is_proxys_own.set(true);
    }

    pub(super) fn is_proxys_own(&self) -> bool {
        self.is_proxys_own.get()
    }

    /// A head is complete.
    pub(super) fn begin(&self, body: BodyLength) {
        self.body_length.set(body);
        self.has_body_left.set(body != BodyLength::Bytes(0));
        self.enter(Phase::Work, self.since.get());
    }

    pub(super) fn await_body(&self) {
        self.body_is_lost.set(false);
        self.enter(Phase::Body, Instant::now());
    }

    pub(super) fn work(&self) {
        self.has_body_left.set(false);
        self.enter(Phase::Work, self.since.get());
    }

    /// The request is answered; `last` ends the connection.
    pub(super) fn answered(&self, last: bool) {
        self.answered.set(Some(self.body_length.get()));
        self.of_request.set(0);
        self.promised.set(0);
        self.enter(if last { Phase::Closing } else { Phase::Idle }, Instant::now());
        self.resume_read();
    }

    /// Whether there is a body that was not received to its end.
    pub(super) fn has_body_left(&self) -> bool {
        self.has_body_left.get()
    }

    pub(super) fn body_is_lost(&self) -> bool {
        self.body_is_lost.get()
    }

    // Called by the stream.

    /// The length of the last request's body, once after its answer.
    pub(super) fn take_answered(&self) -> Option<BodyLength> {
        self.answered.take()
    }

    /// Whether more may be read. A pipelined request waits for the answer before it.
    pub(super) fn may_read(&self) -> bool {
        let waits = self.blocked_until.get().is_some() || self.phase.get() == Phase::Work && self.came.get() > 0;
        self.is_read_deferred.set(waits);
        !waits
    }

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
            self.pace.pay(large.saturating_sub(promised), Instant::now());
        }
    }

    /// How much of the current request may be read now. None: a large one waits, and is woken later.
    pub(super) fn may_take(&self) -> Option<usize> {
        if self.paused.get().is_some() {
            return None;
        }
        let now = Instant::now();
        let small = SMALL_REQUEST_BYTES.saturating_sub(self.of_request.get());
        if self.promised.get() > 0 {
            return Some(self.promised.get());
        }
        if !self.pace.is_behind(now) {
            return Some(usize::MAX);
        }
        if small > 0 {
            return Some(small);
        }
        self.paused.set(Some((now, self.pace.promise(now))));
        self.promised.set(PORTION_BYTES);
        self.observer.read_paused();
        None
    }

    /// The server has parsed all bytes that it got: a head that is still incomplete may be too long.
    pub(super) fn turn(&self) {
        if self.phase.get() == Phase::Head && self.came.get() > HEAD_BYTES_MAX {
            self.end(Ended::LargeHead, HEAD_TOO_LARGE);
        }
    }

    /// The final response to send before the connection is closed, if there is one.
    pub(super) fn final_response(&self) -> Option<&'static [u8]> {
        self.final_response.get()
    }

    /// The client does not read our output.
    pub(super) fn blocked(&self) {
        if self.blocked_until.get().is_none() {
            self.blocked_until.set(Some(Instant::now() + self.limits.idle_timeout));
        }
    }

    pub(super) fn flushed(&self) {
        if self.blocked_until.take().is_some() {
            self.resume_read();
        }
    }

    /// The client sends nothing more. Most often it is gone.
    pub(super) fn close_peer(&self) {
        self.is_peer_closed.set(true);
        self.peer_closed.notify_waiters();
    }

    pub(super) async fn wait_for_peer_closed(&self) {
        if !self.is_peer_closed.get() {
            self.peer_closed.notified().await;
        }
    }

    // Called by the connections.

    /// Ends it at once, in favour of others.
    pub(super) fn send_away(&self) {
        self.ended.set(Some(Ended::Crowded));
        self.is_over.set(true);
        self.task.borrow().wake_by_ref();
    }

    /// Its body loses its memory, in favour of others.
    pub(super) fn lose_body(&self) {
        self.body_is_lost.set(true);
        self.task.borrow().wake_by_ref();
    }

    // Called by the watch.

    pub(super) fn attend(&self, task: &Waker) {
        self.task.borrow_mut().clone_from(task);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some((_, until)) = self.paused.get() {
            return Some(until);
        }
        let wait = match self.phase.get() {
            Phase::Handshake | Phase::Head => Some(self.limits.head_timeout),
            Phase::Idle => Some(self.limits.idle_timeout),
            Phase::Body if self.body_is_lost.get() => Some(self.limits.body_timeout + CLOSE_WAIT_MAX),
            Phase::Body => Some(self.limits.body_timeout),
            Phase::Work => None,
            Phase::Closing => Some(CLOSE_WAIT_MAX),
        };
        let until = wait.map(|wait| self.since.get() + wait);
        self.blocked_until.get().into_iter().chain(until).min()
    }

    pub(super) fn expire(&self, now: Instant) {
        if let Some((since, _)) = self.paused.take() {
            // The time of our own pauses does not count.
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
            Phase::Handshake => {
                self.ended.set(Some(Ended::SlowHead));
                self.is_over.set(true);
            }
            // An idle client gets no answer.
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

    fn end(&self, why: Ended, response: &'static [u8]) {
        self.ended.set(Some(why));
        self.final_response.set(Some(response));
        self.enter(Phase::Closing, Instant::now());
    }

    /// Wakes the server if its read was deferred.
    fn resume_read(&self) {
        if self.is_read_deferred.take() {
            self.task.borrow().wake_by_ref();
        }
    }
}
