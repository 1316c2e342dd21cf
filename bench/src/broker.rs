//! The broker that all are measured on: one of our own, or one that runs already.

use anyhow::Context;

use tests::kafka::Broker;

use crate::cpu;

/// Names a running broker.
const RUNNING: &str = "HOOKLEDGER_TEST_KAFKA";

/// As brokers run in earnest: compiled as far as Java can.
const JAVA: &[&str] = &["-Xms1g", "-Xmx1g"];

/// A broker, and what is known of its process.
pub struct Kafka {
    servers: String,
    pid: Option<u32>,
    /// Ends it when the bench ends.
    _own: Option<Broker>,
}

impl Kafka {
    /// The running one, else a new one.
    pub fn find(pid: Option<u32>) -> anyhow::Result<Self> {
        if let Ok(servers) = std::env::var(RUNNING) {
            return Ok(Self { servers, pid, _own: None });
        }
        let own = Broker::start_with(JAVA).context("start a broker")?;
        Ok(Self { servers: own.bootstrap().to_owned(), pid: Some(own.pid()), _own: Some(own) })
    }

    /// Bootstrap servers.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The CPU that it has taken so far, if its process is known.
    pub fn cpu_us(&self) -> Option<u64> {
        self.pid.and_then(cpu::taken_us)
    }
}
