//! Answers a webhook when all replicas have it: axum and one shared `FutureProducer`.
//!
//! Arguments: the address to listen on, bootstrap servers, the topic.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

/// Bodies beyond this are refused, as ingress does.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a record waits for a place in the client's queue.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);

struct Handler {
    producer: FutureProducer,
    topic: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let (listen, servers, topic) = (next("the address")?, next("the bootstrap servers")?, next("the topic")?);
    let producer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .create()?;
    let app = Router::new()
        .route("/v1/events/{app}", get(StatusCode::OK).post(keep))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Handler { producer, topic }));
    axum::serve(TcpListener::bind(listen).await?, app).await?;
    Ok(())
}

/// Answers when the brokers have it.
async fn keep(State(handler): State<Arc<Handler>>, Path(app): Path<String>, body: Bytes) -> Response {
    let member_id = form_urlencoded::parse(&body).find(|(name, _)| name == "auth[member_id]");
    let Some((_, member_id)) = member_id else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let key = format!("{app}/{member_id}");
    let id = Uuid::now_v7().to_string();
    let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: "ce_id", value: Some(&id) });
    let record = FutureRecord::to(&handler.topic).key(&key).payload(&body[..]).headers(headers);
    match handler.producer.send(record, QUEUE_WAIT_MAX).await {
        Ok(_) => Json(json!({ "id": id, "kept": "kafka" })).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
