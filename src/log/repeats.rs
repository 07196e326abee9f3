//! [`Repeats`]: decides which warnings are printed, and which are only counted.
//!
//! ```text
//!   first of a cause ──> printed ── 1 min ──> "repeated=13 within=1m" ── 10 min ──> "repeated=130 within=10m" ──> ...
//!                          └ others of this cause are counted              └ none came: the cause is forgotten
//! ```
//!
//! It has no clock: callers pass the time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracing::Level;

/// Time after the first warning of a cause after which its repeats are reported.
const FIRST_WINDOW: Duration = Duration::from_secs(60);
/// The same for all further reports of that cause.
const NEXT_WINDOW: Duration = Duration::from_secs(600);
/// Causes that are remembered. Warnings of further ones are all printed.
const MAX_CAUSES: usize = 1000;

/// The causes of recent warnings.
#[derive(Debug, Default)]
pub(super) struct Repeats(HashMap<u64, Window>);

#[derive(Debug)]
struct Window {
    began: Instant,
    length: Duration,
    count: u64,
    last: Option<Suppressed>,
}

/// A warning that was not printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) level: Level,
    pub(super) message: String,
    /// The other fields, formatted.
    pub(super) fields: String,
}

/// A line about warnings that were not printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    pub(super) count: u64,
    pub(super) within: Duration,
    /// The last of them.
    pub(super) last: Suppressed,
}

impl Repeats {
    /// Takes note of a warning with this cause. Returns whether it is printed; `suppressed` makes a copy of one that
    /// is not.
    pub(super) fn note(
        &mut self,
        cause: u64,
        now: Instant,
        suppressed: impl FnOnce() -> Suppressed,
    ) -> bool {
        if let Some(window) = self.0.get_mut(&cause)
            && (window.count > 0 || now < window.end())
        {
            window.count += 1;
            window.last = Some(suppressed());
            return false;
        }
        if self.0.len() >= MAX_CAUSES {
            self.0
                .retain(|_, window| window.count > 0 || now < window.end());
        }
        if self.0.len() < MAX_CAUSES {
            let window = Window {
                began: now,
                length: FIRST_WINDOW,
                count: 0,
                last: None,
            };
            self.0.insert(cause, window);
        }
        true
    }

    /// The reports that are due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Repeated> {
        self.take(|window| window.end() <= now, now)
    }

    /// All reports, due or not.
    pub(super) fn all(&mut self, now: Instant) -> Vec<Repeated> {
        self.take(|_| true, now)
    }

    /// When the next report is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let windows = self.0.values().filter(|window| window.count > 0);
        windows.map(Window::end).min()
    }

    fn take(&mut self, is_due: impl Fn(&Window) -> bool, now: Instant) -> Vec<Repeated> {
        let mut due = Vec::new();
        for window in self.0.values_mut().filter(|window| is_due(window)) {
            if let Some(last) = window.last.take() {
                due.push(Repeated {
                    count: window.count,
                    within: window.length,
                    last,
                });
                (window.began, window.length, window.count) = (now, NEXT_WINDOW, 0);
            }
        }
        due
    }
}

impl Window {
    fn end(&self) -> Instant {
        self.began + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Suppressed {
        Suppressed {
            level: Level::WARN,
            message: text.to_owned(),
            fields: String::new(),
        }
    }

    #[test]
    fn first_warning_is_printed_and_others_are_counted_until_the_window_ends() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        assert!(repeats.note(1, at(0), || line("a")));
        assert_eq!(repeats.next_due(), None, "nothing to report");
        assert!(!repeats.note(1, at(1), || line("b")));
        assert!(repeats.note(2, at(2), || line("other")));
        assert!(!repeats.note(1, at(59), || line("c")));
        assert_eq!(repeats.next_due(), Some(at(60)));
        assert_eq!(repeats.due(at(59)), []);
        let expected = |count, minutes: u64, text| Repeated {
            count,
            within: Duration::from_secs(60 * minutes),
            last: line(text),
        };
        assert_eq!(repeats.due(at(60)), [expected(2, 1, "c")]);
        assert!(
            !repeats.note(1, at(100), || line("d")),
            "still the same trouble"
        );
        assert_eq!(repeats.due(at(659)), []);
        assert_eq!(repeats.due(at(660)), [expected(1, 10, "d")]);
        assert_eq!(repeats.next_due(), None);
        assert!(repeats.note(1, at(1260), || line("e")), "ten quiet minutes");
    }

    #[test]
    fn a_report_that_comes_late_loses_no_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        assert!(repeats.note(1, at(0), || line("a")));
        assert!(!repeats.note(1, at(1), || line("b")));
        assert!(
            !repeats.note(1, at(500), || line("c")),
            "the report is overdue"
        );
        assert_eq!(repeats.all(at(501))[0].count, 2);
    }

    #[test]
    fn number_of_causes_is_bounded() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        for cause in 0..3 * MAX_CAUSES as u64 {
            assert!(repeats.note(cause, start, || line("a")));
        }
        assert_eq!(repeats.0.len(), MAX_CAUSES);
        assert!(repeats.note(u64::MAX, start + FIRST_WINDOW, || line("a")));
        assert_eq!(repeats.0.len(), 1, "old causes make room");
    }
}
