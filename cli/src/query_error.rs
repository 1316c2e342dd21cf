//! Why a question has no answer.

use crate::client::ClientError;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The server was not reached.
    #[error("ask {url}: {source}")]
    Unreachable {
        /// Which server.
        url: String,
        /// Why not.
        source: ClientError,
    },
    /// The server says what is wrong.
    #[error("{status} {title}: {detail}{}", hint(*.status, .title))]
    Problem {
        /// The status code.
        status: u16,
        /// The problem's title.
        title: String,
        /// What is wrong.
        detail: String,
    },
    /// Somebody answers, but not as the query API does.
    #[error("{url} answers {status} with something that is not of the query API")]
    Foreign {
        /// Which server.
        url: String,
        /// The status code.
        status: u16,
    },
}

fn hint(status: u16, title: &str) -> &'static str {
    match status {
        // It is the server that lacks something.
        403 if title == "tokens needed" => "",
        401 | 403 => " (set HOOKLEDGER_QUERY_TOKEN or --query-token-file)",
        _ => "",
    }
}
