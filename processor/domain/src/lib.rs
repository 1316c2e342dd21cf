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

pub use claims::{Claims, DECISIONS_KEPT, Profile, ProfileField, Status, Turn, Turns};
pub use endpoint::EndpointHosts;
pub use event::{Event, Json, Part, Public};
pub use fact::{Change, Fact, FactKey, FactKind, HeldDetails, HeldEvent, INTERPRETATION, Method, Revision};
pub use installation::{
    CLAIMANTS_MAX, DECISIONS_MAX, Decided, Decisions, HELD_BYTES_MAX, HELD_MAX, Held, INSTALLATION_HELD_BYTES_MAX,
    INSTALLATION_HELD_MAX, InstallationState, Principal, STRANGERS_MAX,
};
pub use interpret::{Reason, interpret};
pub use permission::{Answer, CONSENT, Decision, Denial, permits};
pub use record::{InstallationRecord, PermissionRecord, RecordStatus, Rules};
pub use stamp::{Latest, Place, Stamp};
pub use trust::{Basis, Trusted};
