//! [`Trouble`]: matters that need a person's attention, one for each cause. Pure.

use std::{collections::BTreeSet, time::SystemTime};

use indicatif::HumanBytes;

use super::{
    advisories::AdvisoryCounts,
    daemon::{Timestamp, WithdrawnEntry},
    recalls::RecallReport,
};
use crate::store::RecallKind;

/// Versions, and projects, that one text names. Of more, only these are named.
const NAMED: usize = 3;

/// A matter that needs attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The matter and what to do about it, as sentences without the last full stop.
    pub text: String,
    /// When it was seen first, if that is known.
    pub since: Option<SystemTime>,
}

impl Trouble {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            since: None,
        }
    }
}

/// The facts that may be trouble.
#[derive(Clone, Copy, Debug, Default)]
pub struct TroubleFacts<'a> {
    /// Why the daemon does not write to the store any more.
    pub store_problem: Option<&'a str>,
    /// Entries that upstream no longer has and pins need.
    pub withdrawn: &'a [WithdrawnEntry],
    /// Versions that upstream has taken back.
    pub recalls: &'a [RecallReport],
    /// Advisories about packages of warmed projects.
    pub advisories: Option<&'a AdvisoryCounts>,
    /// Damaged files that the last and the current pass of the scrub have found.
    pub damaged: u64,
    /// Those of them that were fetched again.
    pub fetched_again: u64,
    /// Pins that keep-warm could not make ready.
    pub not_ready: u64,
    /// Bytes of what pins need and the limit, if they exceed it.
    pub pins_exceed: Option<(u64, u64)>,
}

/// The trouble in `facts`, the worst first.
pub fn troubles(facts: &TroubleFacts<'_>) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if let Some(problem) = facts.store_problem {
        let text = format!("the daemon writes nothing to its store: {problem}");
        troubles.push(Trouble::new(text));
    }
    troubles.extend(recalled(facts.recalls));
    if let Some(counts) = facts.advisories {
        troubles.extend(advised_against(counts));
    }
    for WithdrawnEntry { resource, since } in facts.withdrawn {
        troubles.push(Trouble {
            text: format!(
                "upstream no longer has the {resource}; a warmed project needs it, so it is still served"
            ),
            since: Some(since.0),
        });
    }
    if facts.damaged > 0 {
        troubles.push(Trouble::new(format!(
            "{} on the disk {} moved to the quarantine, and {} fetched again",
            counted(facts.damaged, "damaged file"),
            was(facts.damaged),
            facts.fetched_again,
        )));
    }
    if facts.not_ready > 0 {
        troubles.push(Trouble::new(format!(
            "{} of the warmed projects and toolchains could not be made ready; `larder warm` says why",
            facts.not_ready
        )));
    }
    if let Some((pinned, max)) = facts.pins_exceed {
        troubles.push(Trouble::new(format!(
            "warmed projects and toolchains alone take {}, more than `max-size` {}; nothing of them is removed",
            HumanBytes(pinned),
            HumanBytes(max)
        )));
    }
    troubles
}

/// One trouble for each kind of recall.
fn recalled(reports: &[RecallReport]) -> Vec<Trouble> {
    let of_kind = |kind: &'static str| {
        let reports = reports.iter().filter(|report| report.needs_attention());
        let reports = reports.filter(move |report| report.recall.kind.as_str() == kind);
        Vec::from_iter(reports)
    };
    let troubles = ["checksum", "removed", "yanked"]
        .into_iter()
        .filter_map(|kind| {
            let reports = of_kind(kind);
            let first = reports.first()?;
            let count = reports.len() as u64;
            let versions = reports.iter().map(|report| {
                let recall = &report.recall;
                format!("{} {}", recall.name, recall.version)
            });
            let versions = some_of(versions.collect(), "version");
            let text = match first.recall.kind {
                RecallKind::Checksum { .. } if count == 1 => {
                    format!("{versions} has another checksum upstream, which is refused")
                }
                RecallKind::Checksum { .. } => {
                    format!("{versions} have other checksums upstream, which are refused")
                }
                RecallKind::Removed | RecallKind::Yanked => {
                    let owners = reports.iter().flat_map(|report| &report.locked_by);
                    let owners: BTreeSet<_> = owners.cloned().collect();
                    let owners = some_of(Vec::from_iter(owners), "project");
                    let served = if count == 1 { "is" } else { "are" };
                    let was = was(count);
                    format!(
                        "{versions} {was} {kind} upstream, and {served} still served for {owners}"
                    )
                }
            };
            let since = reports.iter().map(|report| report.recall.since).min();
            Some(Trouble {
                text,
                since: since.map(|seconds| Timestamp::from_seconds(seconds).0),
            })
        });
    troubles.collect()
}

/// The trouble that advisories report.
fn advised_against(counts: &AdvisoryCounts) -> Option<Trouble> {
    let malicious = (counts.malicious > 0).then(|| format!("{} malicious", counts.malicious));
    let vulnerable = (counts.vulnerable > 0).then(|| format!("{} vulnerable", counts.vulnerable));
    let parts: Vec<_> = malicious.into_iter().chain(vulnerable).collect();
    if parts.is_empty() {
        return None;
    }
    let parts = parts.join(" and ");
    let text =
        format!("of warmed projects' packages {parts}; `larder check --advisories` names them");
    Some(Trouble::new(text))
}

/// The first few names, and the number of the others.
fn some_of(names: Vec<String>, noun: &str) -> String {
    let others = names.len().saturating_sub(NAMED) as u64;
    let text = names[..names.len().min(NAMED)].join(", ");
    match others {
        0 => text,
        _ => format!("{text} and {}", counted(others, &format!("other {noun}"))),
    }
}

fn was(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hash::Sha256, store::Recall};

    fn report(name: &str, kind: RecallKind, locked_by: &[&str]) -> RecallReport {
        RecallReport {
            recall: Recall {
                registry: "crates-io".to_owned(),
                name: name.to_owned(),
                version: "1.0.0".to_owned(),
                kind,
                since: 60,
            },
            locked_by: locked_by.iter().map(|owner| (*owner).to_owned()).collect(),
        }
    }

    fn texts(facts: &TroubleFacts<'_>) -> Vec<String> {
        let troubles = troubles(facts).into_iter();
        troubles.map(|trouble| trouble.text).collect()
    }

    #[test]
    fn recalls_of_one_kind_share_a_text_and_those_that_concern_no_project_have_none() {
        let checksum = RecallKind::Checksum {
            was: Sha256::of(b"was"),
            now: Sha256::of(b"now"),
        };
        let mut recalls = vec![
            report("left", RecallKind::Removed, &["/p/Cargo.lock"]),
            report("unused", RecallKind::Yanked, &[]),
            report("pad", checksum, &[]),
        ];
        for name in ["a", "b", "c", "d", "e"] {
            recalls.push(report(
                name,
                RecallKind::Yanked,
                &["/p/Cargo.lock", "/q/Cargo.lock"],
            ));
        }
        let facts = TroubleFacts {
            recalls: &recalls,
            ..TroubleFacts::default()
        };
        assert_eq!(
            texts(&facts),
            [
                "pad 1.0.0 has another checksum upstream, which is refused",
                "left 1.0.0 was removed upstream, and is still served for /p/Cargo.lock",
                "a 1.0.0, b 1.0.0, c 1.0.0 and 2 other versions were yanked upstream, and are still served for \
                 /p/Cargo.lock, /q/Cargo.lock",
            ]
        );
        assert!(
            troubles(&facts)
                .iter()
                .all(|trouble| trouble.since.is_some())
        );
    }

    #[test]
    fn each_cause_has_one_text_and_no_facts_are_no_trouble() {
        assert_eq!(troubles(&TroubleFacts::default()), []);
        let facts = TroubleFacts {
            store_problem: Some("its folder was replaced"),
            advisories: Some(&AdvisoryCounts {
                known: 9,
                malicious: 1,
                vulnerable: 2,
                others: 3,
            }),
            damaged: 2,
            fetched_again: 1,
            not_ready: 1,
            pins_exceed: Some((2048, 1024)),
            ..TroubleFacts::default()
        };
        assert_eq!(
            texts(&facts),
            [
                "the daemon writes nothing to its store: its folder was replaced",
                "of warmed projects' packages 1 malicious and 2 vulnerable; `larder check --advisories` names them",
                "2 damaged files on the disk were moved to the quarantine, and 1 fetched again",
                "1 of the warmed projects and toolchains could not be made ready; `larder warm` says why",
                "warmed projects and toolchains alone take 2.00 KiB, more than `max-size` 1.00 KiB; nothing of them is \
                 removed",
            ]
        );
    }
}
