//! One request to the query API, and what its handler needs.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use tokio::sync::Semaphore;

use super::access::Caller;
use super::context::QueryContext;
use super::parameters::Parameters;
use super::problem::Problem;
use super::wait::After;
use crate::state::Store;

pub struct QueryRequest {
    pub context: web::Data<QueryContext>,
    pub caller: Caller,
    pub http: HttpRequest,
}

impl FromRequest for QueryRequest {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(http: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let context = http.app_data::<web::Data<QueryContext>>().cloned().ok_or(Problem::NotOpen);
        let caller = Caller::from_request(http, payload).into_inner();
        ready(context.and_then(|context| Ok(Self { context, caller: caller?, http: http.clone() })))
    }
}

impl QueryRequest {
    /// Those of the query string.
    pub fn parameters(&self, known: &[&'static str]) -> Result<Parameters, Problem> {
        Parameters::read(&self.http, known)
    }

    /// The state, once the event that the parameters name is folded.
    pub async fn store(&self, parameters: &Parameters) -> Result<Arc<Store>, Problem> {
        After::read(parameters)?.wait(&self.context).await?;
        self.context.store()
    }
}

/// Works on a thread that may block. It goes on after a disconnect, so it holds the permit itself.
pub async fn block<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    unavailable: fn() -> Problem,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| unavailable())?;
    let done = web::block(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|_| unavailable())
}
