//! The page in a real Chromium: what comes in appears by itself, it is readable without a script, and nothing that a
//! portal sends becomes markup.

use std::time::Duration;

use portal_sim::player::{Player, Step};
use serde_json::json;
use tests::browser::Browser;
use tests::cluster::{Cluster, Standalone};
use tests::http::{Client, FORM};
use tests::kafka;
use tests::load::send;
use tests::process::Process;
use tests::wait::{eventually, in_pairs};

const WITHIN: Duration = Duration::from_secs(60);
const APPS: &[(&str, &str)] = &[("HOOKLEDGER_APPS", "crm-sync,telephony")];
const TAB: u32 = 9;
const ENTER: u32 = 13;
const OLD_PORTAL: &str = "01d00000000000000000000000000000";
const CANARY: &str = "5ecre7a5d0c4f1b2e3d4c5b6a7980fed";

/// An app with an installed portal, a portal that sends without ever telling of an install, and a rejected event.
struct World {
    standalone: Standalone,
    portal: Player,
}

impl World {
    fn start() -> Self {
        Self { standalone: Standalone::start_with(APPS), portal: Player::new("crm-sync", 1) }
    }

    fn url(&self, path: &str) -> String {
        url(&self.standalone.process, path)
    }

    fn fill(&mut self) {
        let mut webhooks = self.standalone.process.webhooks();
        for step in [Step::Install, Step::PassedOn] {
            send(&mut webhooks, self.portal.webhook(step));
        }
        let held = format!(
            "event=ONCRMLEADADD&data[FIELDS][TITLE]=x&auth[domain]=<img src=x onerror=alert(1)>&auth[member_id]={OLD_PORTAL}\
             &auth[application_token]={CANARY}&auth[access_token]={CANARY}"
        );
        post(&mut webhooks, "/v1/events/crm-sync", &held);
        post(&mut webhooks, "/v1/events/crm-sync", "hello=world");
        self.folded(2);
    }

    /// Until so many installations are known.
    fn folded(&self, installations: usize) {
        let mut queries = self.standalone.process.queries();
        eventually(WITHIN, "the events are folded", || {
            let listed = queries.get("/v1/installations").ok()?.json();
            (listed["items"].as_array()?.len() == installations).then_some(())
        });
    }
}

fn url(process: &Process, path: &str) -> String {
    format!("http://{}{path}", process.address("queries"))
}

fn post(webhooks: &mut Client, path: &str, body: &str) -> u16 {
    webhooks.post(path, FORM, body.as_bytes()).expect("an answer").status
}

fn has(browser: &mut Browser, text: &str) {
    let expression = format!("document.body?.innerText.includes({})", json!(text));
    browser.until(&format!("the page has {text}"), &expression);
}

fn is_quiet(browser: &mut Browser) {
    assert_eq!(browser.complaints(), &[] as &[String]);
}

#[test]
fn what_comes_in_appears_without_a_reload() {
    let _pair = in_pairs();
    let Some(mut browser) = Browser::start("what_comes_in_appears_without_a_reload") else { return };
    let mut world = World::start();
    browser.open(&world.url("/"));
    let webhooks = world.standalone.process.address("webhooks");
    let next = format!("hookledger send life --to http://{webhooks}");
    has(&mut browser, "Nothing has come in yet");
    has(&mut browser, &next);
    has(&mut browser, &format!("http://{webhooks}/v1/events/crm-sync"));

    world.fill();
    has(&mut browser, "ONAPPINSTALL");
    has(&mut browser, "Live");
    browser.until("all rows", "document.querySelectorAll('#latest tr').length === 4");
    browser.evaluate("window.isSamePage = true");
    send(&mut world.standalone.process.webhooks(), world.portal.webhook(Step::PassedOn));
    browser.until("another row", "document.querySelectorAll('#latest tr').length === 5");
    for text in ["recorded", "passed on", "held", "no event", "hookledger rejected show", "To decide"] {
        has(&mut browser, text);
    }
    assert_eq!(browser.evaluate("window.isSamePage"), json!(true), "it was not loaded again");

    // A typing error in a handler's URL.
    let mut client = world.standalone.process.webhooks();
    for _ in 0..3 {
        assert_eq!(post(&mut client, "/v1/events/crm-snyc", "event=ONAPPINSTALL&auth[member_id]=a223"), 404);
    }
    has(&mut browser, "3 webhooks were refused: no such app.");
    has(&mut browser, "crm-snyc: 3 times");
    let first = browser.evaluate("document.querySelector('main section').innerText");
    assert!(first.as_str().is_some_and(|text| text.starts_with("3 webhooks were refused")), "at the top: {first}");

    // Times are those of this place, and say what they are in UTC.
    let time =
        browser.evaluate("const t = document.querySelector('#latest time'); [t.title === t.dateTime, t.dateTime]");
    assert!(time[0] == json!(true) && time[1].as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
    is_quiet(&mut browser);
}

#[test]
fn everything_is_there_without_a_script_and_for_a_keyboard() {
    let _pair = in_pairs();
    let Some(mut browser) = Browser::start("everything_is_there_without_a_script_and_for_a_keyboard") else { return };
    let mut world = World::start();
    world.fill();
    let (app, member) = ("crm-sync", world.portal.member_id.clone());
    let portal = format!("/installations/{app}/{member}");

    browser.scripts(false);
    for (path, texts) in [
        ("/", vec!["ONAPPINSTALL", "To decide", "hookledger trust crm-sync"]),
        ("/events?became=rejected", vec!["its body names no event"]),
        ("/installations?status=untrusted", vec![OLD_PORTAL]),
        (&*portal, vec!["Principals", "first-install", "--revoke", "History", "installed", "hookledger history"]),
    ] {
        browser.open(&world.url(path));
        for text in texts {
            assert!(browser.text().contains(text), "{path} has {text}: {}", browser.text());
        }
        assert_eq!(browser.evaluate("document.getElementById('pause').hidden"), json!(true), "{path}");
    }

    // A form needs none either. The first Tab leads past the head of the page.
    browser.open(&world.url("/installations"));
    browser.press("Tab", TAB);
    assert_eq!(browser.evaluate("document.activeElement.textContent"), json!("Skip to the content"));
    let all = browser.evaluate("document.querySelectorAll('a[href], button:not([hidden]), input, select').length");
    let all = usize::try_from(all.as_u64().expect("a number")).expect("small");
    let mut reached = std::collections::BTreeSet::new();
    let focused = "[...document.querySelectorAll('*')].indexOf(document.activeElement)";
    for _ in 0..all {
        reached.insert(browser.evaluate(focused).to_string());
        let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(outline, json!("solid"), "the focus can be seen");
        browser.press("Tab", TAB);
    }
    assert_eq!(reached.len(), all, "a keyboard reaches everything");
    browser.evaluate("document.querySelector('[name=search]').focus()");
    browser.insert(&member[..12]);
    browser.press("Enter", ENTER);
    browser.until("the list is searched", "location.search.includes('search=')");
    browser.until("the page is loaded", "document.readyState === 'complete'");
    let links = browser.evaluate("[...document.querySelectorAll('tbody a')].map((link) => link.getAttribute('href'))");
    assert_eq!(links, json!([portal]));
    is_quiet(&mut browser);
}

#[test]
fn nothing_hostile_or_secret_is_in_a_page_on_any_screen() {
    let _pair = in_pairs();
    let Some(mut browser) = Browser::start("nothing_hostile_or_secret_is_in_a_page_on_any_screen") else { return };
    let mut world = World::start();
    world.fill();
    let mut webhooks = world.standalone.process.webhooks();
    let long = "X".repeat(120);
    for name in ["<script>alert(1)</script>", "%22%3E%3Cimg src=x onerror=alert(1)%3E", &long] {
        let event = format!("event={name}&auth[member_id]={OLD_PORTAL}&auth[application_token]={CANARY}");
        post(&mut webhooks, "/v1/events/crm-sync", &event);
    }
    post(&mut webhooks, "/v1/events/%3Cimg%20src=x%20onerror=alert(1)%3E", "event=A&auth[member_id]=a");
    let secrets: Vec<String> = world.portal.secrets().iter().cloned().chain([CANARY.to_owned()]).collect();
    let paths = [
        "/".to_owned(),
        "/events".to_owned(),
        "/installations".to_owned(),
        "/installations?status=untrusted".to_owned(),
        format!("/installations/crm-sync/{OLD_PORTAL}"),
        format!("/installations/crm-sync/{}", &world.portal.member_id),
    ];
    for (path, width) in paths.iter().flat_map(|path| [(path, 360), (path, 768), (path, 1_600)]) {
        browser.screen(width, 800, width == 768);
        browser.open(&world.url(path));
        let shown = browser.evaluate("document.documentElement.outerHTML");
        let shown = shown.as_str().expect("text");
        assert!(!secrets.iter().any(|secret| shown.contains(&secret[..16])), "{path} has a secret: {shown}");
        let hostile = browser.evaluate("document.querySelectorAll('img, main script, [onerror]').length");
        assert_eq!(hostile, json!(0), "{path}");
        let sizes = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]");
        assert!(sizes[0].as_u64() <= sizes[1].as_u64(), "{path} fits {width}: {sizes}");
    }
    browser.open(&world.url("/"));
    has(&mut browser, "onerror=alert(1)");
    is_quiet(&mut browser);
}

#[test]
fn a_page_behind_tokens_is_live_too_and_the_token_is_in_no_url() {
    let _pair = in_pairs();
    let test = "a_page_behind_tokens_is_live_too_and_the_token_is_in_no_url";
    let Some(mut browser) = Browser::start(test) else { return };
    let token = "s6p6eclrvim6da22ft9ch94ekreb52lv";
    let standalone = Standalone::start_with(&[("HOOKLEDGER_QUERY_TOKENS", token)]);
    let mut portal = Player::new("crm-sync", 1);
    browser.sign_in(token);
    browser.open(&url(&standalone.process, "/"));
    has(&mut browser, "Nothing has come in yet");
    send(&mut standalone.process.webhooks(), portal.webhook(Step::Install));
    has(&mut browser, "ONAPPINSTALL");
    has(&mut browser, "Live");
    let urls = "[location.href, ...performance.getEntries().map((entry) => entry.name)].join(' ')";
    let urls = browser.evaluate(urls);
    assert!(!urls.as_str().expect("text").contains(token), "{urls}");
    let stored = browser.evaluate("[document.cookie, localStorage.length, document.documentElement.outerHTML]");
    assert_eq!((&stored[0], &stored[1]), (&json!(""), &json!(0)));
    assert!(!stored[2].as_str().expect("text").contains(token));
}

#[test]
fn every_processor_shows_what_came_in_and_goes_on_without_kafka() {
    let test = "every_processor_shows_what_came_in_and_goes_on_without_kafka";
    let Some(servers) = kafka::shared(test) else { return };
    let Some(mut browser) = Browser::start(test) else { return };
    let cluster = Cluster::start(servers, 2);
    let mut portals: Vec<Player> = (0..8).map(|number| Player::new("crm-sync", number)).collect();
    let mut webhooks = cluster.ingress.webhooks();
    for portal in &mut portals {
        send(&mut webhooks, portal.webhook(Step::Install));
    }
    for processor in &cluster.processors {
        browser.open(&url(processor, "/"));
        browser.until("all portals are there", "document.querySelectorAll('#latest tr').length === 8");
        let known = browser.evaluate("[...document.querySelectorAll('#latest a')].map((link) => link.href)");
        for portal in &portals {
            assert!(known.to_string().contains(&portal.member_id), "{known}");
        }
    }
    is_quiet(&mut browser);
}
