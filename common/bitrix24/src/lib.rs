//! The webhooks of Bitrix24, read without any I/O: names and the fields of bodies.
//!
//! What an event *means* is not here; see the crate `domain`.

pub mod form;
mod names;

pub use names::{AppName, Installation, MemberId, Trust};
