//! Deliberate bugs of ingress, injected around its code like those of [`crate::mutation`].

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The disk log answers before its records are synced.
    AnswersBeforeSync,
    /// New names are not synced.
    NamesAreNotSynced,
    /// A torn record is taken for a whole one when a log is opened.
    TakesTornRecords,
    /// A write that failed is answered 200.
    AnswersFailedWrites,
    /// An entry counts as delivered once it is handed over.
    SettlesBeforeAck,
    /// What is saved as delivered is one entry ahead of the truth.
    DeliveredIsAhead,
    /// Segments go before all in them is delivered.
    DeletesUnsettled,
    /// After a start, the cursor begins one entry too late.
    CursorSkipsOne,
    /// Second copies are not marked.
    ForgetsMark,
    /// A record that failed counts as kept.
    FailedIsKept,
    /// A producer that replaces another hands over the newest record first.
    SuccessorTurnsAround,
    /// An adoption does not check whether the owner lives.
    AdoptsTheLiving,
}

impl Mutation {
    pub const ALL: [Self; 12] = [
        Self::AnswersBeforeSync,
        Self::NamesAreNotSynced,
        Self::TakesTornRecords,
        Self::AnswersFailedWrites,
        Self::SettlesBeforeAck,
        Self::DeliveredIsAhead,
        Self::DeletesUnsettled,
        Self::CursorSkipsOne,
        Self::ForgetsMark,
        Self::FailedIsKept,
        Self::SuccessorTurnsAround,
        Self::AdoptsTheLiving,
    ];
}
