//! Apache Kafka's jars, fetched with Maven.

use std::path::PathBuf;

use crate::cache;

/// The version of the broker.
pub const VERSION: &str = "4.3.1";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hookledger</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"#;

/// The folder with all jars; fetches them if they are not there.
pub fn fetch() -> anyhow::Result<PathBuf> {
    let folder = cache::folder(&name(), |folder| cache::maven(folder, &POM.replace("VERSION", VERSION)))?;
    Ok(folder.join("libs"))
}

/// Whether nothing needs to be fetched.
pub fn cached() -> bool {
    cache::has(&name())
}

fn name() -> String {
    format!("kafka-{VERSION}")
}
