//! Hysteresis for the states that the log reports: an upstream that fails and recovers many times in a minute fills a
//! few lines, not hundreds.
//!
//! ```text
//!  state   ─up─┐     ┌up┐ ┌up┐ ┌up┐ ┌─────────── up ──────────
//!              └down─┘  └─┘  └─┘  └─┘
//!  line        "down"        "unsteady"        "up"
//!              at once       [`STEADY_AFTER`]  [`STEADY_AFTER`] after
//!                            after the line    the last change
//! ```
//!
//! A state is reported at once, unless it was entered within [`STEADY_AFTER`] of the last report. Then it is reported
//! when it has lasted for [`STEADY_AFTER`]. Between two reported states stands at most one [`Report::Unsteady`].
//!
//! The type has no clock: callers pass the time, and ask [`Hysteresis::next_poll`] when to call again.

use std::time::{Duration, Instant};

/// Time after a report in which a new state must last before it is reported too.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Changes since the last reported state from which the state counts as unsteady. Two are an interruption.
const UNSTEADY_CHANGES: u32 = 3;

/// The state of one thing, as it is and as it was reported.
#[derive(Debug)]
pub(super) struct Hysteresis<S> {
    state: S,
    /// The state that was reported last; the initial one before the first report.
    reported: S,
    /// When the last report was made; `None` before the first.
    reported_at: Option<Instant>,
    /// When the present state was entered, if changes are not reported yet.
    entered_at: Option<Instant>,
    /// Changes since the last reported state.
    changes: u32,
    /// True if [`Report::Unsteady`] was the last report.
    is_unsteady: bool,
}

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report<S> {
    /// The state is this one now, after this number of changes since the last reported state.
    State(S, u32),
    /// The state has changed this number of times and has not lasted.
    Unsteady(u32),
}

impl<S: Copy + Eq> Hysteresis<S> {
    /// Begins in a state that needs no report.
    pub(super) fn new(state: S) -> Self {
        Self {
            state,
            reported: state,
            reported_at: None,
            entered_at: None,
            changes: 0,
            is_unsteady: false,
        }
    }

    /// Enters `state` at `now`.
    pub(super) fn enter(&mut self, state: S, now: Instant) -> Option<Report<S>> {
        if state != self.state {
            self.state = state;
            self.entered_at = Some(now);
            self.changes = self.changes.saturating_add(1);
        }
        self.poll(now)
    }

    /// The report that is due at `now`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Report<S>> {
        let entered_at = self.entered_at?;
        let has_lasted = has_passed(entered_at, now);
        let is_news = self.state != self.reported || self.is_unsteady;
        if has_lasted && !is_news {
            // The state left the reported one and came back.
            (self.entered_at, self.changes) = (None, 0);
            return None;
        }
        let was_calm = !self.is_unsteady && self.is_calm_since_report(entered_at);
        if is_news && (has_lasted || was_calm) {
            let report = Report::State(self.state, self.changes);
            self.reported = self.state;
            self.reported_at = Some(now);
            (self.entered_at, self.changes, self.is_unsteady) = (None, 0, false);
            return Some(report);
        }
        let is_due = self.unsteady_at().is_some_and(|at| at <= now);
        is_due.then(|| {
            self.is_unsteady = true;
            self.reported_at = Some(now);
            Report::Unsteady(self.changes)
        })
    }

    /// When [`Hysteresis::poll`] may have a report, if no state is entered before.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        let lasting_at = self.entered_at? + STEADY_AFTER;
        Some(match self.unsteady_at() {
            Some(unsteady_at) => lasting_at.min(unsteady_at),
            None => lasting_at,
        })
    }

    /// Returns whether `time` is later than [`STEADY_AFTER`] after the last report.
    fn is_calm_since_report(&self, time: Instant) -> bool {
        self.reported_at.is_none_or(|at| has_passed(at, time))
    }

    /// When [`Report::Unsteady`] is due, if the state does not last.
    fn unsteady_at(&self) -> Option<Instant> {
        let is_due = self.changes >= UNSTEADY_CHANGES && !self.is_unsteady;
        self.reported_at
            .filter(|_| is_due)
            .map(|at| at + STEADY_AFTER)
    }
}

fn has_passed(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= STEADY_AFTER
}

#[cfg(test)]
mod tests {
    use super::{Report::*, *};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum S {
        Up,
        Down,
        Slow,
    }
    use S::{Down, Slow, Up};

    /// Enters each state at its time in milliseconds and polls in between whenever a report may be due. Returns the
    /// reports with their times.
    fn reports(events: &[(u64, S)], end: u64) -> Vec<(u64, Report<S>)> {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let mut hysteresis = Hysteresis::new(Up);
        let mut reports = Vec::new();
        let events = events.iter().map(|(time, state)| (*time, Some(*state)));
        for (time, state) in events.chain([(end, None)]) {
            while let Some(due) = hysteresis.next_poll().filter(|due| *due < at(time)) {
                let report = hysteresis.poll(due);
                let millis = (due - zero).as_millis() as u64;
                reports.extend(report.map(|report| (millis, report)));
                let next = hysteresis.next_poll();
                assert!(next.is_none_or(|next| next > due), "it polls for ever");
            }
            let report = match state {
                Some(state) => hysteresis.enter(state, at(time)),
                None => hysteresis.poll(at(time)),
            };
            reports.extend(report.map(|report| (time, report)));
        }
        assert_eq!(hysteresis.next_poll(), None, "something is left");
        reports
    }

    #[test]
    fn changes_far_apart_are_reported_at_once() {
        let events = [(0, Down), (10_000, Up), (60_000, Slow), (70_000, Down)];
        let expected = events.map(|(time, state)| (time, State(state, 1)));
        assert_eq!(reports(&events, 100_000), expected);
    }

    #[test]
    fn a_quick_recovery_is_reported_when_it_has_lasted() {
        let expected = [(0, State(Down, 1)), (12_000, State(Up, 1))];
        assert_eq!(reports(&[(0, Down), (2_000, Up)], 100_000), expected);
    }

    #[test]
    fn eight_changes_in_two_seconds_are_three_lines() {
        let events: Vec<_> = (0..8)
            .map(|number| (number * 250, if number % 2 == 0 { Down } else { Up }))
            .collect();
        let expected = [
            (0, State(Down, 1)),
            (10_000, Unsteady(7)),
            (11_750, State(Up, 7)),
        ];
        assert_eq!(reports(&events, 100_000), expected);
    }

    #[test]
    fn an_hour_of_changes_is_three_lines_with_the_last_state() {
        let events: Vec<_> = (0..14_400)
            .map(|number| (number * 250, if number % 2 == 0 { Down } else { Up }))
            .collect();
        let found = reports(&events, 4_000_000);
        let kinds: Vec<_> = found.iter().map(|(_, report)| *report).collect();
        assert_eq!(kinds, [State(Down, 1), Unsteady(40), State(Up, 14_399)]);
    }

    #[test]
    fn an_interruption_of_the_reported_state_is_not_reported() {
        let events = [(0, Down), (1_000, Up), (1_100, Down)];
        assert_eq!(reports(&events, 100_000), [(0, State(Down, 1))]);
    }

    #[test]
    fn a_state_that_is_entered_again_changes_nothing() {
        let events = [(0, Down), (1_000, Down), (9_000, Down), (20_000, Down)];
        assert_eq!(reports(&events, 100_000), [(0, State(Down, 1))]);
        assert!(reports(&[(0, Up), (20_000, Up)], 100_000).is_empty());
    }
}
