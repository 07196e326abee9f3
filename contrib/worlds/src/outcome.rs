//! The comparison of larder's verdict with the client's result.

use std::process::Output;

use serde_json::Value;
use testkit::process::Run;

/// The verdict of `larder check`.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// By exit code and document; `None` if they contradict each other.
    pub(crate) is_ready: Option<bool>,
    /// The document.
    pub(crate) document: Value,
    /// Everything that larder printed.
    pub(crate) text: String,
}

impl Verdict {
    /// Reads the output of `larder check --json` on a folder, as the verdict on the project whose folder has this end.
    /// Other projects below the folder may lack something, for example a folder with a patched crate.
    pub(crate) fn of_project(output: &Output, folder: &str) -> Self {
        let mut verdict = Self::read(output);
        let projects = verdict.document["projects"].as_array();
        let mut projects = projects.into_iter().flatten();
        let own = projects.find(|project| {
            let path = project["path"].as_str().unwrap_or_default();
            path.ends_with(folder)
        });
        let has_failed = verdict.document["failed"]
            .as_array()
            .is_none_or(|failed| !failed.is_empty());
        if verdict.is_ready == Some(false) && !has_failed {
            verdict.is_ready = own.and_then(|own| own["ready"].as_bool());
        }
        verdict
    }

    /// Reads the output of `larder check --json`.
    pub(crate) fn read(output: &Output) -> Self {
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let is_consistent = |list: &str| {
            let mut items = document[list].as_array().into_iter().flatten();
            items.all(|item| item["ready"] == true)
        };
        let is_ready = match (output.status.code(), document["ready"].as_bool()) {
            (Some(0), Some(true)) if is_consistent("projects") && is_consistent("toolchains") => {
                Some(true)
            }
            (Some(1), Some(false)) => Some(false),
            _ => None,
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        Self {
            is_ready,
            text: format!("check ended with {}: {document:#}\n{errors}", output.status),
            document,
        }
    }
}

/// The result of a client that had only larder.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) succeeds: bool,
    /// The command and what it printed.
    pub(crate) text: String,
}

impl From<Run> for Truth {
    fn from(run: Run) -> Self {
        Self {
            succeeds: run.status.success(),
            text: format!("{run:?}"),
        }
    }
}

/// The result of one world.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// `check` says ready, and the client succeeds.
    Ready,
    /// `check` says not ready, and the client fails.
    NotReady,
    /// `check` says not ready. The client succeeds because it needs less than `check` answers for: a build needs no
    /// crates for tests, as `cargo fetch` does, and a rustup of the newest version does not update itself.
    NotReadyForMore,
    /// Verdict and truth differ.
    Disagreement(Finding, String),
}

/// The kind of a disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// `check` says ready, and the client fails.
    FalseReady,
    /// `check` says not ready, and the client succeeds.
    FalseAlarm,
    /// `warm` ended with 0, and `check` says not ready right after it.
    FalseWarm,
    /// Exit code and document contradict each other, or there is no document.
    Garbled,
}

impl Outcome {
    /// The report of a disagreement.
    pub fn disagreement(&self) -> Option<(Finding, &str)> {
        match self {
            Self::Disagreement(finding, report) => Some((*finding, report)),
            Self::Ready | Self::NotReady | Self::NotReadyForMore => None,
        }
    }
}

/// Compares the verdict with the truth. `covers_more` tells, if the client succeeds, whether another fails that needs
/// all that `check` answers for.
pub(crate) fn compare(
    verdict: &Verdict,
    truth: &Truth,
    was_warmed: bool,
    covers_more: impl FnOnce() -> bool,
) -> Outcome {
    let report = || format!("{}\n{}", verdict.text, truth.text);
    let finding = match (verdict.is_ready, truth.succeeds) {
        (None, _) => Finding::Garbled,
        (Some(true), true) => return Outcome::Ready,
        (Some(true), false) => Finding::FalseReady,
        (Some(false), _) if was_warmed => Finding::FalseWarm,
        (Some(false), false) => return Outcome::NotReady,
        (Some(false), true) if covers_more() => return Outcome::NotReadyForMore,
        (Some(false), true) => Finding::FalseAlarm,
    };
    Outcome::Disagreement(finding, report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disagreements_are_told_apart() {
        let compared = |is_ready, succeeds, was_warmed, covers_more| {
            let text = String::new();
            let (verdict, truth) = (
                Verdict {
                    is_ready,
                    document: Value::Null,
                    text: text.clone(),
                },
                Truth { succeeds, text },
            );
            let outcome = compare(&verdict, &truth, was_warmed, || covers_more);
            outcome.disagreement().map(|(finding, _)| finding)
        };
        for (is_ready, succeeds, was_warmed, covers_more, finding) in [
            (Some(true), true, false, false, None),
            (Some(true), false, true, true, Some(Finding::FalseReady)),
            (Some(false), false, false, false, None),
            (Some(false), false, true, false, Some(Finding::FalseWarm)),
            (Some(false), true, false, true, None),
            (Some(false), true, false, false, Some(Finding::FalseAlarm)),
            (None, true, false, false, Some(Finding::Garbled)),
        ] {
            assert_eq!(
                compared(is_ready, succeeds, was_warmed, covers_more),
                finding
            );
        }
    }
}
