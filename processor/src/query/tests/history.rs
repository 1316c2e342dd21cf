//! Histories: places from the state, facts from a log.

use std::sync::Mutex;

use domain::FactKey;
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogTail, Record, Stretch, Visit};

use super::*;

/// One partition of `facts`, and no other log.
pub(super) struct Log {
    facts: Vec<(u64, Fact)>,
    end: u64,
    is_away: bool,
    /// Stretches that were read.
    reads: Mutex<Vec<(u64, u64)>>,
}

impl Log {
    pub(super) fn of(facts: Vec<(u64, Fact)>) -> Self {
        let end = facts.iter().map(|(offset, _)| offset + 1).max().unwrap_or(0);
        Self { facts, end, is_away: false, reads: Mutex::default() }
    }
}

impl LogQuery for Log {
    fn identity(&self, _: Topic) -> Result<String, EventLogError> {
        Ok("log".to_owned())
    }

    fn tail(&self, _: Topic, _: &[u64]) -> Result<Box<dyn LogTail>, EventLogError> {
        Err(EventLogError::Reopen("no log".to_owned()))
    }

    fn bounds(&self, topic: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
        if topic == Topic::Facts { Ok(vec![(0, self.end)]) } else { Err(EventLogError::Reopen("no log".to_owned())) }
    }

    fn offsets_at(&self, _: Topic, _: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
        Ok(vec![None])
    }

    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
        assert_eq!((topic, stretches.len()), (Topic::Facts, 1));
        if self.is_away {
            return Err(EventLogError::Reopen("facts return no records in time".to_owned()));
        }
        let Stretch { partition, from, until } = stretches[0];
        self.reads.lock().expect("no panic").push((from, until));
        for (offset, fact) in self.facts.iter().filter(|(offset, _)| (from..until).contains(offset)) {
            let key = Some(FactKey::Fact(fact.installation.clone(), fact.stamp.id).to_string());
            let value = Some(serde_json::to_vec(fact).expect("JSON").into());
            let record = Record { key, value, headers: vec![], at: fact.stamp.received_at };
            if visit(Entry { position: Position { partition, offset: *offset }, record }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn fact(id: u64) -> Fact {
    let now = Timestamp::from_s(1_700_000_000 + id);
    let profile = Profile { domain: Some("some.bitrix24.com".into()), ..Profile::default() };
    Fact {
        installation: Installation::parse("crm-sync", "told").expect("valid"),
        stamp: Stamp::new(Some(now), now, EventId::from_u128(id.into())),
        principal: Fingerprint::of("application token"),
        raw: Position { partition: 0, offset: id },
        revision: Revision::default(),
        kind: FactKind::Updated { previous_version: Some(id.to_string()), profile },
    }
}

/// An installation whose facts have these ids, and lie there.
fn told(facts: impl IntoIterator<Item = (u64, u64)>) -> (Log, QueryContext) {
    let facts: Vec<(u64, Fact)> = facts.into_iter().map(|(id, offset)| (offset, fact(id))).collect();
    let context = context(&[]);
    let store = context.store().expect("open");
    let changes: Vec<(Change, u64)> =
        facts.iter().map(|(offset, fact)| (Change::Fact(Box::new(fact.clone())), *offset)).collect();
    let log = Log::of(facts);
    let placed = changes.iter().map(|(change, offset)| (change, *offset));
    store.apply(0, placed, None, log.end, &mut Facts::default()).expect("applied");
    (log, context)
}

async fn page(log: &Arc<Log>, context: &QueryContext, parameters: &str) -> (StatusCode, Value) {
    let context = QueryContext { logs: log.clone(), ..context.clone() };
    ask(context, get(&format!("/v1/installations/crm-sync/told/history{parameters}"))).await
}

/// The ids of all pages, and how many there were.
async fn all(log: &Arc<Log>, context: &QueryContext, limit: usize) -> (Vec<u128>, usize) {
    let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let (status, answer) = page(log, context, &format!("?limit={limit}{cursor}")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        pages += 1;
        let items = answer["items"].as_array().expect("a list").clone();
        let id = |item: &Value| EventId::parse_str(item["id"].as_str().expect("an id")).expect("an id").as_u128();
        ids.extend(items.iter().map(id));
        let Some(next) = answer["next"].as_str() else { return (ids, pages) };
        cursor = format!("&cursor={next}");
    }
}

#[actix_web::test]
async fn history_is_all_facts_oldest_first_as_they_are_in_the_log() {
    let (log, context) = told([(1, 5), (3, 6), (2, 9)]);
    let (log, expected) = (Arc::new(log), [1, 2, 3].map(|id| json!(fact(id))));
    let (status, answer) = page(&log, &context, "").await;
    assert_eq!((status, &answer), (StatusCode::OK, &json!({ "items": expected, "next": null })));
    assert_eq!(*log.reads.lock().expect("no panic"), [(5, 10)], "neighbours are read together");
    let (_, first) = page(&log, &context, "?limit=2").await;
    assert_eq!(first["next"], EventId::from_u128(2).to_string());
    let (_, rest) = page(&log, &context, &format!("?limit=2&cursor={}", EventId::from_u128(2))).await;
    assert_eq!(rest, json!({ "items": [fact(3)], "next": null }));
    let (status, _) = page(&log, &context, "?cursor=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[actix_web::test]
async fn facts_far_apart_are_read_one_by_one_in_pages_of_a_bounded_number() {
    let (log, context) = told((1..=250).map(|id| (id, id * 1_000)));
    let log = Arc::new(log);
    let (ids, pages) = all(&log, &context, 1_000).await;
    assert_eq!(ids, (1..=250).collect::<Vec<u128>>());
    assert_eq!(pages, 3, "of 100 reads each");
    assert!(log.reads.lock().expect("no panic").iter().all(|(from, until)| until - from == 1));
}

#[actix_web::test]
async fn a_page_reads_a_bounded_number_of_records() {
    let (log, context) = told((1..=900).map(|id| (id, id * 400)));
    let log = Arc::new(log);
    let (ids, pages) = all(&log, &context, 1_000).await;
    assert_eq!(ids, (1..=900).collect::<Vec<u128>>());
    assert!((18..=25).contains(&pages), "{pages} pages of 20,000 records");
    let longest = log.reads.lock().expect("no panic").iter().map(|(from, until)| until - from).max();
    assert!(longest <= Some(5_000), "{longest:?}");
}

#[actix_web::test]
async fn what_the_log_no_longer_has_is_left_out() {
    let (mut log, context) = told((1..=10).map(|id| (id, id)));
    log.facts.retain(|(offset, _)| ![3, 10].contains(offset));
    // Of another installation.
    log.facts.push((3, Fact { installation: Installation::parse("crm-sync", "b").expect("valid"), ..fact(3) }));
    let (ids, pages) = all(&Arc::new(log), &context, 5).await;
    assert_eq!((ids, pages), (vec![1, 2, 4, 5, 6, 7, 8, 9], 2));
}

#[actix_web::test]
async fn while_the_log_is_away_the_answer_says_so_and_principals_are_still_told() {
    let (log, context) = told([(1, 1)]);
    let log = Arc::new(Log { is_away: true, ..log });
    let (status, problem) = page(&log, &context, "").await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("/docs/problems#logs-unavailable"))
    );
    let (status, answer) = ask(context, get("/v1/installations/crm-sync/told/principals")).await;
    assert_eq!((status, &answer["items"][0]["first_heard_at"]), (StatusCode::OK, &json!(fact(1).stamp.received_at)));
}

#[actix_web::test]
async fn a_state_of_an_older_version_has_no_history_until_facts_were_read_again() {
    let rows = Memory::default();
    let open = |version| Store::open_as(version, Box::new(rows.clone()), "log", 1, Trusts::default()).expect("open");
    let older = open(crate::state::FOLD_VERSION - 1);
    let told = Change::Fact(Box::new(fact(1)));
    older.apply(0, [(&told, 1)], None, 2, &mut Facts::default()).expect("applied");
    drop(older);
    let context = QueryContext { shared: Shared::of(open(crate::state::FOLD_VERSION)), ..context(&[]) };
    let path = "/v1/installations/crm-sync/told";
    assert_eq!(ask(context.clone(), get(path)).await.0, StatusCode::OK);
    let (status, problem) = ask(context, get(&format!("{path}/history"))).await;
    assert_eq!((status, &problem["type"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("/docs/problems#not-open")));
}
