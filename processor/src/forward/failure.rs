//! Why a delivery failed, without anything of the request or the answer.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The handler answered, but not with 2xx.
    Status(u16),
    /// It was reached, and did not answer in time.
    Timeout,
    /// It was reached, and ended the connection without an answer that can be read.
    Disconnected,
    /// The request cannot be sent to it, for example because of its query.
    Unsendable,
    /// No connection: its name is not known, it does not listen, or not in time.
    Unreachable,
    /// Its certificate is not valid, or it does not speak TLS.
    Tls,
    /// Its address is none that may be reached: see `forward-networks`.
    AddressRefused,
}

impl Failure {
    pub const LABELS: [&str; 7] =
        ["status", "timeout", "disconnected", "unsendable", "unreachable", "tls", "address_refused"];

    pub fn label(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Unsendable => "unsendable",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::AddressRefused => "address_refused",
        }
    }

    /// Whether the handler got the request, so that the event may be the reason.
    pub fn is_of_the_event(self) -> bool {
        match self {
            Self::Status(_) | Self::Timeout | Self::Disconnected | Self::Unsendable => true,
            Self::Unreachable | Self::Tls | Self::AddressRefused => false,
        }
    }

    pub fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            Self::Timeout
            | Self::Disconnected
            | Self::Unsendable
            | Self::Unreachable
            | Self::Tls
            | Self::AddressRefused => None,
        }
    }
}
