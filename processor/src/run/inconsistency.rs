//! The inconsistencies between logs and state in which only an operator may decide how to go on.
//!
//! Each has a name, and a sentence with numbers that says what is wrong, what that means for events, and which
//! command goes on knowingly. Until then nothing is skipped: the processor is halted.

use serde::{Deserialize, Serialize};

/// A kind of inconsistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// `raw` no longer reaches back to `K`.
    RawTrimmed,
    /// `raw` ends before `K`.
    RawLostTail,
    /// `raw` holds another event before `K` than the one that was folded.
    RawOtherEvents,
    /// `facts` tell less than the group's offsets or a state know.
    FactsLost,
    /// `facts` no longer begin where the state ends.
    FactsTrimmed,
    /// The number of partitions has changed.
    Partitions,
}

impl What {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::RawTrimmed,
        Self::RawLostTail,
        Self::RawOtherEvents,
        Self::FactsLost,
        Self::FactsTrimmed,
        Self::Partitions,
    ];

    /// In metrics and log fields.
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

    /// Why the processor is not ready.
    pub fn in_the_way(self) -> &'static str {
        match self {
            Self::RawTrimmed => "raw no longer reaches back to where it was read: see the log, run hookledger resume",
            Self::RawLostTail => "raw ends before where it was read: see the log, run hookledger resume",
            Self::RawOtherEvents => "raw holds other events than were read: see the log, run hookledger resume",
            Self::FactsLost => "facts were lost or made anew: see the log, run hookledger resume",
            Self::FactsTrimmed => "facts begin behind what the state knows: see the log, run hookledger resume",
            Self::Partitions => "the numbers of partitions do not agree: see the log",
        }
    }
}

/// Logs and state are inconsistent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}. {advice}")]
pub struct Inconsistency {
    /// How.
    pub what: What,
    /// What is wrong, in numbers, and what that means for events.
    pub wrong: String,
    /// What to do.
    advice: String,
}

impl Inconsistency {
    /// `raw` begins behind `K`.
    pub fn raw_trimmed(partition: u32, read: u64, first: u64) -> Self {
        let lost = first.saturating_sub(read);
        let wrong = format!(
            "raw of partition {partition} begins at {first}, but was read only up to {read}: {lost} events are gone that \
             were never folded"
        );
        Self { what: What::RawTrimmed, wrong, advice: resume("without them") }
    }

    /// `raw` ends before `K`.
    pub fn raw_lost_tail(partition: u32, read: u64, end: u64) -> Self {
        let lost = read.saturating_sub(end);
        let wrong = format!(
            "raw of partition {partition} ends at {end}, but was read up to {read}: it was made anew or has lost its \
             tail, {lost} events that were folded, and perhaps more that were not"
        );
        Self { what: What::RawLostTail, wrong, advice: resume("with what raw holds") }
    }

    /// `raw` holds another event before `K`.
    pub fn raw_other_events(partition: u32, read: u64) -> Self {
        let before = read.saturating_sub(1);
        let wrong = format!(
            "raw of partition {partition} was read up to {read}, but holds another event at {before} than the one that \
             was folded: it was made anew or has lost its tail, and new events that were not folded lie where old ones \
             lay"
        );
        Self { what: What::RawOtherEvents, wrong, advice: resume("with the first of the new ones") }
    }

    /// The group went on further than `facts` tell.
    pub fn facts_lost(partition: u32, told: Option<u64>, committed: u64) -> Self {
        let told = match told {
            Some(told) => format!("tell of raw up to {told}"),
            None => "are empty".to_owned(),
        };
        let wrong = format!(
            "facts of partition {partition} {told}, but the group has read raw up to {committed}: facts were lost or \
             made anew"
        );
        Self { what: What::FactsLost, wrong, advice: resume("with what is left of them and of raw") }
    }

    /// The state goes on further than `facts`.
    pub fn facts_end_before(partition: u32, known: u64, end: u64) -> Self {
        let wrong = format!(
            "facts of partition {partition} end at {end}, but the state was folded from them up to {known}: facts were \
             lost or made anew"
        );
        let advice = format!(
            "{}. Where that finds nothing in the way, stop this processor and run `hookledger rebuild`, which makes its \
             state anew of what facts hold",
            resume("with what is left of them and of raw")
        );
        Self { what: What::FactsLost, wrong, advice }
    }

    /// What was just published to `facts` lies below what was there before.
    pub fn facts_went_back(partition: u32, known: u64, end: u64) -> Self {
        let wrong = format!(
            "facts of partition {partition} were folded up to {known}, but what was published now ends at {end}: they \
             have lost their tail meanwhile"
        );
        Self { what: What::FactsLost, wrong, advice: resume("with what is left of them and of raw") }
    }

    /// `facts` begin behind what the state knows.
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

    /// The progress record was written under another number of partitions.
    pub fn partitions(partition: u32, then: u32, now: u32) -> Self {
        Self::of_partitions(format!(
            "facts of partition {partition} were written when there were {then} partitions, and now there are {now}: \
             most installations' new events would lie in other partitions than their facts"
        ))
    }

    /// The group gave us a partition that there must not be.
    pub fn surplus(partition: u32, partitions: u32) -> Self {
        Self::of_partitions(format!("raw has a partition {partition}, but there must be {partitions} partitions"))
    }

    /// Any other word about numbers of partitions.
    pub fn of_partitions(wrong: String) -> Self {
        let advice =
            "Nothing is folded until they agree: take back what was changed. Partitions that were added stay, \
                      so begin anew with another topic-prefix where that is too late"
                .to_owned();
        Self { what: What::Partitions, wrong, advice }
    }
}

/// The advice where a command helps.
fn resume(with: &str) -> String {
    format!(
        "Nothing is skipped until somebody says so: run `hookledger resume` to see all partitions, and `hookledger \
         resume --accept` to go on {with}"
    )
}
