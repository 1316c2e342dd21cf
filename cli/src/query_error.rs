//! Why a question has no answer.

use portal_sim::client::ClientError;

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("ask {url}: {source}")]
    Unreachable { url: String, source: ClientError },
    #[error("{status} {title}: {detail}{}", hint(*.status, .title))]
    Problem { status: u16, title: String, detail: String },
    #[error("{url} answers {status} with something that is not of the query API")]
    Foreign { url: String, status: u16 },
}

fn hint(status: u16, title: &str) -> &'static str {
    match status {
        // It is the server that lacks something.
        403 if title == "tokens needed" => "",
        401 | 403 => " (set HOOKLEDGER_QUERY_TOKEN or --query-token-file)",
        _ => "",
    }
}
