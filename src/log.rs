//! Log lines: how they look, and a thread of their own that writes them, many at a time where there are many, so that no
//! request waits for whoever reads them and none pays for a system call. What the lines say is for others.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::{Context, Layer, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// How long a line waits for others. Nobody reads faster.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the end waits for somebody to read the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The most that waits, in bytes, when nobody reads what is written. Further lines are lost and counted.
const LIMIT: usize = 1 << 20;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// The daemon logs every request; other commands log only trouble.
    pub is_daemon: bool,
    /// Steps above (`-v`) or below (`-q`) that.
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

/// Sends the process's events to stderr: for the daemon through a thread of its own, which ends when the [`Log`] is dropped.
pub fn start(verbosity: Verbosity, may_colour: bool) -> Option<Log> {
    let log = if verbosity.is_daemon {
        Log::to(io::stderr()).ok()
    } else {
        None
    };
    let colour = may_colour && io::stderr().is_terminal();
    let layout = Layout::new(log.as_ref().map(Log::lines), colour);
    let _ = tracing_subscriber::registry()
        .with(verbosity.filter())
        .with(layout)
        .try_init();
    log
}

/// The thread that writes. When it is dropped, what is waiting is written, if anybody reads it.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    /// Closed when the thread ends.
    end: mpsc::Receiver<()>,
}

/// Where lines are handed in, each by one call of `write`.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told of the first line after a pause, and of the end.
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lost: u64,
    is_over: bool,
}

impl Log {
    /// Begins to write to `out`.
    ///
    /// # Errors
    /// What the system said, if there can be no thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Lines::default();
        let shared = lines.0.clone();
        let (ending, end) = mpsc::channel();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let _ending = ending;
                shared.write_to(out);
            })?;
        Ok(Self { lines, end })
    }

    /// Where to hand in lines.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.0.lock().is_over = true;
        self.lines.0.news.notify_one();
        // Either way there is nothing more to do.
        let _ = self.end.recv_timeout(LAST_WORDS);
    }
}

impl Shared {
    fn write_to(&self, mut out: impl Write) {
        let mut text = Vec::new();
        loop {
            let waiting = self.lock();
            let waiting = self
                .news
                .wait_while(waiting, |waiting| {
                    waiting.text.is_empty() && !waiting.is_over
                })
                .unwrap_or_else(PoisonError::into_inner);
            let (mut waiting, _) = self
                .news
                .wait_timeout_while(waiting, PAUSE, |waiting| !waiting.is_over)
                .unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut waiting.text, &mut text);
            let lost = mem::take(&mut waiting.lost);
            let is_over = waiting.is_over;
            drop(waiting);
            // Nobody is left to tell.
            let _ = out.write_all(&text);
            if lost > 0 {
                let _ = writeln!(
                    out,
                    "{lost} log lines were lost: nobody read them fast enough"
                );
            }
            let _ = out.flush();
            if is_over {
                return;
            }
            text.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        let is_first = waiting.text.is_empty();
        if waiting.text.len() + line.len() > LIMIT {
            waiting.lost += 1;
        } else {
            waiting.text.extend_from_slice(line);
        }
        drop(waiting);
        if is_first {
            self.0.news.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a line of each event: time, level, what happened, and the rest as `name=value`. Every request has one, so it is
/// kept to what that needs.
#[derive(Debug)]
pub struct Layout {
    /// Where lines go; to stderr at once, without it.
    lines: Option<Lines>,
    /// Whether levels are coloured.
    colour: bool,
}

impl Layout {
    /// Lines for a thread to write, or, without one, for stderr.
    pub fn new(lines: Option<Lines>, colour: bool) -> Self {
        Self { lines, colour }
    }
}

impl<S: Subscriber> Layer<S> for Layout {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static LINE: RefCell<(Fields, Second)> = RefCell::default();
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
            // Nobody is left to tell.
            let _ = match &self.lines {
                Some(lines) => lines.clone().write_all(text),
                None => io::stderr().write_all(text),
            };
            (*line, *rest) = (fields.line, fields.rest);
        });
    }
}

/// A line in the making: the message follows what is in `line` already, the other fields wait in `rest`.
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
        // Words that need no quotes get none.
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

/// The last second that a line was written in, and how it looks, up to the fraction: most lines have it in common.
#[derive(Default)]
struct Second {
    since_1970: Option<u64>,
    text: String,
}

impl Second {
    /// Writes the time, with microseconds.
    fn write(&mut self, line: &mut String, now: SystemTime) {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.since_1970 != Some(since.as_secs()) {
            self.since_1970 = Some(since.as_secs());
            self.text.clear();
            let start = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            let _ = write!(self.text, "{}", humantime::format_rfc3339_seconds(start));
            // What ends it follows the fraction.
            self.text.truncate(self.text.len().saturating_sub(1));
        }
        line.push_str(&self.text);
        line.push('.');
        push_number(line, since.subsec_micros().into(), 6);
        line.push('Z');
    }
}

/// Writes a number with at least so many digits.
fn push_number(text: &mut String, mut number: u64, digits: usize) {
    let mut all = [b'0'; 20];
    let mut at = all.len();
    while number > 0 {
        at -= 1;
        // One digit.
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
    fn times_and_numbers_look_as_everywhere() {
        let mut second = Second::default();
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

    /// Takes what is written in one call as one piece, once it is let.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
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
    fn lines_come_out_whole_in_order_and_together_and_none_is_left_at_the_end() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let log = Log::to(Slow(sender, wait)).unwrap();
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
    fn who_does_not_read_costs_lines_and_neither_time_nor_memory() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let log = Log::to(Slow(sender, wait)).unwrap();
        let line = [b'x'; 1000];
        let mut lines = log.lines();
        for _ in 0..3 * LIMIT / line.len() {
            lines.write_all(&line).unwrap();
        }
        assert!(log.lines.0.lock().text.capacity() <= 2 * LIMIT);
        drop(go);
        drop(log);
        let text: Vec<u8> = written.iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("log lines were lost"));
        assert!(text.len() <= 2 * LIMIT + 1000);
    }
}
