//! Why the broker refuses a request.

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not ready yet: retry.
    Again,
    Abort(&'static str),
    /// The transaction was open for too long, and was aborted.
    TimedOut,
    /// Another process has taken this identity.
    Fenced(&'static str),
}
