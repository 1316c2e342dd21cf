//! What events mean and what follows from them. Pure: no clock, no I/O, nothing `async`.
//!
//! ```text
//! raw event ──interpret──▶ Event ──fact──▶ Claims of one principal ──trusted, record, permits──▶ answers
//! ```

mod claims;
mod endpoint;
mod event;
mod fact;
pub mod fold;
mod installation;
mod interpret;
mod permission;
mod record;
mod stamp;
mod trust;

pub use claims::{Claims, DECISIONS_KEPT, Profile, ProfileField};
pub use endpoint::EndpointHosts;
pub use event::{Call, Event, Json, Part, Public};
pub use fact::{Change, Fact, FactKey, FactKind, HeldDetails, HeldEvent, INTERPRETATION, Method, Revision};
pub use installation::{DECISIONS_MAX, HELD_BYTES_MAX, Held, InstallationState, Principal};
pub use interpret::{Reason, interpret, unsigned_call};
pub use permission::{Answer, Decision, permits};
pub use record::{InstallationRecord, PermissionRecord, RecordStatus, Rules};
pub use stamp::{Latest, Place, Stamp};
