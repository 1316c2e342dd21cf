//! Each deliberate bug in the rules of trust is caught by a history of the table.

use std::path::Path;
use std::thread;

use domain::mutation;
use domain::table::{MUTATIONS, Mutation};
use portal_sim::history::History;

use self::play::complaints;

// The histories are played as they are against `domain`.
extern crate mutations as domain;

#[path = "../../tests/histories/play.rs"]
#[expect(dead_code, reason = "other tests need more")]
mod play;

#[test]
fn each_deliberate_bug_is_caught_by_a_history() {
    let table = History::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/histories"));
    let first_to_catch = |name| {
        table
            .iter()
            .find(|history| mutation::with(name, || !complaints(history).is_empty()))
            .map(|history| &history.name)
    };
    assert_eq!(first_to_catch("none"), None, "without a bug");
    let missed: Vec<&str> = thread::scope(|scope| {
        let catch =
            |mutation: &'static Mutation| (mutation.name, scope.spawn(|| first_to_catch(mutation.name).is_none()));
        let running: Vec<_> = MUTATIONS.iter().map(catch).collect();
        let missed =
            running.into_iter().filter_map(|(name, running)| running.join().expect("no panic").then_some(name));
        missed.collect()
    });
    assert!(missed.is_empty(), "no history catches: {missed:?}");
}
