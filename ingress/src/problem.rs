//! Responses to refused requests: RFC 9457, one match per question.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, ALLOW, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder};
use http_edge::BodyError;
use serde_json::json;
use uuid::Uuid;

const RETRY_AFTER_S: u64 = 30;

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::TooLarge { limit },
            BodyError::Encoded => Self::Encoded(None),
            BodyError::Unreadable => Self::UnreadableBody,
            BodyError::TooSlow { wait } => Self::BodyTooSlow { wait },
            BodyError::Overloaded => Self::Overloaded,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body names neither an event nor a portal. Kept all the same under this id, within a budget.
    NotAnEvent(Option<Uuid>),
    UnknownApp,
    /// The sender is in no source list. Kept all the same under this id, within a budget.
    UnknownSource(Option<Uuid>),
    /// A web page of another site had a browser send it, where no browser is expected.
    CrossSite,
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    StorageUnavailable,
    /// There is no memory for its body, and no slower body to take it from.
    Overloaded,
    UnknownPath,
    WrongMethod,
    /// The body ended early, or was not encoded as its headers say.
    UnreadableBody,
    /// The body is compressed. Kept all the same under this id, within a budget.
    Encoded(Option<Uuid>),
    /// An event in the query of a GET: each fetch of the link sends it again.
    EventInGet,
    BodyTooSlow {
        wait: Duration,
    },
}

impl Refusal {
    pub fn respond(&self) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(self.kind().0);
        response.insert_header(("content-type", "application/problem+json"));
        match self {
            Self::StorageUnavailable | Self::Overloaded => {
                _ = response.insert_header((RETRY_AFTER, RETRY_AFTER_S.to_string()));
            }
            Self::Encoded(_) => _ = response.insert_header((ACCEPT_ENCODING, "identity")),
            Self::WrongMethod => _ = response.insert_header((ALLOW, "GET, HEAD, POST")),
            Self::EventInGet => _ = response.insert_header((ALLOW, "POST")),
            Self::NotAnEvent(_)
            | Self::UnknownApp
            | Self::UnknownSource(_)
            | Self::CrossSite
            | Self::UnknownPath
            | Self::TooLarge { .. }
            | Self::UnreadableBody
            | Self::BodyTooSlow { .. } => {}
        }
        response
    }

    pub fn document(&self) -> String {
        let (status, name, title) = self.kind();
        let mut document = json!({
            "type": format!("/docs/problems#{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail(),
        });
        if let Self::NotAnEvent(Some(id)) | Self::UnknownSource(Some(id)) | Self::Encoded(Some(id)) = self {
            document["id"] = json!(id);
        }
        document.to_string()
    }

    /// Status, section of `docs/problems.md`, and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotAnEvent(_) => (StatusCode::BAD_REQUEST, "not-an-event", "The body is not a Bitrix24 event"),
            Self::UnreadableBody => (StatusCode::BAD_REQUEST, "unreadable-body", "The body cannot be read"),
            Self::UnknownApp => (StatusCode::NOT_FOUND, "unknown-app", "There is no such app"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown-path", "There is nothing here"),
            Self::UnknownSource(_) => (StatusCode::FORBIDDEN, "unknown-source", "The sender is not one of Bitrix24's"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross-site", "A web page of another site sent this"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::StorageUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "storage-unavailable", "The event cannot be kept right now")
            }
            Self::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "There are too many large bodies at a time")
            }
            Self::Encoded(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded", "The body is compressed"),
            Self::WrongMethod => {
                let title = "This takes POST, and GET or HEAD to see that it is there";
                (StatusCode::METHOD_NOT_ALLOWED, "wrong-method", title)
            }
            Self::EventInGet => (StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "An event is sent with POST"),
            Self::BodyTooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body did not come in time"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::NotAnEvent(id) => {
                let kept = if id.is_some() { "It is kept all the same, under `id`." } else { "It was not kept." };
                format!(
                    "It has neither `event` nor `auth[member_id]` nor `member_id`, as form fields or as JSON. {kept}"
                )
            }
            Self::UnknownApp => "The app's name in the path is not one of the `apps` in the settings.".into(),
            Self::UnknownSource(id) => {
                let kept = if id.is_some() { "The event is kept aside, under `id`." } else { "It was not kept." };
                format!("The address that this comes from is not in the published list (`source-check`). {kept}")
            }
            Self::CrossSite => {
                "Webhooks are taken on a loopback address without a proxy, where pages of other sites have no business \
                                (`Origin`, `Sec-Fetch-Site`). Behind a proxy or a tunnel, name it in `trusted-proxies`."
                    .into()
            }
            Self::TooLarge { limit } => format!("At most {limit} bytes are taken (`body-limit` in the settings)."),
            Self::StorageUnavailable => {
                "Kafka does not acknowledge and the disk log has no room. Send the event again.".into()
            }
            Self::Overloaded => {
                "No room was left for it in memory (`request-memory-limit` in the settings). Send the event again."
                    .into()
            }
            Self::Encoded(id) => {
                let kept = if id.is_some() { "It is kept aside, under `id`." } else { "It was not kept." };
                format!("Send it without the compression that `Content-Encoding` names. {kept}")
            }
            Self::UnknownPath => "Webhooks go to `/v1/events/{app}`.".into(),
            Self::WrongMethod => "Webhooks are sent with POST.".into(),
            Self::EventInGet => "The query names an event, and nothing was kept. Send it with POST.".into(),
            Self::UnreadableBody => "It ended early, or is not encoded as the request's headers say.".into(),
            Self::BodyTooSlow { wait } => format!("It has to be there within {} seconds.", wait.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_the_body_is_kept_if_it_is() {
        let id = Uuid::now_v7();
        let document: serde_json::Value =
            serde_json::from_str(&Refusal::NotAnEvent(Some(id)).document()).expect("JSON");
        assert_eq!(document["type"], "/docs/problems#not-an-event");
        assert_eq!((document["status"].as_u64(), document["id"].as_str()), (Some(400), Some(id.to_string().as_str())));
        assert!(!Refusal::NotAnEvent(None).document().contains("\"id\""));
    }
}
