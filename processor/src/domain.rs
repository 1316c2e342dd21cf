//! What events mean and what follows from them. Pure: no clock, no I/O, nothing `async`.
//!
//! ```text
//! raw event ──interpret──▶ Event ──fact──▶ Claims of one principal ──trusted, record, permits──▶ answers
//! ```

mod claims;
mod endpoint;
mod event;
mod fact;
mod interpret;
mod permission;
mod portal;
mod record;
mod stamp;
mod trust;

pub use claims::{Claims, DECISIONS_KEPT, Profile, ProfileField, Status, Turn, Turns};
pub use endpoint::EndpointHosts;
pub use event::{Event, Json, Part, Public};
pub use fact::{Change, Fact, FactKey, FactKind, INTERPRETATION, Method, Revision, Waiting, Waits};
pub use interpret::{Reason, interpret};
pub use permission::{Answer, CONSENT, Decision, Denial, permits};
pub use portal::{
    CLAIMANTS_MAX, DECISIONS_MAX, Decided, Decisions, Held, INSTALLATION_WAITING_BYTES_MAX, INSTALLATION_WAITING_MAX,
    Portal, Principal, STRANGERS_MAX, WAITING_BYTES_MAX, WAITING_MAX,
};
pub use record::{InstallationRecord, PermissionRecord, RecordStatus, Rules};
pub use stamp::{Latest, Place, Stamp};
pub use trust::{Basis, Trusted};
