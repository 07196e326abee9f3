//! The log: the format of its lines, and a thread that writes them to stderr.
//!
//! The daemon logs every request. Writing each line by a system call would cost more than the rest of a small hit,
//! and a slow reader of stderr would stall requests. So requests append to a buffer, and one thread writes it out:
//!
//! ```text
//!   tracing event ──> LineFormat ──> LineQueue (at most 1 MB) ── every 20 ms ──> stderr
//!                                        └─ full: the line is dropped and counted
//! ```
//!
//! Commands other than `serve` log little and write each line at once. Dropping the [`LogWriter`] writes the rest.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write},
    mem,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::{Context, Layer, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// Time for which lines are collected before they are written together. A person does not notice it.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time that the exit waits for a reader of the last lines.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Buffered bytes above which further lines are dropped and counted.
const MAX_BUFFERED_BYTES: usize = 1 << 20;

/// Amount of log output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// The daemon logs every request; other commands log only warnings and errors.
    pub is_daemon: bool,
    /// Levels more (`-v`) or fewer (`-q`) than that.
    pub steps: i16,
}

impl Verbosity {
    fn filter(self) -> Targets {
        let larder_only = |level| Targets::new().with_target("larder", level);
        match (self.is_daemon, self.steps) {
            (true, 0) | (false, 1) => larder_only(LevelFilter::INFO),
            (true, -1) | (false, 0) => larder_only(LevelFilter::WARN),
            (true, 1) | (false, 2) => larder_only(LevelFilter::DEBUG),
            (_, ..=-1) => larder_only(LevelFilter::ERROR),
            (_, 1..) => Targets::new().with_default(LevelFilter::TRACE),
        }
    }
}

/// Sends the events of this process to stderr. The daemon gets a [`LogWriter`], which must live as long as the process.
pub fn start(verbosity: Verbosity, may_colour: bool) -> Option<LogWriter> {
    let log = if verbosity.is_daemon {
        LogWriter::to(io::stderr()).ok()
    } else {
        None
    };
    let colour = may_colour && io::stderr().is_terminal();
    let layout = LineFormat::new(log.as_ref().map(LogWriter::lines), colour);
    let _ = tracing_subscriber::registry()
        .with(verbosity.filter())
        .with(layout)
        .try_init();
    log
}

/// The writing thread. Dropping it writes the buffered lines, for [`FINAL_WRITE_TIMEOUT`] at most.
#[derive(Debug)]
pub struct LogWriter {
    lines: LogLines,
    /// Disconnected when the thread ends.
    ended: mpsc::Receiver<()>,
}

/// Appends lines to the buffer, one for each call of `write`.
#[derive(Clone, Debug, Default)]
pub struct LogLines(Arc<LineQueue>);

#[derive(Debug, Default)]
struct LineQueue {
    buffered: Mutex<BufferedLines>,
    /// Signals the first line after an empty buffer, and the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BufferedLines {
    text: Vec<u8>,
    /// Lines dropped since the last write.
    dropped: u64,
    /// Set when the process ends.
    is_closed: bool,
}

impl LogWriter {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = LogLines::default();
        let queue = lines.0.clone();
        let (alive, ended) = mpsc::channel();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let _alive: mpsc::Sender<()> = alive;
                queue.write_to(out);
            })?;
        Ok(Self { lines, ended })
    }

    /// A handle that appends lines.
    pub fn lines(&self) -> LogLines {
        self.lines.clone()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.lines.0.buffered.lock().is_closed = true;
        self.lines.0.changed.notify_one();
        // Disconnected: the thread has ended. Timed out: stderr has no reader, and the exit must not wait for one.
        let _ = self.ended.recv_timeout(FINAL_WRITE_TIMEOUT);
    }
}

impl LineQueue {
    fn write_to(&self, mut out: impl Write) {
        let mut text = Vec::new();
        loop {
            let mut buffered = self.buffered.lock();
            self.changed.wait_while(&mut buffered, |buffered| {
                buffered.text.is_empty() && !buffered.is_closed
            });
            let is_open = |buffered: &mut BufferedLines| !buffered.is_closed;
            self.changed
                .wait_while_for(&mut buffered, is_open, BATCH_INTERVAL);
            mem::swap(&mut buffered.text, &mut text);
            let dropped = mem::take(&mut buffered.dropped);
            let is_closed = buffered.is_closed;
            drop(buffered);
            // A closed stderr is ignored: there is no other place to report it.
            let _ = out.write_all(&text);
            if dropped > 0 {
                let _ = writeln!(
                    out,
                    "{dropped} log lines were lost: stderr was read too slowly"
                );
            }
            let _ = out.flush();
            if is_closed {
                return;
            }
            text.clear();
        }
    }
}

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut buffered = self.0.buffered.lock();
        let is_first = buffered.text.is_empty();
        if buffered.text.len() + line.len() > MAX_BUFFERED_BYTES {
            buffered.dropped += 1;
        } else {
            buffered.text.extend_from_slice(line);
        }
        drop(buffered);
        if is_first {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats each event as a line: time, level, message, and the other fields as `name=value`. It runs once per
/// request, so it reuses its buffers.
#[derive(Debug)]
pub struct LineFormat {
    /// The writing thread; without it, lines go to stderr at once.
    lines: Option<LogLines>,
    /// Colour the levels.
    colour: bool,
}

impl LineFormat {
    /// A format for lines that a thread writes, or, without one, that go to stderr at once.
    pub fn new(lines: Option<LogLines>, colour: bool) -> Self {
        Self { lines, colour }
    }
}

impl<S: Subscriber> Layer<S> for LineFormat {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static LINE: RefCell<(Fields, CachedSecond)> = RefCell::default();
        }
        LINE.with_borrow_mut(|(Fields { line, rest }, second)| {
            line.clear();
            rest.clear();
            let level = *event.metadata().level();
            let (before, after) = match level {
                _ if !self.colour => ("", ""),
                Level::ERROR => ("\x1b[31m", "\x1b[0m"),
                Level::WARN => ("\x1b[33m", "\x1b[0m"),
                Level::INFO => ("\x1b[32m", "\x1b[0m"),
                _ => ("\x1b[2m", "\x1b[0m"),
            };
            second.write(line, crate::clock::now());
            let _ = write!(line, " {before}{:>5}{after}", level.as_str());
            let mut fields = Fields {
                line: mem::take(line),
                rest: mem::take(rest),
            };
            event.record(&mut fields);
            fields.line.push_str(&fields.rest);
            fields.line.push('\n');
            let text = fields.line.as_bytes();
            // A closed stderr is ignored.
            let _ = match &self.lines {
                Some(lines) => lines.clone().write_all(text),
                None => io::stderr().write_all(text),
            };
            (*line, *rest) = (fields.line, fields.rest);
        });
    }
}

/// A line that is being formatted: `line` has time, level and message, `rest` the other fields.
#[derive(Default)]
struct Fields {
    line: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.line, " {value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // A value without spaces and quotes is written without quotes.
        if value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"')
            && !value.is_empty()
        {
            self.rest.push(' ');
            self.rest.push_str(field.name());
            self.rest.push('=');
            self.rest.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.push(' ');
        self.rest.push_str(field.name());
        self.rest.push('=');
        push_number(&mut self.rest, value, 1);
    }
}

/// The text of the last second in which a line was written, without its fraction. Most lines share it with the one
/// before.
#[derive(Default)]
struct CachedSecond {
    since_1970: Option<u64>,
    text: String,
}

impl CachedSecond {
    /// Appends the time in RFC 3339, with microseconds.
    fn write(&mut self, line: &mut String, now: SystemTime) {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.since_1970 != Some(since.as_secs()) {
            self.since_1970 = Some(since.as_secs());
            self.text.clear();
            let start = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            let _ = write!(self.text, "{}", humantime::format_rfc3339_seconds(start));
            // The final `Z` follows the fraction.
            self.text.truncate(self.text.len().saturating_sub(1));
        }
        line.push_str(&self.text);
        line.push('.');
        push_number(line, since.subsec_micros().into(), 6);
        line.push('Z');
    }
}

/// Appends a number with at least `digits` digits.
fn push_number(text: &mut String, mut number: u64, digits: usize) {
    let mut all = [b'0'; 20];
    let mut at = all.len();
    while number > 0 {
        at -= 1;
        all[at] += (number % 10) as u8;
        number /= 10;
    }
    let at = at.min(all.len() - digits);
    text.push_str(std::str::from_utf8(&all[at..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_times_and_numbers_like_the_standard_formatters() {
        let mut second = CachedSecond::default();
        for micros in [0, 1, 999_999, 1_000_000, 1_800_000_000_123_456] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut line = String::new();
            second.write(&mut line, now);
            assert_eq!(line, humantime::format_rfc3339_micros(now).to_string());
        }
        for number in [0, 7, 10, 1234, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number, 1);
            assert_eq!(text, number.to_string());
        }
    }

    /// A writer that waits for permission before each write and sends on the bytes of each call.
    struct SlowWriter(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for SlowWriter {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.1.recv();
            let _ = self.0.send(text.to_vec());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_lines_in_batches_and_the_rest_on_drop() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let log = LogWriter::to(SlowWriter(sender, wait)).unwrap();
        let mut lines = log.lines();
        for line in ["one\n", "two\n", "three\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        go.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), b"one\ntwo\nthree\n");
        lines.write_all(b"four\n").unwrap();
        drop(go);
        drop(log);
        assert_eq!(written.recv().unwrap(), b"four\n");
        assert!(written.recv().is_err());
    }

    #[test]
    fn drops_and_counts_lines_when_the_reader_is_slow() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let log = LogWriter::to(SlowWriter(sender, wait)).unwrap();
        let line = [b'x'; 1000];
        let mut lines = log.lines();
        for _ in 0..3 * MAX_BUFFERED_BYTES / line.len() {
            lines.write_all(&line).unwrap();
        }
        assert!(log.lines.0.buffered.lock().text.capacity() <= 2 * MAX_BUFFERED_BYTES);
        drop(go);
        drop(log);
        let text: Vec<u8> = written.iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("log lines were lost"));
        assert!(text.len() <= 2 * MAX_BUFFERED_BYTES + 1000);
    }
}
