//! Who speaks for an installation, and the command that decides which of them are trusted.

use bitrix24::Installation;
use domain::{InstallationState, PrincipalRecord};
use primitives::time::Timestamp;

use super::html::Html;
use crate::query::problem::Problem;
use crate::state::Store;

/// Principals of one installation among others.
const SHOWN: usize = 5;
/// An installation has fewer.
const SHOWN_ALONE: usize = 200;

/// Those without facts that were heard of last.
pub fn newest(html: &mut Html, store: &Store, installations: &[Installation]) -> Result<(), Problem> {
    if installations.is_empty() {
        return Ok(());
    }
    html.title("No principal is trusted");
    html.paragraph("muted", "Events came, but no install of the app. They are held until their principal is trusted.");
    table(html, store, installations)?;
    html.link("/?list=untrusted", "all");
    Ok(())
}

pub fn some(html: &mut Html, store: &Store, installations: &[Installation]) -> Result<(), Problem> {
    if installations.is_empty() {
        html.paragraph("muted", "There are none here.");
        return Ok(());
    }
    table(html, store, installations)
}

pub fn one(html: &mut Html, store: &Store, installation: &Installation, state: &InstallationState) {
    html.title(&installation.to_string());
    let verdict = state.verdict(store.trust(&installation.app));
    if verdict.contested {
        html.paragraph(
            "warning",
            "More than one principal claims this installation, and no operator decided. The one that was first may be a \
             stranger. Compare with the token that the portal sends your app: `hookledger verify-token`.",
        );
    } else if verdict.trusted.is_empty() {
        html.paragraph("warning", "No principal is trusted. Events are held until their principal is.");
    }
    heads(html);
    rows(html, store, installation, state, SHOWN_ALONE);
    html.raw("</table>\n");
}

fn table(html: &mut Html, store: &Store, installations: &[Installation]) -> Result<(), Problem> {
    heads(html);
    for installation in installations {
        let state = store.installation(installation)?;
        rows(html, store, installation, &state, SHOWN);
    }
    html.raw("</table>\n");
    Ok(())
}

fn heads(html: &mut Html) {
    html.heads(&["installation", "principal", "trusted", "since", "last heard", "held", "to decide"]);
}

fn rows(html: &mut Html, store: &Store, installation: &Installation, state: &InstallationState, most: usize) {
    let records = state.principal_records(store.trust(&installation.app), None);
    let trusted_first = records.iter().filter(|record| record.trusted).filter_map(|record| record.first_heard_at).min();
    let contested = state.verdict(store.trust(&installation.app)).contested;
    let path = format!("/?app={}&member_id={}", installation.app, installation.member_id);
    for record in records.iter().take(most) {
        let spoke_first =
            !record.trusted && record.first_heard_at.zip(trusted_first).is_some_and(|(first, trusted)| first < trusted);
        html.raw(if contested { r#"<tr class="warning"><td>"# } else { "<tr><td>" });
        html.link(&path, installation).raw("</td><td>").code(record.principal).raw("</td>");
        html.cell(trust(record, contested, spoke_first));
        html.cell(time(record.since)).cell(time(record.last_heard_at)).cell(record.held_events).raw("<td>");
        if !record.trusted {
            let Installation { app, member_id } = installation;
            html.code(format!("hookledger trust {app} {member_id} --principal {}", record.principal));
        }
        html.raw("</td></tr>\n");
    }
    if records.len() > most {
        html.raw("<tr><td>").link(&path, format!("{} more", records.len() - most)).raw("</td></tr>\n");
    }
}

fn trust(record: &PrincipalRecord, contested: bool, spoke_first: bool) -> String {
    let basis = record.basis.map(|basis| serde_json::to_value(basis).expect("a basis has a JSON form"));
    let trusted = match basis.as_ref().and_then(|basis| basis.as_str()) {
        Some(basis) => format!("yes: {basis}"),
        None => "no".to_owned(),
    };
    match (contested, spoke_first) {
        (true, _) => format!("{trusted}, contested"),
        (false, true) => format!("{trusted}, but spoke first"),
        (false, false) => trusted,
    }
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}
