//! The part of `larder check` about versions that upstream has taken back.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use super::local_time::local_minute;
use crate::{
    overview::RecallReport,
    store::{PinnedCrate, Recall, RecallKind, locking_projects},
};

/// The recalls of versions that these projects lock.
pub(super) fn reports_of<'a>(
    recalls: &[Recall],
    projects: impl IntoIterator<Item = (String, &'a [PinnedCrate])>,
) -> Vec<RecallReport> {
    let projects = locking_projects(recalls, projects);
    let reports = recalls
        .iter()
        .cloned()
        .zip(projects)
        .map(|(recall, locked_by)| RecallReport { recall, locked_by });
    reports
        .filter(|report| !report.locked_by.is_empty())
        .collect()
}

/// One line for each version.
pub(super) fn lines(reports: &[RecallReport]) -> String {
    let mut text = String::new();
    for RecallReport { recall, locked_by } in reports {
        let what = match recall.kind {
            RecallKind::Removed => "removed",
            RecallKind::Yanked => "yanked",
            RecallKind::Checksum { .. } => "another checksum, which is refused",
        };
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(recall.since);
        let since = local_minute(since);
        let (name, version) = (&recall.name, &recall.version);
        let _ = write!(text, "recalled  {name} {version} since {since}: {what}");
        for owner in locked_by {
            let _ = write!(text, "; still served for {owner}");
        }
        text.push('\n');
    }
    text
}
