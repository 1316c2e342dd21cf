//! A body comes in, becomes a raw event, is kept, and is answered. Nothing is answered 200 before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use common::event::{AppName, RawEvent};
use common::form::Form;
use common::secret::Fingerprint;
use common::settings::App;
use common::time::Timestamp;
use tokio::time::timeout;
use uuid::Uuid;

use crate::keep::{Hand, Kept, Nowhere};
use crate::metrics::{Metrics, Outcome};
use crate::problem::Refusal;

/// How long a body is awaited.
const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bodies that are no events are kept at most so often in a minute: they are for people, not for floods.
const NOT_EVENTS_PER_MINUTE_MAX: u32 = 600;
/// Before every app's path.
const EVENTS_PATH: &str = "/v1/events/";
/// Given by us, passed on as it came.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Which apps there are, and what is taken for them.
pub struct Reception {
    apps: BTreeMap<AppName, Option<Fingerprint>>,
    /// Older paths that map to an app.
    paths: HashMap<String, AppName>,
    body_bytes_max: usize,
    not_events: Budget,
    metrics: Metrics,
}

impl Reception {
    /// No apps means any name.
    pub fn new(apps: &BTreeMap<AppName, App>, body_bytes_max: usize, metrics: Metrics) -> Self {
        let key = |app: &App| app.path_key.as_ref().map(|key| Fingerprint::of(key.reveal()));
        let older = |(name, app): (&AppName, &App)| -> Vec<_> {
            app.paths.iter().map(|path| (path.clone(), name.clone())).collect()
        };
        Self {
            apps: apps.iter().map(|(name, app)| (name.clone(), key(app))).collect(),
            paths: apps.iter().flat_map(older).collect(),
            body_bytes_max,
            not_events: Budget::default(),
            metrics,
        }
    }

    /// Whose path this is.
    pub fn app(&self, path: &str) -> Result<AppName, Refusal> {
        if let Some(app) = self.paths.get(path) {
            return Ok(app.clone());
        }
        let rest = path.strip_prefix(EVENTS_PATH).ok_or(Refusal::UnknownPath)?;
        let (name, key) = rest.split_once('/').map_or((rest, None), |(name, key)| (name, Some(key)));
        let app = AppName::parse(name).ok_or(Refusal::UnknownApp)?;
        let wanted = self.apps.get(&app);
        let known = self.apps.is_empty() || wanted.is_some();
        // Fingerprints: how long a comparison takes says nothing about the key.
        let opens = key.map(Fingerprint::of) == wanted.copied().flatten();
        if known && opens { Ok(app) } else { Err(Refusal::UnknownApp) }
    }

    /// Answers an unknown path, a wrong method, or a GET that looks whether there is a handler.
    pub fn look(&self, request: &HttpRequest) -> Answer {
        match self.app(request.path()) {
            Ok(_) if matches!(request.method().as_str(), "GET" | "HEAD") => Answer::Here,
            Ok(_) => Answer::Refused(Refusal::WrongMethod),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Takes a webhook: answers once the event cannot be lost any more.
    pub async fn accept(&self, request: &HttpRequest, payload: Payload, hand: &Hand) -> Answer {
        let started = Instant::now();
        let answer = match self.take(request, payload, hand).await {
            Ok((id, kept)) => Answer::Kept { id, kept },
            Err(refusal) => Answer::Refused(refusal),
        };
        if let Some(outcome) = answer.outcome() {
            self.metrics.answered(outcome, started.elapsed());
        }
        answer
    }

    async fn take(&self, request: &HttpRequest, payload: Payload, hand: &Hand) -> Result<(Uuid, Kept), Refusal> {
        let app = self.app(request.path())?;
        let body = self.read(request, payload).await?;
        let form = Form::scan(&body);
        let is_event = form.says_something();
        if !is_event && !self.not_events.take(Instant::now()) {
            self.metrics.discarded();
            return Err(Refusal::NotAnEvent(None));
        }
        let event = raw_event(app, &form, body, request);
        let id = event.id;
        let read = Instant::now();
        let kept = hand.keep(event.into_record()).await;
        if let Ok(kept) = kept {
            self.metrics.kept(kept, read.elapsed());
        }
        match (kept, is_event) {
            (Ok(kept), true) => Ok((id, kept)),
            (Ok(_), false) => Err(Refusal::NotAnEvent(Some(id))),
            (Err(Nowhere), true) => Err(Refusal::Nowhere),
            (Err(Nowhere), false) => Err(Refusal::NotAnEvent(None)),
        }
    }

    async fn read(&self, request: &HttpRequest, payload: Payload) -> Result<Bytes, Refusal> {
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let too_large = Refusal::TooLarge { limit: self.body_bytes_max };
        if announced.is_some_and(|length: usize| length > self.body_bytes_max) {
            return Err(too_large);
        }
        // No timer is set where the body is there already.
        let Ok(read) = timeout(BODY_WAIT_MAX, payload.to_bytes_limited(self.body_bytes_max)).await else {
            return Err(Refusal::BodyTooSlow { wait: BODY_WAIT_MAX });
        };
        match read {
            // A copy of exactly its length: what it was read into is larger.
            Ok(Ok(body)) => Ok(Bytes::copy_from_slice(&body)),
            Ok(Err(_)) => Err(Refusal::UnreadableBody),
            Err(_) => Err(too_large),
        }
    }
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The event is kept.
    Kept {
        /// The event's id.
        id: Uuid,
        /// Where.
        kept: Kept,
    },
    /// There is a handler here.
    Here,
    /// The request is refused.
    Refused(Refusal),
}

impl Answer {
    /// The response, with `Connection: close` if the connection is to end with it.
    pub fn respond(&self, close: bool) -> HttpResponse {
        let (mut response, body): (HttpResponseBuilder, String) = match self {
            Self::Kept { id, kept } => (json(), format!(r#"{{"id":"{id}","kept":"{}"}}"#, kept.label())),
            Self::Here => (json(), r#"{"send":"POST"}"#.to_owned()),
            Self::Refused(refusal) => (refusal.respond(), refusal.document()),
        };
        if close {
            response.force_close();
        }
        response.body(body)
    }

    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Kept { kept, .. } => Some(Outcome::Kept(*kept)),
            Self::Here => None,
            Self::Refused(refusal) => match refusal {
                Refusal::NotAnEvent(_) => Some(Outcome::NotAnEvent),
                Refusal::UnknownApp => Some(Outcome::UnknownApp),
                Refusal::TooLarge { .. } => Some(Outcome::TooLarge),
                Refusal::Nowhere => Some(Outcome::Nowhere),
                Refusal::UnreadableBody | Refusal::BodyTooSlow { .. } => Some(Outcome::Unreadable),
                Refusal::UnknownPath | Refusal::WrongMethod => None,
            },
        }
    }
}

fn json() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/json"));
    response
}

fn raw_event(app: AppName, form: &Form, body: Bytes, request: &HttpRequest) -> RawEvent {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut event = RawEvent::new(app, form.head(), body, Timestamp::now());
    event.content_type = text(CONTENT_TYPE);
    event.traceparent = text(TRACEPARENT);
    event.source = request.peer_addr().map(|address| address.ip());
    event
}

/// So many in a minute, counted from the first of them.
#[derive(Debug, Default)]
struct Budget(Mutex<Option<(Instant, u32)>>);

impl Budget {
    fn take(&self, now: Instant) -> bool {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = spent
            .filter(|(since, _)| now.saturating_duration_since(*since) < Duration::from_secs(60))
            .unwrap_or((now, 0));
        let left = count < NOT_EVENTS_PER_MINUTE_MAX;
        *spent = Some((since, count + u32::from(left)));
        left
    }
}
