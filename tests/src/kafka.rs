//! An Apache Kafka that tests may do anything to.
//!
//! [`shared`] is for tests that do it no harm; [`own`] is for one test alone. `HOOKLEDGER_TEST_KAFKA` names a
//! running one instead, to which no harm is done. Where there is neither, tests say that they did not run:
//! librdkafka's mock cluster knows no topic settings, so programs that check theirs refuse to work on it.

use std::sync::OnceLock;

use crate::cache;
use crate::wait::not_run;

mod broker;
mod brokers;
mod jars;

pub use broker::{Broker, Place, QUICK};
pub use brokers::Brokers;
pub use jars::VERSION;

/// Names a running Kafka: bootstrap servers.
const RUNNING: &str = "HOOKLEDGER_TEST_KAFKA";

/// Bootstrap servers of one Kafka for all tests of this process that do it no harm; none, said loudly, if there is none.
pub fn shared(test: &str) -> Option<&'static str> {
    static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var(RUNNING) {
        Ok(servers) => Ok(Shared::Running(servers)),
        Err(_) if !can_start() => Err(why_not()),
        // Kept in the static for the life of this process; its guard ends it afterwards.
        Err(_) => Ok(Shared::Own(Broker::start().expect("start a broker"))),
    });
    match shared {
        Ok(Shared::Running(servers)) => Some(servers),
        Ok(Shared::Own(broker)) => Some(broker.bootstrap()),
        Err(why) => {
            not_run(test, why);
            None
        }
    }
}

/// A broker for one test alone, which may kill or freeze it; none, said loudly, if there can be none.
pub fn own(test: &str) -> Option<Broker> {
    may_break(test).then(|| Broker::start().expect("start a broker"))
}

/// The same behind a proxy that listens on the port `front`, see [`Broker::back`].
pub fn own_behind(test: &str, front: u16) -> Option<Broker> {
    may_break(test).then(|| Broker::start_behind(front, broker::STEADY).expect("start a broker"))
}

/// As [`own`], with lines of its settings that come last and win.
pub fn own_as(test: &str, more: &dyn Fn(&Place) -> String) -> Option<Broker> {
    may_break(test).then(|| Broker::start_as(QUICK, more).expect("start a broker"))
}

/// A Kafka of so many brokers for one test alone, which may kill or freeze each; none, said loudly, if there can be none.
pub fn cluster(test: &str, count: u32) -> Option<Brokers> {
    may_break(test).then(|| Brokers::start(count).expect("start brokers"))
}

fn may_break(test: &str) -> bool {
    if let Ok(servers) = std::env::var(RUNNING) {
        not_run(test, &format!("it breaks the broker, and {RUNNING}={servers} is not ours to break"));
        return false;
    }
    if !can_start() {
        not_run(test, &why_not());
        return false;
    }
    true
}

enum Shared {
    Running(String),
    Own(Broker),
}

fn can_start() -> bool {
    cache::runs("java", "-version") && (jars::cached() || cache::runs("mvn", "-version"))
}

fn why_not() -> String {
    format!("needs a Java runtime (17 or newer) with Maven, or {RUNNING}=host:port of a running Kafka")
}
