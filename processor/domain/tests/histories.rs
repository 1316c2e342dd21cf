//! The table of histories, interpreted and folded, and what holds for all of it: duplicates, order, followers.

use std::collections::BTreeSet;
use std::path::Path;

use domain::fold::Effect;
use domain::{Change, InstallationState};
use portal_sim::history::History;

use self::play::{Played, Sent, complaints, play, send};

#[path = "histories/play.rs"]
mod play;

/// The number of orders of arrival, where there are too many for all of them.
const ORDERS: usize = 50;

fn table() -> Vec<History> {
    History::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/histories"))
}

/// Checks each history, and reports all that fail.
fn check(histories: &[History], complaints: impl Fn(&History) -> Vec<String>) {
    let failed = histories.iter().filter_map(|history| {
        let complaints = complaints(history);
        (!complaints.is_empty()).then(|| format!("{}\n    {}", history.name, complaints.join("\n    ")))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), histories.len(), failed.join("\n"));
}

#[test]
fn the_table_has_a_name_for_each_of_its_histories() {
    let table = table();
    let names: BTreeSet<&str> = table.iter().map(|history| history.name.as_str()).collect();
    assert_eq!(names.len(), table.len());
    assert!(names.iter().all(|name| name.ends_with('.')), "a name is a sentence: {names:?}");
    let end_to_end = table.iter().filter(|history| history.is_end_to_end).count();
    assert!(table.len() >= 150 && end_to_end >= 50, "{} histories, {end_to_end} end to end", table.len());
}

#[test]
fn each_history_ends_as_the_table_says() {
    check(&table(), complaints);
}

#[test]
fn a_form_and_the_same_as_json_have_the_same_effects() {
    check(&table(), |history| {
        let [form, json] = [false, true].map(|as_json| play(history, &send(history), as_json));
        // The number of bytes that are held differs.
        let shown = |played: &Played| -> Vec<Effect> {
            let is_held = |effect: &&Effect| matches!(effect, Effect::Changed(Change::Held(..)));
            played.effects.iter().filter(|effect| !is_held(effect)).cloned().collect()
        };
        let differ = shown(&form) != shown(&json) || form.held() != json.held();
        if differ { vec!["differs as JSON".to_owned()] } else { Vec::new() }
    });
}

/// As the sender repeats a request: the copy has an id of its own.
#[test]
fn a_second_copy_of_each_event_changes_nothing() {
    check(&table(), |history| {
        let twice: Vec<Sent> = send(history).into_iter().flat_map(|sent| [sent.clone(), sent]).collect();
        if holds_too_much(history) { Vec::new() } else { play(history, &twice, false).differences(history) }
    });
}

/// A stranger who recorded all webhooks of an installation sends them again. The table names the exceptions.
#[test]
fn a_replay_of_everything_changes_nothing() {
    check(&table(), |history| {
        let sent = send(history);
        let webhooks = sent.iter().filter(|sent| !sent.is_command());
        let replayed: Vec<Sent> = sent.iter().chain(webhooks).cloned().collect();
        let is_once = history.is_once || holds_too_much(history);
        if is_once { Vec::new() } else { play(history, &replayed, false).differences(history) }
    });
}

/// Limits of held events depend on the number of copies.
fn holds_too_much(history: &History) -> bool {
    history.steps.iter().any(|step| step.times > 1 || step.principals > 1)
}

#[test]
fn a_follower_has_the_state_of_the_owner_however_much_it_reads_at_once() {
    check(&table(), |history| {
        let owner = play(history, &send(history), false);
        let changes = owner.changes();
        for size in [1, 2, 7, changes.len().max(1)] {
            let mut follower = InstallationState::default();
            for chunk in changes.chunks(size) {
                // A chunk may be read again after a restart.
                for change in chunk.iter().chain(chunk) {
                    follower.apply(change);
                }
            }
            if follower != *owner.state {
                return vec![format!("differs when read {size} at once")];
            }
        }
        Vec::new()
    });
}

#[test]
fn where_the_table_says_so_every_order_of_arrival_gives_the_same_record() {
    let table: Vec<History> = table().into_iter().filter(|history| history.is_any_order).collect();
    assert!(table.len() >= 40, "{}", table.len());
    check(&table, |history| {
        let sent = send(history);
        let expected = play(history, &sent, false).lasting(history);
        let differs = |order: &Vec<usize>| {
            let ordered: Vec<Sent> = order.iter().map(|index| sent[*index].clone()).collect();
            let played = play(history, &ordered, false);
            let mut differences = played.differences(history);
            if played.lasting(history) != expected {
                differences.push(format!("{}, not {expected}", played.lasting(history)));
            }
            (!differences.is_empty()).then(|| format!("order {order:?}: {}", differences.join("; ")))
        };
        orders(sent.len()).iter().find_map(differs).into_iter().collect()
    });
}

/// All orders of up to five, else some.
fn orders(number: usize) -> Vec<Vec<usize>> {
    let sorted: Vec<usize> = (0..number).collect();
    if number > 5 {
        let mut random = fastrand::Rng::with_seed(14);
        let mut shuffled = || {
            let mut order = sorted.clone();
            random.shuffle(&mut order);
            order
        };
        return (0..ORDERS).map(|_| shuffled()).collect();
    }
    let mut orders = vec![Vec::new()];
    for index in sorted {
        let with = |order: &Vec<usize>| {
            let place = |at| {
                let mut order = order.clone();
                order.insert(at, index);
                order
            };
            (0..=order.len()).map(place).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(with).collect();
    }
    orders
}
