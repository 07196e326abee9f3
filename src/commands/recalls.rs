//! The parts of `larder status` and `larder check` about versions that upstream has taken back.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::render::counted;
use crate::store::{Pin, PinnedCrate, Recall, RecallKind, locking_owners, locking_projects};

/// A recall, with the projects that it concerns.
#[derive(Debug, Serialize)]
pub(super) struct RecallReport<'a> {
    #[serde(flatten)]
    recall: &'a Recall,
    /// Owners of the pins that lock the version.
    locked_by: BTreeSet<String>,
}

/// The recalls, each with the pins that lock its version.
pub(super) fn reports<'a>(recalls: &'a [Recall], pins: &[Pin]) -> Vec<RecallReport<'a>> {
    let owners = locking_owners(recalls, pins);
    let reports = recalls
        .iter()
        .zip(owners)
        .map(|(recall, locked_by)| RecallReport { recall, locked_by });
    reports.collect()
}

/// The recalls of versions that these projects lock.
pub(super) fn reports_of<'a, 'b>(
    recalls: &'a [Recall],
    projects: impl IntoIterator<Item = (String, &'b [PinnedCrate])>,
) -> Vec<RecallReport<'a>> {
    let projects = locking_projects(recalls, projects);
    let reports = recalls
        .iter()
        .zip(projects)
        .map(|(recall, locked_by)| RecallReport { recall, locked_by });
    reports
        .filter(|report| !report.locked_by.is_empty())
        .collect()
}

/// One line for each version that a project locks or whose checksum has changed, and one for all others.
pub(super) fn lines(reports: &[RecallReport<'_>]) -> String {
    let mut text = String::new();
    let mut others = 0;
    for RecallReport { recall, locked_by } in reports {
        let what = match recall.kind {
            RecallKind::Removed => "removed",
            RecallKind::Yanked => "yanked",
            RecallKind::Checksum { .. } => "another checksum, which is refused",
        };
        if locked_by.is_empty() && !matches!(recall.kind, RecallKind::Checksum { .. }) {
            others += 1;
            continue;
        }
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(recall.since);
        let since = humantime::format_rfc3339_seconds(since);
        let (name, version) = (&recall.name, &recall.version);
        let _ = write!(text, "recalled  {name} {version} since {since}: {what}");
        for owner in locked_by {
            let _ = write!(text, "; still served for {owner}");
        }
        text.push('\n');
    }
    if others > 0 {
        let versions = counted(others, "version");
        let _ = writeln!(
            text,
            "recalled  {versions} that no warmed project locks; `--json` lists them"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        hash::Sha256,
        store::{Owner, PinnedCrate},
    };

    #[test]
    fn text_names_locked_versions_and_changed_checksums_and_counts_the_others() {
        let recall = |name: &str, kind| Recall {
            registry: "crates-io".to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            kind,
            since: 0,
        };
        let checksum = RecallKind::Checksum {
            was: Sha256::of(b"was"),
            now: Sha256::of(b"now"),
        };
        let recalls = [
            recall("left", RecallKind::Yanked),
            recall("right", RecallKind::Removed),
            recall("pad", checksum),
        ];
        let pin = Pin {
            owner: Owner::File("/p/Cargo.lock".into()),
            packages: vec![PinnedCrate {
                registry: "crates-io".to_owned(),
                name: "Left".to_owned(),
                version: "1.0.0".to_owned(),
                checksum: None,
                is_excluded: false,
            }],
            archives: Vec::new(),
            sizes: BTreeMap::new(),
            offered: Vec::new(),
            entries: None,
        };
        assert_eq!(
            lines(&reports(&recalls, &[pin])),
            "recalled  left 1.0.0 since 1970-01-01T00:00:00Z: yanked; still served for /p/Cargo.lock\n\
             recalled  pad 1.0.0 since 1970-01-01T00:00:00Z: another checksum, which is refused\n\
             recalled  1 version that no warmed project locks; `--json` lists them\n"
        );
    }
}
