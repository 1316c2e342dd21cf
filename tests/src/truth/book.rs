//! What was sent, what was answered and what was found of each event, and what follows from that.
//!
//! A portal's next event is sent when the one before was answered, or got no answer. So an event that was
//! answered was kept before the next one was sent: its first copy has to lie before the next one's.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::body;
use crate::http::FORM;
use crate::process::Process;

/// So many offences are described; of others there are numbers only.
const DESCRIBED_MAX: usize = 20;

/// What waits on a disk goes to Kafka, and is found there, without a longer pause.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(120);

/// How often one looks whether all has come to rest.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// The book. Senders and a reader write into it at the same time.
#[derive(Debug)]
pub struct Book {
    /// Each holds the portals of one sender, so that senders do not wait for each other.
    shares: Vec<Mutex<Vec<Page>>>,
    kafka: AtomicU64,
    disk: AtomicU64,
    storage_unavailable: AtomicU64,
    unanswered: AtomicU64,
    found: AtomicU64,
    offences: Mutex<Offences>,
}

/// One portal.
#[derive(Clone, Debug, Default)]
struct Page {
    /// How many were sent: they have the numbers below.
    sent: u32,
    answered: Bits,
    found: Bits,
    /// Of each event a digest of its id, once it was answered; 0 before.
    ids: Vec<u32>,
    /// The highest number that was found.
    furthest: Option<u32>,
}

/// What an event was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// 200: acknowledged by Kafka.
    Kafka,
    /// 200: on disk.
    Disk,
    /// 503 with `Retry-After`: storage was unavailable.
    StorageUnavailable,
    /// A response that must never come, such as this status.
    Wrong(u16),
    /// Nothing, since the connection broke before the answer.
    Nothing,
}

/// A record of the topic, as it was found.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// Its partition and offset.
    pub place: (i32, i64),
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub body: Option<&'a [u8]>,
    /// Its header `ce_id`.
    pub id: Option<&'a [u8]>,
    /// Its header `content-type`.
    pub content_type: Option<&'a [u8]>,
    /// Whether it says that it may be a second copy.
    pub resent: bool,
}

/// What follows. All but the first seven and `resent` should be nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Sent.
    pub requests: u64,
    /// Answered 200, acknowledged by Kafka.
    pub kafka: u64,
    /// Answered 200, on disk.
    pub disk: u64,
    /// Answered 503, with when to come again.
    pub storage_unavailable: u64,
    /// Not answered, since the connection broke.
    pub unanswered: u64,
    /// Found at least once.
    pub found: u64,
    /// Found once more, and marked as what may be a second copy.
    pub resent: u64,
    /// Answered 200 and not found.
    pub missing: u64,
    /// Answered in a way that must never come.
    pub wrong: u64,
    /// Found once more, without a mark.
    pub doubled: u64,
    /// Found behind a later event of the same portal, although it was answered before that was sent.
    pub reordered: u64,
    /// Found and never sent.
    pub foreign: u64,
    /// Found with other bytes, another key or another content type than it was sent with.
    pub altered: u64,
    /// Found under another id than was answered, or than its first copy has.
    pub misnamed: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, kafka, disk, storage_unavailable, unanswered, found, resent, .. } = self;
        let Self { missing, wrong, doubled, reordered, foreign, altered, misnamed, .. } = self;
        write!(
            f,
            "{requests} requests, 200 kafka {kafka}, 200 disk {disk}, 503 {storage_unavailable}, others {wrong}, unanswered {unanswered}; \
             found {found}, resent {resent}, doubled {doubled}, out of order {reordered}, missing {missing}, \
             foreign {foreign}, altered {altered}, misnamed {misnamed}"
        )
    }
}

#[derive(Debug, Default)]
struct Offences {
    counts: Verdict,
    described: Vec<String>,
}

impl Book {
    /// An empty book of so many portals, shared among so many senders.
    pub fn new(senders: usize, portals_each: usize) -> Self {
        Self {
            shares: (0..senders).map(|_| Mutex::new(vec![Page::default(); portals_each])).collect(),
            kafka: AtomicU64::new(0),
            disk: AtomicU64::new(0),
            storage_unavailable: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            found: AtomicU64::new(0),
            offences: Mutex::default(),
        }
    }

    /// How many senders there are.
    pub fn senders(&self) -> usize {
        self.shares.len()
    }

    /// The portals of one sender.
    pub fn portals(&self, sender: usize) -> Vec<u32> {
        let count = self.share(sender).len();
        let portal = |page: usize| u32::try_from(page * self.senders() + sender).expect("fewer portals than that");
        (0..count).map(portal).collect()
    }

    /// The next event of a portal is about to be sent: its number.
    pub fn begin(&self, portal: u32) -> u32 {
        self.with_page(portal, |page| {
            page.sent += 1;
            page.sent - 1
        })
        .expect("a portal of this book")
    }

    /// What an event was answered; of a 200 the id as text.
    pub fn answered(&self, portal: u32, number: u32, told: Told, id: &[u8]) {
        let counter = match told {
            Told::Kafka => &self.kafka,
            Told::Disk => &self.disk,
            Told::StorageUnavailable => &self.storage_unavailable,
            Told::Nothing => &self.unanswered,
            Told::Wrong(status) => {
                return self.offence(|counts| &mut counts.wrong, || format!("{portal}/{number} was answered {status}"));
            }
        };
        if let Told::Kafka | Told::Disk = told {
            let named = self.with_page(portal, |page| {
                page.answered.set(number);
                page.name(number, id)
            });
            if named != Some(true) {
                let what = || format!("{portal}/{number} was answered with another id than it has in raw");
                self.offence(|counts| &mut counts.misnamed, what);
            }
        }
        // Last, so that who waits for the count finds the rest done.
        counter.fetch_add(1, Ordering::Release);
    }

    /// What was found in the topic.
    pub fn found(&self, record: &Sighting<'_>, made: &mut Made) {
        let at = record.place;
        let claimed = record.body.and_then(body::read).filter(|(portal, number)| {
            let sent = self.with_page(*portal, |page| *number < page.sent);
            sent == Some(true)
        });
        let Some((portal, number)) = claimed else {
            let text = || format!("{at:?} was never sent: {}", shown(record.body));
            return self.offence(|counts| &mut counts.foreign, text);
        };
        if !made.is(portal, number, record) {
            let text = || format!("{at:?} is not what was sent as {portal}/{number}: {}", shown(record.body));
            return self.offence(|counts| &mut counts.altered, text);
        }
        let id = record.id.unwrap_or_default();
        let (first, named, late) = self
            .with_page(portal, |page| {
                let first = page.found.set(number);
                let late = first && page.furthest > Some(number) && page.answered.has(number);
                page.furthest = page.furthest.max(Some(number));
                (first, page.name(number, id), late)
            })
            .expect("looked at above");
        if first {
            self.found.fetch_add(1, Ordering::Release);
        } else {
            self.second_copy(record, portal, number);
        }
        if late {
            let text = || format!("{at:?}, {portal}/{number}, lies behind what was sent after its answer");
            self.offence(|counts| &mut counts.reordered, text);
        }
        if !named {
            let text = || format!("{at:?}, {portal}/{number}, has another id than was answered or found before");
            self.offence(|counts| &mut counts.misnamed, text);
        }
    }

    /// How many were answered 200, by Kafka and by disk.
    pub fn kept(&self) -> (u64, u64) {
        (self.kafka.load(Ordering::Acquire), self.disk.load(Ordering::Acquire))
    }

    /// Requests that were answered 503 because storage was unavailable.
    pub fn storage_unavailable(&self) -> u64 {
        self.storage_unavailable.load(Ordering::Acquire)
    }

    /// How many were found at least once.
    pub fn seen(&self) -> u64 {
        self.found.load(Ordering::Acquire)
    }

    /// How many were answered 200 and not found so far.
    pub fn missing(&self) -> u64 {
        let pages = |sender| self.share(sender).iter().map(Page::missing).sum::<u64>();
        (0..self.senders()).map(pages).sum()
    }

    /// What follows, and a description of the first offences.
    pub fn verdict(&self) -> (Verdict, Vec<String>) {
        let offences = self.offences();
        let (kafka, disk) = self.kept();
        let mut described = offences.described.clone();
        for sender in 0..self.senders() {
            let portals = self.portals(sender);
            for (portal, page) in portals.iter().zip(&*self.share(sender)) {
                let room = DESCRIBED_MAX.saturating_sub(described.len());
                let missing = (0..page.sent).filter(|number| page.is_missing(*number)).take(room);
                described.extend(missing.map(|number| format!("{portal}/{number} was answered 200 and is missing")));
            }
        }
        let pages = |sender| self.share(sender).iter().map(|page| u64::from(page.sent)).sum::<u64>();
        let verdict = Verdict {
            requests: (0..self.senders()).map(pages).sum(),
            kafka,
            disk,
            storage_unavailable: self.storage_unavailable(),
            unanswered: self.unanswered.load(Ordering::Acquire),
            found: self.seen(),
            missing: self.missing(),
            ..offences.counts
        };
        (verdict, described)
    }

    /// Waits until all that was answered 200 was found and nothing is left on the disk of this ingress, as long as
    /// there is any progress.
    pub fn comes_to_rest(&self, ingress: &Process) {
        let mut last = (Instant::now(), 0, None);
        loop {
            let (seen, waiting) = (self.seen(), ingress.metric("hookledger_disk_log_events", ""));
            if waiting == Some(0.0) && self.missing() == 0 {
                return;
            }
            if (seen, waiting) != (last.1, last.2) {
                last = (Instant::now(), seen, waiting);
            }
            let since = last.0.elapsed();
            assert!(
                since < NO_PROGRESS_MAX,
                "no progress for {since:?}: {} are missing, {waiting:?} wait on the disk of ingress",
                self.missing()
            );
            std::thread::sleep(CHECK_EVERY);
        }
    }

    fn second_copy(&self, record: &Sighting<'_>, portal: u32, number: u32) {
        if record.resent {
            self.offences().counts.resent += 1;
        } else {
            let text = || format!("{:?} is a second copy of {portal}/{number} without a mark", record.place);
            self.offence(|counts| &mut counts.doubled, text);
        }
    }

    fn offence(&self, count: impl FnOnce(&mut Verdict) -> &mut u64, text: impl FnOnce() -> String) {
        let mut offences = self.offences();
        *count(&mut offences.counts) += 1;
        if offences.described.len() < DESCRIBED_MAX {
            offences.described.push(text());
        }
    }

    fn with_page<T>(&self, portal: u32, look: impl FnOnce(&mut Page) -> T) -> Option<T> {
        let (portal, senders) = (portal as usize, self.senders());
        self.share(portal % senders).get_mut(portal / senders).map(look)
    }

    fn share(&self, sender: usize) -> MutexGuard<'_, Vec<Page>> {
        self.shares[sender].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offences(&self) -> MutexGuard<'_, Offences> {
        self.offences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    /// Remembers a digest of an event's id; whether it is the one that was told before, if one was.
    fn name(&mut self, number: u32, id: &[u8]) -> bool {
        let (number, digest) = (number as usize, digest(id));
        if self.ids.len() <= number {
            self.ids.resize(number + 1, 0);
        }
        let known = &mut self.ids[number];
        if *known == 0 {
            *known = digest;
        }
        *known == digest
    }

    fn missing(&self) -> u64 {
        let words = self.answered.0.iter().enumerate();
        let missing = words.map(|(at, word)| word & !self.found.0.get(at).copied().unwrap_or(0));
        missing.map(|word| u64::from(word.count_ones())).sum()
    }

    fn is_missing(&self, number: u32) -> bool {
        self.answered.has(number) && !self.found.has(number)
    }
}

/// Makes bodies again, in memory of its own.
#[derive(Debug, Default)]
pub struct Made {
    key: Vec<u8>,
    body: Vec<u8>,
}

impl Made {
    /// Whether a record is, byte for byte, what was sent with this number.
    fn is(&mut self, portal: u32, number: u32, record: &Sighting<'_>) -> bool {
        body::write(portal, number, &mut self.body);
        body::write_key(portal, &mut self.key);
        let expected = [Some(&*self.body), Some(&*self.key), Some(FORM.as_bytes())];
        [record.body, record.key, record.content_type] == expected
    }
}

/// Some bits by number; those that were never set are not.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Sets one; whether it was not.
    fn set(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// 32 bits of FNV-1a, none of which is 0 by chance.
fn digest(id: &[u8]) -> u32 {
    let digest = id.iter().fold(0x811c_9dc5, |digest: u32, byte| (digest ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    digest.max(1)
}

fn shown(body: Option<&[u8]>) -> String {
    let Some(body) = body else { return "nothing".to_owned() };
    format!("{} bytes, {}", body.len(), body[..body.len().min(120)].escape_ascii())
}

#[cfg(test)]
mod tests;
