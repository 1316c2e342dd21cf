//! Deliberate bugs: a simulator that does not catch them proves nothing.
//!
//! None of them is in the processor's code. Each makes the event log or the rows below it behave as if the code above
//! them had the bug, or as if Kafka broke a guarantee that the code relies on.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// State is applied before what follows is committed.
    AppliesBeforeCommit,
    /// Offsets are committed before the transaction, outside it.
    OffsetsOutsideTransaction,
    /// Offsets are sent without the generation of the group, so a zombie's are accepted.
    NamesNoGeneration,
    /// Facts are in one transaction, everything else in the next.
    TwoTransactions,
    /// A commit whose answer was lost counts as done.
    UnknownIsCommitted,
    /// After an abort, `raw` goes on behind the batch.
    NoRewindAfterAbort,
    /// A fenced processor reopens its logs.
    FencedIsTriedAgain,
    /// Followers start one record too late.
    FollowsOneTooFar,
    /// Assigned partitions are not caught up with facts.
    SkipsCatchUp,
    /// Facts are read to the last stable offset, not to their end.
    ReadsBeforeDecided,
    /// Records of open and aborted transactions are read.
    ReadsUncommitted,
    /// Facts of one partition are applied to another.
    FactsOfAnotherPartition,
    /// `hl_resent` is ignored.
    NoLookBack,
    /// The search for first copies begins too late.
    LooksBackTooLate,
    /// The rows of a batch are not written, but its checkpoint is.
    LosesRows,
    /// Compaction takes the newest record of a key.
    CompactsTooMuch,
    /// Hanging transactions are never ended.
    LeavesWhatHangs,
    /// Hanging transactions are aborted, even if committed.
    AbortsWhatHangs,
    /// Hanging transactions are committed without evidence.
    CommitsWhatHangs,
    /// A partition is restored while something in it is undecided.
    GoesOnBesideWhatHangs,
}

impl Mutation {
    pub const ALL: [Self; 20] = [
        Self::AppliesBeforeCommit,
        Self::OffsetsOutsideTransaction,
        Self::NamesNoGeneration,
        Self::TwoTransactions,
        Self::UnknownIsCommitted,
        Self::NoRewindAfterAbort,
        Self::FencedIsTriedAgain,
        Self::FollowsOneTooFar,
        Self::SkipsCatchUp,
        Self::ReadsBeforeDecided,
        Self::ReadsUncommitted,
        Self::FactsOfAnotherPartition,
        Self::NoLookBack,
        Self::LooksBackTooLate,
        Self::LosesRows,
        Self::CompactsTooMuch,
        Self::LeavesWhatHangs,
        Self::AbortsWhatHangs,
        Self::CommitsWhatHangs,
        Self::GoesOnBesideWhatHangs,
    ];
}
