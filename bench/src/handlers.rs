//! The handlers that ingress is compared with.
//!
//! One keeps nothing: what HTTP alone costs. The other is what a good engineer writes in an afternoon:
//! one shared producer, idempotent, acknowledged by all replicas, the answer after the acknowledgement.
//! It has no deadline and no disk: when the broker is away, its clients wait.

use std::time::Duration;

use actix_web::web::{Bytes, Data, Path};
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use uuid::Uuid;

use bitrix24::form::Form;

/// Bodies beyond this are refused, as ingress does.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a record waits for a place in the client's queue.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How they are called, by the bench itself.
pub fn command() -> Command {
    let text = |name: &'static str| Arg::new(name).long(name).value_name("TEXT");
    Command::new("handler")
        .about("A handler to compare with; without --kafka it keeps nothing")
        .hide(true)
        .arg(text("listen").required(true))
        .arg(text("kafka").requires("topic"))
        .arg(text("topic"))
        .arg(text("linger-ms").help("The client's default unless given"))
}

/// What the second handler needs.
struct Afternoon {
    producer: FutureProducer,
    topic: String,
}

/// Serves until it is ended.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let listen = text("listen").context("--listen is missing")?;
    let afternoon = match (text("kafka"), text("topic")) {
        (Some(servers), Some(topic)) => Some(Data::new(Afternoon {
            producer: producer(servers, text("linger-ms")).context("make a producer")?,
            topic: topic.to_owned(),
        })),
        _ => None,
    };
    let serving = async {
        let server = HttpServer::new(move || {
            let app = App::new().app_data(web::PayloadConfig::new(BODY_BYTES_MAX));
            let path = web::resource("/v1/events/{app}").route(web::get().to(HttpResponse::Ok));
            match &afternoon {
                Some(afternoon) => app.service(path.app_data(afternoon.clone()).route(web::post().to(keep))),
                None => app.service(path.route(web::post().to(forget))),
            }
        });
        server.bind(listen)?.run().await
    };
    actix_web::rt::System::new().block_on(serving).context("serve")
}

fn producer(servers: &str, linger_ms: Option<&str>) -> anyhow::Result<FutureProducer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    if let Some(linger_ms) = linger_ms {
        config.set("linger.ms", linger_ms);
    }
    Ok(config.create()?)
}

/// Answers as if the event were kept.
async fn forget(body: Bytes) -> HttpResponse {
    drop(body);
    promise(Uuid::now_v7())
}

/// Answers when the brokers have it.
async fn keep(app: Path<String>, body: Bytes, afternoon: Data<Afternoon>) -> HttpResponse {
    let id = Uuid::now_v7();
    let Some(member_id) = Form::parse(&body).head().member_id else {
        return HttpResponse::BadRequest().finish();
    };
    let key = format!("{app}/{member_id}");
    let id_text = id.to_string();
    let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: "ce_id", value: Some(&id_text) });
    let record = FutureRecord::to(&afternoon.topic).key(&key).payload(&body[..]).headers(headers);
    match afternoon.producer.send(record, QUEUE_WAIT_MAX).await {
        Ok(_) => promise(id),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

fn promise(id: Uuid) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "id": id, "kept": "kafka" }))
}
