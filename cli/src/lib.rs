//! The command `hookledger`: a portal to play with, and the operator's questions.
//!
//! One file per command. What the commands share lies beside them: an HTTP client, the portal that
//! plays Bitrix24, load, and the query API seen from outside. Nothing here decides what an event
//! means; commands only send, ask and show.

pub mod audit;
pub mod check;
pub mod client;
pub mod command;
pub mod drain;
pub mod history;
pub mod installations;
pub mod load;
pub mod outcome;
pub mod output;
pub mod portal;
pub mod query;
pub mod rebuild;
pub mod resume;
pub mod salvage;
pub mod send;
pub mod show;
pub mod standalone;
pub mod state;
pub mod urlencode;
pub mod verify;
