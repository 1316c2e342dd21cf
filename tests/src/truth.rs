//! Tells whether what was answered 200 lies in `raw`: every event, byte for byte, once, in order, and nothing else.
//!
//! Bodies follow from a portal and a number ([`body`]), so that nothing of them is remembered. The senders
//! ([`sender`]) write into a book ([`book`]) what was sent and answered, and a reader ([`reader`]) writes into
//! the same book what it finds in the topic while it is being written. At the end the book gives a verdict.
//! What it remembers of each event is some bits, so that twenty million of them need few megabytes.

pub mod body;
pub mod book;
pub mod faults;
pub mod reader;
pub mod sender;

pub use book::{Book, Verdict};
pub use faults::{Fault, Stage};
pub use reader::Reader;
pub use sender::{Plan, Senders};
