//! What the server tells of its connections, for metrics.

/// Why a connection was ended by us, or before it had said anything of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The next request did not come.
    Idle,
    /// A head did not come to its end in time, nor what comes before it.
    SlowHead,
    /// A head was too long.
    LargeHead,
    /// What came is not HTTP/1, or could be understood in two ways.
    Malformed,
    /// The client did not read its answers.
    Unread,
    /// There were too many connections.
    Crowded,
    /// No proxy that we trust said whom it speaks for.
    NoProxy,
    /// The TLS handshake failed.
    NoTls,
    /// The client went away.
    Gone,
}

impl Ended {
    /// All of them, in the order of their numbers.
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

    /// Its name in metrics.
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

/// Is told of connections as they come and go.
pub trait Observer: Send + Sync {
    /// A connection was accepted.
    fn opened(&self);

    /// A connection is closed; why, unless the client ended it in order.
    fn closed(&self, why: Option<Ended>);

    /// A large request is read on later than it could be.
    fn read_paused(&self) {}

    /// The TLS certificate that clients see expires then, in seconds of Unix time.
    fn certificate_expires(&self, _at_s: i64) {}
}

/// Nobody looks.
#[cfg(test)]
pub(super) fn nobody() -> std::sync::Arc<dyn Observer> {
    struct Nobody;
    impl Observer for Nobody {
        fn opened(&self) {}
        fn closed(&self, _: Option<Ended>) {}
    }
    std::sync::Arc::new(Nobody)
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
