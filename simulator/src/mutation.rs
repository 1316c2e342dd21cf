//! Bugs that are put in on purpose: a simulator that does not catch them proves nothing.
//!
//! None of them is in the processor's code. Each makes the event log or the rows below it behave as if the code above
//! them had the bug, or as if Kafka did not keep what the code relies on.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// State is applied before what follows is committed.
    AppliesBeforeCommit,
    /// Offsets are committed by themselves, before the transaction.
    OffsetsOutsideTransaction,
    /// Offsets are sent without naming the generation of the group: nobody can refuse a zombie's.
    NamesNoGeneration,
    /// Facts are in one transaction, everything else in the next.
    TwoTransactions,
    /// A commit whose answer was lost counts as done.
    UnknownIsCommitted,
    /// After an abort, `raw` goes on behind the batch.
    NoRewindAfterAbort,
    /// Who is fenced opens everything anew.
    FencedIsTriedAgain,
    /// Followers begin one record too late.
    FollowsOneTooFar,
    /// Taking over reads no facts.
    SkipsCatchUp,
    /// Facts are read to where they are decided, not to their end.
    ReadsBeforeDecided,
    /// Records of open and aborted transactions are read.
    ReadsUncommitted,
    /// Facts of one partition are applied to another.
    FactsOfAnotherPartition,
    /// `hl_resent` is not looked at.
    NoLookBack,
    /// The look back begins too late.
    LooksBackTooLate,
    /// An applied batch is not written, though it is remembered as far as it goes.
    LosesRows,
    /// Compaction takes the newest record of a key.
    CompactsTooMuch,
    /// What hangs is never ended.
    LeavesWhatHangs,
    /// What hangs is aborted, whatever tells that it was committed.
    AbortsWhatHangs,
    /// What hangs is committed, though nothing tells that it was.
    CommitsWhatHangs,
    /// A partition is taken over while something in it is undecided.
    GoesOnBesideWhatHangs,
}

impl Mutation {
    /// All of them.
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
