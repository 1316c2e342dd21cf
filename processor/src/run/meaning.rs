//! What raw records mean. Nothing of it depends on the state, so a batch is interpreted on all cores.

use std::num::NonZero;
use std::panic;
use std::sync::Arc;
use std::thread;

use event_log::{Entry, EventId, Position, RawEvent};
use primitives::time::Timestamp;

use bitrix24::Installation;
use domain::{Event, Fact, Public, Reason, interpret, interpret_command, names_may_be_secret, unsigned_call};

/// Fewer are not worth a thread.
const SHARE_MIN: usize = 64;
/// The search for secrets takes many times the size of a request: requests beyond this are interpreted one after the other,
/// and no more threads than these work at a time.
const LARGE_BYTES: usize = 64 * 1024;
const THREADS_MAX: usize = 16;

/// A raw record, interpreted.
pub(crate) struct Interpreted {
    /// None if ingress did not write it. Without names that may be secrets.
    pub raw: Option<RawEvent>,
    pub meaning: Meaning,
}

pub(crate) enum Meaning {
    Subject(Subject),
    Rejected(Reason),
}

pub(crate) enum Subject {
    Event(Box<Event>),
    Attestation(Box<Fact>),
    /// A call without a principal: there is nothing to fold.
    UnsignedCall(Arc<Public>),
}

impl Subject {
    pub fn installation(&self) -> &Installation {
        match self {
            Self::Event(event) => &event.installation,
            Self::Attestation(fact) => &fact.installation,
            Self::UnsignedCall(call) => &call.installation,
        }
    }

    /// The id, and the time of receipt.
    pub fn id(&self) -> (EventId, Timestamp) {
        match self {
            Self::Event(event) => (event.stamp.id, event.stamp.received_at),
            Self::Attestation(fact) => (fact.stamp.id, fact.stamp.received_at),
            Self::UnsignedCall(call) => (call.id, call.received_at),
        }
    }
}

/// Interprets records, in their order.
pub(crate) fn interpret_all(entries: &[&Entry]) -> Vec<Interpreted> {
    let has_large = entries.iter().any(|entry| entry.record.size() > LARGE_BYTES);
    let cores = if has_large { 1 } else { thread::available_parallelism().map_or(1, NonZero::get) };
    let share = entries.len().div_ceil(cores.min(THREADS_MAX)).max(SHARE_MIN);
    let mut shares = entries.chunks(share);
    let Some(own) = shares.next() else { return Vec::new() };
    thread::scope(|scope| {
        let others: Vec<_> = shares.map(|share| scope.spawn(|| of_share(share))).collect();
        let mut all = of_share(own);
        for other in others {
            all.extend(other.join().unwrap_or_else(|why| panic::resume_unwind(why)));
        }
        all
    })
}

fn of_share(entries: &[&Entry]) -> Vec<Interpreted> {
    entries.iter().map(|entry| of(entry)).collect()
}

fn of(entry: &Entry) -> Interpreted {
    let place = entry.position;
    let Ok(mut raw) = RawEvent::from_record(&entry.record) else {
        return Interpreted { raw: None, meaning: Meaning::Rejected(Reason::NotARawEvent) };
    };
    let meaning = subject(&raw, place).map_or_else(Meaning::Rejected, Meaning::Subject);
    if let Meaning::Rejected(reason) = meaning
        && names_may_be_secret(&raw, reason)
    {
        (raw.member_id, raw.kind) = (None, None);
    }
    Interpreted { raw: Some(raw), meaning }
}

fn subject(raw: &RawEvent, place: Position) -> Result<Subject, Reason> {
    if raw.is_command {
        return interpret_command(raw, place).map(|fact| Subject::Attestation(Box::new(fact)));
    }
    match interpret(raw, place) {
        Ok(event) => Ok(Subject::Event(Box::new(event))),
        Err(reason @ Reason::MissingToken) => {
            unsigned_call(raw, place).map(|call| Subject::UnsignedCall(Arc::new(call))).ok_or(reason)
        }
        Err(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::AppName;
    use bitrix24::form::Form;

    use super::*;

    #[test]
    fn records_are_interpreted_in_their_order_on_any_number_of_threads() {
        for count in [0, 1, SHARE_MIN, 3 * SHARE_MIN + 1] {
            let entries: Vec<Entry> = (0..count).map(entry).collect();
            let interpreted = interpret_all(&entries.iter().collect::<Vec<_>>());
            let ids: Vec<_> = interpreted.iter().filter_map(|one| one.raw.as_ref()).map(|raw| raw.id).collect();
            let sent = entries.iter().filter_map(|entry| RawEvent::from_record(&entry.record).ok()).map(|raw| raw.id);
            assert_eq!(ids, sent.collect::<Vec<_>>());
            let subjects = interpreted.iter().filter(|one| matches!(one.meaning, Meaning::Subject(_))).count();
            assert_eq!(subjects, count.div_ceil(2), "every second one has no token");
        }
    }

    #[test]
    fn a_name_that_is_a_secret_goes_no_further() {
        let secret = "0123456789abcdef0123456789abcdef";
        for (event, member) in [(secret, "a223"), ("ONX", secret)] {
            let body = format!("event={event}&auth[member_id]={member}&auth[access_token]={secret}");
            let raw = of(&kept(0, body)).raw.expect("a raw event");
            assert_eq!((raw.kind, raw.member_id), (None, None));
        }
        let raw = of(&kept(0, "event=ONX&auth[member_id]=a223".to_owned())).raw.expect("a raw event");
        assert_eq!((raw.kind.as_deref(), raw.member_id.is_some()), (Some("onx"), true), "the token is missing");
    }

    fn entry(number: usize) -> Entry {
        let token = if number.is_multiple_of(2) { "&auth[application_token]=t" } else { "" };
        kept(number, format!("event=ONX&auth[member_id]=a{number}{token}"))
    }

    fn kept(number: usize, body: String) -> Entry {
        let app = AppName::parse("crm-sync").expect("a name");
        let raw = RawEvent::new(app, Form::parse(body.as_bytes()).head(), body.into(), Timestamp::from_s(1));
        Entry { position: Position { partition: 0, offset: number as u64 }, record: raw.into_record() }
    }
}
