//! The position of the scrub and its last pass, in `scrub.json`. `crate::verify` writes it, `larder status` shows it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, layout::MAX_NOTE_BYTES};
use crate::files;

/// The state of the scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubState {
    /// The last folder that the current pass has finished; `None` between passes.
    pub position: Option<String>,
    /// Totals of the current pass.
    pub current: ScrubTotals,
    /// Totals of the last pass.
    pub last_pass: Option<ScrubTotals>,
}

/// Totals of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubTotals {
    /// When it ended, in seconds since 1970.
    pub ended: Option<u64>,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were damaged.
    pub damaged: u64,
    /// Damaged files that were fetched again.
    pub fetched: u64,
}

impl Store {
    /// The stored state of the scrub, if there is one.
    pub fn scrub_state(&self) -> Option<ScrubState> {
        let text = files::read(&self.layout.scrub(), MAX_NOTE_BYTES).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Stores the state of the scrub.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Full`].
    pub async fn put_scrub_state(&self, state: &ScrubState) -> Result<(), StoreError> {
        let path = self.layout.scrub();
        let text =
            serde_json::to_vec(state).map_err(|error| StoreError::io(&path, error.into()))?;
        self.write(path, vec![Bytes::from(text)], None).await
    }
}
