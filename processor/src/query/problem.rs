//! RFC 9457 problem documents. They repeat nothing of the request except names of parameters and fields.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use http_edge::BodyError;
use serde_json::json;

use super::feed::CursorFault;
use super::tokens::Scope;
use crate::state::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("there is nothing at this path")]
    NoSuchPage,
    /// The methods that the path takes.
    #[error("this path takes {0}")]
    WrongMethod(&'static str),
    #[error("{0}")]
    Malformed(String),
    #[error("a bearer token of query-tokens is required; a browser sends it as the password")]
    Unauthorised,
    #[error("this token does not have the scope {}", .0.name())]
    MissingScope(Scope),
    #[error("this token is limited to other apps")]
    OtherApp,
    #[error("this came through a proxy, so tokens are required: set query-tokens")]
    TokensNeeded,
    #[error("without query-tokens, Host must be localhost or a loopback address; set query-tokens to use another name")]
    WrongHost,
    #[error("this endpoint takes application/json")]
    NotJson,
    #[error("this endpoint takes application/x-ndjson: a JSON object a line")]
    NotNdjson,
    #[error("the commands could not be kept; send them again")]
    NotKept,
    #[error("{0}")]
    Body(#[from] BodyError),
    #[error("too many queries are waiting; retry, or omit wait")]
    TooManyWait,
    #[error("nothing is known of this installation")]
    UnknownInstallation,
    #[error("no rejected event with this id was found")]
    UnknownRejectedEvent,
    #[error("no event of this installation waits to be forwarded, or another one than was named")]
    NotForwarded,
    #[error("the logs cannot be read now; retry")]
    NotReadable,
    #[error("too many readers of the feed; retry, or omit wait")]
    TooManyReaders,
    #[error("{}; begin again with since, or without after", .0.explain())]
    Cursor(CursorFault),
    #[error("the vault is off, so tokens are not kept; vault-key-file turns it on")]
    VaultOff,
    #[error("no trusted principal of this installation sent tokens since the vault is on")]
    NoTokens,
    /// With the id of the key.
    #[error("the tokens are sealed to the key {0}, which is not in vault-key; add it as a further line of the file")]
    VaultKeyMissing(String),
    #[error("the sealed tokens are damaged or gone; the next event of the portal brings others")]
    VaultDamaged,
    #[error("tokens are handed out to a query token with the scope tokens alone; set query-tokens")]
    ScopedTokenNeeded,
    #[error("the event has not been folded yet; retry, or wait longer")]
    NotYet,
    #[error("the state is not open yet")]
    NotOpen,
    #[error("facts are being read again after an upgrade; histories are known afterwards")]
    Outdated,
    #[error("the state cannot be read")]
    State(#[from] StoreError),
}

impl Problem {
    /// Status, and section of `docs/problems.md`.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchPage => (StatusCode::NOT_FOUND, "no-such-page"),
            Self::WrongMethod(_) => (StatusCode::METHOD_NOT_ALLOWED, "wrong-method"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed-question"),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, "unauthorised"),
            Self::MissingScope(_) => (StatusCode::FORBIDDEN, "missing-scope"),
            Self::OtherApp => (StatusCode::FORBIDDEN, "other-app"),
            Self::TokensNeeded | Self::ScopedTokenNeeded => (StatusCode::FORBIDDEN, "tokens-needed"),
            Self::WrongHost => (StatusCode::MISDIRECTED_REQUEST, "wrong-host"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json"),
            Self::NotNdjson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-ndjson"),
            Self::NotKept => (StatusCode::SERVICE_UNAVAILABLE, "storage-unavailable"),
            Self::Body(BodyError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::Body(BodyError::Encoded) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded"),
            Self::Body(BodyError::Unreadable) => (StatusCode::BAD_REQUEST, "unreadable-body"),
            Self::Body(BodyError::TooSlow { .. }) => (StatusCode::REQUEST_TIMEOUT, "body-too-slow"),
            Self::Body(BodyError::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::TooManyWait => (StatusCode::SERVICE_UNAVAILABLE, "too-many-wait"),
            Self::UnknownInstallation => (StatusCode::NOT_FOUND, "unknown-installation"),
            Self::UnknownRejectedEvent => (StatusCode::NOT_FOUND, "unknown-rejected-event"),
            Self::NotForwarded => (StatusCode::NOT_FOUND, "not-forwarded"),
            Self::NotReadable => (StatusCode::SERVICE_UNAVAILABLE, "logs-unavailable"),
            Self::TooManyReaders => (StatusCode::SERVICE_UNAVAILABLE, "too-many-readers"),
            // A browser does not go on by itself.
            Self::Cursor(CursorFault::TooOld) => (StatusCode::GONE, "cursor-too-old"),
            Self::Cursor(CursorFault::OtherLog) => (StatusCode::GONE, "cursor-of-another-log"),
            Self::Cursor(CursorFault::Ahead) => (StatusCode::GONE, "cursor-ahead"),
            Self::VaultOff => (StatusCode::SERVICE_UNAVAILABLE, "vault-off"),
            Self::NoTokens => (StatusCode::NOT_FOUND, "no-tokens"),
            Self::VaultKeyMissing(_) => (StatusCode::SERVICE_UNAVAILABLE, "vault-key-missing"),
            Self::VaultDamaged => (StatusCode::INTERNAL_SERVER_ERROR, "vault-damaged"),
            Self::NotYet => (StatusCode::GATEWAY_TIMEOUT, "not-yet"),
            Self::NotOpen | Self::Outdated => (StatusCode::SERVICE_UNAVAILABLE, "not-open"),
            Self::State(_) => (StatusCode::INTERNAL_SERVER_ERROR, "state"),
        }
    }
}

impl Problem {
    /// For metrics and logs.
    pub(super) fn label(&self) -> String {
        self.kind().1.replace('-', "_")
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::State(error) = self {
            tracing::error!("a query failed: {error}");
        }
        let (status, name) = self.kind();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Unauthorised => {
                // Basic makes a browser prompt for the token. Chromium reads the first scheme of each header only.
                response.append_header((header::WWW_AUTHENTICATE, "Basic realm=\"Hookledger\", charset=\"UTF-8\""));
                response.append_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            Self::NotYet
            | Self::NotOpen
            | Self::Outdated
            | Self::NotReadable
            | Self::TooManyReaders
            | Self::TooManyWait
            | Self::NotKept
            | Self::Body(BodyError::Overloaded) => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            Self::WrongMethod(allow) => {
                response.insert_header((header::ALLOW, *allow));
            }
            Self::NotJson => {
                response.insert_header(("accept-post", "application/json"));
            }
            Self::NotNdjson => {
                response.insert_header(("accept-post", "application/x-ndjson"));
            }
            Self::Body(BodyError::Encoded) => {
                response.insert_header((header::ACCEPT_ENCODING, "identity"));
            }
            Self::NoSuchPage
            | Self::Malformed(_)
            | Self::MissingScope(_)
            | Self::OtherApp
            | Self::TokensNeeded
            | Self::ScopedTokenNeeded
            | Self::VaultOff
            | Self::NoTokens
            | Self::VaultKeyMissing(_)
            | Self::VaultDamaged
            | Self::WrongHost
            | Self::Body(BodyError::TooLarge { .. } | BodyError::Unreadable | BodyError::TooSlow { .. })
            | Self::UnknownInstallation
            | Self::UnknownRejectedEvent
            | Self::NotForwarded
            | Self::Cursor(_)
            | Self::State(_) => {}
        }
        response.content_type("application/problem+json").json(json!({
            "type": format!("/docs/problems#{name}"),
            "title": name.replace('-', " "),
            "status": status.as_u16(),
            "detail": self.to_string(),
        }))
    }
}

pub async fn no_such_page() -> Result<HttpResponse, Problem> {
    Err(Problem::NoSuchPage)
}
