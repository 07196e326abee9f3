//! The log: which lines are printed, their format, and a thread that writes them to stderr.
//!
//! ```text
//!   tracing event ──> LineFormat ──> Repeats ──> LineQueue (at most 1 MB) ── every 20 ms ──> stderr
//!                                       │            └─ full: the line is dropped and counted
//!                                       └─ a warning with a known cause: counted, reported after a minute
//! ```
//!
//! At the default level the daemon logs no line per request: an outage must not fill the log, and nobody reads a line
//! for each hit. Warnings about the same cause are printed once and then counted ([`Repeats`]). A line costs a lock and
//! a copy, because a thread writes: a slow reader of stderr must not stall requests.
//!
//! Commands other than `serve` log little and write each line at once. Dropping the [`LineWriter`] writes the rest.
//!
//! Two names of fields have a meaning. `once` is the cause by which a warning counts as repeated, and is not printed.
//! Fields below `json.` are printed only in JSON, for numbers that the message already contains.

mod format;
mod repeats;
mod writer;

use std::{
    io::{self, IsTerminal as _, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use format::LineStyle;
pub use format::{LineFormat, LogFormat};
use repeats::Repeats;
pub use writer::{LineSink, LineWriter, Lines};

/// Time for which lines are collected before they are written together. A person does not notice it.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);

/// Amount of log output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// The daemon also logs its state and a line for each burst of requests; other commands log only warnings and
    /// errors.
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

/// Sends the events of this process to stderr. The daemon gets a [`LineWriter`], which must live as long as the
/// process.
pub fn start(verbosity: Verbosity, format: LogFormat, may_colour: bool) -> Option<LineWriter> {
    let style = LineStyle {
        format,
        colour: may_colour && io::stderr().is_terminal(),
    };
    let repeats = Arc::<Mutex<Repeats>>::default();
    let sink = LogSink {
        out: io::stderr(),
        style,
        repeats: repeats.clone(),
    };
    let writer = match verbosity.is_daemon {
        true => LineWriter::start("log", BATCH_INTERVAL, sink).ok(),
        false => None,
    };
    let queue = writer.as_ref().map(|writer| (writer.lines(), repeats));
    let _ = tracing_subscriber::registry()
        .with(verbosity.filter())
        .with(LineFormat::new(queue, style))
        .try_init();
    writer
}

/// Writes the log's lines, and the reports of repeated warnings as they become due.
struct LogSink<W> {
    out: W,
    style: LineStyle,
    repeats: Arc<Mutex<Repeats>>,
}

impl<W: Write + Send + 'static> LineSink for LogSink<W> {
    fn write(&mut self, lines: &[u8], lost: u64, is_last: bool) {
        let mut text = String::new();
        if lost > 0 {
            let message = format!("{lost} log lines were lost: stderr was read too slowly");
            self.style.line(&mut text, Level::WARN, &message, "");
        }
        let mut repeats = self.repeats.lock();
        let due = match is_last {
            true => repeats.all(Instant::now()),
            false => repeats.due(Instant::now()),
        };
        drop(repeats);
        for repeated in due {
            self.style.repeated(&mut text, &repeated);
        }
        // A closed stderr is ignored: there is no other place to report it.
        let _ = self.out.write_all(lines);
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }

    fn next_due(&self) -> Option<Instant> {
        self.repeats.lock().next_due()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Sent(mpsc::Sender<Vec<u8>>);

    impl Write for Sent {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(text.to_vec());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of a log in which `emit` runs.
    fn logged(format: LogFormat, emit: impl FnOnce()) -> Vec<String> {
        let (sender, written) = mpsc::channel();
        let style = LineStyle {
            format,
            colour: false,
        };
        let repeats = Arc::<Mutex<Repeats>>::default();
        let sink = LogSink {
            out: Sent(sender),
            style,
            repeats: repeats.clone(),
        };
        let writer = LineWriter::start("log", BATCH_INTERVAL, sink).unwrap();
        let layer = LineFormat::new(Some((writer.lines(), repeats)), style);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, emit);
        drop(writer);
        let text = written.iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn fail(resource: &str, why: &str) {
        tracing::warn!(once = why, resource, json.status = 424_u64, "not served");
    }

    #[test]
    fn a_warning_is_printed_once_for_each_cause_and_its_repeats_are_counted_at_the_end() {
        let lines = logged(LogFormat::Text, || {
            for name in ["a", "b", "c"] {
                fail(name, "offline");
            }
            fail("d", "full");
            tracing::info!("a line at another level");
            tracing::info!("a line at another level");
        });
        let parts = |line: &String| line.split_once(' ').unwrap().1.trim_start().to_owned();
        let lines: Vec<_> = lines.iter().map(parts).collect();
        assert_eq!(
            lines,
            [
                "WARN not served resource=a",
                "WARN not served resource=d",
                "INFO a line at another level",
                "INFO a line at another level",
                "WARN not served repeated=2 within=1m resource=c",
            ]
        );
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_for_json() {
        let lines = logged(LogFormat::Json, || {
            fail("crate `a \"1\"`", "offline");
            fail("b", "offline");
        });
        let parsed: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(parsed[0]["level"], "WARN");
        assert_eq!(parsed[0]["message"], "not served");
        assert_eq!(parsed[0]["resource"], "crate `a \"1\"`");
        assert_eq!(parsed[0]["status"], 424);
        assert_eq!(parsed[0]["once"], serde_json::Value::Null);
        assert!(parsed[0]["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            (&parsed[1]["repeated"], &parsed[1]["resource"]),
            (&1.into(), &"b".into())
        );
    }
}
