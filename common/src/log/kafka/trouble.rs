//! What can be wrong with Kafka, in few enough kinds to be counted, each with what an operator can do about it.
//!
//! The client complains in many words and again and again. [`Complaints`] counts them and keeps the newest
//! of each kind, so that whoever speaks to people can say the one that tells most, once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A kind of trouble. The first ones tell more than the last ones, which often follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
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

impl Trouble {
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

const CODES: &[(&[RDKafkaErrorCode], Trouble)] = &[
    (
        &[
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::UnknownTopic,
            RDKafkaErrorCode::UnknownPartition,
        ],
        Trouble::TopicMissing,
    ),
    (
        &[
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::ClusterAuthorizationFailed,
            RDKafkaErrorCode::GroupAuthorizationFailed,
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
        ],
        Trouble::Authorization,
    ),
    (
        &[
            RDKafkaErrorCode::Authentication,
            RDKafkaErrorCode::SaslAuthenticationFailed,
            RDKafkaErrorCode::UnsupportedSASLMechanism,
            RDKafkaErrorCode::IllegalSASLState,
        ],
        Trouble::Authentication,
    ),
    (&[RDKafkaErrorCode::SSL], Trouble::Tls),
    (&[RDKafkaErrorCode::Resolve], Trouble::Dns),
    (&[RDKafkaErrorCode::NotEnoughReplicas, RDKafkaErrorCode::NotEnoughReplicasAfterAppend], Trouble::Replicas),
    (
        &[
            RDKafkaErrorCode::LeaderNotAvailable,
            RDKafkaErrorCode::NotLeaderForPartition,
            RDKafkaErrorCode::WaitingForCoordinator,
        ],
        Trouble::Leaders,
    ),
    (
        &[
            RDKafkaErrorCode::OutOfOrderSequenceNumber,
            RDKafkaErrorCode::UnknownProducerId,
            RDKafkaErrorCode::InvalidProducerEpoch,
            RDKafkaErrorCode::InvalidProducerIdMapping,
        ],
        Trouble::LostTail,
    ),
    (&[RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::MessageBatchTooLarge], Trouble::TooLarge),
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
        Trouble::Unreachable,
    ),
];

/// What Kafka or its client complained of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The kind.
    pub trouble: Trouble,
    /// In words, without secrets.
    pub reason: String,
    /// When it was heard.
    pub at: Instant,
}

/// All complaints of one program: how many of each kind, and the newest of each.
#[derive(Debug, Default)]
pub struct Complaints {
    counts: [AtomicU64; Trouble::ALL.len()],
    newest: Mutex<[Option<Complaint>; Trouble::ALL.len()]>,
}

impl Complaints {
    /// Takes one in.
    pub fn note(&self, trouble: Trouble, reason: String) {
        self.counts[trouble.index()].fetch_add(1, Ordering::Relaxed);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest[trouble.index()] = Some(Complaint { trouble, reason, at: Instant::now() });
    }

    /// How many of this kind there were.
    pub fn count(&self, trouble: Trouble) -> u64 {
        self.counts[trouble.index()].load(Ordering::Relaxed)
    }

    /// Of those heard since then, the one that tells most.
    pub fn telling(&self, since: Instant) -> Option<Complaint> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().flatten().find(|complaint| complaint.at >= since).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_that_tells_most_is_told_even_if_others_came_later() {
        let (complaints, begin) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.telling(begin), None);
        complaints.note(Trouble::Dns, "no such name".into());
        complaints.note(Trouble::Unreachable, "1/1 brokers are down".into());
        complaints.note(Trouble::Unreachable, "1/1 brokers are down".into());
        assert_eq!(complaints.telling(begin).map(|complaint| complaint.trouble), Some(Trouble::Dns));
        assert_eq!([Trouble::Dns, Trouble::Unreachable, Trouble::Tls].map(|kind| complaints.count(kind)), [1, 2, 0]);
        assert_eq!(complaints.telling(Instant::now()), None, "nothing was heard since");
    }

    #[test]
    fn every_kind_has_a_place_a_label_and_a_remedy_of_its_own() {
        let labels: std::collections::BTreeSet<_> = Trouble::ALL.iter().map(|kind| kind.label()).collect();
        let remedies: std::collections::BTreeSet<_> = Trouble::ALL.iter().map(|kind| kind.remedy()).collect();
        assert_eq!((labels.len(), remedies.len()), (Trouble::ALL.len(), Trouble::ALL.len()));
        for (index, kind) in Trouble::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn codes_are_sorted_by_what_a_person_can_do() {
        for (code, kind) in [
            (RDKafkaErrorCode::TopicAuthorizationFailed, Trouble::Authorization),
            (RDKafkaErrorCode::MessageSizeTooLarge, Trouble::TooLarge),
            (RDKafkaErrorCode::Resolve, Trouble::Dns),
            (RDKafkaErrorCode::InvalidTimestamp, Trouble::Other),
        ] {
            assert_eq!(Trouble::of_code(code), kind);
        }
    }
}
