//! TLS to Kafka: certificates that have expired keep ingress from Kafka and no webhook from ingress.
//!
//! Needs programs that can speak TLS, and therefore OpenSSL's headers: `cargo test -p tests --features tls --test tls`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::cluster::Names;
use tests::night::Night;
use tests::wait::alone;
use tests::{kafka, ports};

const PASSWORD: &str = "of-a-test";

#[test]
fn an_expired_certificate_is_said_and_waited_for() {
    let _alone = alone();
    let certificates = Certificates::make();
    let port = ports::free();
    let more = |place: &kafka::Place| certificates.listener(place, port);
    let Some(mut broker) = kafka::own_as("an_expired_certificate_is_said_and_waited_for", &more) else { return };

    let names = Names { servers: format!("127.0.0.1:{port}"), ..Names::new(broker.bootstrap()) };
    let authority = format!("ssl.ca.location={}", certificates.path("authority.pem").display());
    let mut night = Night::begin_as(names, &["--kafka-set", "security.protocol=ssl", "--kafka-set", &authority]);
    // What this test reads it reads without TLS.
    night.names.servers = broker.bootstrap().to_owned();

    broker.kill();
    certificates.give("expired.p12");
    broker.restart();
    night.shows("tls");
    let said = night.ingress.lines("fault", "tls").concat();
    assert!(said.contains("certificate"), "the reason is named: {said}");

    broker.kill();
    certificates.give("valid.p12");
    broker.restart();
    let morning = night.is_over();
    morning.nothing_is_doubled();
}

/// An authority and what it signed, for the broker to be given one or the other.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let made = Self(tempfile::tempdir().expect("a directory"));
        made.keytool("-genkeypair -alias authority -keyalg EC -dname CN=authority -ext bc:c -validity 30 -keystore authority.p12");
        made.keytool("-exportcert -alias authority -rfc -file authority.pem -keystore authority.p12");
        made.sign("valid", "-validity 30");
        made.sign("expired", "-startdate -3d -validity 1");
        made.give("valid.p12");
        made
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Puts a key store where the broker looks for its own.
    fn give(&self, store: &str) {
        fs::copy(self.path(store), self.path("broker.p12")).expect("copy a key store");
    }

    fn sign(&self, name: &str, life: &str) {
        self.keytool(&format!("-genkeypair -alias broker -keyalg EC -dname CN=broker -keystore {name}.p12"));
        self.keytool(&format!("-certreq -alias broker -file {name}.csr -keystore {name}.p12"));
        self.keytool(&format!(
            "-gencert -alias authority -infile {name}.csr -outfile {name}.pem -rfc -ext san=ip:127.0.0.1 {life} \
             -keystore authority.p12"
        ));
        self.keytool(&format!("-importcert -noprompt -alias authority -file authority.pem -keystore {name}.p12"));
        self.keytool(&format!("-importcert -noprompt -alias broker -file {name}.pem -keystore {name}.p12"));
    }

    fn keytool(&self, arguments: &str) {
        let ran = Command::new("keytool")
            .args(arguments.split_whitespace())
            .args(["-storetype", "PKCS12", "-storepass", PASSWORD])
            .current_dir(self.0.path())
            .output()
            .expect("start keytool, which comes with Java");
        let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(ran.status.success(), "keytool {arguments}: {said}");
    }

    /// A listener for TLS beside the others.
    fn listener(&self, place: &kafka::Place, port: u16) -> String {
        let kafka::Place { clients, controller, .. } = place;
        let store = |path: &Path| path.display().to_string();
        format!(
            "listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller},SSL://127.0.0.1:{port}
advertised.listeners=PLAINTEXT://127.0.0.1:{clients},SSL://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL
ssl.keystore.type=PKCS12
ssl.keystore.location={}
ssl.keystore.password={PASSWORD}
ssl.key.password={PASSWORD}
",
            store(&self.path("broker.p12"))
        )
    }
}
