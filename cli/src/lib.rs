//! The command `hookledger`: a simulated portal, and the operator's tools.
//!
//! One file per command; the client of the query API lies beside them. The portals, load and HTTP are in `portal_sim`, the
//! meaning of an event in `domain`.

mod arguments;
mod audit;
mod check;
pub mod command;
mod completions;
mod doctor;
mod drain;
mod examples;
mod forward;
mod history;
mod import;
mod installations;
mod listen;
mod logs;
mod man;
mod outcome;
mod output;
mod query;
mod query_error;
mod rebuild;
mod rejected;
mod resume;
mod salvage;
mod send;
mod show;
mod standalone;
mod state;
mod token_file;
mod tokens;
mod trust;
mod vault;
mod verify;
mod verify_token;
