//! Announcements: how `larder status` and other commands find the daemons that use the same store.
//!
//! A daemon writes `daemon.json` into its folder in staging. The lock in that folder tells whether the daemon still
//! lives, so an announcement needs no expiry and a killed daemon is never reported.

use std::{cmp::Reverse, fs, io, path::Path};

use bytes::Bytes;

use super::{
    layout::MAX_NOTE_BYTES,
    staging::{Staging, is_process_alive},
};
use crate::files;

/// The file in a process's folder.
pub(super) const ANNOUNCEMENT_FILE: &str = "daemon.json";

/// A running daemon.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Announcement {
    /// Process id.
    pub pid: u32,
    /// Base URLs of the addresses it listens on.
    pub addresses: Vec<String>,
    /// The limit of the store's size that it keeps, in bytes.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

/// Writes this process's announcement.
pub(super) fn write(staging: &Staging, announcement: &Announcement) -> io::Result<()> {
    let path = staging.process_dir()?.path().join(ANNOUNCEMENT_FILE);
    let text = serde_json::to_vec(announcement)?;
    staging.write(&path, &[Bytes::from(text)], None)
}

/// Announcements of living processes, the latest first.
pub(super) fn read_all(staging: &Path) -> Vec<Announcement> {
    let folders = fs::read_dir(staging).into_iter().flatten();
    let mut all: Vec<_> = folders
        .flatten()
        .filter(|folder| is_process_alive(&folder.path()))
        .filter_map(|folder| {
            let path = folder.path().join(ANNOUNCEMENT_FILE);
            let announcement =
                serde_json::from_slice(&files::read(&path, MAX_NOTE_BYTES).ok()?).ok()?;
            Some((fs::metadata(&path).ok()?.modified().ok()?, announcement))
        })
        .collect();
    all.sort_by_key(|(written, _)| Reverse(*written));
    all.into_iter()
        .map(|(_, announcement)| announcement)
        .collect()
}
