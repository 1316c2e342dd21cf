//! An older handler as people have one, on a bad day: it fails, hangs and goes away; and what it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The type of the bodies of [`Event`].
pub const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

/// One of a portal's events; all that is sent of it follows from these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Which portal.
    pub portal: usize,
    /// Which of its events, from 1.
    pub number: usize,
}

impl Event {
    /// The portal's `member_id`.
    pub fn member_id(self) -> String {
        format!("portal{}", self.portal)
    }

    /// Bytes that would not survive being parsed and written again.
    pub fn body(self) -> Vec<u8> {
        let Self { portal, number } = self;
        let member_id = self.member_id();
        let long = "x".repeat((portal * 31 + number * 17) % 700);
        let text = format!(
            "event=ONCRMDEALADD&number={number}&data[FIELDS][ID]=7&data[FIELDS][NAME]=%d0%af+%2B%zz&empty&&ts=1700000000\
             &auth[member_id]={member_id}&auth[application_token]=application-token-of-{member_id}&rest={long}&raw="
        );
        [text.as_bytes(), b"\xff\x00\x7f\xd1"].concat()
    }

    /// The query of the URL.
    pub fn query(self) -> String {
        format!("number={}&a[]=%D0%AF&b=&&c", self.number)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Accept,
    /// Refused with a status.
    Status(u16),
    /// Asked to come again after a second.
    Later,
    /// No answer for so long.
    Hang(Duration),
    /// The connection ends without an answer.
    Drop,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event, from the body.
    pub event: Event,
    /// The event's id.
    pub id: String,
    /// Counted from 1.
    pub attempt: u32,
    /// How it was answered.
    pub reply: Reply,
    /// When it came.
    pub at: Instant,
}

type Decide = dyn Fn(Event, u32) -> Reply + Send + Sync;

/// A handler on a port of this machine.
pub struct Handler {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    accepted: Mutex<BTreeSet<Event>>,
    /// What did not come as it was sent.
    wrong: Mutex<Vec<String>>,
    decide: Box<Decide>,
    is_over: AtomicBool,
}

impl Handler {
    /// Answers as `decide` says, by the event and the attempt.
    pub fn start(decide: impl Fn(Event, u32) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            accepted: Mutex::default(),
            wrong: Mutex::default(),
            decide: Box::new(decide),
            is_over: AtomicBool::new(false),
        });
        let here = Arc::clone(&shared);
        // Ends with the process: it only waits for connections.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&here);
                thread::spawn(move || while shared.answer_one(&stream).is_some() {});
            }
        });
        Self { address, shared }
    }

    /// Its URL, with a query of its own.
    pub fn url(&self) -> String {
        format!("http://{}/handler.php?key=7", self.address)
    }

    /// All requests so far, in their order.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Whether it answered 200 to this event.
    pub fn has_accepted(&self, event: Event) -> bool {
        lock(&self.shared.accepted).contains(&event)
    }

    /// Each of these events came at least once, as it was sent, and none before the ones of its portal before it were
    /// accepted.
    pub fn is_whole(&self, acked: &BTreeSet<Event>) {
        let wrong = lock(&self.shared.wrong).clone();
        assert!(wrong.is_empty(), "{} requests did not come as they were sent, such as {}", wrong.len(), wrong[0]);
        let mut sent: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for event in acked {
            sent.entry(event.portal).or_default().push(event.number);
        }
        let mut accepted: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut checked: BTreeMap<usize, usize> = BTreeMap::new();
        for Received { event: Event { portal, number }, reply, .. } in self.received() {
            let sent = sent.get(&portal).map_or(&[][..], Vec::as_slice);
            let accepted = accepted.entry(portal).or_default();
            // All before this one was found to be accepted already.
            let known = checked.entry(portal).or_default();
            while sent.get(*known).is_some_and(|before| *before < number) {
                assert!(accepted.contains(&sent[*known]), "{number} of portal {portal} came before {}", sent[*known]);
                *known += 1;
            }
            if reply == Reply::Accept {
                accepted.insert(number);
            }
        }
        for Event { portal, number } in acked {
            let is_accepted = accepted.get(portal).is_some_and(|accepted| accepted.contains(number));
            assert!(is_accepted, "{number} of portal {portal} was never accepted");
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// None at the end of the connection.
    fn answer_one(&self, stream: &TcpStream) -> Option<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let request = Request::read(stream)?;
        let at = Instant::now();
        let number = |name: &str| request.headers.get(name).and_then(|value| value.parse().ok());
        let id = request.headers.get("hl-id").cloned().unwrap_or_default();
        let attempt = number("hl-attempt").unwrap_or(0);
        let Some(event) = request.event() else {
            lock(&self.wrong).push(format!("{} {:?}", request.target, request.headers));
            return None;
        };
        if let Some(wrong) = request.differs_from(event) {
            lock(&self.wrong).push(format!("{wrong} of {event:?}"));
        }
        let reply = (self.decide)(event, attempt);
        lock(&self.received).push(Received { event, id, attempt, reply, at });
        if reply == Reply::Accept {
            lock(&self.accepted).insert(event);
        }
        let status = match reply {
            Reply::Accept => "200 OK".to_owned(),
            Reply::Status(status) => format!("{status} No"),
            Reply::Later => "429 Later\r\nretry-after: 1".to_owned(),
            Reply::Hang(time) => {
                thread::sleep(time);
                return None;
            }
            Reply::Drop => return None,
        };
        let mut writer: &TcpStream = stream;
        writer.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").as_bytes()).ok()
    }
}

struct Request {
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        // One request at a time is on the connection, so nothing of the next one is taken along.
        let mut reader = BufReader::new(stream);
        let (mut line, mut headers) = (String::new(), BTreeMap::new());
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let target = line.split(' ').nth(1)?.to_owned();
        for header in reader.by_ref().lines().map_while(Result::ok).take_while(|header| !header.is_empty()) {
            let (name, value) = header.split_once(':')?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        Some(Self { target, headers, body })
    }

    fn event(&self) -> Option<Event> {
        let body = String::from_utf8_lossy(&self.body);
        let text = |name: &str| {
            let rest = &body[body.find(name)? + name.len()..];
            rest.split('&').next()?.parse().ok()
        };
        Some(Event { portal: text("auth[member_id]=portal")?, number: text("&number=")? })
    }

    fn differs_from(&self, event: Event) -> Option<&'static str> {
        let header = |name: &str| self.headers.get(name).map(String::as_str);
        if self.body != event.body() {
            Some("the body")
        } else if self.target != format!("/handler.php?key=7&{}", event.query()) {
            Some("the query")
        } else if header("content-type") != Some(FORM) {
            Some("the content type")
        } else if header("hl-received-at").is_none() || header("hl-verified") != Some("true") {
            Some("a header")
        } else {
            None
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
