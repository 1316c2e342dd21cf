use proptest::collection::vec;
use proptest::prelude::*;

use super::json::NAME_BYTES_MAX;
use super::tree::NODES_MAX;
use super::*;

fn check(body: &str, fields: &[(&str, &str)]) {
    assert_eq!(flat(body.as_bytes()), owned(fields), "{body}");
}

fn flat(body: &[u8]) -> Vec<(String, String)> {
    Form::parse(body).flat().into_iter().collect()
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_name_that_gives_away_the_token_is_none() {
    let head = |body: &str| {
        let (scan, form) = (Form::scan(body.as_bytes()).head(), Form::parse(body.as_bytes()).head());
        assert_eq!(scan, form);
        form
    };
    let form =
        head("event=ONHIDDEN-TOKEN&auth[member_id]=hidden-token&member_id=a&auth[application_token]=hidden-token");
    assert_eq!((form.member_id, form.kind), (MemberId::parse("a"), None));
    let json = head(r#"{"event":"Hidden-Token","auth":{"application_token":"hidden-token","member_id":"b"}}"#);
    assert_eq!((json.member_id, json.kind), (MemberId::parse("b"), None));
    let flat = head(r#"{"event":"Hidden-Token","auth[application_token]":"hidden-token","auth[member_id]":"b"}"#);
    assert_eq!((flat.member_id, flat.kind), (MemberId::parse("b"), None));
    let short = head("event=onapptest&auth[member_id]=t&auth[application_token]=t");
    assert_eq!((short.member_id, short.kind.as_deref()), (None, Some("onapptest")));
    assert!(!format!("{:?}", Form::scan(b"auth[application_token]=hidden-token")).contains("hidden"));
}

#[test]
fn brackets_are_part_of_a_name_encoded_or_not() {
    check("auth%5Bmember_id%5D=a223", &[("auth[member_id]", "a223")]);
    check("auth[member_id]=a223", &[("auth[member_id]", "a223")]);
    check("auth[member_id][x]=evil", &[("auth[member_id][x]", "evil")]);
}

#[test]
fn values_are_decoded_and_what_is_no_escape_stands_for_itself() {
    check("a=1+2%2B3&b=%zz%4&c=%", &[("a", "1 2+3"), ("b", "%zz%4"), ("c", "%")]);
}

#[test]
fn the_last_of_two_equal_names_wins() {
    check("a=1&a=2", &[("a", "2")]);
    check("auth=x&auth[member_id]=y", &[("auth[member_id]", "y")]);
    check("auth[member_id]=y&auth=x", &[("auth", "x")]);
}

#[test]
fn names_are_mended_as_php_mends_them() {
    check(" a.b c=1", &[("a_b_c", "1")]);
    check("a[b=1", &[("a_b", "1")]);
    check("a[b]c=1&a[d]x[e]=2", &[("a[b]", "1"), ("a[d]", "2")]);
    check("[a]=1&=2&&", &[]);
    check("a[]=1&a[]=2&a[7]=3&a[]=4", &[("a[0]", "1"), ("a[1]", "2"), ("a[7]", "3"), ("a[8]", "4")]);
    check("a[]=1&a=2&a[]=3&a[07]=4&a[]=5", &[("a[07]", "4"), ("a[0]", "3"), ("a[1]", "5")]);
    check(
        "auth[ member_id]=1&auth[member_id]x=2&auth[x][member_id=3",
        &[("auth[ member_id]", "1"), ("auth[member_id]", "2"), ("auth[x]", "3")],
    );
    check(&format!("a[x]=1&b=2&a{}=3", "[]".repeat(65)), &[("b", "2")]);
}

#[test]
fn json_of_the_same_shape_means_the_same() {
    let json = r#" {"event":"ONX","ts":5,"data":{"L":[1,true],"N":null,"E":[]},"auth":{"member_id":"m","a[b]":"c"}}"#;
    let fields = [
        ("auth[a[b]]", "c"),
        ("auth[member_id]", "m"),
        ("data[L][0]", "1"),
        ("data[L][1]", "1"),
        ("event", "ONX"),
        ("ts", "5"),
    ];
    check(json, &fields);
}

#[test]
fn json_numbers_are_what_was_written_or_nothing() {
    check(r#"{"member_id":123,"ts":1696527000}"#, &[("member_id", "123"), ("ts", "1696527000")]);
    check(
        r#"{"a":18446744073709551615,"b":-5,"c":1.50,"d":1e3}"#,
        &[("a", "18446744073709551615"), ("b", "-5"), ("c", "1.5"), ("d", "1000")],
    );
    // As a number of 64 bits it would be another portal.
    check(r#"{"member_id":123456789012345678901234567890,"event":"x"}"#, &[("event", "x")]);
    assert_eq!(Form::scan(br#"{"auth":{"member_id":7}}"#).head().member_id, MemberId::parse("7"));
}

#[test]
fn of_a_json_key_that_stands_twice_the_last_one_wins_with_all_below_it() {
    check(r#"{"auth":{"member_id":"a"},"auth":{"x":1}}"#, &[("auth[x]", "1")]);
    check(r#"{"auth":{"member_id":"a"},"auth":5}"#, &[("auth", "5")]);
    check(
        r#"{"auth":{"member[id":{"x":"a"},"member_id":"b"}}"#,
        &[("auth[member[id][x]", "a"), ("auth[member_id]", "b")],
    );
}

#[test]
fn json_names_that_are_too_long_or_too_deep_are_left_out() {
    let (long, deep) = ("k".repeat(NAME_BYTES_MAX - 1), format!("{}1{}", "[".repeat(70), "]".repeat(70)));
    check(&format!(r#"{{"{long}":1,"k":{{"{long}":1}},"a":{deep},"event":"x"}}"#), &[("event", "x")]);
}

#[test]
fn what_is_no_json_object_is_a_form() {
    check("[1]", &[]);
    check(r#"{"event":"x""#, &[(r#"{"event":"x""#, "")]);
    check("{event=x", &[("{event", "x")]);
}

#[test]
fn what_is_not_utf_8_is_shown_as_such() {
    let body = b"event=\xff%fe&a\xff=\xc3\xa9";
    assert_eq!(flat(body), owned(&[("a\u{fffd}", "é"), ("event", "\u{fffd}\u{fffd}")]));
}

#[test]
fn flat_json_names_mean_what_they_mean_in_a_form() {
    check(
        r#"{"event":"x","auth[member_id]":"a","data[F][ID]":7,"data[L][]":1,"data":{"x":1},"data[y]":{"z":[2]}}"#,
        &[("auth[member_id]", "a"), ("data[x]", "1"), ("data[y][z][0]", "2"), ("event", "x")],
    );
    check(r#"{"data[L][]":1,"data[L][1]":2,"data[":3}"#, &[("data[", "3"), ("data[L][0]", "1"), ("data[L][1]", "2")]);
    let deep = format!(r#"{{"a{}":1,"b":2}}"#, "[]".repeat(65));
    check(&deep, &[("b", "2")]);
}

#[test]
fn a_mark_before_a_body_and_line_breaks_behind_a_form_are_none_of_it() {
    let mark = "\u{feff}";
    for body in
        [format!("{mark}event=x&ts=5"), "event=x&ts=5\r\n".to_owned(), format!(r#"{mark} {{"event":"x","ts":5}}"#)]
    {
        check(&body, &[("event", "x"), ("ts", "5")]);
        assert_eq!(Form::scan(body.as_bytes()).head(), Form::parse(body.as_bytes()).head());
    }
    check("a=1%0A\n\n", &[("a", "1\n")]);
    check("\n", &[]);
}

#[test]
fn what_json_says_is_empty_or_null_is_told_from_what_is_absent() {
    let form = Form::parse(br#"{"a":{},"b":[],"c":null,"d":{"0":"x"},"e":["x"]}"#);
    let shapes: Vec<_> = form.variables().map(|(name, field)| (name.text(), field.shape())).collect();
    let expected = [("a", Shape::Map), ("b", Shape::List), ("c", Shape::Null), ("d", Shape::Map), ("e", Shape::List)];
    assert_eq!(shapes, expected.map(|(name, shape)| (name.into(), shape)));
    assert_eq!(Form::parse(b"a[0]=x").variable("a").map(Field::shape), Some(Shape::Fields));
    assert!(form.variable("z").is_none());
}

#[test]
fn an_envelope_in_a_query_is_like_an_event() {
    let is_like = |query: &str| Form::parse_query(query.as_bytes()).is_like_an_event();
    for query in ["event=x", "auth[member_id]=a", "member_id=a", "auth%5Bdomain%5D=x", "a=1&event=ONX"] {
        assert!(is_like(query), "{query}");
    }
    for query in ["", "event=", "auth=x", "DOMAIN=x&APP_SID=y", "{\"event\":\"x\"}", "member_id[]=a"] {
        assert!(!is_like(query), "{query}");
    }
}

#[test]
fn the_head_is_what_ingress_reads() {
    let head = Form::parse(b"event=ONAPPINSTALL&ts=1696527000&auth[member_id]=a223").head();
    assert_eq!(head.member_id, MemberId::parse("a223"));
    assert_eq!(head.kind.as_deref(), Some("onappinstall"));
    assert_eq!(head.occurred_at, Some(Timestamp::from_s(1_696_527_000)));
    assert_eq!(Form::parse(b"member_id=a223&AUTH_ID=x").head().member_id, MemberId::parse("a223"));
}

proptest! {
    #[test]
    fn a_scan_finds_the_same_head_as_a_whole_reading(fields in vec((
        "[ .+]?(event|ts|auth|member_id|data|%61uth|eventful|t)", "(%5B|\\[)?(member_id|x|)(%5D|\\])?(\\[x\\])?", "[a-z0-9]{0,3}",
    ), 0..12)) {
        let field = |(base, key, value): &(String, String, String)| format!("{base}{key}={value}");
        scan_and_parse(fields.iter().map(field).collect::<Vec<_>>().join("&").as_bytes());
    }

    #[test]
    fn a_scan_finds_the_same_head_where_brackets_are_deep_and_lists_at_their_end(fields in vec((
        "auth|event", prop::sample::select(vec![
            "", "[member_id]", "[]", "[x]", "[x][]", "[member_id][]",
            "[9223372036854775807]", "[9223372036854775806]", "[x][9223372036854775807]",
        ]), prop::sample::select(vec![0, 1, 62, 63, 64, 65]), "(\\[)?", "[a-z]?",
    ), 0..8)) {
        let field = |(base, keys, deep, end, value): &(String, &str, usize, String, String)| {
            format!("{base}{keys}{}{end}={value}", "[]".repeat(*deep))
        };
        scan_and_parse(fields.iter().map(field).collect::<Vec<_>>().join("&").as_bytes());
    }

    #[test]
    fn a_scan_finds_the_same_head_in_json(fields in vec((
        "(\"(event|ts|auth|member_id|memb\\[er_id|x|event\\[x\\]|auth\\[\\]|auth\\[x\\]|auth\\[member_id\\](\\[x\\])?)\"):", JSON_VALUE,
    ), 0..6), end in "(}|\\]|} x)?") {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}{value}")).collect();
        scan_and_parse(format!("{{{}{end}", fields.join(",")).as_bytes());
    }
}

/// Values, some of which are no JSON.
const JSON_VALUE: &str = r#"("[a-z]{0,2}"|1|-7|1\.50|1e400|1e-300|null|true|\[\]|\[null,1\]|\{\}|"\\ud800"|"\\u0041"|\{"(member_id|member\[id|x)":("[a-z]"|1|null|\[\]|\{"x":1\})(,"(member_id|x)":("[a-z]"|1e400|null))?\})"#;

fn scan_and_parse(body: &[u8]) {
    let (scan, form) = (Form::scan(body), Form::parse(body));
    for name in ["event", "ts", "member_id", "auth[member_id]", "auth[application_token]"] {
        assert_eq!(scan.text(name), form.text(name), "{name} in {}", body.escape_ascii());
    }
    assert_eq!(scan.head(), form.head());
}

#[test]
fn no_field_is_read_of_a_body_with_too_many_and_a_scan_finds_what_it_looks_for() {
    let json = |count: usize| format!(r#"{{"event":"x","data":[{}]}}"#, vec!["1"; count].join(","));
    let form = |count: usize| format!("event=x{}", "&data[]=1".repeat(count));
    let brackets = |count: usize| format!("event=x&{}", format!("a{}=1&", "[]".repeat(64)).repeat(count));
    for (body, is_read) in [
        (json(NODES_MAX - 2), true),
        (json(NODES_MAX - 1), false),
        (form(NODES_MAX - 2), true),
        (form(NODES_MAX - 1), false),
        (brackets(NODES_MAX / 64), true),
        (brackets(NODES_MAX / 64 + 1), false),
        ("a=1&a=2&event=x&".repeat(NODES_MAX), true),
    ] {
        let form = Form::parse(body.as_bytes());
        assert_eq!(form.has_too_many_fields(), !is_read, "{} bytes", body.len());
        assert_eq!(form.text("event").is_some(), is_read, "{} bytes", body.len());
        assert_eq!(form.flat().is_empty(), !is_read);
        assert_eq!(Form::scan(body.as_bytes()).text("event"), Some("x"));
    }
}

#[test]
fn a_body_says_nothing_when_it_has_neither_event_nor_member() {
    assert!(!Form::scan(b"hello=world").says_something());
    assert!(!Form::scan(b"event=").says_something());
    assert!(Form::scan(b"event=x").says_something());
}
