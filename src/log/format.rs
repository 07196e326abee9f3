//! [`LineFormat`]: formats each event as a line, in text or JSON, and leaves out repeated warnings.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use super::{
    repeats::{Repeated, Repeats, Suppressed},
    writer::Lines,
};

/// Fields whose text tells the cause of a warning, unless it has a field `once`.
const CAUSES: [&str; 4] = ["error", "cause", "reason", "why"];
/// Name of the field with the cause.
const ONCE: &str = "once";
/// Prefix of the fields that only JSON has.
const JSON_ONLY: &str = "json.";

/// Format of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, message, `name=value`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineStyle {
    pub(super) format: LogFormat,
    /// Colour the levels.
    pub(super) colour: bool,
}

/// Formats events, and hands the lines to a queue or to stderr.
#[derive(Debug)]
pub struct LineFormat {
    /// The writing thread and the warnings that it will report; without them, lines go to stderr at once, and all are
    /// printed.
    queue: Option<(Lines, Arc<Mutex<Repeats>>)>,
    style: LineStyle,
}

impl LineFormat {
    pub(super) fn new(queue: Option<(Lines, Arc<Mutex<Repeats>>)>, style: LineStyle) -> Self {
        Self { queue, style }
    }

    /// Returns whether the event is printed.
    fn is_printed(&self, event: &Event<'_>, fields: &Fields) -> bool {
        let level = *event.metadata().level();
        let Some((lines, repeats)) = self.queue.as_ref().filter(|_| level <= Level::WARN) else {
            return true;
        };
        let mut hasher = DefaultHasher::new();
        event.metadata().callsite().hash(&mut hasher);
        match fields.cause.is_empty() {
            true => (&fields.message, &fields.rest).hash(&mut hasher),
            false => fields.cause.hash(&mut hasher),
        }
        let suppressed = || Suppressed {
            level,
            message: fields.message.clone(),
            fields: fields.rest.clone(),
        };
        let is_printed = repeats
            .lock()
            .note(hasher.finish(), Instant::now(), suppressed);
        if !is_printed {
            // The thread must wake up for the report.
            lines.wake();
        }
        is_printed
    }
}

impl<S: Subscriber> Layer<S> for LineFormat {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static BUFFERS: RefCell<(Fields, String)> = RefCell::default();
        }
        // An event within the formatting of another one finds the buffers in use, and takes new ones.
        let (mut fields, mut line) = BUFFERS.take();
        line.clear();
        fields.start(self.style.format);
        event.record(&mut fields);
        if self.is_printed(event, &fields) {
            let level = *event.metadata().level();
            self.style
                .line(&mut line, level, &fields.message, &fields.rest);
            match &self.queue {
                Some((lines, _)) => {
                    lines.push(line.as_bytes());
                }
                // A closed stderr is ignored.
                None => drop(io::stderr().write_all(line.as_bytes())),
            }
        }
        BUFFERS.set((fields, line));
    }
}

impl LineStyle {
    /// Appends a line with the present time. `fields` are formatted already.
    pub(super) fn line(self, line: &mut String, level: Level, message: &str, fields: &str) {
        thread_local! {
            static SECOND: RefCell<CachedSecond> = RefCell::default();
        }
        let write_time = |line: &mut String| {
            SECOND.with_borrow_mut(|second| second.write(line, crate::clock::now()));
        };
        match self.format {
            LogFormat::Text => {
                write_time(line);
                let (before, after) = match level {
                    _ if !self.colour => ("", ""),
                    Level::ERROR => ("\x1b[31m", "\x1b[0m"),
                    Level::WARN => ("\x1b[33m", "\x1b[0m"),
                    Level::INFO => ("\x1b[32m", "\x1b[0m"),
                    _ => ("\x1b[2m", "\x1b[0m"),
                };
                let _ = write!(line, " {before}{:>5}{after}", level.as_str());
                if !message.is_empty() {
                    line.push(' ');
                    line.push_str(message);
                }
                line.push_str(fields);
            }
            LogFormat::Json => {
                line.push_str("{\"time\":\"");
                write_time(line);
                let _ = write!(line, "\",\"level\":\"{level}\",\"message\":");
                push_json(line, message);
                line.push_str(fields);
                line.push('}');
            }
        }
        line.push('\n');
    }

    /// Appends a line about warnings that were not printed, with the fields of the last one.
    pub(super) fn repeated(self, line: &mut String, repeated: &Repeated) {
        let Repeated {
            count,
            within,
            last,
        } = repeated;
        let mut fields = Fields::default();
        fields.start(self.format);
        fields.number("repeated", *count);
        fields.text("within", &humantime::format_duration(*within).to_string());
        fields.rest.push_str(&last.fields);
        self.line(line, last.level, &last.message, &fields.rest);
    }
}

/// The fields of an event: the message, the cause by which it counts as repeated, and the others, formatted.
#[derive(Debug, Default)]
struct Fields {
    format: LogFormat,
    message: String,
    cause: String,
    rest: String,
    /// True if `cause` comes from the field `once`.
    has_once: bool,
}

impl Fields {
    fn start(&mut self, format: LogFormat) {
        self.format = format;
        self.has_once = false;
        for text in [&mut self.message, &mut self.cause, &mut self.rest] {
            text.clear();
        }
    }

    /// The name under which a field is printed; `None` if it is not.
    fn shown<'a>(&self, name: &'a str) -> Option<&'a str> {
        match (name.strip_prefix(JSON_ONLY), self.format) {
            (Some(name), LogFormat::Json) => Some(name),
            (Some(_), LogFormat::Text) => None,
            (None, _) => Some(name),
        }
    }

    fn begin(&mut self, name: &str) {
        match self.format {
            LogFormat::Text => {
                self.rest.push(' ');
                self.rest.push_str(name);
                self.rest.push('=');
            }
            LogFormat::Json => {
                self.rest.push(',');
                push_json(&mut self.rest, name);
                self.rest.push(':');
            }
        }
    }

    /// Appends a field with a text. Text without spaces and quotes is written without quotes.
    fn text(&mut self, name: &str, value: &str) {
        let Some(name) = self.shown(name) else { return };
        self.begin(name);
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
        match self.format {
            LogFormat::Json => push_json(&mut self.rest, value),
            LogFormat::Text if !value.is_empty() && value.bytes().all(is_plain) => {
                self.rest.push_str(value);
            }
            LogFormat::Text => drop(write!(self.rest, "{value:?}")),
        }
    }

    fn number(&mut self, name: &str, value: impl fmt::Display) {
        let Some(name) = self.shown(name) else { return };
        self.begin(name);
        let _ = write!(self.rest, "{value}");
    }

    fn note_cause(&mut self, name: &str, value: &dyn fmt::Debug) {
        if name == ONCE {
            self.has_once = true;
            self.cause.clear();
        } else if self.has_once || !CAUSES.contains(&name) {
            return;
        }
        let _ = write!(self.cause, "{value:?}");
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        self.note_cause(name, value);
        match name {
            ONCE => {}
            "message" => drop(write!(self.message, "{value:?}")),
            name => self.text(name, &format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let name = field.name();
        self.note_cause(name, &value);
        match name {
            ONCE => {}
            "message" => self.message.push_str(value),
            name => self.text(name, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), value);
    }
}

/// Appends a text as a JSON string.
fn push_json(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
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
        let _ = write!(line, "{}.{:06}Z", self.text, since.subsec_micros());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_times_like_the_standard_formatter() {
        let mut second = CachedSecond::default();
        for micros in [0, 1, 999_999, 1_000_000, 1_800_000_000_123_456] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut line = String::new();
            second.write(&mut line, now);
            assert_eq!(line, humantime::format_rfc3339_micros(now).to_string());
        }
    }
}
