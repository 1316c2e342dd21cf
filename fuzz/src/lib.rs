//! What must hold of whatever comes in, one function for each door that bytes come through.
//!
//! `fuzz/libfuzzer` calls them with what libFuzzer makes up, `tests/mutations.rs` with the corpus and small changes of
//! it. A target panics when something does not hold; whatever the bytes are, it comes to its end soon.

mod disk_log;
mod form;
#[cfg(feature = "programs")]
mod forwarded;
mod input;
mod interpret;
#[cfg(feature = "programs")]
mod proxy;
mod record;
mod segment;
#[cfg(feature = "programs")]
mod settings;

pub use disk_log::disk_log;
pub use form::form;
#[cfg(feature = "programs")]
pub use forwarded::forwarded;
pub use interpret::interpret;
#[cfg(feature = "programs")]
pub use proxy::proxy;
pub use record::record;
pub use segment::segment;
#[cfg(feature = "programs")]
pub use settings::settings;

/// What is done with an input: it panics where a property does not hold.
pub type Target = fn(&[u8]);

/// All targets by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("form", form),
    ("interpret", interpret),
    ("record", record),
    ("disk_log", disk_log),
    ("segment", segment),
    #[cfg(feature = "programs")]
    ("settings", settings),
    #[cfg(feature = "programs")]
    ("forwarded", forwarded),
    #[cfg(feature = "programs")]
    ("proxy", proxy),
];
