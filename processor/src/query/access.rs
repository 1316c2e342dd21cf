//! Access control: requests need a token or, without tokens, a loopback `Host` and no proxy.

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

/// Passes a request with one of the configured tokens. Without tokens the server listens on loopback, and `Host` must
/// be a loopback name: a website can point a name of its own at loopback.
///
/// Other requests are answered before their body is read.
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
        // A response, not an error, so that the common headers are added.
        Some(refusal) => Ok(request.into_response(refusal.error_response())),
    }
}

/// The fingerprint of the token in `Authorization: Bearer …`, or of the password in `Basic …`, which browsers send.
/// Comparing fingerprints leaks nothing through timing.
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
