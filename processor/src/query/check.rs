//! `POST /v1/check`: may this token call this method?

use actix_web::{HttpResponse, web};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::parameters::{AFTER, Body, WAIT, wrong};
use super::problem::Problem;
use super::request::QueryRequest;
use super::wait::{self, After};
use domain::{Answer, Method, permits};

const FIELDS: [&str; 6] = ["app", "member_id", "method", "token", "token_fingerprint", WAIT];

/// With `wait`, the response waits for a decision. The token is only used for its fingerprint.
pub async fn check(query: QueryRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let after = After::read(&query.parameters(&[AFTER, WAIT])?)?;
    let body = Body::read(&query.http, payload, &FIELDS).await?;
    let installation = body.installation()?;
    query.caller.must_see(&installation.app)?;
    let method = body.required("method", "a REST method's name", Method::parse)?;
    let token = match (body.secret("token")?, body.text("token_fingerprint")?) {
        (Some(token), None) => Fingerprint::of(token.reveal()),
        (None, Some(text)) => {
            Fingerprint::parse(text).ok_or_else(|| wrong("token_fingerprint", "the 64 hex digits of a SHA-256"))?
        }
        _ => return Err(Problem::Malformed("one of token and token_fingerprint is needed".into())),
    };
    let wait = body.wait()?;
    drop(body);
    let context = &query.context;
    after.wait(context).await?;

    let ask = || -> Result<Answer, Problem> {
        let store = context.store()?;
        let state = store.installation(&installation)?;
        Ok(permits(&state, store.trust(&installation.app), &method, token, Timestamp::now()))
    };
    let mut answer = ask();
    if let Some(wait) = wait
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
        let _place = wait::place(context)?;
        // A timeout is answered as unanswered.
        context.recent_events.until(Instant::now() + wait, decided).await;
    }
    Ok(HttpResponse::Ok().json(match answer? {
        Answer::Granted { until } => json!({ "decision": "granted", "until": until }),
        Answer::Denied(denial) => json!({ "decision": "denied", "reason": denial.label() }),
        Answer::Unanswered => json!({ "decision": "unanswered", "reason": "no-answer-yet" }),
    }))
}
