//! Faults of Kafka, in few enough kinds to be counted, each with a remedy.
//!
//! The client reports a fault in many words, and repeatedly. [`FaultReports`] counts reports and keeps the newest of
//! each kind, so that the log can name the most specific one, once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Sorted from specific kinds to general ones, which often follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A topic has a shape that would break a promise.
    TopicShape,
    TopicMissing,
    Authorization,
    Authentication,
    /// No TLS connection can be made.
    Tls,
    Dns,
    /// Fewer replicas are in sync than the topic demands.
    Replicas,
    Leaders,
    /// A broker lacks records that it acknowledged, or does not know our producer.
    LostTail,
    /// A record or a batch is larger than the topic takes.
    TooLarge,
    Unreachable,
    Other,
}

impl Fault {
    /// In order.
    pub const ALL: [Self; 12] = [
        Self::TopicShape,
        Self::TopicMissing,
        Self::Authorization,
        Self::Authentication,
        Self::Tls,
        Self::Dns,
        Self::Replicas,
        Self::Leaders,
        Self::LostTail,
        Self::TooLarge,
        Self::Unreachable,
        Self::Other,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::TopicShape => "topic_shape",
            Self::TopicMissing => "topic_missing",
            Self::Authorization => "authorization",
            Self::Authentication => "authentication",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Replicas => "not_enough_replicas",
            Self::Leaders => "no_leader",
            Self::LostTail => "lost_tail",
            Self::TooLarge => "too_large",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }

    pub fn remedy(self) -> &'static str {
        match self {
            Self::TopicShape => "give the topic the shape that is named, or take the right topic-prefix and partitions",
            Self::TopicMissing => "find out why the topic was deleted; it is created again, but its records are lost",
            Self::Authorization => "give our user back the right to describe and write the topic (kafka-acls)",
            Self::Authentication => "check user and password in kafka-set",
            Self::Tls => "check the brokers' certificates and ssl.ca.location: expired, or of another authority?",
            Self::Dns => "check the name in kafka and the resolver of this machine",
            Self::Replicas => "start the brokers that are missing",
            Self::Leaders => "start the brokers that lead these partitions, or elect other leaders",
            Self::LostTail => "find out which broker lost data: acknowledged events may be missing in raw",
            Self::TooLarge => "raise max.message.bytes of the topic raw above body-limit",
            Self::Unreachable => "check the brokers and the network",
            Self::Other => "check the brokers' logs",
        }
    }

    pub(super) fn of(error: &KafkaError) -> Self {
        error.rdkafka_error_code().map_or(Self::Other, Self::of_code)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka has far more codes, which all mean the same here")]
    pub(super) fn of_code(code: Code) -> Self {
        match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => Self::TopicMissing,
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Self::Authorization,
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState => Self::Authentication,
            Code::SSL => Self::Tls,
            Code::Resolve => Self::Dns,
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Self::Replicas,
            Code::LeaderNotAvailable | Code::NotLeaderForPartition | Code::WaitingForCoordinator => Self::Leaders,
            Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping => Self::LostTail,
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Self::TooLarge,
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::NetworkException
            | Code::BrokerNotAvailable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    pub fault: Fault,
    /// Without secrets.
    pub reason: String,
    pub at: Instant,
}

/// The number of reports of each kind, and the newest of each.
#[derive(Debug, Default)]
pub struct FaultReports {
    counts: [AtomicU64; Fault::ALL.len()],
    newest: Mutex<[Option<FaultReport>; Fault::ALL.len()]>,
}

impl FaultReports {
    pub fn note(&self, fault: Fault, reason: String) {
        self.counts[fault as usize].fetch_add(1, Ordering::Relaxed);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest[fault as usize] = Some(FaultReport { fault, reason, at: Instant::now() });
    }

    pub fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize].load(Ordering::Relaxed)
    }

    pub fn most_specific(&self, since: Instant) -> Option<FaultReport> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().flatten().find(|report| report.at >= since).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_report_is_returned_even_if_others_came_later() {
        let (fault_reports, begin) = (FaultReports::default(), Instant::now());
        assert_eq!(fault_reports.most_specific(begin), None);
        fault_reports.note(Fault::Dns, "no such name".into());
        fault_reports.note(Fault::Unreachable, "1/1 brokers are down".into());
        fault_reports.note(Fault::Unreachable, "1/1 brokers are down".into());
        assert_eq!(fault_reports.most_specific(begin).map(|report| report.fault), Some(Fault::Dns));
        assert_eq!([Fault::Dns, Fault::Unreachable, Fault::Tls].map(|kind| fault_reports.count(kind)), [1, 2, 0]);
        assert_eq!(fault_reports.most_specific(Instant::now()), None, "nothing was reported since");
    }

    #[test]
    fn every_kind_has_a_place_a_label_and_a_remedy_of_its_own() {
        let labels: std::collections::BTreeSet<_> = Fault::ALL.iter().map(|kind| kind.label()).collect();
        let remedies: std::collections::BTreeSet<_> = Fault::ALL.iter().map(|kind| kind.remedy()).collect();
        assert_eq!((labels.len(), remedies.len()), (Fault::ALL.len(), Fault::ALL.len()));
        for (index, kind) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn codes_are_sorted_by_remedy() {
        for (code, kind) in [
            (Code::TopicAuthorizationFailed, Fault::Authorization),
            (Code::MessageSizeTooLarge, Fault::TooLarge),
            (Code::Resolve, Fault::Dns),
            (Code::InvalidTimestamp, Fault::Other),
        ] {
            assert_eq!(Fault::of_code(code), kind);
        }
    }
}
