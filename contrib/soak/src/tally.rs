//! Counts of a run, and the findings that make it fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::truth::Verdict;

/// Findings beyond this number are only counted.
const MAX_FINDINGS: usize = 40;

/// Shared by all clients of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) right: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) cut_wrong: AtomicU64,
    pub(crate) wrong: AtomicU64,
    /// Requests without an answer: the daemon was down, was killed, or took longer than the client waits.
    pub(crate) unanswered: AtomicU64,
    pub(crate) bytes: AtomicU64,
    refused: Mutex<BTreeMap<u16, u64>>,
    /// Other things worth counting, by name.
    events: Mutex<BTreeMap<&'static str, u64>>,
    findings: Mutex<Vec<String>>,
    unlisted: AtomicU64,
}

impl Tally {
    /// Counts one answer with this number of bytes.
    pub(crate) fn answer(&self, verdict: &Verdict, bytes: usize) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        match verdict {
            Verdict::Right => add(&self.right),
            Verdict::Cut => add(&self.cut),
            Verdict::CutWrong => add(&self.cut_wrong),
            Verdict::Refused(status) => {
                let mut refused = self.refused.lock().expect("no holder of this lock panics");
                *refused.entry(*status).or_default() += 1;
                0
            }
            Verdict::Wrong(why) => {
                self.finding(why);
                add(&self.wrong)
            }
        };
    }

    pub(crate) fn no_answer(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event by its name.
    pub(crate) fn event(&self, name: &'static str) {
        self.events(name, 1);
    }

    /// Counts some events of one name.
    pub(crate) fn events(&self, name: &'static str, count: u64) {
        let mut events = self.events.lock().expect("no holder of this lock panics");
        *events.entry(name).or_default() += count;
    }

    /// Records a finding: the run has failed.
    pub(crate) fn finding(&self, what: &str) {
        let mut findings = self.findings.lock().expect("no holder of this lock panics");
        if findings.len() < MAX_FINDINGS {
            findings.push(what.to_owned());
        } else {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks for findings in a daemon's log, and counts the files that it says to have evicted.
    pub(crate) fn log(&self, log: &str) {
        for line in log.lines() {
            let is_damage = line.contains("damaged") && !line.contains("damaged=0");
            if is_damage || line.contains("panicked") || line.contains(" ERROR ") {
                self.finding(&format!("the log says: {line}"));
            }
            if line.contains("served but not stored") {
                self.event("answers that the disk did not take");
            }
            if let Some((_, rest)) = line.split_once("removed unused files files=") {
                let files = rest.split(' ').next().and_then(|files| files.parse().ok());
                self.events("files removed by daemons", files.unwrap_or_default());
            }
        }
    }

    /// All findings so far.
    pub(crate) fn findings(&self) -> Vec<String> {
        let findings = self.findings.lock().expect("no holder of this lock panics");
        let mut findings = findings.clone();
        match self.unlisted.load(Ordering::Relaxed) {
            0 => {}
            more => findings.push(format!("and {more} more")),
        }
        findings
    }

    /// The counts as lines of a table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, number: u64| {
            let _ = writeln!(text, "{name:<44} {number:>10}");
        };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused = self.refused.lock().expect("no holder of this lock panics");
        let cut = get(&self.cut) + get(&self.cut_wrong);
        let all = get(&self.right) + cut + get(&self.wrong) + get(&self.unanswered);
        line("requests", all + refused.values().sum::<u64>());
        line("  right and complete", get(&self.right));
        line("  cut off after right bytes", get(&self.cut));
        line("  cut off, falsified by upstream", get(&self.cut_wrong));
        line("  without an answer", get(&self.unanswered));
        for (status, count) in refused.iter() {
            line(&format!("  refused with {status}"), *count);
        }
        line("  WRONG", get(&self.wrong));
        line("megabytes received", get(&self.bytes) / 1_000_000);
        let events = self.events.lock().expect("no holder of this lock panics");
        for (name, count) in events.iter() {
            line(name, *count);
        }
        text
    }
}
