//! Topics of Apache Kafka as logs.
