//! Errors as RFC 9457 problem documents. None repeats what was asked beyond names of parameters.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError, web};
use http_edge::BodyError;
use serde_json::json;

use crate::state::StoreError;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    NoSuchPage,
    /// The question cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// No token, or not one of ours.
    #[error("a bearer token is needed, one of those in query-tokens; a browser shows it as the password")]
    Unauthorised,
    /// No tokens are set, and a proxy lets in more than this machine.
    #[error("this came through a proxy, so more than this machine can ask, and tokens are needed: set query-tokens")]
    TokensNeeded,
    /// No tokens are set, and it asks for a name that is none of this machine's.
    #[error(
        "without query-tokens only localhost and loopback addresses are answered as Host; set query-tokens to be asked by another name"
    )]
    WrongHost,
    /// A body that is no JSON by its content type.
    #[error("this question takes application/json")]
    NotJson,
    /// A body that was not received.
    #[error("{0}")]
    Body(#[from] BodyError),
    /// Too many questions wait for an event or a decision.
    #[error("too many questions wait already; ask again, or without wait")]
    TooManyWait,
    /// Nothing is known of this installation.
    #[error("nothing is known of this installation")]
    UnknownInstallation,
    /// The event was not folded in time.
    #[error("the event has not been folded yet; ask again, or wait longer")]
    NotYet,
    /// The logs were not reached yet, or the state is being read again.
    #[error("the state is not open yet")]
    NotOpen,
    /// The state cannot be read.
    #[error("the state cannot be read")]
    State(#[from] StoreError),
}

impl Problem {
    /// The page of `docs/problems.md` about it.
    fn name(&self) -> &'static str {
        match self {
            Self::NoSuchPage => "no-such-page",
            Self::Malformed(_) => "malformed-question",
            Self::Unauthorised => "unauthorised",
            Self::TokensNeeded => "tokens-needed",
            Self::WrongHost => "wrong-host",
            Self::NotJson => "not-json",
            Self::Body(BodyError::TooLarge { .. }) => "too-large",
            Self::Body(BodyError::Encoded) => "encoded",
            Self::Body(BodyError::Unreadable) => "unreadable-body",
            Self::Body(BodyError::TooSlow { .. }) => "body-too-slow",
            Self::Body(BodyError::Overloaded) => "overloaded",
            Self::TooManyWait => "too-many-wait",
            Self::UnknownInstallation => "unknown-installation",
            Self::NotYet => "not-yet",
            Self::NotOpen => "not-open",
            Self::State(_) => "state",
        }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NoSuchPage | Self::UnknownInstallation => StatusCode::NOT_FOUND,
            Self::Malformed(_) | Self::Body(BodyError::Unreadable) => StatusCode::BAD_REQUEST,
            Self::WrongHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NotJson | Self::Body(BodyError::Encoded) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::TooSlow { .. }) => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::TokensNeeded => StatusCode::FORBIDDEN,
            Self::NotYet => StatusCode::GATEWAY_TIMEOUT,
            Self::NotOpen | Self::TooManyWait | Self::Body(BodyError::Overloaded) => StatusCode::SERVICE_UNAVAILABLE,
            Self::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::State(error) = self {
            tracing::error!("a question went unanswered: {error}");
        }
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Unauthorised => {
                // Basic, so that a browser asks its user: the page is for people.
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"Hookledger\""));
            }
            Self::NotYet | Self::NotOpen | Self::TooManyWait | Self::Body(BodyError::Overloaded) => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            Self::NotJson => {
                response.insert_header(("accept-post", "application/json"));
            }
            Self::Body(BodyError::Encoded) => {
                response.insert_header((header::ACCEPT_ENCODING, "identity"));
            }
            Self::NoSuchPage
            | Self::Malformed(_)
            | Self::TokensNeeded
            | Self::WrongHost
            | Self::Body(BodyError::TooLarge { .. } | BodyError::Unreadable | BodyError::TooSlow { .. })
            | Self::UnknownInstallation
            | Self::State(_) => {}
        }
        response.content_type("application/problem+json").json(json!({
            "type": format!("/docs/problems#{}", self.name()),
            "title": self.name().replace('-', " "),
            "status": status.as_u16(),
            "detail": self.to_string(),
        }))
    }
}

/// For everything that is not a question.
pub async fn no_such_page() -> Result<HttpResponse, Problem> {
    Err(Problem::NoSuchPage)
}

/// Parameters that cannot be read are problems like any other.
pub fn query_config() -> web::QueryConfig {
    web::QueryConfig::default().error_handler(|error, _| {
        // The error names the parameter and what is wrong with it, not the value.
        Problem::Malformed(format!("a parameter cannot be read: {error}")).into()
    })
}
