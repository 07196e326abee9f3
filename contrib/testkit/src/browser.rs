//! Chromium without a window, driven through WebDriver by Debian's `chromedriver`.
//!
//! Facts: <https://www.w3.org/TR/webdriver2/>; commands below `goog/` and `se/` are chromedriver's own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Http;

/// The member of a JSON object that names an element (WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser with one page. Ends when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    http: Http,
    session: String,
    _home: TempDir,
}

/// An element of the page.
#[derive(Debug)]
pub struct Element<'a> {
    browser: &'a Browser,
    path: String,
}

impl Browser {
    /// Starts the browser; `None` if `chromium` or `chromedriver` is not installed.
    pub fn start() -> Option<Self> {
        let has = |program: &str| {
            let mut command = Command::new(program);
            command
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !has("chromium") || !has("chromedriver") {
            return None;
        }
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", home.path())
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let output = driver.stdout.take().expect("its output is a pipe");
        let mut lines = BufReader::new(output).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver prints its port");
        // It must not wait for a reader of what it prints later.
        std::thread::spawn(move || lines.for_each(drop));
        let http = Http::to(&format!("http://127.0.0.1:{port}/")).timeout(Duration::from_secs(60));
        let profile = format!("--user-data-dir={}", home.path().join("profile").display());
        let options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
            "--window-size=1200,1000", profile,
        ] });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let mut browser = Self {
            driver,
            http,
            session: "/session".to_owned(),
            _home: home,
        };
        let session = browser.post("", &wanted);
        let id = session["sessionId"].as_str().expect("a session has a name");
        browser.session = format!("/session/{id}");
        Some(browser)
    }

    /// Loads `url` and waits until it has loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// The result of a script, which ends in `return ...;`.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the page as it is shown.
    #[track_caller]
    pub fn text(&self) -> String {
        let text = self.script("return document.body.innerText;");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// The title of the tab.
    #[track_caller]
    pub fn title(&self) -> String {
        self.get("/title").as_str().unwrap_or_default().to_owned()
    }

    /// The first element that the CSS selector finds.
    #[track_caller]
    pub fn element(&self, selector: &str) -> Element<'_> {
        let found = self.post(
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        self.named(&found)
    }

    /// The element that has the focus of the keyboard.
    #[track_caller]
    pub fn focused(&self) -> Element<'_> {
        self.named(&self.get("/element/active"))
    }

    fn named(&self, found: &Value) -> Element<'_> {
        let id = found[ELEMENT].as_str().expect("an element has a name");
        Element {
            browser: self,
            path: format!("/element/{id}"),
        }
    }

    /// Types these keys into the page; `\u{E004}` is Tab, `\u{E007}` is Enter.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("/actions", &json!({ "actions": [keyboard] }));
    }

    /// The messages of the page's console since the last call, violations of its policy and missing files included.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().expect("a log is a list").iter();
        lines.map(|line| line["message"].to_string()).collect()
    }

    /// A command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    /// A picture of the page, as PNG.
    #[track_caller]
    pub fn screenshot(&self) -> Vec<u8> {
        let picture = self.devtools(
            "Page.captureScreenshot",
            &json!({ "captureBeyondViewport": true }),
        );
        let text = picture["data"].as_str().expect("a picture has data");
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text)
            .expect("it is in base64")
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let reply = self.http.get(&format!("{}{path}", self.session));
        value_of(path, reply.status, &reply.text())
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let reply = self
            .http
            .post(&format!("{}{path}", self.session), &body.to_string());
        value_of(path, reply.status, &reply.text())
    }
}

#[track_caller]
fn value_of(path: &str, status: u16, text: &str) -> Value {
    assert_eq!(status, 200, "{path}: {text}");
    let mut answer: Value = serde_json::from_str(text).expect("the driver answers in JSON");
    answer["value"].take()
}

impl Element<'_> {
    /// Its name for a screen reader.
    #[track_caller]
    pub fn label(&self) -> String {
        let label = self.browser.get(&format!("{}/computedlabel", self.path));
        label.as_str().unwrap_or_default().to_owned()
    }

    /// Its role for a screen reader.
    #[track_caller]
    pub fn role(&self) -> String {
        let role = self.browser.get(&format!("{}/computedrole", self.path));
        role.as_str().unwrap_or_default().to_owned()
    }

    /// Its text as it is shown.
    #[track_caller]
    pub fn text(&self) -> String {
        let text = self.browser.get(&format!("{}/text", self.path));
        text.as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session.
        let session = self.http.connect().and_then(|mut connection| {
            connection.send("DELETE", &self.session, &[])?;
            connection.receive()
        });
        drop(session);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
