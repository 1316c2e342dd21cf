//! The book finds every kind of offence, and nothing in what is as it should be.

use super::*;

/// A record that could lie in `raw`.
#[derive(Clone)]
struct Copy {
    key: Vec<u8>,
    body: Vec<u8>,
    id: String,
    content_type: &'static str,
    resent: bool,
}

fn copy(portal: u32, number: u32) -> Copy {
    let mut copy = Copy { key: vec![], body: vec![], id: id(portal, number), content_type: FORM, resent: false };
    body::write(portal, number, &mut copy.body);
    body::write_key(portal, &mut copy.key);
    copy
}

fn id(portal: u32, number: u32) -> String {
    format!("id of {portal}/{number}")
}

/// Two portals with five events each, answered by turns.
fn sent() -> Book {
    let book = Book::new(2, 1);
    for number in 0..5 {
        for portal in [0, 1] {
            assert_eq!(book.begin(portal), number);
            let told = if number % 2 == 0 { Told::Kafka } else { Told::Disk };
            book.answered(portal, number, told, id(portal, number).as_bytes());
        }
    }
    book
}

/// What lies in `raw` if all went well.
fn all() -> Vec<Copy> {
    (0..10).map(|at| copy(at % 2, at / 2)).collect()
}

fn find(book: &Book, copies: &[Copy]) -> Verdict {
    let mut made = Made::default();
    for (offset, copy) in (0..).zip(copies) {
        let record = Sighting {
            place: (0, offset),
            key: Some(&copy.key),
            body: Some(&copy.body),
            id: Some(copy.id.as_bytes()),
            content_type: Some(copy.content_type.as_bytes()),
            resent: copy.resent,
        };
        book.found(&record, &mut made);
    }
    let (verdict, described) = book.verdict();
    let Verdict { missing, wrong, doubled, reordered, foreign, altered, misnamed, .. } = verdict;
    let offences = missing + wrong + doubled + reordered + foreign + altered + misnamed;
    assert_eq!(described.len() as u64, offences, "each is described: {described:?}");
    verdict
}

/// What the book says of these copies, with five events of two portals sent and answered 200.
fn check(copies: &[Copy], expected: Verdict) {
    let base = Verdict { requests: 10, kafka: 6, disk: 4, ..Verdict::default() };
    assert_eq!(
        find(&sent(), copies),
        Verdict { requests: base.requests, kafka: base.kafka, disk: base.disk, ..expected }
    );
}

#[test]
fn what_is_as_it_should_be_is_no_offence() {
    check(&all(), Verdict { found: 10, ..Verdict::default() });
}

#[test]
fn what_is_found_before_its_answer_is_no_offence() {
    let book = Book::new(1, 1);
    book.begin(0);
    assert_eq!(find(&book, &[copy(0, 0)]).found, 1);
    book.answered(0, 0, Told::Kafka, id(0, 0).as_bytes());
    assert_eq!(book.verdict().0, Verdict { requests: 1, kafka: 1, found: 1, ..Verdict::default() });
}

#[test]
fn what_was_answered_and_is_not_there_is_missing() {
    for missing in 0..10 {
        let mut copies = all();
        copies.remove(missing);
        check(&copies, Verdict { found: 9, missing: 1, ..Verdict::default() });
    }
    check(&[], Verdict { missing: 10, ..Verdict::default() });
}

#[test]
fn a_second_copy_is_doubled_unless_it_is_marked() {
    let mut copies = all();
    copies.push(copy(1, 3));
    check(&copies, Verdict { found: 10, doubled: 1, ..Verdict::default() });
    copies[10].resent = true;
    check(&copies, Verdict { found: 10, resent: 1, ..Verdict::default() });
    // The mark belongs on the later one.
    copies[10].resent = false;
    copies[7].resent = true;
    check(&copies, Verdict { found: 10, doubled: 1, ..Verdict::default() });
}

#[test]
fn what_lies_behind_a_later_event_is_reordered() {
    let mut copies = all();
    copies.swap(2, 4);
    check(&copies, Verdict { found: 10, reordered: 1, ..Verdict::default() });
    // Other portals have an order of their own.
    let mut copies = all();
    copies.swap(2, 3);
    check(&copies, Verdict { found: 10, ..Verdict::default() });
}

#[test]
fn what_was_not_answered_has_no_place_of_its_own_and_need_not_be_there() {
    for (told, expected) in [
        (Told::Nothing, Verdict { unanswered: 1, ..Verdict::default() }),
        (Told::StorageUnavailable, Verdict { storage_unavailable: 1, ..Verdict::default() }),
    ] {
        let book = Book::new(1, 1);
        for number in 0..3 {
            book.begin(0);
            book.answered(0, number, if number == 1 { told } else { Told::Kafka }, id(0, number).as_bytes());
        }
        let expected = Verdict { requests: 3, kafka: 2, found: 2, ..expected };
        assert_eq!(find(&book, &[copy(0, 0), copy(0, 2)]), expected);
        assert_eq!(find(&book, &[copy(0, 1)]), Verdict { found: 3, ..expected });
    }
}

#[test]
fn what_was_never_sent_is_foreign() {
    let stranger = Copy { body: b"event=ONAPPINSTALL".to_vec(), ..copy(0, 0) };
    for foreign in [copy(0, 5), copy(2, 0), stranger] {
        let mut copies = all();
        copies.push(foreign);
        check(&copies, Verdict { found: 10, foreign: 1, ..Verdict::default() });
    }
}

#[test]
fn a_change_of_any_byte_is_an_offence() {
    let whole = copy(0, 4);
    for at in 0..whole.body.len() {
        let mut copies = all();
        copies[8].body[at] ^= 1;
        let verdict = find(&sent(), &copies);
        assert_eq!(verdict.missing, 1, "byte {at}: {verdict:?}");
        assert_eq!(verdict.altered + verdict.foreign, 1, "byte {at}: {verdict:?}");
    }
}

#[test]
fn half_a_body_another_key_and_another_content_type_are_alterations() {
    let whole = copy(0, 4);
    let half = Copy { body: whole.body[..whole.body.len() - 1].to_vec(), ..whole.clone() };
    let longer = Copy { body: [&*whole.body, b"x"].concat(), ..whole.clone() };
    let key = Copy { key: copy(1, 0).key, ..whole.clone() };
    let content_type = Copy { content_type: "text/plain", ..whole };
    for altered in [half, longer, key, content_type] {
        let mut copies = all();
        copies[8] = altered;
        check(&copies, Verdict { found: 9, missing: 1, altered: 1, ..Verdict::default() });
    }
}

#[test]
fn another_id_than_was_answered_is_an_offence_whoever_told_first() {
    let mut copies = all();
    copies[5].id = id(9, 9);
    check(&copies, Verdict { found: 10, misnamed: 1, ..Verdict::default() });

    let book = Book::new(1, 1);
    book.begin(0);
    find(&book, &[copy(0, 0)]);
    book.answered(0, 0, Told::Disk, b"another");
    assert_eq!(book.verdict().0.misnamed, 1);
}

#[test]
fn an_answer_that_nobody_should_be_told_is_counted() {
    let book = Book::new(1, 1);
    book.begin(0);
    book.answered(0, 0, Told::Wrong(500), b"");
    assert_eq!(find(&book, &[]), Verdict { requests: 1, wrong: 1, ..Verdict::default() });
}
