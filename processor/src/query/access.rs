//! Access control: requests need a token or, without tokens, a loopback `Host` and no proxy. A token may be limited to
//! scopes and apps.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, ResponseError, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitrix24::AppName;
use http_edge::proxied::is_proxied;
use http_edge::site::asks_for_loopback;
use primitives::secret::Fingerprint;

use super::context::QueryContext;
use super::problem::Problem;
use super::tokens::{Access, QueryToken, Scope};

/// What the caller may do.
#[derive(Clone)]
pub struct Caller {
    access: Arc<Access>,
    /// The fingerprint of the query token; none on a port without tokens.
    token: Option<Fingerprint>,
}

impl Caller {
    /// Whether lists show this app.
    pub fn sees(&self, app: &AppName) -> bool {
        self.access.sees(app)
    }

    /// For a query about one app. The answer does not depend on whether anything is known of it.
    pub fn must_see(&self, app: &AppName) -> Result<(), Problem> {
        if self.sees(app) { Ok(()) } else { Err(Problem::OtherApp) }
    }

    pub fn is_limited(&self) -> bool {
        self.access.is_limited()
    }

    /// The apps that the token is limited to, in order.
    pub fn apps(&self) -> Option<impl Iterator<Item = &AppName>> {
        self.access.apps().map(|apps| apps.iter())
    }

    pub fn token(&self) -> Option<Fingerprint> {
        self.token
    }
}

#[cfg(test)]
impl Caller {
    pub fn full() -> Self {
        Self { access: Arc::new(Access::full()), token: None }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    /// Fails where [`guard`] does not stand before.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Self>().cloned().ok_or(Problem::Unauthorised))
    }
}

/// Passes a request with one of the configured tokens. Without tokens the server listens on loopback, and `Host` must
/// be a loopback name: a website can point a name of its own at loopback.
///
/// Other requests are answered before their body is read.
pub async fn guard(
    context: web::Data<QueryContext>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match access(&context, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.call(request).await.map(ServiceResponse::map_into_boxed_body)
        }
        // A response, not an error, so that the common headers are added.
        Err(refusal) => Ok(request.into_response(refusal.error_response())),
    }
}

/// Behind [`guard`]: passes a request of a token with this scope.
pub async fn needs(
    scope: Scope,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let refusal = match request.extensions().get::<Caller>() {
        Some(caller) if caller.access.has(scope) => None,
        Some(Caller { token: None, .. }) => Some(Problem::ScopedTokenNeeded),
        Some(_) | None => Some(Problem::MissingScope(scope)),
    };
    match refusal {
        None => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        Some(refusal) => Ok(request.into_response(refusal.error_response())),
    }
}

fn access(context: &QueryContext, request: &ServiceRequest) -> Result<Caller, Problem> {
    if !context.tokens.is_empty() {
        let shown = shown(request).ok_or(Problem::Unauthorised)?;
        let token = context.tokens.iter().find(|token| token.fingerprint == shown);
        let caller = |token: &QueryToken| Caller { access: Arc::clone(&token.access), token: Some(shown) };
        return token.map(caller).ok_or(Problem::Unauthorised);
    }
    if is_proxied(request.headers()) {
        return Err(Problem::TokensNeeded);
    }
    if !asks_for_loopback(request.request()) {
        return Err(Problem::WrongHost);
    }
    Ok(Caller { access: Arc::new(Access::full()), token: None })
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
