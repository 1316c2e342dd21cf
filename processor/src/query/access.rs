//! Which requests are answered: those that show a token; without tokens, those that ask for a loopback name and did not come
//! through a proxy.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_edge::proxied::is_proxied;
use http_edge::site::asks_for_loopback;
use primitives::secret::Fingerprint;

use super::QueryContext;
use super::problem::Problem;

/// Lets a request pass if it shows one of the tokens that are set. Where none are, we listen on loopback, and it passes
/// if it asks for a name of loopback: a page in a browser can have a name of its own lead there.
///
/// What does not pass is answered before its body is read.
pub async fn guard(
    context: web::Data<QueryContext>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let refusal = if context.tokens.is_empty() {
        if is_proxied(request.headers()) {
            Some(Problem::TokensNeeded)
        } else {
            (!asks_for_loopback(request.request())).then_some(Problem::WrongHost)
        }
    } else {
        (!shown(&request).is_some_and(|shown| context.tokens.contains(&shown))).then_some(Problem::Unauthorised)
    };
    match refusal {
        None => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        // An answer, not an error: those get none of the headers that all answers have.
        Some(refusal) => Ok(request.into_response(refusal.error_response())),
    }
}

/// The fingerprint of the token in `Authorization: Bearer …`, or of the password in `Basic …`, which is how a browser
/// shows one. Comparing fingerprints tells nothing through timing.
fn shown(request: &ServiceRequest) -> Option<Fingerprint> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, shown) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Fingerprint::of(shown.trim()));
    }
    let basic = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(shown.trim()))?.ok()?;
    let (_, password) = std::str::from_utf8(&basic).ok()?.split_once(':')?;
    Some(Fingerprint::of(password))
}
