//! What waits to be asked: bounded, one request for each principal, at the rate of the budget.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bitrix24::Installation;
use primitives::secret::{Fingerprint, Secret};

/// Requests that wait. A further one is dropped: the principal's next event is offered again.
const WAITING_MAX: usize = 10_000;
/// Tokens that were answered, and are not asked about again.
const ANSWERED_MAX: usize = 10_000;
/// A full queue looks no more often for dead tokens, so that what a flood offers costs little.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
pub struct Request {
    pub installation: Installation,
    pub principal: Fingerprint,
    pub token: Secret,
    /// The number of the server to ask.
    pub server: usize,
    /// The token is dead then.
    pub until: Instant,
    /// Not before.
    pub next: Instant,
    pub tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Queued,
    /// It waits already, or its token was answered.
    Known,
    Full,
}

impl Offered {
    pub fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Known => "known",
            Self::Full => "queue_full",
        }
    }
}

type Key = (Installation, Fingerprint);

pub struct Queue {
    waiting: BTreeMap<Key, Request>,
    order: VecDeque<Key>,
    /// Fingerprints of tokens, and the same, oldest first.
    answered: BTreeSet<Fingerprint>,
    answered_order: VecDeque<Fingerprint>,
    /// The time between two calls; none while this processor may make none.
    interval: Option<Duration>,
    /// No call before.
    slot: Instant,
    /// When a full queue last dropped dead tokens.
    swept: Option<Instant>,
}

impl Queue {
    pub fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
            answered: BTreeSet::new(),
            answered_order: VecDeque::new(),
            interval: None,
            slot: now,
            swept: None,
        }
    }

    /// Calls a second. The first one comes an interval later, so that no change of rates makes more calls.
    pub fn set_rate(&mut self, rate: f64, now: Instant) {
        let interval = (rate > 0.0).then(|| Duration::from_secs_f64((1.0 / rate).min(86_400.0)));
        if self.interval != interval {
            self.interval = interval;
            self.slot = self.slot.max(now) + interval.unwrap_or_default();
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn offer(&mut self, request: Request, now: Instant) -> Offered {
        let key = (request.installation.clone(), request.principal);
        if self.answered.contains(&Fingerprint::of(request.token.reveal())) {
            return Offered::Known;
        }
        if let Some(known) = self.waiting.get_mut(&key) {
            // The newer token lives longer.
            (known.token, known.until, known.server) = (request.token, request.until, request.server);
            return Offered::Known;
        }
        let is_swept = || self.swept.is_some_and(|swept| now < swept + SWEEP_EVERY);
        if self.waiting.len() >= WAITING_MAX && !is_swept() {
            self.drop_dead(now);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Offered::Full;
        }
        self.order.push_back(key.clone());
        self.waiting.insert(key, request);
        Offered::Queued
    }

    /// The oldest request whose time has come, if there is budget for it.
    pub fn take(&mut self, now: Instant) -> Option<Request> {
        let interval = self.interval?;
        if now < self.slot {
            return None;
        }
        for _ in 0..self.order.len() {
            let key = self.order.pop_front()?;
            let request = self.waiting.get(&key).expect("every key in order waits");
            if request.until <= now {
                self.waiting.remove(&key);
            } else if request.next <= now {
                self.slot = now + interval;
                return self.waiting.remove(&key);
            } else {
                self.order.push_back(key);
            }
        }
        None
    }

    /// How long until it is worth to look for a request again.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        self.interval?;
        if now < self.slot {
            return Some(self.slot - now);
        }
        let first = self.waiting.values().map(|request| request.next).min()?;
        Some(first.max(self.slot).saturating_duration_since(now))
    }

    /// Asks again later, while the token lives.
    pub fn again(&mut self, mut request: Request, now: Instant) {
        let wait = RETRY_FIRST.saturating_mul(1 << request.tries.min(10)).min(RETRY_MAX);
        request.tries += 1;
        request.next = now + wait;
        if request.next < request.until {
            self.offer(request, now);
        }
    }

    /// A final answer: the token is not asked about again.
    pub fn answered(&mut self, request: &Request) {
        let token = Fingerprint::of(request.token.reveal());
        if self.answered.insert(token) {
            self.answered_order.push_back(token);
        }
        if self.answered_order.len() > ANSWERED_MAX
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answered.remove(&oldest);
        }
    }

    fn drop_dead(&mut self, now: Instant) {
        self.swept = Some(now);
        self.waiting.retain(|_, request| request.until > now);
        let waiting = &self.waiting;
        self.order.retain(|key| waiting.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u32, token: &str, now: Instant) -> Request {
        Request {
            installation: Installation::parse("crm-sync", &format!("m{number}")).expect("valid"),
            principal: Fingerprint::of("t"),
            token: Secret::new(token),
            server: 0,
            until: now + Duration::from_secs(3_600),
            next: now,
            tries: 0,
        }
    }

    #[test]
    fn no_more_is_asked_than_the_budget_whatever_waits_and_however_rates_change() {
        let began = Instant::now();
        let mut queue = Queue::new(began);
        for number in 0..1_000 {
            queue.offer(request(number, &format!("token{number}"), began), began);
        }
        assert!(queue.take(began).is_none(), "nothing is owned yet");
        let (mut now, mut taken) = (began, Vec::new());
        for step in 0..2_000 {
            if step % 100 == 0 {
                queue.set_rate([5.0, 2.5, 5.0, 0.0][step / 100 % 4], now);
            }
            now += Duration::from_millis(10);
            taken.extend(queue.take(now).map(|_| now));
        }
        assert!(taken.len() > 30, "{}", taken.len());
        for window in taken.windows(6) {
            assert!(window[5] - window[0] >= Duration::from_secs(1), "six within a second");
        }
    }

    #[test]
    fn a_principal_waits_once_with_its_newest_token_and_an_answered_token_is_not_asked_again() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        queue.set_rate(1_000.0, now);
        assert_eq!(queue.offer(request(1, "old", now), now), Offered::Queued);
        assert_eq!(queue.offer(request(1, "new", now), now), Offered::Known);
        let later = now + Duration::from_secs(1);
        let taken = queue.take(later).expect("one waits");
        assert_eq!(taken.token.reveal(), "new");
        queue.answered(&taken);
        assert_eq!(queue.offer(request(1, "new", now), now), Offered::Known);
        assert!(queue.take(later + Duration::from_secs(1)).is_none());
    }

    #[test]
    fn what_failed_is_asked_again_later_and_no_longer_than_its_token_lives() {
        let mut now = Instant::now();
        let mut queue = Queue::new(now);
        queue.set_rate(1_000.0, now);
        queue.offer(request(1, "token", now), now);
        let mut tries = 0;
        for _ in 0..7_200 {
            now += Duration::from_secs(1);
            if let Some(taken) = queue.take(now) {
                tries += 1;
                queue.again(taken, now);
            }
        }
        assert!((10..30).contains(&tries), "{tries}");
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        for number in 0..WAITING_MAX {
            queue.offer(request(u32::try_from(number).expect("small"), "token", now), now);
        }
        assert_eq!(queue.offer(request(u32::MAX, "token", now), now), Offered::Full);
        let dead = now + Duration::from_secs(3_601);
        assert_eq!(queue.offer(request(u32::MAX, "token", dead), dead), Offered::Queued, "dead tokens give way");
        assert_eq!(queue.waiting(), 1);
    }

    #[test]
    fn a_full_queue_looks_for_dead_tokens_once_a_second() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        let dies = now + Duration::from_millis(100);
        queue.offer(Request { until: dies, ..request(0, "token", now) }, now);
        for number in 1..WAITING_MAX {
            queue.offer(request(u32::try_from(number).expect("small"), "token", now), now);
        }
        assert_eq!(queue.offer(request(u32::MAX, "token", now), now), Offered::Full);
        assert_eq!(queue.offer(request(u32::MAX, "token", dies), dies), Offered::Full, "it has just looked");
        let later = now + SWEEP_EVERY;
        assert_eq!(queue.offer(request(u32::MAX, "token", later), later), Offered::Queued);
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        let answered = |number: usize| request(0, &format!("token{number}"), now);
        for number in 0..=ANSWERED_MAX {
            queue.answered(&answered(number));
            queue.answered(&answered(number));
        }
        assert_eq!(queue.offer(answered(1), now), Offered::Known);
        assert_eq!(queue.offer(answered(0), now), Offered::Queued);
    }
}
