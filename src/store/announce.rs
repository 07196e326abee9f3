//! What a running daemon tells other commands on the same store.

/// The file in a process's part of staging that tells where it listens.
pub(super) const ANNOUNCEMENT_FILE: &str = "daemon.json";

/// What a running daemon tells the other commands.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Announcement {
    /// The daemon's process.
    pub pid: u32,
    /// Where it listens, as base addresses.
    pub addresses: Vec<String>,
}
