//! What follows from events finds room before webhooks are refused, and what finds none waits for it: no process ends, nothing
//! is lost, and all goes on by itself. Also a start on a full disk comes up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use portal_sim::player::{Player, Step};
use tests::cluster::{Names, Standalone};
use tests::http::{Client, FORM};
use tests::kafka;
use tests::load::send;
use tests::oracle::Oracle;
use tests::process::{Process, Program, run};
use tests::tmpfs::Tmpfs;
use tests::verify::{answer_agrees, answers_agree};
use tests::wait::{alone, eventually, eventually_ok, in_pairs, not_run, report};

const SOON: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;

/// The file system that a standalone has.
const DISK_BYTES: u64 = 150_000_000;
/// What is sent to it: each of these bytes takes six in JSON.
const SENT_BYTES: usize = 70_000_000;
const BODY_BYTES: usize = 60_000;
const CONNECTIONS: usize = 8;
/// Other people's files, which go again.
const OTHERS_BYTES: usize = 27 * MIB;

/// Enough to know what was known.
const LEFT_BYTES: usize = 20 * MIB;

/// What becomes of webhooks.
#[derive(Default)]
struct Answers {
    kept: AtomicU64,
    refused: AtomicU64,
}

#[test]
fn a_standalone_refuses_webhooks_before_there_is_no_room_for_what_follows_from_those_it_took() {
    let test = "a_standalone_refuses_webhooks_before_there_is_no_room_for_what_follows_from_those_it_took";
    let _alone = alone();
    let Some(small) = small(test, DISK_BYTES) else { return };
    small.take_room(OTHERS_BYTES).expect("there is room");
    let log = tempfile::tempdir().expect("a directory");
    let data = small.path().join("data").display().to_string();
    let arguments = ["standalone", "--data-dir", &data];
    let mut standalone =
        Process::start_inside(&small.entrance(), Program::Hookledger, &arguments, &[], &log.path().join("log"));
    standalone.ready();
    let mut honest = Player::new("crm-sync", 1);
    let mut acked: Vec<_> = [Step::Install, Step::Grant].map(|step| honest.webhook(step)).into();
    let mut acked: Vec<_> = acked.drain(..).map(|webhook| send(&mut standalone.webhooks(), webhook)).collect();

    let answers = Arc::new(Answers::default());
    flood(standalone.address("webhooks"), &answers);
    let (kept, refused) = (answers.kept.load(Ordering::Relaxed), answers.refused.load(Ordering::Relaxed));
    report(&format!("room: of {} MB {kept} bodies were taken and {refused} refused", SENT_BYTES / 1_000_000));
    assert!(kept > 30 && refused > 30, "{kept} taken, {refused} refused");
    assert!(standalone.ended().is_none(), "it lives");
    let all = 2 + kept;
    all_are_folded(&standalone, all);
    answer_agrees(&mut standalone.queries(), &Oracle::of_acked(&acked), &honest.key());
    is_not_ready(&standalone, "the disk log takes no events");

    // Other people's files take what an end or a start gave back: not enough is left for what would follow from more.
    assert!(standalone.terminate().success());
    let mut others = OTHERS_BYTES;
    let mut squeeze = || {
        others += usize::try_from(small.free().expect("look")).expect("a small disk") - LEFT_BYTES;
        small.take_room(others).expect("there is room");
    };
    for _ in 0..2 {
        squeeze();
        standalone.restart();
        answer_agrees(&mut standalone.queries(), &Oracle::of_acked(&acked), &honest.key());
        squeeze();
        let webhook = honest.webhook(Step::PassedOn);
        let answer = standalone.webhooks().post(&webhook.path(), webhook.content_type, &webhook.body);
        assert_eq!(answer.expect("an answer").status, 503);
        standalone.kill9();
    }
    // Down to the last byte, as other people's files do it.
    small.take_all_room().expect("fill it");
    standalone.restart();
    is_not_ready(&standalone, "the disk log takes no events");

    small.make_room().expect("the file is there");
    standalone.ready();
    for step in [Step::Update, Step::Deny] {
        acked.push(send(&mut standalone.webhooks(), honest.webhook(step)));
    }
    answer_agrees(&mut standalone.queries(), &Oracle::of_acked(&acked), &honest.key());
    assert!(standalone.terminate().success());
    let data = small.from_outside().join("data").display().to_string();
    for command in ["verify", "audit"] {
        let ended = run(Program::Hookledger, &[command, "--data-dir", &data]);
        assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
        report(&format!("room: {}", ended.stdout.lines().last().unwrap_or_default()));
        assert!(command == "verify" || ended.stdout.contains(&format!("{} events", all + 2)), "{ended:?}");
    }
}

#[test]
fn a_processor_whose_disk_is_full_waits_answers_and_goes_on() {
    let test = "a_processor_whose_disk_is_full_waits_answers_and_goes_on";
    let _place = in_pairs();
    let Some(servers) = kafka::shared(test) else { return };
    let Some(small) = small(test, 32 * MIB as u64) else { return };
    let names = Names::new(servers);
    let ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();
    let mut arguments = names.arguments_in(small.path());
    arguments.extend(["--group".to_owned(), format!("{}processor", names.prefix)]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut processor =
        Process::start_inside(&small.entrance(), Program::Processor, &arguments, &[], &names.home("processor.log"));
    processor.ready();
    let mut portals: Vec<_> = (0..8).map(|number| Player::new("crm-sync", number)).collect();
    let mut webhooks = ingress.webhooks();
    let mut acked: Vec<_> =
        portals.iter_mut().map(|portal| send(&mut webhooks, portal.webhook(Step::Install))).collect();
    let before = Oracle::of_acked(&acked);
    answers_agree(&mut processor.queries(), &before);

    small.take_all_room().expect("fill it");
    acked.extend(portals.iter_mut().map(|portal| send(&mut webhooks, portal.webhook(Step::Update))));
    is_not_ready(&processor, "the state waits for room on its disk");
    assert_eq!(processor.metric("hookledger_state_waits_for_room", ""), Some(1.0));
    answers_agree(&mut processor.queries(), &before);
    assert!(processor.ended().is_none(), "it lives");
    let errors = processor.lines("level", "ERROR");
    assert_eq!(errors.iter().filter(|line| line.contains("no room for the state")).count(), 1, "{errors:?}");

    // A start comes up, but it cannot even read what is there.
    processor.kill9();
    processor.restart();
    is_not_ready(&processor, "the state waits for room on its disk");
    small.make_room().expect("the file is there");
    processor.ready();
    answers_agree(&mut processor.queries(), &Oracle::of_acked(&acked));
    assert_eq!(processor.metric("hookledger_state_waits_for_room", ""), Some(0.0));
    assert_eq!(processor.metric("hookledger_processor_state_quarantined_total", ""), Some(0.0));
    assert!(processor.terminate().success());
}

#[test]
fn the_log_of_unverified_events_stays_below_its_limit_and_facts_stay() {
    let _alone = alone();
    let standalone = Standalone::start_with(&[("HOOKLEDGER_UNVERIFIED_LIMIT", "16MiB")]);
    let answers = Arc::new(Answers::default());
    flood(standalone.process.address("webhooks"), &answers);
    let kept = answers.kept.load(Ordering::Relaxed);
    assert_eq!(answers.refused.load(Ordering::Relaxed), 0);
    all_are_folded(&standalone.process, kept);
    let gone = standalone.process.metric("hookledger_unverified_events_gave_way_total", "").expect("a metric");
    assert!(gone > 0.0 && gone < f64::from(u32::try_from(kept).expect("few")), "{gone} of {kept}");
    let bytes = |name: &str| {
        let files = standalone.data().join("logs").join(name).read_dir().expect("a directory").flatten();
        files.map(|file| file.metadata().expect("a file").len()).sum::<u64>()
    };
    // One segment of the limit is always the current one, another one is made ahead.
    assert!(bytes("unverified") < 64 * MIB as u64, "{}", bytes("unverified"));
    assert!(bytes("facts") > 0);
}

/// Sends bodies full of control characters, each of a portal of its own; all are answered 200 or 503.
fn flood(webhooks: SocketAddr, answers: &Arc<Answers>) {
    let each = SENT_BYTES / BODY_BYTES / CONNECTIONS;
    let sender = |connection: usize| {
        let answers = Arc::clone(answers);
        thread::spawn(move || {
            let mut client = Client::new(webhooks);
            for number in 0..each {
                let member = format!("{connection:016x}{number:016x}");
                let head =
                    format!("event=ONCRMLEADADD&auth[member_id]={member}&auth[application_token]=t{member}&data[x]=");
                let mut body = head.into_bytes();
                body.resize(BODY_BYTES, 1);
                let answer = client.post("/v1/events/crm-sync", FORM, &body).expect("an answer");
                match answer.status {
                    200 => answers.kept.fetch_add(1, Ordering::Relaxed),
                    503 => answers.refused.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other}: {}", answer.text()),
                };
            }
        })
    };
    let senders: Vec<_> = (0..CONNECTIONS).map(sender).collect();
    for sender in senders {
        sender.join().expect("it sent all");
    }
}

fn all_are_folded(process: &Process, events: u64) {
    let events = f64::from(u32::try_from(events).expect("few"));
    eventually(2 * SOON, "all that was answered 200 is folded", || {
        (process.metric("hookledger_processor_events_total", "")? >= events).then_some(())
    });
    assert_eq!(process.metric("hookledger_processor_events_total", ""), Some(events), "each once");
}

fn is_not_ready(process: &Process, why: &str) {
    eventually_ok(SOON, why, || {
        let answer = process.admin().get("/readyz")?;
        ensure!(answer.status == 503 && answer.text().contains(why), "{answer:?}");
        Ok(())
    });
    assert_eq!(process.admin().get("/livez").expect("an answer").status, 200, "it lives, and needs no restart");
}

fn small(test: &str, bytes: u64) -> Option<Tmpfs> {
    Tmpfs::mount(bytes).map_err(|error| not_run(test, &format!("{error:#}"))).ok()
}
