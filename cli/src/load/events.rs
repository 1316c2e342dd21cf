//! The events of a load: portals that install, sometimes change, and mostly report CRM events.

use std::sync::Arc;

use primitives::time::Timestamp;

use super::Bodies;
use crate::portal::{Encoding, Event, Portal};

const CONFIRM_EACH: u64 = 50;
const UPDATE_EACH: u64 = 200;

/// Deterministic for a seed. All events of a portal go over one connection, if there are at least as many portals as
/// connections: the events of one portal then arrive in the order in which they were sent.
pub fn of_portals(seed: String, portals: u64, connections: usize, encoding: Encoding) -> Bodies {
    let connections = connections as u64;
    Arc::new(move |connection, nth| {
        let connection = connection as u64;
        let mine = portals.saturating_sub(connection).div_ceil(connections).max(1);
        let number = (connection + nth % mine * connections) % portals.max(1);
        let portal = Portal::nth(&seed, number);
        portal.body(&event(&portal, number, nth / mine), Timestamp::now(), encoding)
    })
}

/// The portals take turns with the rarer events, so that a short load has them, too.
fn event(portal: &Portal, number: u64, nth: u64) -> Event {
    let turn = number.wrapping_add(nth);
    match nth {
        0 => Event::Install { version: "1".to_owned() },
        _ if turn.is_multiple_of(UPDATE_EACH) => {
            let version = turn / UPDATE_EACH - number / UPDATE_EACH;
            Event::Update { version: (version + 1).to_string(), previous_version: version.to_string() }
        }
        _ if turn.is_multiple_of(CONFIRM_EACH) => Event::MethodConfirm {
            method: "voximplant.user.get".to_owned(),
            token: portal.access_token.clone(),
            confirmed: turn / CONFIRM_EACH % 2 == 1,
        },
        _ => Event::Crm { name: "ONCRMCONTACTADD", id: nth },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bitrix24::form::Form;

    use super::*;

    #[test]
    fn each_portal_begins_with_an_install_and_keeps_to_one_connection() {
        for (portals, connections) in [(1, 1), (7, 3), (100, 64), (10, 10)] {
            let bodies = of_portals("seed".into(), portals, connections, Encoding::Form);
            let mut connection_of = BTreeMap::new();
            for connection in 0..connections {
                for nth in 0..20 {
                    let head = Form::parse(&bodies(connection, nth)).head();
                    let member_id = head.member_id.expect("a member_id");
                    let first = !connection_of.contains_key(&member_id);
                    assert_eq!(first, head.kind.as_deref() == Some("onappinstall"));
                    assert_eq!(*connection_of.entry(member_id).or_insert(connection), connection);
                }
            }
            assert_eq!(connection_of.len() as u64, portals);
        }
    }

    #[test]
    fn a_short_load_has_every_kind_of_event_and_versions_go_up() {
        let (bodies, portals) = (of_portals("seed".into(), 1_000, 1, Encoding::Form), 1_000);
        let mut kinds = BTreeMap::<_, usize>::new();
        for nth in 0..4 * portals {
            let head = Form::parse(&bodies(0, nth)).head();
            *kinds.entry(head.kind.expect("a kind")).or_default() += 1;
        }
        let of = |kind: &str| kinds.get(kind).copied().unwrap_or_default();
        assert_eq!((of("onappinstall"), of("onappupdate"), of("onappmethodconfirm")), (1_000, 15, 45));
        assert_eq!(of("oncrmcontactadd"), 4_000 - 1_060);

        let portal = Portal::nth("seed", 350);
        let version = |nth| {
            let body = portal.body(&event(&portal, 350, nth), Timestamp::default(), Encoding::Form);
            Form::parse(&body).text("data[VERSION]").map(str::to_owned)
        };
        let versions = (0..1_000).filter_map(version);
        assert_eq!(versions.collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6"]);
    }

    #[test]
    fn with_more_connections_than_portals_every_connection_has_something_to_send() {
        let bodies = of_portals("seed".into(), 2, 5, Encoding::Json);
        let members: BTreeSet<_> = (0..5).map(|at| Form::parse(&bodies(at, 0)).head().member_id).collect();
        assert_eq!(members.len(), 2);
    }
}
