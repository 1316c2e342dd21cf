//! The whole path of a request: over a socket through ingress to a client, and back.
//!
//! A stand-in for librdkafka makes its form of each record and acknowledges it at once. There is one connection with one
//! request at a time, so that every run does the same work.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Weak, mpsc};
use std::thread;

use anyhow::{Context, ensure};
use disk_log::{Delivered, DiskLog, Options};
use event_log::Record;
use ingress::delivery::dispatcher::{Client, Dispatcher};
use ingress::{Config, Delivery, Metrics, WebhookHandler};
use kafka_log::{Fault, Reports, SendError};
use portal_sim::portal::FORM;
use runtime::lifecycle::Stop;
use tempfile::TempDir;

const ANSWER_BYTES_MAX: usize = 1024;

/// Posts the body of each record, one after the other's answer.
pub fn run(records: &[Record]) -> anyhow::Result<()> {
    let directory = TempDir::new().context("make a directory")?;
    let (stop, (tell, address)) = (Stop::default(), mpsc::channel());
    let serving = thread::spawn({
        let (stop, data) = (stop.clone(), directory.path().display().to_string());
        move || serve(&data, stop, &tell)
    });
    let posted = address.recv().context("ingress listens").and_then(|address| post(address, records));
    stop.request();
    serving.join().map_err(|_| anyhow::anyhow!("ingress panicked"))?.and(posted)
}

fn post(address: SocketAddr, records: &[Record]) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(address).context("connect to ingress")?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    for body in records.iter().filter_map(|record| record.value.as_deref()) {
        let head = format!(
            "POST /v1/events/bench HTTP/1.1\r\nhost: {address}\r\nuser-agent: Bitrix24 Webhook Engine\r\n\
             content-type: {FORM}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(&[head.as_bytes(), body].concat()).context("send a request")?;
        let length = connection.read(&mut answer).context("read an answer")?;
        let answer = String::from_utf8_lossy(&answer[..length]);
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#""kept":"kafka"}"#), "{answer}");
    }
    Ok(())
}

/// Serves as the program does, with a client that needs no broker.
fn serve(data: &str, stop: Stop, tell: &mpsc::Sender<SocketAddr>) -> anyhow::Result<()> {
    let arguments = ["ingress", "--kafka", "none", "--ingress-listen", "127.0.0.1:0", "--data-dir", data];
    let arguments = arguments.map(Into::into);
    let settings = runtime::settings::read("ingress", "", &ingress::config::table(), arguments, &|_| None, []);
    let config = Config::read(&settings?)?;
    let log =
        DiskLog::open(&Path::new(data).join("disk-log"), Options::spool(1024 * 1024)).context("open a disk log")?;
    let delivered = Delivered::load(&log).context("load what was delivered")?;
    let dispatcher = Arc::new(Dispatcher::new(log, delivered, config.kafka.partitions, config.rules));
    dispatcher.connected(Arc::new(Acknowledging(Arc::downgrade(&dispatcher))));

    let (registry, webhooks) = (runtime::telemetry::registry(), &config.webhooks);
    let handler = WebhookHandler::start(webhooks, &registry, Metrics::new(&registry)).context("make a handler")?;
    let listener = http_edge::listener::listener(webhooks.listen).context("listen")?;
    actix_web::rt::System::new().block_on(async {
        let (address, serving) =
            ingress::serve(listener, webhooks, Arc::new(handler), Delivery::Kafka(dispatcher), stop)?;
        tell.send(address)?;
        serving.await.context("serve webhooks")
    })
}

/// Acknowledges whatever it is sent.
struct Acknowledging(Weak<Dispatcher<Self>>);

impl Client for Acknowledging {
    fn send(&self, partition: u32, record: &Record, ticket: u64) -> Result<(), SendError> {
        let opaque = usize::try_from(ticket).expect("64 bits");
        black_box(kafka_log::outgoing("raw", partition, record, opaque));
        if let Some(dispatcher) = self.0.upgrade() {
            dispatcher.reported(ticket, Ok(()), true);
        }
        Ok(())
    }

    fn fatal(&self) -> Option<(Fault, String)> {
        None
    }

    fn give_up(&self, _in_flight: bool) {}
}
