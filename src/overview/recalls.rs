//! [`RecallReport`]: what upstream has taken back, with the projects that it concerns.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::store::{Pin, Recall, RecallKind, locking_owners};

/// A recall, with the projects that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecallReport {
    /// The recall.
    #[serde(flatten)]
    pub recall: Recall,
    /// Owners of the pins that lock the version.
    pub locked_by: BTreeSet<String>,
}

impl RecallReport {
    /// Returns whether people must know of it: a project locks the version, or its bytes are refused.
    pub fn needs_attention(&self) -> bool {
        !self.locked_by.is_empty() || matches!(self.recall.kind, RecallKind::Checksum { .. })
    }
}

/// The recalls, each with the pins that lock its version.
pub fn recall_reports(recalls: &[Recall], pins: &[Pin]) -> Vec<RecallReport> {
    let owners = locking_owners(recalls, pins);
    let reports = recalls.iter().cloned().zip(owners);
    let reports = reports.map(|(recall, locked_by)| RecallReport { recall, locked_by });
    reports.collect()
}
