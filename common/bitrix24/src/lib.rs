//! What Bitrix24 sends, read without any I/O: the names in it, and the fields of its bodies.
//!
//! What an event *means* is not here; see the crate `domain`.

pub mod form;
mod names;

pub use names::{AppName, Installation, MemberId, Trust};
