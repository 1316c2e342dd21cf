//! `POST /v1/check`: may this token call this method?

use std::time::Duration;

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bitrix24::Installation;
use primitives::secret::{Fingerprint, Secret};
use primitives::time::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tokio::time::Instant;

use super::problem::Problem;
use super::wait::{self, After};
use super::{BODY_BYTES_MAX, QueryContext};
use domain::{Answer, Method, permits};

/// The token is only used for its fingerprint.
#[derive(Debug, Deserialize)]
pub struct Question {
    app: String,
    member_id: String,
    method: String,
    #[serde(default, deserialize_with = "secret")]
    token: Option<Secret>,
    token_fingerprint: Option<String>,
    #[serde(default, deserialize_with = "super::wait::wait")]
    wait: Option<Duration>,
}

/// A page of another site cannot make a browser send this content type.
const JSON: &str = "application/json";

/// With `wait`, the response waits for a decision.
pub async fn check(
    context: web::Data<QueryContext>,
    request: HttpRequest,
    payload: web::Payload,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    if !request.content_type().eq_ignore_ascii_case(JSON) {
        return Err(Problem::NotJson);
    }
    let question = question(&request, payload).await?;
    after.wait(&context).await?;
    let malformed = |what: &str| Problem::Malformed(what.to_owned());
    let installation = Installation::parse(&question.app, &question.member_id);
    let installation = installation.ok_or_else(|| malformed("app or member_id is malformed"))?;
    let method = Method::parse(&question.method).ok_or_else(|| malformed("method is malformed"))?;
    let token = match (&question.token, &question.token_fingerprint) {
        (Some(token), None) => Fingerprint::of(token.reveal()),
        (None, Some(text)) => Fingerprint::parse(text).ok_or_else(|| malformed("token_fingerprint is malformed"))?,
        _ => return Err(malformed("one of token and token_fingerprint is needed")),
    };

    let ask = || -> Result<Answer, Problem> {
        let store = context.store()?;
        let state = store.installation(&installation)?;
        Ok(permits(&state, store.trust(&installation.app), &method, token, Timestamp::now()))
    };
    let mut answer = ask();
    if let Some(wait) = question.wait
        && matches!(answer, Ok(Answer::Unanswered))
    {
        let mut seen = None;
        let decided = || {
            let changes = Some(context.recent_events.changes(&installation));
            if std::mem::replace(&mut seen, changes) == changes {
                return false;
            }
            answer = ask();
            !matches!(answer, Ok(Answer::Unanswered))
        };
        let _place = wait::place(&context)?;
        // A timeout is answered as unanswered.
        context.recent_events.until(Instant::now() + wait.min(wait::WAIT_MAX), decided).await;
    }
    Ok(HttpResponse::Ok().json(match answer? {
        Answer::Granted { until } => json!({ "decision": "granted", "until": until }),
        Answer::Denied(denial) => json!({ "decision": "denied", "reason": denial.label() }),
        Answer::Unanswered => json!({ "decision": "unanswered", "reason": "no-answer-yet" }),
    }))
}

/// Parses the body, and drops it.
async fn question(request: &HttpRequest, payload: web::Payload) -> Result<Question, Problem> {
    let body = http_edge::receive(request, payload, BODY_BYTES_MAX).await?;
    let malformed = |_| Problem::Malformed("the body is not the JSON that this question takes".to_owned());
    serde_json::from_slice(&body.bytes).map_err(malformed)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}
