//! PHP, asked what it sees in a body.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tests::{ports, wait};

/// The fields of a form by their full names, all of it bytes.
pub type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/php/fields.php");
/// A server answers its first question by then.
const START_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why nothing can be asked; none if it can.
pub fn missing() -> Option<&'static str> {
    let runs = Command::new("php").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!runs.is_ok_and(|status| status.success())).then_some("needs php, which is in the Debian package php-cli")
}

/// PHP without an ini file, which would limit what it reads: the defaults, but as many fields as there are.
fn php(fields_max: u32) -> Command {
    let mut php = Command::new("php");
    php.args(["-n", "-d", "display_errors=0", "-d", "error_reporting=0", "-d", "memory_limit=1G"]);
    php.args(["-d", &format!("max_input_vars={fields_max}"), "-d", "max_input_nesting_level=64"]);
    php
}

/// A process that reads bodies with `parse_str`.
pub struct Interpreter(Child);

impl Interpreter {
    pub fn start(fields_max: u32) -> Self {
        let mut php = php(fields_max);
        let child = php.arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(child.spawn().expect("start php"))
    }

    /// Where bodies go in, and where answers come out.
    pub fn ends(&mut self) -> (ChildStdin, BufReader<ChildStdout>) {
        let input = self.0.stdin.take().expect("taken once");
        (input, BufReader::new(self.0.stdout.take().expect("taken once")))
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one interpreter of its own sees in one body.
pub fn parse_str(body: &[u8], fields_max: u32) -> Fields {
    let mut php = Interpreter::start(fields_max);
    let (mut input, mut output) = php.ends();
    ask(&mut input, body).expect("php reads");
    answer(&mut output)
}

pub fn ask(input: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).expect("small").to_le_bytes();
    input.write_all(&[&length, body].concat())
}

pub fn answer(output: &mut impl Read) -> Fields {
    (0..number(output)).map(|_| (bytes(output), bytes(output))).collect()
}

fn bytes(output: &mut impl Read) -> Vec<u8> {
    let mut bytes = vec![0; number(output) as usize];
    output.read_exact(&mut bytes).expect("php answers");
    bytes
}

fn number(output: &mut impl Read) -> u32 {
    let mut number = [0; 4];
    output.read_exact(&mut number).expect("php answers");
    u32::from_le_bytes(number)
}

/// PHP's own web server, which reads bodies into `$_POST`.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub fn start() -> Self {
        let port = ports::free();
        let mut php = php(1_000_000);
        let child = php.args(["-S", &format!("127.0.0.1:{port}"), SCRIPT]);
        let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start php");
        let server = Self { child, port };
        wait::eventually(START_WAIT_MAX, "php serves", || TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }

    /// What a handler finds in `$_POST`.
    pub fn post(&self, body: &[u8]) -> Fields {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        let head = format!(
            "POST / HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("php reads");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("php answers");
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        answer(&mut &response[end + 4..])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
