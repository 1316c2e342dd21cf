//! Plays portals of Bitrix24: their bodies, their lives, and many of them at once.
//!
//! Everything is made from what Bitrix24 documents and what was recorded: this crate depends on no crate of ours, so that tests
//! which are written with it share no mistake with what they test.

pub mod client;
pub mod history;
pub mod load;
pub mod player;
pub mod portal;
#[cfg(test)]
mod read;
pub mod urlencode;
