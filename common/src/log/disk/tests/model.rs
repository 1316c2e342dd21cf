//! Any history comes to the same as it does with a list.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A group of so many records.
    Append(u64),
    /// A failed sync before it.
    AppendOnABadBlock(u64),
    /// An orderly end.
    Reopen,
    /// A kill, and garbage where the next record would be.
    Crash,
    /// Everything below this part of the log, in hundredths.
    Delete(u64),
    /// A reader that stays goes on to the end.
    Follow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..40_u64).prop_map(Step::Append),
        1 => (1..10_u64).prop_map(Step::AppendOnABadBlock),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        2 => (0..110_u64).prop_map(Step::Delete),
        2 => Just(Step::Follow),
    ];
    vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_history_comes_to_the_same_as_with_a_list(steps in steps()) {
        run(&steps);
    }
}

fn run(steps: &[Step]) {
    let mut dir = tempfile::tempdir().expect("a directory");
    let files = Files::default();
    let open = |dir: &Path| DiskLog::open_on(files.clone(), dir, options()).expect("open");
    let mut log = Some(open(dir.path()));
    let (mut model, mut followed, mut first) = (0, 0, 0);
    for step in steps {
        let current = log.take().expect("open between steps");
        match *step {
            Step::Append(records) => append(&current, &mut model, records),
            Step::AppendOnABadBlock(records) => {
                files.faults.syncs.store(1, Ordering::SeqCst);
                append(&current, &mut model, records);
            }
            Step::Reopen => {
                drop(current);
                log = Some(open(dir.path()));
                followed = 0;
                continue;
            }
            Step::Crash => {
                let number = current.shared.current().expect("a segment").number;
                let bytes = current.shared.current().expect("a segment").bytes;
                let copy = crashed(dir.path());
                drop(current);
                dir = copy;
                garbage(&segment::path(dir.path(), number), bytes);
                log = Some(open(dir.path()));
                followed = 0;
                continue;
            }
            Step::Delete(hundredths) => {
                let offset = model * hundredths / 100;
                current.delete_before(offset).expect("delete");
                let now = current.bounds().0;
                assert!(first <= now && now <= offset.max(first), "{first} {now} {offset}");
                first = now;
            }
            Step::Follow => {
                let mut reader = current.reader(followed).expect("a reader");
                while let Some((offset, found)) = reader.next().expect("read") {
                    assert_eq!((offset, found), (followed.max(first), record(offset)));
                    followed = offset + 1;
                }
                assert_eq!(followed.max(first), model);
            }
        }
        assert_eq!(current.bounds(), (first, model));
        log = Some(current);
    }
    check(&log.expect("open between steps"), first..model);
}

fn append(log: &DiskLog, model: &mut u64, records: u64) {
    assert_eq!(log.append_blocking(super::records(*model..*model + records)).expect("append"), *model);
    *model += records;
}

fn garbage(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path).expect("open");
    file.write_all_at(&[0x5a; 33], at).expect("write");
}
