//! A real Chromium, driven over its own protocol (CDP) through a pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guard::Guard;
use crate::wait::{eventually, not_run};

/// Two cores are shared with everything else.
const WITHIN: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// One browser with one page.
pub struct Browser {
    child: Child,
    pipe: File,
    messages: Receiver<Value>,
    session: String,
    calls: u64,
    /// What the page complained about.
    complaints: Vec<String>,
    /// The password for pages that want one.
    token: Option<String>,
    _guard: Guard,
    _profile: TempDir,
}

impl Browser {
    /// None where there is no Chromium, which is said.
    pub fn start(test: &str) -> Option<Self> {
        let Some(program) = NAMES.iter().find_map(|name| find(name)) else {
            not_run(test, "there is no Chromium: apt-get install chromium");
            return None;
        };
        let profile = tempfile::Builder::new().prefix("hookledger-test-").tempdir().expect("a directory");
        let (from_us, to_browser) = std::io::pipe().expect("a pipe");
        let (from_browser, to_us) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"])
            .args(["--hide-scrollbars", "--force-color-profile=srgb", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mappings = [(OwnedFd::from(from_us), 3), (OwnedFd::from(to_us), 4)];
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.into()).expect("free descriptors");
        let child = command.spawn().expect("start Chromium");
        // Its ends of the pipes are its own now.
        drop(command);
        let guard = Guard::watch(child.id(), None).expect("watch it");
        let pipe = File::from(OwnedFd::from(to_browser));
        let mut browser = Self {
            child,
            pipe,
            messages: receive(File::from(OwnedFd::from(from_browser))),
            session: String::new(),
            calls: 0,
            complaints: Vec::new(),
            token: None,
            _guard: guard,
            _profile: profile,
        };
        browser.attach();
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = self.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        attached["sessionId"].as_str().expect("a session").clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// Answers pages that ask for a password with this one.
    pub fn sign_in(&mut self, token: &str) {
        self.token = Some(token.to_owned());
        self.call("Fetch.enable", &json!({ "handleAuthRequests": true }));
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        let navigated = self.call("Page.navigate", &json!({ "url": url }));
        assert!(navigated["errorText"].is_null(), "{url}: {navigated}");
        self.until("the page is loaded", "document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let id = self.send("Runtime.evaluate", &parameters);
        let answer = self.answer(id, expression);
        // The page was replaced meanwhile.
        if !answer["error"].is_null() {
            return Value::Null;
        }
        let found = &answer["result"];
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// The text of the page.
    pub fn text(&mut self) -> String {
        self.evaluate("document.body?.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, what: &str, expression: &str) {
        eventually(WITHIN, what, || (self.evaluate(expression) == json!(true)).then_some(()));
    }

    /// The size of the screen, and whether it is a dark one.
    pub fn screen(&mut self, width: u32, height: u32, is_dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// Whether pages may run scripts.
    pub fn scripts(&mut self, may_run: bool) {
        self.call("Emulation.setScriptExecutionDisabled", &json!({ "value": !may_run }));
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { json!("\r") } else { Value::Null };
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if !text.is_null() {
                event["text"] = text;
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Types a text where the focus is.
    pub fn insert(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// A picture of the screen, as a PNG in base64.
    pub fn picture(&mut self) -> String {
        let taken = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        taken["data"].as_str().expect("a picture").to_owned()
    }

    /// Errors of scripts, refused connections and violations of the policy so far.
    pub fn complaints(&mut self) -> &[String] {
        // What was reported before this answer has come.
        self.evaluate("1");
        &self.complaints
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let id = self.send(method, parameters);
        let answer = self.answer(id, method);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn answer(&mut self, id: u64, waiting_for: &str) -> Value {
        loop {
            let message = self.next_message(waiting_for);
            if message["id"] == json!(id) {
                return message;
            }
            self.note(&message);
        }
    }

    fn send(&mut self, method: &str, parameters: &Value) -> u64 {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.pipe.write_all(format!("{message}\0").as_bytes()).expect("Chromium listens");
        self.calls
    }

    fn next_message(&self, waiting_for: &str) -> Value {
        match self.messages.recv_timeout(WITHIN) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("Chromium does not answer {waiting_for}"),
            Err(RecvTimeoutError::Disconnected) => panic!("Chromium ended before it answered {waiting_for}"),
        }
    }

    fn note(&mut self, message: &Value) {
        let about = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Fetch.requestPaused" => {
                self.send("Fetch.continueRequest", &json!({ "requestId": about["requestId"] }));
            }
            "Fetch.authRequired" => {
                let answer =
                    json!({ "response": "ProvideCredentials", "username": "operator", "password": self.token });
                let answer = json!({ "requestId": about["requestId"], "authChallengeResponse": answer });
                self.send("Fetch.continueWithAuth", &answer);
            }
            "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded" | "Audits.issueAdded" => {
                self.complaints.push(about.to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file: &PathBuf| Path::is_file(file))
}

/// Messages end with a zero byte.
fn receive(pipe: File) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut message = Vec::new();
        while pipe.read_until(0, &mut message).is_ok_and(|read| read > 0) {
            message.pop();
            let Ok(parsed) = serde_json::from_slice(&message) else { break };
            if sender.send(parsed).is_err() {
                break;
            }
            message.clear();
        }
    });
    receiver
}
