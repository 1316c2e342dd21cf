//! What events mean and what follows from them. Pure: no clock, no I/O, nothing `async`.
//!
//! ```text
//! raw event ──interpret──▶ Event ──fact──▶ Claims of one principal ──trusted, record, permits──▶ answers
//! ```

mod claims;
mod command;
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
mod vault;
mod verify;

pub use claims::{Claims, DECISIONS_KEPT, Profile, ProfileField};
pub use command::{Attest, interpret_command, parse_command};
pub use endpoint::EndpointHosts;
pub use event::{Call, Event, Json, Part, Public};
pub use event_log::Position;
pub use fact::{Change, Fact, FactKey, FactKind, HeldDetails, HeldEvent, INTERPRETATION, Method, Revision};
pub use installation::{ATTESTED_MAX, DECISIONS_MAX, HELD_BYTES_MAX, Held, InstallationState, Principal};
pub use interpret::{
    EventTokens, Pair, Preview, Reason, interpret, names_may_be_secret, preview, tokens, unsigned_call,
};
pub use permission::{Answer, Decision, permits};
pub use record::{InstallationRecord, PermissionRecord, RecordStatus, Rules};
pub use stamp::{Latest, Stamp};
pub use trust::{Attestation, Basis, Trusted, Verdict};
pub use vault::{VaultEntry, VaultKey, VaultKind};
pub use verify::{PrincipalRecord, TokenStatus, Verification};
