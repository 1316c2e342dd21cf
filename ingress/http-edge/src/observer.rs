//! Events of connections, for metrics.

/// Why the server ended a connection, or the client before it sent anything useful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Idle,
    /// A head, or what comes before it, was not complete in time.
    SlowHead,
    LargeHead,
    /// The bytes are not HTTP/1, or are ambiguous.
    Malformed,
    /// The client did not read its answers.
    Unread,
    /// There were too many connections.
    Crowded,
    /// No trusted proxy named the client.
    NoProxy,
    NoTls,
    Gone,
}

impl Ended {
    /// In the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Idle,
        Self::SlowHead,
        Self::LargeHead,
        Self::Malformed,
        Self::Unread,
        Self::Crowded,
        Self::NoProxy,
        Self::NoTls,
        Self::Gone,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::LargeHead => "large_head",
            Self::Malformed => "malformed",
            Self::Unread => "unread",
            Self::Crowded => "crowded",
            Self::NoProxy => "no_proxy",
            Self::NoTls => "no_tls",
            Self::Gone => "gone",
        }
    }
}

pub trait Observer: Send + Sync {
    fn opened(&self);

    /// `why` is none if the client ended it in order.
    fn closed(&self, why: Option<Ended>);

    /// Reading a large request was delayed.
    fn read_paused(&self) {}

    /// In seconds of Unix time.
    fn certificate_expires(&self, _at_s: i64) {}
}

#[cfg(test)]
pub(super) fn ignored() -> std::sync::Arc<dyn Observer> {
    struct Ignored;
    impl Observer for Ignored {
        fn opened(&self) {}
        fn closed(&self, _: Option<Ended>) {}
    }
    std::sync::Arc::new(Ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_of_its_own() {
        for (index, ended) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(ended as usize, index, "{}", ended.label());
        }
    }
}
