//! `domain` with deliberate bugs, of which a test switches on one at a time: histories that catch none prove nothing.
//!
//! The sources of `domain` hold nothing of this. [`table`] says what is changed; where the code there has changed since,
//! this crate does not compile.

#![allow(warnings, clippy::all, clippy::pedantic, reason = "the sources are checked in `domain`")]

pub mod mutation;
pub mod table;

include!(concat!(env!("OUT_DIR"), "/lib.rs"));
