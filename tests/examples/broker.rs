//! Starts an Apache Kafka for work by hand, says where it is, and ends it when stdin closes or on Ctrl-C.

use std::io::Read;

use anyhow::Context;
use tests::kafka::Broker;

fn main() -> anyhow::Result<()> {
    let broker = Broker::start().context("start a broker")?;
    println!("{}", broker.bootstrap());
    let mut until_closed = Vec::new();
    std::io::stdin().read_to_end(&mut until_closed).context("wait on stdin")?;
    Ok(())
}
