//! Several brokers that are one Kafka: any of them may be killed, frozen and started again.

use anyhow::{Context, bail};

use super::broker::{Broker, QUICK, STARTS_MAX, cluster_id};
use super::jars;
use crate::ports;

/// A Kafka of several brokers, each of them a controller too. Topics have as many replicas as there are brokers,
/// and all but one of them have to acknowledge.
pub struct Brokers {
    nodes: Vec<Broker>,
    bootstrap: String,
}

impl Brokers {
    /// Starts so many and waits until all of them answer.
    pub fn start(count: u32) -> anyhow::Result<Self> {
        let jars = jars::fetch().context("fetch Kafka")?;
        for _ in 0..STARTS_MAX {
            let mut brokers = Self::prepare(&jars, count)?;
            for node in &mut brokers.nodes {
                node.launch()?;
            }
            let answered: anyhow::Result<()> = brokers.nodes.iter_mut().try_for_each(Broker::answers);
            match answered {
                Ok(()) => return Ok(brokers),
                // Another process took a port between our check and its start.
                Err(_) if brokers.nodes.iter().any(|node| node.log().contains("Address already in use")) => {}
                Err(error) => return Err(error),
            }
        }
        bail!("no free ports in {STARTS_MAX} attempts")
    }

    /// Where clients begin: all of them.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// One of them, to be killed, frozen or started again.
    pub fn node(&mut self, number: usize) -> &mut Broker {
        let count = self.nodes.len();
        &mut self.nodes[number % count]
    }

    fn prepare(jars: &std::path::Path, count: u32) -> anyhow::Result<Self> {
        let ports: Vec<_> = (1..=count).map(|id| (id, (ports::free(), ports::free()))).collect();
        let voters: Vec<_> = ports.iter().map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}")).collect();
        let cluster = cluster_id();
        let mut nodes = Vec::new();
        for (id, ports) in ports {
            let more = |_: &super::Place| settings(id, count, &voters.join(","));
            let node = Broker::prepare(jars.to_owned(), QUICK, id, ports, &more)?;
            node.format(&["-t", &cluster])?;
            nodes.push(node);
        }
        let bootstrap = nodes.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",");
        Ok(Self { nodes, bootstrap })
    }
}

/// What differs from a broker that is alone.
fn settings(id: u32, count: u32, voters: &str) -> String {
    let in_sync = count.saturating_sub(1).max(1);
    format!(
        "node.id={id}
controller.quorum.bootstrap.servers=
controller.quorum.voters={voters}
default.replication.factor={count}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={count}
transaction.state.log.replication.factor={count}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={count}
share.coordinator.state.topic.min.isr={in_sync}
controlled.shutdown.enable=false
unclean.leader.election.enable=false
"
    )
}
