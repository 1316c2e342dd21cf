//! A body comes in, becomes a raw event, is kept, and is answered. Nothing is answered 200 before.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_FORWARDED_FOR};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bitrix24::AppName;
use bitrix24::form::{Form, Scan};
use bytes::Bytes;
use event_log::RawEvent;
use http_edge::proxied::is_proxied;
use http_edge::{compression, is_proxys_own, peer, receive_compressed};
use primitives::time::Timestamp;
use prometheus::Registry;
use uuid::Uuid;

use crate::admission::apps::Apps;
use crate::admission::budget::Budget;
use crate::admission::proxies::Proxies;
use crate::admission::source_check::SourceCheck;
use crate::config::Webhooks;
use crate::delivery::handle::{DeliveryHandle, Kept, StorageUnavailable};
use crate::metrics::{Metrics, Outcome};
use crate::problem::Refusal;

/// Passed on unchanged.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

pub struct WebhookHandler {
    apps: Apps,
    body_bytes_max: usize,
    proxies: Proxies,
    sources: SourceCheck,
    junk: Budget,
    metrics: Metrics,
}

impl WebhookHandler {
    /// If sources are checked, this starts the renewal of source lists.
    pub fn start(webhooks: &Webhooks, registry: &Registry, metrics: Metrics) -> io::Result<Self> {
        Ok(Self {
            apps: Apps::new(&webhooks.apps),
            body_bytes_max: webhooks.body_bytes_max,
            proxies: webhooks.proxies.clone(),
            sources: SourceCheck::start(&webhooks.sources, registry, metrics.clone())?,
            junk: Budget::new(webhooks.junk),
            metrics,
        })
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers an unknown path, a wrong method, or a GET that probes for a handler.
    pub fn probe(&self, request: &HttpRequest) -> Answer {
        match self.apps.owner(request.path()) {
            Ok(_) if matches!(request.method().as_str(), "GET" | "HEAD") => {
                let is_event = Form::parse_query(request.query_string().as_bytes()).is_like_an_event();
                if is_event { Answer::Refused(Refusal::EventInGet) } else { Answer::Here }
            }
            Ok(_) => Answer::Refused(Refusal::WrongMethod),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Refuses a webhook without reading it.
    pub fn refuse(&self, refusal: Refusal) -> Answer {
        let answer = Answer::Refused(refusal);
        if let Some(outcome) = answer.outcome() {
            self.metrics.answered(outcome, Duration::ZERO);
        }
        answer
    }

    /// Answers once the event is kept.
    pub async fn accept(&self, request: &HttpRequest, payload: Payload, delivery: &DeliveryHandle) -> Answer {
        let started = Instant::now();
        let answer = match self.take(request, payload, delivery).await {
            Ok((id, kept)) => Answer::Kept { id, kept },
            Err(refusal) => Answer::Refused(refusal),
        };
        if let Some(outcome) = answer.outcome() {
            self.metrics.answered(outcome, started.elapsed());
        }
        answer
    }

    async fn take(
        &self,
        request: &HttpRequest,
        payload: Payload,
        delivery: &DeliveryHandle,
    ) -> Result<(Uuid, Kept), Refusal> {
        let app = self.apps.owner(request.path()).inspect_err(|refusal| {
            if let (Refusal::UnknownApp, Some(app)) = (refusal, self.apps.unknown(request.path())) {
                self.metrics.unknown_apps().add(app, Timestamp::now());
            }
        })?;
        if self.apps.are_any() && is_proxied(request.headers()) {
            self.metrics.open_behind_proxy();
        }
        let source = self.source(request);
        let is_unknown = self.sources.refuses(source);
        let received = receive_compressed(request, payload, self.body_bytes_max).await?;
        let compression = compression(request.headers());
        let body = if compression.is_some() { Scan::default() } else { Form::scan(&received.bytes) };
        let scan = body.or(Form::scan_query(request.query_string().as_bytes()));
        let refusal: Option<fn(Option<Uuid>) -> Refusal> = match (is_unknown, compression, scan.says_something()) {
            (true, _, _) => Some(Refusal::UnknownSource),
            (false, Some(_), _) => Some(Refusal::Encoded),
            (false, None, false) => Some(Refusal::NotAnEvent),
            (false, None, true) => None,
        };
        let mut event = raw_event(app, &scan, received.bytes, request);
        (event.source, event.unknown_source) = (source, is_unknown);
        event.compression = compression.map(str::to_owned);
        let (id, record) = (event.id, event.into_record());
        // A refused event is kept all the same, within the budget.
        if let Some(refusal) = refusal
            && !self.junk.take(source, record.size(), Instant::now())
        {
            self.metrics.discarded();
            return Err(refusal(None));
        }
        let read = Instant::now();
        let kept = delivery.keep(record).await;
        if let Ok(kept) = kept {
            self.metrics.kept(kept, read.elapsed());
        }
        match (kept, refusal) {
            (Ok(kept), None) => Ok((id, kept)),
            (Err(StorageUnavailable), None) => Err(Refusal::StorageUnavailable),
            (kept, Some(refusal)) => Err(refusal(kept.ok().map(|_| id))),
        }
    }

    /// The sender's address, as far as trusted proxies report it.
    fn source(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = peer(request)?;
        if !self.proxies.is_empty() && is_proxys_own(request) {
            return Some(peer);
        }
        let forwarded: Vec<_> = request.headers().get_all(X_FORWARDED_FOR).map(HeaderValue::as_bytes).collect();
        Some(self.proxies.client(peer, &forwarded))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Kept { id: Uuid, kept: Kept },
    Here,
    Refused(Refusal),
}

impl Answer {
    pub fn respond(&self) -> HttpResponse {
        let (mut response, body): (HttpResponseBuilder, String) = match self {
            Self::Kept { id, kept } => {
                let (mut buffer, id) = (Uuid::encode_buffer(), id.as_hyphenated());
                let id = id.encode_lower(&mut buffer);
                (json(), [r#"{"id":""#, id, r#"","kept":""#, kept.label(), r#""}"#].concat())
            }
            Self::Here => (json(), r#"{"send":"POST"}"#.to_owned()),
            Self::Refused(refusal) => (refusal.respond(), refusal.document()),
        };
        response.body(body)
    }

    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Kept { kept, .. } => Some(Outcome::Kept(*kept)),
            Self::Here => None,
            Self::Refused(refusal) => match refusal {
                Refusal::NotAnEvent(_) => Some(Outcome::NotAnEvent),
                Refusal::UnknownApp => Some(Outcome::UnknownApp),
                Refusal::UnknownSource(_) => Some(Outcome::UnknownSource),
                Refusal::CrossSite => Some(Outcome::CrossSite),
                Refusal::TooLarge { .. } => Some(Outcome::TooLarge),
                Refusal::StorageUnavailable => Some(Outcome::StorageUnavailable),
                Refusal::Overloaded => Some(Outcome::Overloaded),
                Refusal::UnreadableBody | Refusal::BodyTooSlow { .. } | Refusal::Encoded(_) => {
                    Some(Outcome::Unreadable)
                }
                Refusal::UnknownPath | Refusal::WrongMethod | Refusal::EventInGet => None,
            },
        }
    }
}

fn json() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    response
}

fn raw_event(app: AppName, scan: &Scan, body: Bytes, request: &HttpRequest) -> RawEvent {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut event = RawEvent::new(app, scan.head(), body, Timestamp::now());
    event.content_type = text(CONTENT_TYPE);
    event.query = Some(request.query_string()).filter(|query| !query.is_empty()).map(str::to_owned);
    event.traceparent = text(TRACEPARENT);
    // A list may be split into several fields.
    let states: Vec<_> = request.headers().get_all(TRACESTATE).filter_map(|value| value.to_str().ok()).collect();
    event.tracestate = (!states.is_empty()).then(|| states.join(","));
    event
}
