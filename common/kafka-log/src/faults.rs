//! Faults of Kafka, in few enough kinds to be counted, each with a remedy.
//!
//! The client reports a fault in many words, and again and again. [`FaultReports`] counts reports and keeps the newest of
//! each kind, so that the log can name the most specific one, once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A kind of fault. The first ones are more specific than the last ones, which often follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A topic has a shape that would break a promise.
    TopicShape,
    /// A topic that we need is not there.
    TopicMissing,
    /// We may not do what we have to.
    Authorization,
    /// Kafka rejects our credentials.
    Authentication,
    /// No TLS connection comes about.
    Tls,
    /// A broker's name cannot be resolved.
    Dns,
    /// Fewer replicas are in sync than the topic demands.
    Replicas,
    /// Partitions have no leader.
    Leaders,
    /// A broker does not have what it acknowledged, or does not know our producer.
    LostTail,
    /// A record, or a batch of them, is larger than the topic takes.
    TooLarge,
    /// No broker answers.
    Unreachable,
    /// Anything else.
    Other,
}

impl Fault {
    /// All kinds, in order.
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

    /// In metrics and log fields.
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

    /// What an operator can do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::TopicShape => "give the topic the shape that is named, or take the right topic-prefix and partitions",
            Self::TopicMissing => "find out who deleted the topic; it is made anew, but what it held is gone",
            Self::Authorization => "give our user back the right to describe and write the topic (kafka-acls)",
            Self::Authentication => "check user and password in kafka-set",
            Self::Tls => "look at the brokers' certificates and at ssl.ca.location: expired, or of another authority?",
            Self::Dns => "check the name in kafka and the resolver of this machine",
            Self::Replicas => "start the brokers that are missing",
            Self::Leaders => "start the brokers that lead these partitions, or let others be elected",
            Self::LostTail => "find out which broker lost data: events that were acknowledged may be gone from raw",
            Self::TooLarge => "raise max.message.bytes of the topic raw above body-limit",
            Self::Unreachable => "look at the brokers and at the network between",
            Self::Other => "look at the brokers' logs",
        }
    }

    /// The kind of an error of the client.
    pub(super) fn of(error: &KafkaError) -> Self {
        error.rdkafka_error_code().map_or(Self::Other, Self::of_code)
    }

    /// The kind of a code.
    pub(super) fn of_code(code: RDKafkaErrorCode) -> Self {
        let kind = CODES.iter().find(|(codes, _)| codes.contains(&code));
        kind.map_or(Self::Other, |(_, kind)| *kind)
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or(Self::ALL.len() - 1)
    }
}

const CODES: &[(&[RDKafkaErrorCode], Fault)] = &[
    (
        &[
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::UnknownTopic,
            RDKafkaErrorCode::UnknownPartition,
        ],
        Fault::TopicMissing,
    ),
    (
        &[
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::ClusterAuthorizationFailed,
            RDKafkaErrorCode::GroupAuthorizationFailed,
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
        ],
        Fault::Authorization,
    ),
    (
        &[
            RDKafkaErrorCode::Authentication,
            RDKafkaErrorCode::SaslAuthenticationFailed,
            RDKafkaErrorCode::UnsupportedSASLMechanism,
            RDKafkaErrorCode::IllegalSASLState,
        ],
        Fault::Authentication,
    ),
    (&[RDKafkaErrorCode::SSL], Fault::Tls),
    (&[RDKafkaErrorCode::Resolve], Fault::Dns),
    (&[RDKafkaErrorCode::NotEnoughReplicas, RDKafkaErrorCode::NotEnoughReplicasAfterAppend], Fault::Replicas),
    (
        &[
            RDKafkaErrorCode::LeaderNotAvailable,
            RDKafkaErrorCode::NotLeaderForPartition,
            RDKafkaErrorCode::WaitingForCoordinator,
        ],
        Fault::Leaders,
    ),
    (
        &[
            RDKafkaErrorCode::OutOfOrderSequenceNumber,
            RDKafkaErrorCode::UnknownProducerId,
            RDKafkaErrorCode::InvalidProducerEpoch,
            RDKafkaErrorCode::InvalidProducerIdMapping,
        ],
        Fault::LostTail,
    ),
    (&[RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::MessageBatchTooLarge], Fault::TooLarge),
    (
        &[
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::OperationTimedOut,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::NetworkException,
            RDKafkaErrorCode::BrokerNotAvailable,
        ],
        Fault::Unreachable,
    ),
];

/// A fault that Kafka or its client reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// The kind.
    pub fault: Fault,
    /// In words, without secrets.
    pub reason: String,
    /// When it was reported.
    pub at: Instant,
}

/// The fault reports of one program: the number of each kind, and the newest of each.
#[derive(Debug, Default)]
pub struct FaultReports {
    counts: [AtomicU64; Fault::ALL.len()],
    newest: Mutex<[Option<FaultReport>; Fault::ALL.len()]>,
}

impl FaultReports {
    /// Adds a report.
    pub fn note(&self, fault: Fault, reason: String) {
        self.counts[fault.index()].fetch_add(1, Ordering::Relaxed);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest[fault.index()] = Some(FaultReport { fault, reason, at: Instant::now() });
    }

    /// The number of reports of this kind.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts[fault.index()].load(Ordering::Relaxed)
    }

    /// The most specific report since then.
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
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn codes_are_sorted_by_remedy() {
        for (code, kind) in [
            (RDKafkaErrorCode::TopicAuthorizationFailed, Fault::Authorization),
            (RDKafkaErrorCode::MessageSizeTooLarge, Fault::TooLarge),
            (RDKafkaErrorCode::Resolve, Fault::Dns),
            (RDKafkaErrorCode::InvalidTimestamp, Fault::Other),
        ] {
            assert_eq!(Fault::of_code(code), kind);
        }
    }
}
