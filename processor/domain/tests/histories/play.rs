//! Plays a history against `interpret` and `fold`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bitrix24::form::Form;
use bitrix24::{AppName, Installation, Trust};
use bytes::Bytes;
use domain::fold::{Effect, Outcome, fold, fold_attestation};
use domain::{Answer, Change, Fact, HeldDetails, HeldEvent, InstallationState, Method, Position, permits};
use domain::{interpret, interpret_command, parse_command};
use event_log::{EventId, RawEvent};
use portal_sim::history::{Cast, History, Message, Seen};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde_json::{Value, json};

/// When the first event is received.
const NOW_S: u64 = 1_800_000_000;

/// A message, and the number of the step that sends it.
#[derive(Clone)]
pub struct Sent {
    pub step: usize,
    message: Message,
}

impl Sent {
    pub fn is_command(&self) -> bool {
        matches!(self.message, Message::Command(_))
    }
}

/// What became of a history.
#[derive(Default)]
pub struct Played {
    pub state: Arc<InstallationState>,
    pub effects: Vec<Effect>,
    /// Step and reason.
    pub rejected: Vec<(String, String)>,
    steps: BTreeMap<EventId, usize>,
    folded: BTreeSet<EventId>,
    held_facts: BTreeMap<HeldEvent, Fact>,
}

pub fn send(history: &History) -> Vec<Sent> {
    let numbered = (1..).zip(&history.steps);
    let messages = numbered.flat_map(|(number, step)| {
        cast().messages(step).into_iter().map(move |message| Sent { step: number, message })
    });
    messages.collect()
}

pub fn play(history: &History, sent: &[Sent], as_json: bool) -> Played {
    let mut played = Played::default();
    for (offset, sent) in (0..).zip(sent) {
        played.take(history, sent, offset, as_json);
    }
    played
}

/// How a history ends otherwise than the table says.
pub fn complaints(history: &History) -> Vec<String> {
    let played = play(history, &send(history), false);
    let mut complaints = played.differences(history);
    for (what, seen, expected) in
        [("events", played.events(), &history.expected.events), ("held", played.held(), &history.expected.held)]
    {
        if seen != *expected {
            complaints.push(format!("{what}: {}, not {}", seen.join(" "), expected.join(" ")));
        }
    }
    if played.rejected != history.expected.rejected {
        complaints.push(format!("rejected: {:?}, not {:?}", played.rejected, history.expected.rejected));
    }
    complaints
}

impl Played {
    pub fn take(&mut self, history: &History, sent: &Sent, offset: u64, as_json: bool) {
        let raw = raw_event(sent, offset, as_json);
        self.steps.insert(raw.id, sent.step);
        let place = Position { partition: 0, offset };
        let rules = trust(history);
        let Self { state, folded, held_facts, .. } = self;
        let read = |held: &HeldEvent| -> Result<Option<Fact>, Infallible> {
            Ok(held_facts.get(held).filter(|_| !folded.contains(&held.id)).cloned())
        };
        let taken = if raw.is_command {
            interpret_command(&raw, place).map(|fact| fold_attestation(state, fact, rules, read))
        } else {
            interpret(&raw, place).map(|event| fold(state, &event, rules, read))
        };
        let (outcome, effects) = match taken {
            Ok(Ok(folded)) => folded,
            Err(reason) => (Outcome::Rejected(reason), Vec::new()),
        };
        if let Outcome::Rejected(reason) = outcome {
            self.rejected.push((sent.step.to_string(), reason.label().to_owned()));
        }
        for effect in &effects {
            if let Effect::Changed(Change::Fact(fact)) = effect {
                self.folded.insert(fact.stamp.id);
            } else if let Effect::Changed(Change::Held(held, HeldDetails { fact: Some(fact), .. })) = effect {
                self.held_facts.insert(held.clone(), Fact::clone(fact));
            }
        }
        self.effects.extend(effects);
    }

    pub fn changes(&self) -> Vec<Change> {
        let changes = self.effects.iter();
        changes
            .filter_map(|effect| if let Effect::Changed(change) = effect { Some(change.clone()) } else { None })
            .collect()
    }

    /// The steps whose events are in `events`, in its order.
    pub fn events(&self) -> Vec<String> {
        let shown = self.effects.iter().filter_map(|effect| match effect {
            Effect::Verified(public) => Some(public.id),
            Effect::Release(held) => Some(held.id),
            Effect::Changed(_)
            | Effect::Unverified(_)
            | Effect::GaveWay(..)
            | Effect::Installation(_)
            | Effect::InstallationGone(_)
            | Effect::Permission(_)
            | Effect::PermissionGone(_) => None,
        });
        runs(shown.map(|id| self.steps[&id]))
    }

    /// The steps whose events are still held, by arrival.
    pub fn held(&self) -> Vec<String> {
        let held = self.state.principals.values().flat_map(|known| &known.held);
        let held: BTreeMap<u64, usize> = held.map(|(offset, held)| (*offset, self.steps[&held.id])).collect();
        runs(held.into_values())
    }

    pub fn differences(&self, history: &History) -> Vec<String> {
        let trust = trust(history);
        let answer = |(asked, _): &(String, String)| {
            let (method, token) = cast().asked(asked);
            let method = Method::parse(&method).expect("a method");
            json_of(permits(&self.state, trust, &method, Fingerprint::of(&token), Timestamp::from_s(NOW_S)))
        };
        let permissions = self.state.permissions(trust);
        let seen = Seen {
            record: self.record(trust),
            methods: permissions.iter().map(|record| serde_json::to_value(record).expect("JSON")).collect(),
            answers: history.expected.asks.iter().map(answer).collect(),
        };
        history.expected.differences(&cast(), &seen)
    }

    /// The record without what names places in the log and times of receipt.
    pub fn lasting(&self, history: &History) -> Value {
        let mut record = self.record(trust(history));
        for field in ["last_fact", "position", "last_heard_at"] {
            record[field] = Value::Null;
        }
        for trusted in record["trusted"].as_array_mut().into_iter().flatten() {
            trusted["since"] = Value::Null;
        }
        record
    }

    fn record(&self, trust: Trust) -> Value {
        serde_json::to_value(self.state.record(&installation(), 0, trust)).expect("JSON")
    }
}

fn cast() -> Cast {
    Cast { app: "crm-sync".to_owned(), member_id: "a223c6b3710f85df22e9377d6c4f7553".to_owned(), now_s: NOW_S }
}

fn installation() -> Installation {
    let Cast { app, member_id, .. } = cast();
    Installation::parse(&app, &member_id).expect("valid")
}

fn trust(history: &History) -> Trust {
    let all = [Trust::FirstInstall, Trust::FirstEvent, Trust::Known];
    *all.iter().find(|trust| trust.name() == history.trust).expect("a setting of `trust`")
}

fn raw_event(sent: &Sent, offset: u64, as_json: bool) -> RawEvent {
    let received_at = Timestamp::from_s(NOW_S).plus(Duration::from_millis(offset));
    let mut raw = match &sent.message {
        Message::Webhook { body } => {
            let (_, body) = Message::webhook(body, as_json);
            let head = Form::scan(&body).head();
            RawEvent::new(AppName::parse("crm-sync").expect("a name"), head, Bytes::from(body), received_at)
        }
        Message::Command(line) => {
            let (installation, attest) = parse_command(line).expect("a command");
            attest.into_raw(installation, received_at)
        }
    };
    raw.id = EventId::from_u128(u128::from(offset) + 1);
    // As it is read from the log.
    RawEvent::from_record(&raw.into_record()).expect("a raw event")
}

/// Numbers in a row, such as `2x3` for three of step 2.
fn runs(steps: impl Iterator<Item = usize>) -> Vec<String> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for step in steps {
        match runs.last_mut() {
            Some((last, number)) if *last == step => *number += 1,
            _ => runs.push((step, 1)),
        }
    }
    let run = |(step, number): (usize, usize)| if number == 1 { step.to_string() } else { format!("{step}x{number}") };
    runs.into_iter().map(run).collect()
}

fn json_of(answer: Answer) -> Value {
    match answer {
        Answer::Granted { .. } => json!({"decision": "granted"}),
        Answer::Denied(denial) => json!({"decision": "denied", "reason": denial.label()}),
        Answer::Unanswered => json!({"decision": "unanswered", "reason": "no-answer-yet"}),
    }
}
