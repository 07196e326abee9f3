//! The access log: a file with one line per request, as JSON or in the combined format of web servers.
//!
//! ```text
//!   request ──> line ──> at most 1 MB ── every 200 ms or at 256 kB, by a thread ──> FILE ── too large ──> FILE.1
//!                           └─ full: the line is dropped and counted                 └─ moved away: a new FILE
//! ```
//!
//! A request never waits for the file. Programs that rotate logs may move the file: the thread looks once a second, and
//! then begins a new one. No signal is needed for that, and SIGHUP keeps its meaning, to stop.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, Request, Uri, Version, header};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tracing::warn;

use crate::log::{LineSink, LineWriter, Lines};

/// Time for which lines are collected.
const FILE_BATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks whether the file was moved.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Format of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// That of Apache and nginx, which other programs read. It has no outcome and no duration.
    #[default]
    Combined,
    /// One JSON object a line (docs/json.md).
    Json,
}

/// Settings of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// The file.
    pub path: PathBuf,
    /// The format of its lines.
    pub format: AccessLogFormat,
    /// Size in bytes from which the file becomes `FILE.1`, and another begins. 0 for no limit.
    pub max_bytes: u64,
}

/// The access log.
#[derive(Debug)]
pub struct AccessLogFile {
    format: AccessLogFormat,
    lines: Lines,
    lost: Arc<AtomicU64>,
    /// `None` after [`Self::close`].
    writer: Mutex<Option<LineWriter>>,
}

/// The request as its client wrote it. Copies nothing.
#[derive(Debug)]
pub(super) struct RequestLine {
    method: Method,
    uri: Uri,
    version: Version,
    user_agent: Option<HeaderValue>,
}

/// A finished request.
#[derive(Debug)]
pub(super) struct AccessLine<'a, R> {
    pub(super) client: IpAddr,
    pub(super) request: &'a RequestLine,
    pub(super) status: u16,
    /// Bytes of the body that were sent.
    pub(super) bytes: u64,
    /// Time from the request to the end of the answer.
    pub(super) took: Duration,
    pub(super) outcome: &'static str,
    pub(super) resource: &'a R,
    pub(super) error: Option<&'a str>,
}

impl RequestLine {
    pub(super) fn of(request: &Request<()>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
        }
    }

    /// Without the query, which may contain a secret and names no resource.
    fn path(&self) -> &str {
        self.uri.path()
    }
}

impl AccessLogFile {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// The file cannot be written, or the system refuses a thread.
    pub fn open(options: &AccessLogOptions) -> io::Result<Self> {
        let lost = Arc::<AtomicU64>::default();
        let sink = LogFile {
            file: open(&options.path)?,
            path: options.path.clone(),
            max_bytes: options.max_bytes,
            looked: Instant::now(),
            lost: lost.clone(),
        };
        let writer = LineWriter::start("access log", FILE_BATCH_INTERVAL, sink)?;
        Ok(Self {
            format: options.format,
            lines: writer.lines(),
            lost,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Appends a line, unless there is no space for it.
    pub(super) fn write(&self, line: &AccessLine<'_, impl fmt::Display>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = RefCell::default();
        }
        let now = crate::clock::now();
        LINE.with_borrow_mut(|text| {
            text.clear();
            match self.format {
                AccessLogFormat::Combined => line.combined(text, now),
                AccessLogFormat::Json => line.json(text, now),
            }
            self.lines.push(text);
        });
    }

    /// Writes the lines so far, and waits for that a second at most. Later ones are not written.
    pub(super) fn close(&self) {
        drop(self.writer.lock().take());
    }

    /// Number of lines that were not written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl<R: fmt::Display> AccessLine<'_, R> {
    /// `127.0.0.1 - - [26/Nov/2026:19:03:02 +0000] "GET /se/rd/serde HTTP/1.1" 200 1234 "-" "cargo/1.95.0"`
    fn combined(&self, out: &mut Vec<u8>, now: SystemTime) {
        // "Thu, 26 Nov 2026 19:03:02 GMT"
        let date = httpdate::fmt_http_date(now);
        let part = |range| date.get(range).unwrap_or_default();
        let (day, month, year, time) = (part(5..7), part(8..11), part(12..16), part(17..25));
        let client = self.client;
        let RequestLine {
            method, version, ..
        } = self.request;
        let _ = write!(
            out,
            "{client} - - [{day}/{month}/{year}:{time} +0000] \"{method} "
        );
        escape(out, self.request.path().as_bytes());
        let _ = write!(
            out,
            " {version:?}\" {} {} \"-\" \"",
            self.status, self.bytes
        );
        match &self.request.user_agent {
            Some(agent) => escape(out, agent.as_bytes()),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b"\"\n");
    }

    fn json(&self, out: &mut Vec<u8>, now: SystemTime) {
        let agent = self.request.user_agent.as_ref();
        let _ = serde_json::to_writer(
            &mut *out,
            &JsonLine {
                time: Text(humantime::format_rfc3339_millis(now)),
                client: self.client,
                method: self.request.method.as_str(),
                path: self.request.path(),
                protocol: Text(format_args!("{:?}", self.request.version)),
                status: self.status,
                bytes: self.bytes,
                ms: (self.took.as_secs_f64() * 1e6).round() / 1e3,
                outcome: self.outcome,
                resource: Text(self.resource),
                user_agent: agent.map(|agent| String::from_utf8_lossy(agent.as_bytes())),
                error: self.error,
            },
        );
        out.push(b'\n');
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: Text<humantime::Rfc3339Timestamp>,
    client: IpAddr,
    method: &'a str,
    path: &'a str,
    protocol: Text<fmt::Arguments<'a>>,
    status: u16,
    bytes: u64,
    ms: f64,
    outcome: &'a str,
    resource: Text<&'a dyn fmt::Display>,
    user_agent: Option<Cow<'a, str>>,
    error: Option<&'a str>,
}

/// A JSON string that is formatted into the line, without a `String` of its own.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Appends text of a client. Quotes, backslashes and what is not printable ASCII become `\xHH`, as in nginx.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | ..b' ' | 127.. => drop(write!(out, "\\x{byte:02X}")),
            byte => out.push(byte),
        }
    }
}

/// The file, in the thread that writes it.
struct LogFile {
    file: File,
    path: PathBuf,
    max_bytes: u64,
    /// When it was last compared with its path.
    looked: Instant,
    lost: Arc<AtomicU64>,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl LogFile {
    /// Begins a new file if this one was moved or removed, or is too large. If it cannot be renamed, all further lines
    /// are lost and counted.
    #[expect(
        clippy::disallowed_methods,
        reason = "the log is no file of the store, and need not survive a crash"
    )]
    fn rotate(&mut self, more: u64) -> io::Result<()> {
        let current = self.file.metadata()?;
        if current.is_file() && self.max_bytes > 0 && current.len() + more > self.max_bytes {
            if current.len() > 0 && self.is_at_path(&current) {
                fs::rename(&self.path, old_path(&self.path))?;
            }
        } else if self.looked.elapsed() < LOOK_INTERVAL || self.is_at_path(&current) {
            return Ok(());
        }
        self.looked = Instant::now();
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Returns whether the path still leads to the open file.
    fn is_at_path(&self, current: &fs::Metadata) -> bool {
        let found = fs::metadata(&self.path);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (current.dev(), current.ino()))
    }
}

/// `FILE.1` for `FILE`.
fn old_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl LineSink for LogFile {
    fn write(&mut self, lines: &[u8], lost: u64, _: bool) {
        if lost > 0 {
            self.lost.fetch_add(lost, Ordering::Relaxed);
            warn!(
                lost,
                "lines of the access log were lost: the disk is too slow"
            );
        }
        if lines.is_empty() {
            return;
        }
        let rotated = self.rotate(lines.len() as u64);
        if let Err(error) = rotated.and_then(|()| self.file.write_all(lines)) {
            let count = memchr::memchr_iter(b'\n', lines).count() as u64;
            self.lost.fetch_add(count, Ordering::Relaxed);
            let path = self.path.display();
            warn!(%error, %path, lost = count, "cannot write the access log; its lines are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn request(path: &str, agent: &[u8]) -> RequestLine {
        let request = Request::get(path).header("user-agent", agent);
        RequestLine::of(&request.body(()).unwrap())
    }

    fn line<'a>(request: &'a RequestLine, resource: &'a &str) -> AccessLine<'a, &'a str> {
        AccessLine {
            client: Ipv4Addr::LOCALHOST.into(),
            request,
            status: 200,
            bytes: 1234,
            took: Duration::from_micros(1234),
            outcome: "hit",
            resource,
            error: None,
        }
    }

    fn time() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_719_782_500)
    }

    #[test]
    fn combined_lines_have_the_format_of_web_servers_and_no_query() {
        let request = request("/se/rd/serde?token=secret", b"cargo \"1.95\" \xff");
        let mut out = Vec::new();
        line(&request, &"index entry of `serde`").combined(&mut out, time());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "127.0.0.1 - - [26/Nov/2026:19:03:02 +0000] \"GET /se/rd/serde HTTP/1.1\" 200 1234 \"-\" \
             \"cargo \\x221.95\\x22 \\xFF\"\n"
        );
    }

    #[test]
    fn json_lines_have_client_outcome_and_duration() {
        let request = request("/se/rd/serde?token=secret", b"cargo 1.95");
        let mut out = Vec::new();
        line(&request, &"index entry of `serde`").json(&mut out, time());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"time\":\"2026-11-26T19:03:02.500Z\",\"client\":\"127.0.0.1\",\"method\":\"GET\",\
             \"path\":\"/se/rd/serde\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":1234,\"ms\":1.234,\
             \"outcome\":\"hit\",\"resource\":\"index entry of `serde`\",\"user_agent\":\"cargo 1.95\",\
             \"error\":null}\n"
        );
    }

    fn log_file(path: &Path, max_bytes: u64) -> LogFile {
        LogFile {
            file: open(path).unwrap(),
            path: path.to_owned(),
            max_bytes,
            looked: Instant::now() - LOOK_INTERVAL,
            lost: Arc::default(),
        }
    }

    #[test]
    fn a_file_that_is_too_large_becomes_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut file = log_file(&path, 10);
        for line in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "a line above the limit\n",
        ] {
            file.write(line.as_bytes(), 0, false);
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "a line above the limit\n");
        assert_eq!(read(&old_path(&path)), "four\n");
        assert_eq!(file.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a"), folder.path().join("b"));
        let mut file = log_file(&path, 0);
        file.write(b"one\n", 0, false);
        fs::rename(&path, &moved).unwrap();
        file.looked = Instant::now() - LOOK_INTERVAL;
        file.write(b"two\n", 0, false);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let mut file = log_file(Path::new("/dev/full"), 0);
        file.write(b"one\ntwo\n", 3, false);
        assert_eq!(file.lost.load(Ordering::Relaxed), 5);
    }
}
