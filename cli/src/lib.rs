//! The command `hookledger`: a simulated portal, and the operator's tools.
//!
//! One file per command. Shared parts lie beside them: an HTTP client, the portal that
//! plays Bitrix24, load, and the client of the query API. The meaning of an event is in `domain`.

mod audit;
mod check;
pub mod client;
pub mod command;
mod drain;
mod history;
mod installations;
pub mod load;
mod outcome;
mod output;
pub mod portal;
mod query;
mod query_error;
mod rebuild;
mod resume;
mod salvage;
mod send;
mod show;
mod standalone;
mod state;
mod token_file;
mod trust;
mod urlencode;
mod verify;
mod verify_token;
