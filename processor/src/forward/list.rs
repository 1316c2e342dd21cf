//! What waits to be forwarded, and an operator's word about it. Any processor answers for all partitions.

use bitrix24::{AppName, Installation, MemberId};
use event_log::EventId;
use primitives::time::Timestamp;
use serde::Serialize;

use super::Forwarding;
use super::failure::Failure;
use super::progress::{Action, Head, Key, Order, Place, Source, Watermark, value};

/// Which installations are listed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub app: Option<AppName>,
    pub member_id: Option<MemberId>,
    pub state: Option<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Until an operator decides.
    Parked,
    /// Until the next attempt.
    Waiting,
    /// Its events are read again from its place on.
    Behind,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Parked, Self::Waiting, Self::Behind];

    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Behind => "behind",
        }
    }

    fn of(place: &Place) -> Self {
        match place.tries.parked_at {
            Some(_) => Self::Parked,
            None if place.tries.attempts > 0 => Self::Waiting,
            None => Self::Behind,
        }
    }
}

/// An installation with a place of its own.
#[derive(Debug, Serialize)]
pub struct Item {
    app: AppName,
    member_id: MemberId,
    state: State,
    /// Of which topic its event is.
    source: Source,
    id: Option<EventId>,
    #[serde(rename = "type")]
    kind: Option<String>,
    received_at: Option<Timestamp>,
    attempts: u32,
    since: Option<Timestamp>,
    parked_at: Option<Timestamp>,
    reason: Option<&'static str>,
    status: Option<u16>,
}

/// Events that were lost before they were forwarded.
#[derive(Debug, Serialize)]
pub struct Lost {
    app: AppName,
    source: Source,
    partition: u32,
    events: u64,
    last: Option<EventId>,
}

#[derive(Debug, Default, Serialize)]
pub struct List {
    pub items: Vec<Item>,
    pub next: Option<String>,
    pub lost: Vec<Lost>,
}

/// What became of an order.
pub enum Ordered {
    /// It is kept, and the owner of the partition obeys it.
    Kept(EventId),
    Unknown,
}

impl Item {
    fn of(source: Source, installation: &Installation, place: Place) -> Self {
        let Installation { app, member_id } = installation.clone();
        let (state, tries) = (State::of(&place), place.tries);
        let (id, kind, received_at) = match place.event {
            Some(Head { id, kind, received_at, .. }) => (Some(id), Some(kind), Some(received_at)),
            None => (None, None, None),
        };
        let (reason, status) = (tries.failure.map(Failure::label), tries.failure.and_then(Failure::status));
        let (attempts, since, parked_at) = (tries.attempts, tries.since, tries.parked_at);
        Self { app, member_id, state, source, id, kind, received_at, attempts, since, parked_at, reason, status }
    }
}

impl Forwarding {
    /// A page behind the installation that `cursor` names.
    pub fn list(
        &self,
        selection: &Selection,
        sees: impl Fn(&AppName) -> bool,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> List {
        let (table, mut list, mut last) = (self.table(), List::default(), None);
        for (partition, key, bytes) in table.all() {
            match key {
                Key::Place(source, installation) if sees(&installation.app) => {
                    let is_before = |cursor: &Cursor| (partition, key) <= (cursor.0, &cursor.1);
                    let place = value(bytes).filter(|place| selection.has(installation, place));
                    let Some(place) = place.filter(|_| !cursor.is_some_and(is_before)) else { continue };
                    if list.items.len() < limit {
                        list.items.push(Item::of(*source, installation, place));
                        last = Some((partition, key));
                    } else {
                        list.next = last.map(|(partition, key)| Cursor(partition, key.clone()).to_string());
                    }
                }
                Key::Watermark(source, app) if selection.app.as_ref().is_none_or(|only| only == app) && sees(app) => {
                    let Some(Watermark { lost: events @ 1.., last_lost: last, .. }) = value(bytes) else { continue };
                    list.lost.push(Lost { app: app.clone(), source: *source, partition, events, last });
                }
                Key::Place(..) | Key::Watermark(..) | Key::Order(..) => {}
            }
        }
        list
    }

    /// Blocks until the order is durable. Without an id it is about the event that waits.
    pub fn order(&self, installation: &Installation, id: Option<EventId>, action: Action) -> anyhow::Result<Ordered> {
        let found = [Source::Events, Source::Unverified].into_iter().find_map(|source| {
            let (partition, place) = self.table().place(source, installation)?;
            let head = place.event.filter(|head| id.is_none_or(|id| id == head.id))?;
            Some((source, partition, head.id))
        });
        let Some((source, partition, id)) = found else { return Ok(Ordered::Unknown) };
        let value = serde_json::to_vec(&Order { id, action })?.into();
        let record = Key::Order(source, installation.clone(), EventId::now_v7()).with(Some(value), Timestamp::now());
        self.writer.append(vec![(partition, record)])?;
        Ok(Ordered::Kept(id))
    }
}

impl Selection {
    fn has(&self, installation: &Installation, place: &Place) -> bool {
        self.app.as_ref().is_none_or(|app| *app == installation.app)
            && self.member_id.as_ref().is_none_or(|member_id| *member_id == installation.member_id)
            && self.state.is_none_or(|state| state == State::of(place))
    }
}

/// The installation before a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(u32, Key);

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let (partition, key) = text.split_once('/')?;
        Some(Self(partition.parse().ok()?, Key::parse(key)?))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}
