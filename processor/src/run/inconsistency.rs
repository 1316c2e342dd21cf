//! Inconsistencies between logs and state that need an operator's decision.
//!
//! Each has a name, and a message that says what is wrong, what that means for events, and which command resumes. Until
//! then nothing is skipped: the processor is halted.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// `raw` begins behind `K`.
    RawTrimmed,
    /// `raw` ends before `K`.
    RawLostTail,
    /// `raw` holds another event before `K` than the one that was folded.
    RawOtherEvents,
    /// `facts` end before the group's offsets or the state.
    FactsLost,
    /// `facts` begin behind the state.
    FactsTrimmed,
    /// The number of partitions has changed.
    Partitions,
}

impl What {
    pub const ALL: [Self; 6] = [
        Self::RawTrimmed,
        Self::RawLostTail,
        Self::RawOtherEvents,
        Self::FactsLost,
        Self::FactsTrimmed,
        Self::Partitions,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::RawTrimmed => "raw_trimmed",
            Self::RawLostTail => "raw_lost_tail",
            Self::RawOtherEvents => "raw_other_events",
            Self::FactsLost => "facts_lost",
            Self::FactsTrimmed => "facts_trimmed",
            Self::Partitions => "partitions",
        }
    }

    /// The message of `/readyz`.
    pub fn in_the_way(self) -> &'static str {
        match self {
            Self::RawTrimmed => "raw no longer reaches back to where it was read: see the log, run hookledger resume",
            Self::RawLostTail => "raw ends before where it was read: see the log, run hookledger resume",
            Self::RawOtherEvents => "raw holds other events than were read: see the log, run hookledger resume",
            Self::FactsLost => "facts were lost or recreated: see the log, run hookledger resume",
            Self::FactsTrimmed => "facts begin behind what the state knows: see the log, run hookledger resume",
            Self::Partitions => "the numbers of partitions do not agree: see the log",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}. {advice}")]
pub struct Inconsistency {
    pub what: What,
    /// What is wrong, with numbers, and what that means for events.
    pub wrong: String,
    advice: String,
}

impl Inconsistency {
    pub fn raw_trimmed(partition: u32, read: u64, first: u64) -> Self {
        let lost = first.saturating_sub(read);
        let wrong = format!(
            "raw of partition {partition} begins at {first}, but was read only up to {read}: {lost} events are gone that \
             were never folded"
        );
        Self { what: What::RawTrimmed, wrong, advice: resume("without them") }
    }

    pub(crate) fn raw_lost_tail(partition: u32, read: u64, end: u64) -> Self {
        let lost = read.saturating_sub(end);
        let wrong = format!(
            "raw of partition {partition} ends at {end}, but was read up to {read}: it was recreated or has lost its \
             tail, {lost} events that were folded, and perhaps more that were not"
        );
        Self { what: What::RawLostTail, wrong, advice: resume("with what raw holds") }
    }

    pub fn raw_other_events(partition: u32, read: u64) -> Self {
        let before = read.saturating_sub(1);
        let wrong = format!(
            "raw of partition {partition} was read up to {read}, but holds another event at {before} than the one that \
             was folded: it was recreated or has lost its tail, and new events that were not folded have the offsets of \
             old ones"
        );
        Self { what: What::RawOtherEvents, wrong, advice: resume("with the first of the new ones") }
    }

    pub fn facts_lost(partition: u32, known: Option<u64>, committed: u64) -> Self {
        let known = match known {
            Some(known) => format!("record raw up to {known}"),
            None => "are empty".to_owned(),
        };
        let wrong = format!(
            "facts of partition {partition} {known}, but the group has read raw up to {committed}: facts were lost or \
             recreated"
        );
        Self { what: What::FactsLost, wrong, advice: resume("with what is left of them and of raw") }
    }

    pub(crate) fn facts_end_before(partition: u32, known: u64, end: u64) -> Self {
        let wrong = format!(
            "facts of partition {partition} end at {end}, but the state was folded from them up to {known}: facts were \
             lost or recreated"
        );
        let advice = format!(
            "{}. If that finds no obstacle, stop this processor and run `hookledger rebuild`, which rebuilds its \
             state from facts",
            resume("with what is left of them and of raw")
        );
        Self { what: What::FactsLost, wrong, advice }
    }

    /// Records just published to `facts` have lower offsets than earlier ones.
    pub(crate) fn facts_went_back(partition: u32, known: u64, end: u64) -> Self {
        let wrong = format!(
            "facts of partition {partition} were folded up to {known}, but what was published now ends at {end}: they \
             have lost their tail meanwhile"
        );
        Self { what: What::FactsLost, wrong, advice: resume("with what is left of them and of raw") }
    }

    pub fn facts_trimmed(partition: u32, known: u64, first: u64) -> Self {
        let wrong = format!(
            "facts of partition {partition} begin at {first}, but the state was folded from them only up to {known}: \
             what lay between is gone, though facts are to be kept for ever"
        );
        let advice = format!(
            "Restore them, or give this processor the state of one that has folded them. Where neither can be had, stop \
             all processors, also those that have folded them. {}",
            resume("with what is left of them")
        );
        Self { what: What::FactsTrimmed, wrong, advice }
    }

    pub fn partitions(partition: u32, then: u32, now: u32) -> Self {
        Self::of_partitions(format!(
            "facts of partition {partition} were written when there were {then} partitions, and now there are {now}: \
             most installations' new events would lie in other partitions than their facts"
        ))
    }

    /// The group assigned a partition that must not exist.
    pub fn surplus(partition: u32, partitions: u32) -> Self {
        Self::of_partitions(format!("raw has a partition {partition}, but there must be {partitions} partitions"))
    }

    pub(crate) fn of_partitions(wrong: String) -> Self {
        let advice = "Nothing is folded until they agree: revert the change. Added partitions cannot be removed, so \
                      start with another topic-prefix if that is too late"
            .to_owned();
        Self { what: What::Partitions, wrong, advice }
    }
}

fn resume(with: &str) -> String {
    format!(
        "Nothing is skipped without an operator's decision: run `hookledger resume` to see all partitions, and `hookledger \
         resume --accept` to go on {with}"
    )
}
