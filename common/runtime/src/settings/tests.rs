use std::fs;

use bitrix24::Trust;
use tempfile::TempDir;

use super::*;
use crate::telemetry::LogFormat;
use event_log::contract::Retention;

const HIDDEN: &str = "s6p6eclrvim6da22ft9ch94ekreb52lv";

/// A program's surroundings: a table, variables, and a directory with a file of settings.
struct World {
    known: Vec<Setting>,
    env: BTreeMap<String, String>,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let own = [
            Setting::new("kafka-deadline").default("300ms").help("How long."),
            Setting::new("body-limit").default("64KiB").help("How much."),
            Setting::new("query-tokens").secret().help("Who may ask."),
        ];
        let known = [PROCESS, KAFKA, &[admin_listen("127.0.0.1:9080")], &own].concat();
        Self { known, env: BTreeMap::new(), dir: TempDir::new().expect("a directory") }
    }

    fn with(mut self, variable: &str, value: &str) -> Self {
        self.env.insert(variable.into(), value.into());
        self
    }

    /// Writes a file and has the program read its settings from it.
    fn with_file(self, text: &str) -> Self {
        let path = self.file("hookledger.toml", text);
        self.with("HOOKLEDGER_CONFIG", &path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("write a file");
        path.to_str().expect("a plain path").to_owned()
    }

    fn read(&self, flags: &[&str]) -> Result<Settings, SettingsError> {
        let args = ["ingress"].iter().chain(flags).map(OsString::from);
        read(
            "ingress",
            "Takes webhooks.",
            &self.known,
            args,
            &|name| self.env.get(name).cloned(),
            self.env.keys().cloned(),
        )
    }

    fn set(&self, flags: &[&str]) -> Settings {
        self.read(flags).expect("good settings")
    }

    fn error(&self, flags: &[&str]) -> String {
        self.read(flags).expect_err("bad settings").0
    }
}

fn ms(settings: &Settings) -> Result<Duration, SettingsError> {
    settings.duration("kafka-deadline")
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let plain = World::new();
    assert_eq!(ms(&plain.set(&[])), Ok(Duration::from_millis(300)));
    let file =
        plain.with_file("kafka-deadline = '1s'\npartitions = 12\ncheck-config = true\nkafka-set = ['a=1', 'b=2,3']");
    let settings = file.set(&[]);
    assert_eq!(ms(&settings), Ok(Duration::from_secs(1)));
    assert_eq!(settings.number("partitions"), Ok(Some(12)));
    assert!(settings.on("check-config"));
    assert_eq!(settings.all("kafka-set"), ["a=1", "b=2,3"]);

    let all = file.with("HOOKLEDGER_KAFKA_DEADLINE", "2s").with("HOOKLEDGER_CHECK_CONFIG", "0");
    let all = all.with("HOOKLEDGER_KAFKA_SET", "c=4, d=5").with("HOOKLEDGER_PARTITIONS", "");
    let settings = all.set(&[]);
    assert_eq!(ms(&settings), Ok(Duration::from_secs(2)));
    assert!(!settings.on("check-config"));
    assert_eq!(settings.all("kafka-set"), ["c=4", "d=5"]);
    assert_eq!(settings.number("partitions"), Ok(Some(12)), "an empty variable counts as none");

    let settings = all.set(&["--kafka-deadline", "3s", "--check-config", "--kafka-set", "e=6", "--kafka-set=f=7,8"]);
    assert_eq!(ms(&settings), Ok(Duration::from_secs(3)));
    assert!(settings.on("check-config"));
    assert_eq!(settings.all("kafka-set"), ["e=6", "f=7,8"]);
}

#[test]
fn the_flag_names_another_file_than_the_environment() {
    let world = World::new().with_file("partitions = 1");
    let other = world.file("other.toml", "partitions = 2");
    assert_eq!(world.set(&["--config", &other]).number("partitions"), Ok(Some(2)));
    assert!(world.error(&["--config", "/missing.toml"]).starts_with("read the settings file /missing.toml: "));
}

#[test]
fn what_nobody_knows_is_named_with_the_nearest_that_is_known() {
    let flag = World::new().error(&["--kafka-deadlin", "1s"]);
    assert!(flag.contains("'--kafka-deadlin'") && flag.contains("'--kafka-deadline'"), "{flag}");

    let variable = World::new().with("HOOKLEDGER_KAFKA_DEADLIN", "1s").error(&[]);
    let expected =
        "unknown setting in the environment: HOOKLEDGER_KAFKA_DEADLIN; did you mean HOOKLEDGER_KAFKA_DEADLINE?";
    assert_eq!(variable, expected);

    let key = World::new().with_file("kafka_deadline = '1s'").error(&[]);
    assert!(key.ends_with("hookledger.toml: kafka_deadline; did you mean kafka-deadline?"), "{key}");

    let far = World::new().with("HOOKLEDGER_COLOUR", "red").error(&[]);
    assert_eq!(far, "unknown setting in the environment: HOOKLEDGER_COLOUR");
    let config_in_file = World::new().with_file("config = 'x.toml'").error(&[]);
    assert!(config_in_file.contains("unknown setting"), "{config_in_file}");
}

#[test]
fn what_another_program_or_a_test_knows_is_no_mistake() {
    let world = World::new().with_file("ingress-listen = '127.0.0.1:1'\nquery-listen = '127.0.0.1:2'");
    let world = world.with("HOOKLEDGER_VAULT_KEY_FILE", "/key").with("HOOKLEDGER_TEST_KAFKA", "x").with("PATH", "/bin");
    world.set(&[]);
    assert!(world.error(&["--query-listen", "127.0.0.1:2"]).contains("--query-listen"), "a flag is for one program");
}

#[test]
fn a_secret_may_be_in_a_file_of_its_own() {
    let world = World::new();
    let (first, second) = (world.file("first", "first\r\n"), world.file("second", "second\n\n"));
    let empty = world.file("empty", "\n");
    let revealed = |settings: &Settings| settings.secret("query-tokens").map(|secret| secret.reveal().to_owned());

    let world = world.with_file(&format!("query-tokens-file = '{first}'"));
    assert_eq!(revealed(&world.set(&[])).as_deref(), Some("first"));
    let world = world.with("HOOKLEDGER_QUERY_TOKENS_FILE", &second);
    assert_eq!(revealed(&world.set(&[])).as_deref(), Some("second\n"), "one newline is trimmed");
    assert_eq!(revealed(&world.set(&["--query-tokens", "-third"])).as_deref(), Some("-third"));
    assert_eq!(revealed(&world.set(&["--query-tokens-file", &first])).as_deref(), Some("first"));

    assert_eq!(world.error(&["--query-tokens-file", &empty]), "query-tokens-file is empty");
    assert!(world.error(&["--query-tokens-file", "/no"]).starts_with("query-tokens-file: read /no: "));
    let both = world.with("HOOKLEDGER_QUERY_TOKENS", HIDDEN);
    assert_eq!(both.error(&[]), "query-tokens and query-tokens-file are both set; one is enough");
}

#[test]
fn secrets_are_nowhere_to_be_seen() {
    let file = format!(
        "[apps.crm]\npath-key = '{HIDDEN}'\nclient-secret = '{HIDDEN}'\nclient-id = 'app.1'\n\
         forward-to = 'https://example.org:444/{HIDDEN}?key={HIDDEN}'\nforward-unverified = true"
    );
    let world = World::new().with_file(&file).with("HOOKLEDGER_QUERY_TOKENS", HIDDEN);
    let passwords = format!("sasl.password={HIDDEN},ssl.key.pem={HIDDEN},OAuth.Client.Secret={HIDDEN},linger.ms=5");
    let settings = world.with("HOOKLEDGER_KAFKA_SET", &passwords).set(&[]);
    assert!(settings.apps().values().all(|app| app.path_key == Some(Secret::new(HIDDEN))));
    for shown in [settings.describe(), format!("{settings:?}"), format!("{:#?}", settings.apps())] {
        assert!(!shown.contains(HIDDEN), "{shown}");
    }
    let described = settings.describe();
    for line in [
        "query-tokens = [secret]  # environment",
        "kafka-set = sasl.password=[secret], ssl.key.pem=[secret], OAuth.Client.Secret=[secret], linger.ms=5  # environment",
        "kafka-deadline = 300ms  # default",
        "kafka =   # not set",
        "check-config = false  # default",
        "apps.crm.path-key = [secret]",
        "apps.crm.client-id = app.1",
        "apps.crm.forward-to = https://example.org:444/…",
        "apps.crm.forward-unverified = true",
    ] {
        assert!(described.lines().any(|shown| shown == line), "{line} is not in {described}");
    }
}

#[test]
fn a_slip_beside_a_secret_does_not_show_it() {
    for file in [
        format!("query-tokens = {HIDDEN}"),
        format!("query-tokens = '{HIDDEN}"),
        format!("query-tokens = '{HIDDEN}' '{HIDDEN}'"),
        format!("query-tokens = ['{HIDDEN}']"),
        format!("query-tokens = '{HIDDEN}'\nquery-tokens = '{HIDDEN}'"),
        format!("query-tokns = '{HIDDEN}'"),
        format!("kafka-set = 'sasl.password={HIDDEN}'"),
        format!("kafka-set = [['sasl.password={HIDDEN}']]"),
        format!("[apps.crm]\npath-keys = '{HIDDEN}'"),
        format!("[apps.crm]\nclient-secret = ['{HIDDEN}']"),
        format!("[apps.crm]\npath-key = '{HIDDEN}/'"),
        format!("[apps]\ncrm = '{HIDDEN}'"),
    ] {
        let error = World::new().with_file(&file).error(&[]);
        assert!(!error.contains(HIDDEN), "{error}");
    }
    for flags in [["--query-token", HIDDEN], ["--query-tokens", &format!("{HIDDEN}\u{0}")]] {
        let shown = format!("{:?}", World::new().read(&flags));
        assert!(!shown.contains(HIDDEN), "{shown}");
    }
    let no_pair = World::new().set(&["--kafka", "localhost:9092", "--kafka-set", HIDDEN]);
    let error = no_pair.kafka().expect_err("no pair").0;
    assert!(!error.contains(HIDDEN), "{error}");
}

#[test]
fn secrets_among_flags_are_warned_about_and_other_ways_are_not() {
    let world = World::new();
    let (tokens, set) = (world.file("tokens", HIDDEN), world.file("set", &format!("sasl.password={HIDDEN}")));
    let password = format!("sasl.password={HIDDEN}");
    let warnings = |settings: &Settings| settings.warnings.join("; ");
    let by_flag = world.set(&["--query-tokens", HIDDEN, "--kafka-set", &password, "--kafka-set", "linger.ms=5"]);
    let warned = warnings(&by_flag);
    for part in ["query-tokens was given as a flag", "query-tokens-file", "HOOKLEDGER_QUERY_TOKENS", "kafka-set-file"] {
        assert!(warned.contains(part), "{part} is not in {warned}");
    }
    assert!(by_flag.describe().contains("# warning: query-tokens was given as a flag"), "{}", by_flag.describe());
    assert!(!warned.contains(HIDDEN) && !by_flag.describe().contains(HIDDEN), "{warned}");

    let files = ["--query-tokens-file", &tokens, "--kafka-set-file", &set, "--kafka-set", "ssl.key.location=/key.pem"];
    assert_eq!(warnings(&world.set(&files)), "");
    let variables = world.with("HOOKLEDGER_QUERY_TOKENS", HIDDEN).with("HOOKLEDGER_KAFKA_SET", &password);
    assert_eq!(warnings(&variables.set(&[])), "");
}

#[test]
fn passwords_for_kafka_may_be_in_a_file_of_their_own() {
    let world = World::new();
    let file = world.file(
        "set",
        &format!("# for the broker\n\n sasl.username = crm\r\nsasl.password={HIDDEN},=#\nclient.id=one\n"),
    );
    let flags = ["--kafka", "h:1", "--kafka-set-file", &file, "--kafka-set", "client.id=two"];
    let settings = world.set(&flags);
    let set = settings.kafka().expect("good settings").expect("set").set;
    let expected = [
        ("sasl.username", "crm".to_owned()),
        ("sasl.password", format!("{HIDDEN},=#")),
        ("client.id", "one".to_owned()),
        // The last one holds: what stands nearer to the command wins.
        ("client.id", "two".to_owned()),
    ];
    assert_eq!(set, expected.map(|(key, value)| (key.to_owned(), value)));
    assert!(!format!("{settings:?}").contains(HIDDEN));

    for (text, line) in [(format!("a=1\n\n{HIDDEN}"), "line 3"), (format!("={HIDDEN}"), "line 1")] {
        let file = world.file("bad", &text);
        let error = world.set(&["--kafka", "h:1", "--kafka-set-file", &file]).kafka().expect_err("no pairs").0;
        assert!(error.starts_with("kafka-set-file: ") && error.contains(line), "{error}");
        assert!(!error.contains(HIDDEN), "{error}");
    }
    let error = world.set(&["--kafka", "h:1", "--kafka-set-file", "/no"]).kafka().expect_err("no file").0;
    assert!(error.starts_with("kafka-set-file: read /no: "), "{error}");
}

#[test]
fn units_are_part_of_values_and_errors_say_what_was_given_and_an_example() {
    let deadline = |given| ms(&World::new().set(&[&format!("--kafka-deadline={given}")]));
    assert_eq!(deadline("1m 30s"), Ok(Duration::from_secs(90)));
    for given in ["300", "", "soon", "-1s", "1000000 years"] {
        let error = deadline(given).expect_err(given).0;
        assert_eq!(
            error,
            format!(
                "kafka-deadline is `{given}` (flag), but it takes a duration with its unit; for example `300ms` or `14d`"
            )
        );
    }
    let limit = |given| World::new().with("HOOKLEDGER_BODY_LIMIT", given).set(&[]).size("body-limit");
    assert_eq!((limit("2MiB"), limit("1kB")), (Ok(2 << 20), Ok(1000)));
    for given in ["64", "64.5", "much", "-1KiB", "KiB"] {
        let error = limit(given).expect_err(given).0;
        assert_eq!(
            error,
            format!("body-limit is `{given}` (environment), but it takes a size with its unit; for example `64KiB`")
        );
    }
    let listen = |given| World::new().set(&["--admin-listen", given]).address("admin-listen");
    assert_eq!(listen("[::1]:0"), Ok("[::1]:0".parse().expect("an address")));
    assert!(listen("9080").expect_err("no address").0.contains("127.0.0.1:8080"));
    assert!(World::new().set(&["--partitions", "six"]).number("partitions").is_err());
    assert_eq!(World::new().set(&[]).path("data-dir"), Ok(PathBuf::from("./hookledger-data")));
    assert!(World::new().set(&[]).path("kafka").expect_err("not set").0.starts_with("kafka is not set"));
}

#[test]
fn kafka_is_read_as_a_whole_or_not_at_all() {
    assert!(World::new().set(&[]).kafka().expect("good settings").is_none());
    let flags = ["--kafka", "a:1,b:2", "--kafka-set", "sasl.password=a=b", "--replication=3", "--raw-retention", "7d"];
    let kafka = World::new().set(&flags).kafka().expect("good settings").expect("servers are set");
    assert_eq!((kafka.servers.as_str(), kafka.topic_prefix.as_str()), ("a:1,b:2", "hookledger."));
    assert_eq!(kafka.set, [("sasl.password".to_owned(), "a=b".to_owned())]);
    assert_eq!((kafka.partitions, kafka.replication), (6, Some(3)));
    assert_eq!(kafka.retention, Retention { raw: DAY * 7, events: DAY * 30 });

    let long = "x".repeat(240);
    for [name, given] in [
        ["kafka", " "],
        ["kafka-set", "=1"],
        ["topic-prefix", "a/b"],
        ["topic-prefix", &long],
        ["partitions", "0"],
        ["partitions", "10001"],
        ["replication", "0"],
        ["replication", "40000"],
        ["raw-retention", "0s"],
    ] {
        let flag = format!("--{name}={given}");
        let flags = if name == "kafka" { vec![flag.as_str()] } else { vec!["--kafka=a:1", flag.as_str()] };
        let error = World::new().set(&flags).kafka().expect_err(given).0;
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn the_log_format_is_one_of_two() {
    let format = |given| World::new().set(&["--log-format", given]).log_format();
    assert_eq!((format("text"), format("json")), (Ok(LogFormat::Text), Ok(LogFormat::Json)));
    assert!(format("xml").expect_err("neither").0.contains("`text` or `json`"));
    World::new().set(&[]).log_format().expect("there is a default");
}

#[test]
fn apps_are_names_anywhere_or_tables_in_the_file() {
    let names = |settings: Settings| settings.apps().keys().map(ToString::to_string).collect::<Vec<_>>();
    assert!(names(World::new().set(&[])).is_empty());
    assert_eq!(names(World::new().set(&["--apps", "b,a", "--apps=c"])), ["a", "b", "c"]);
    assert_eq!(names(World::new().with("HOOKLEDGER_APPS", "b, a,").set(&[])), ["a", "b"]);
    assert_eq!(names(World::new().with_file("apps = ['b', 'a']").set(&[])), ["a", "b"]);

    let world = World::new();
    let secret = world.file("client-secret", "abc\n");
    let tables = world.with_file(&format!(
        "[apps.crm-sync]\npaths = ['/old', '/older']\ntrust = 'first-event'\nclient-secret-file = '{secret}'\n[apps.b]\n"
    ));
    let settings = tables.set(&[]);
    let crm = &settings.apps()[&AppName::parse("crm-sync").expect("a name")];
    assert_eq!((crm.trust, crm.paths.as_slice()), (Trust::FirstEvent, ["/old".into(), "/older".into()].as_slice()));
    assert_eq!(crm.client_secret, Some(Secret::new("abc")));
    assert_eq!(names(settings), ["b", "crm-sync"]);

    let chosen = tables.set(&["--apps", "crm-sync,crm-sync,c"]);
    let trusts: Vec<_> = chosen.apps().iter().map(|(name, app)| (name.as_str(), app.trust)).collect();
    assert_eq!(trusts, [("c", Trust::FirstInstall), ("crm-sync", Trust::FirstEvent)], "a flag chooses among tables");
}

#[test]
fn an_app_without_a_key_of_its_own_has_the_one_in_the_directory_of_keys() {
    let mut world = World::new();
    world.known.push(Setting::new("path-keys-dir").help("Keys."));
    let keys = world.dir.path().join("keys");
    fs::create_dir(&keys).expect("a directory");
    fs::write(keys.join("one"), format!("{HIDDEN}\n")).expect("a key");
    fs::write(keys.join("own"), format!("{HIDDEN}\n")).expect("a key");
    fs::write(keys.join("stranger"), "what is no app's is not read").expect("a file");
    let keys = keys.to_str().expect("a plain path").to_owned();
    let world =
        world.with_file("[apps.own]\npath-key = 'another-key-of-its-own'").with("HOOKLEDGER_PATH_KEYS_DIR", &keys);
    let settings = world.set(&["--apps", "one,own,none"]);
    let found: Vec<_> = settings.apps().iter().map(|(name, app)| (name.as_str(), app.path_key.as_ref())).collect();
    let secret = |text: &str| Some(Secret::new(text));
    let expected = [secret(HIDDEN), secret("another-key-of-its-own")];
    assert_eq!(found, [("none", None), ("one", expected[0].as_ref()), ("own", expected[1].as_ref())]);
    assert!(!settings.describe().contains(HIDDEN));

    for (text, why) in [("", "path-keys-dir, app one is empty"), ("short", "apps.one.path-key takes 16 to 128")] {
        fs::write(world.dir.path().join("keys/one"), text).expect("a bad key");
        let error = world.error(&["--apps", "one"]);
        assert!(error.starts_with(why), "a damaged key opens no app: {error}");
    }
    fs::remove_dir_all(&keys).expect("remove it");
    let error = world.error(&["--apps", "one"]);
    assert!(error.starts_with("path-keys-dir: read "), "keys that are gone open no app: {error}");
}

#[test]
fn what_is_wrong_with_an_app_is_said_with_its_name() {
    for (file, expected) in [
        ("apps = ['CRM']", "apps: `CRM` is no app's name"),
        ("apps = 'crm'", "apps in the file takes an array of texts"),
        ("[apps.CRM]", "apps: `CRM` is no app's name"),
        ("[apps.crm]\ntrusts = 'x'", "unknown setting in [apps.crm]: trusts; did you mean trust?"),
        (
            "[apps.crm]\ntrust = 'all'",
            "apps.crm.trust is `all`, but it takes `first-install`, `first-event` or `known`",
        ),
        ("[apps.crm]\npaths = '/a'", "apps.crm.paths takes an array of paths"),
        ("[apps.crm]\npaths = ['a']", "apps.crm.paths takes an array of paths"),
        ("[apps.a]\npaths = ['/x']\n[apps.b]\npaths = ['/x']", "apps.a.paths and apps.b.paths both have /x"),
        ("[apps.a]\npaths = ['/x-y']\n[apps.b]\npaths = ['//x%2Dy/']", "apps.a.paths and apps.b.paths both have /x-y"),
        ("[apps.crm]\npaths = ['/']", "apps.crm.paths takes an array of paths"),
        ("[apps.crm]\npaths = ['/%761/events/a']", "apps.crm.paths has /%761/events/a, but what begins with /v1/"),
        ("[apps.crm]\npaths = ['/v1']", "apps.crm.paths has /v1, but what begins with /v1/"),
        ("[apps.crm]\npath-key = ''", "apps.crm.path-key is empty"),
        ("[apps.crm]\npath-key = 'short'", "apps.crm.path-key takes 16 to 128 letters"),
        ("[apps.crm]\nclient-secret-file = '/no'", "apps.crm.client-secret-file: read /no: "),
    ] {
        let error = World::new().with_file(file).error(&[]);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn help_explains_each_setting_with_its_default_and_its_variable() {
    let help = World::new().error(&["--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "--kafka-deadline <VALUE> How long. [default: 300ms] [environment: HOOKLEDGER_KAFKA_DEADLINE]",
        "--query-tokens-file <FILE>",
        "[environment: HOOKLEDGER_QUERY_TOKENS_FILE]",
        "--config <FILE>",
        "--check-config ",
    ] {
        assert!(help.contains(expected), "{expected} is not in {help}");
    }
}

#[test]
fn a_command_may_stand_under_another() {
    let world = World::new();
    let outer = clap::Command::new("hookledger").subcommand(command("standalone", "All in one.", &world.known));
    let matches = outer.try_get_matches_from(["hookledger", "standalone", "--partitions", "3"]).expect("good flags");
    let (_, inner) = matches.subcommand().expect("a subcommand");
    let settings = Settings::from_matches(&world.known, inner, &|_| None, []).expect("good settings");
    assert_eq!(settings.number("partitions"), Ok(Some(3)));
}

#[test]
fn every_shared_setting_is_known_anywhere() {
    for setting in [PROCESS, KAFKA].concat() {
        assert!(names::ANYWHERE.contains(&setting.name) || setting.kind == Kind::Switch, "{}", setting.name);
    }
}

#[test]
fn files_with_secrets_are_told_of_if_others_may_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let tokens = world.file("tokens", HIDDEN);
    let key = world.file("key", HIDDEN);
    let allow = |file: &str, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("ours");
    let app = format!("[apps.crm-sync]\npath-key-file = '{key}'");
    let exposed = |world: &World| world.set(&["--query-tokens-file", &tokens]).exposed().collect::<Vec<_>>();
    let world = world.with_file(&app);
    allow(&key, 0o600);
    allow(&tokens, 0o600);
    assert_eq!(exposed(&world), Vec::<String>::new(), "in the file of settings there is no secret");
    allow(&key, 0o644);
    allow(&tokens, 0o640);
    let both = exposed(&world);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both[0].contains(&tokens) && both[1].contains(&format!("chmod 600 {key}")), "{both:?}");
    assert!(!both.concat().contains(HIDDEN));

    for secret in [format!("query-tokens = '{HIDDEN}'"), "kafka-set = ['sasl.password=x']".to_owned()] {
        let world = World::new().with_file(&secret);
        let file = world.env["HOOKLEDGER_CONFIG"].clone();
        allow(&file, 0o604);
        assert!(matches!(&world.set(&[]).exposed().collect::<Vec<_>>()[..], [why] if why.contains(&file)), "{secret}");
    }
}

#[test]
fn a_list_of_apps_beside_their_tables_is_an_error_with_a_remedy() {
    let both = World::new().with_file("apps = ['crm-sync']\n[apps.crm-sync]\ntrust = 'first-event'").error(&[]);
    assert!(both.contains("line 2") && both.contains("leave out the list"), "{both}");
    let other = World::new().with_file("apps = ['crm-sync']\n[kafka").error(&[]);
    assert!(other.contains("line 2") && !other.contains("the list"), "{other}");
}
