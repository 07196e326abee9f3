//! When blobs were last used: what eviction orders them by.
//!
//! Access times of the files themselves cannot serve: most systems do not keep them, and setting one changes the
//! file's status change time, which would make a verified blob unverified ([`super::FileIdentity`]). So a hit notes the
//! time in memory, and from time to time the new ones are appended to one file:
//!
//! ```text
//!  hit ──> memory ── every 30 s, and at the end ──> STORE/v1/last-use: "HASH MILLISECONDS" lines
//! ```
//!
//! The file is disposable: without it, a blob counts as used when it was stored. A torn line is skipped. A blob in
//! constant use is appended every [`APPEND_INTERVAL`], and a file that has become too long is written anew with one
//! line for each blob.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::staging::Staging;
use crate::{
    clock::{milliseconds, now},
    files,
    hash::Sha256,
};

/// Time after which the use of a blob is appended again.
const APPEND_INTERVAL: Duration = Duration::from_secs(600);
/// Size of the file in bytes above which it is written anew.
const MAX_LOG_BYTES: u64 = 16 << 20;
/// Blobs that a new file has at most, the most recently used ones: half of [`MAX_LOG_BYTES`].
const MAX_COMPACTED: usize = 100_000;
/// Blobs that are remembered in memory. More than that are forgotten all at once.
const MAX_REMEMBERED: usize = 200_000;

/// Uses by this process.
#[derive(Debug, Default)]
pub(super) struct LastUses(Mutex<HashMap<Sha256, BlobUse>>);

/// In milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct BlobUse {
    used: u64,
    appended: u64,
}

impl LastUses {
    /// Notes that a blob was used now.
    pub(super) fn record(&self, sha256: Sha256) {
        let used = milliseconds(now());
        let mut uses = self.0.lock();
        if uses.len() >= MAX_REMEMBERED {
            uses.clear();
        }
        uses.entry(sha256).or_default().used = used;
    }

    /// Notes that this process has stored a blob now. The file itself tells others.
    pub(super) fn record_stored(&self, sha256: Sha256) {
        let now = milliseconds(now());
        let mut uses = self.0.lock();
        if uses.len() >= MAX_REMEMBERED {
            uses.clear();
        }
        let stored = BlobUse {
            used: now,
            appended: now,
        };
        uses.insert(sha256, stored);
    }

    /// Returns true if this process has used or stored the blob since `time`, in milliseconds since 1970. A use in the
    /// future was before the clock was set back: it may be long ago.
    pub(super) fn is_used_since(&self, sha256: Sha256, time: u64) -> bool {
        let since = time..=milliseconds(now());
        let uses = self.0.lock();
        uses.get(&sha256)
            .is_some_and(|blob| since.contains(&blob.used))
    }

    /// Returns true if this process has used or stored the blob.
    pub(super) fn is_used(&self, sha256: Sha256) -> bool {
        self.0.lock().contains_key(&sha256)
    }

    /// The last use of each blob, by all processes, with the file at `path`.
    pub(super) fn merged_with(&self, path: &Path) -> HashMap<Sha256, u64> {
        let mut uses = read(path);
        for (sha256, blob) in self.0.lock().iter() {
            let known = uses.entry(*sha256).or_default();
            *known = blob.used.max(*known);
        }
        uses
    }

    /// The lines to append. With `all`, those of blobs that were appended a short time ago too.
    pub(super) fn take_new(&self, all: bool) -> String {
        let interval = u64::try_from(APPEND_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let mut lines = String::new();
        for (sha256, blob) in self.0.lock().iter_mut() {
            let age = blob.used.saturating_sub(blob.appended);
            if age > interval || all && age > 0 {
                blob.appended = blob.used;
                lines += &line(*sha256, blob.used);
            }
        }
        lines
    }
}

fn line(sha256: Sha256, used: u64) -> String {
    format!("{sha256} {used}\n")
}

/// The last use of each blob in the text, in milliseconds since 1970.
fn parse(text: &[u8]) -> HashMap<Sha256, u64> {
    let mut uses = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let parsed = std::str::from_utf8(line).ok().and_then(|line| {
            let (sha256, used) = line.split_once(' ')?;
            Some((Sha256::parse(sha256)?, used.parse::<u64>().ok()?))
        });
        if let Some((sha256, used)) = parsed {
            let known = uses.entry(sha256).or_insert(used);
            *known = used.max(*known);
        }
    }
    uses
}

fn read(path: &Path) -> HashMap<Sha256, u64> {
    // Twice the limit: several processes may append at the same time.
    let text = files::read(path, 2 * MAX_LOG_BYTES);
    text.map_or_else(|_| HashMap::new(), |text| parse(&text))
}

pub(super) fn append(staging: &Staging, path: &Path, lines: &str) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?)
        .open(path)?;
    file.write_all(lines.as_bytes())?;
    if file.metadata()?.len() <= MAX_LOG_BYTES {
        return Ok(());
    }
    let mut uses: Vec<_> = read(path).into_iter().collect();
    uses.sort_unstable_by_key(|(_, used)| *used);
    let oldest = uses.len().saturating_sub(MAX_COMPACTED);
    let lines = uses
        .drain(oldest..)
        .map(|(sha256, used)| line(sha256, used));
    let text = Bytes::from(lines.collect::<String>());
    staging.write(path, &[text], None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn uses_of_several_processes_add_up_and_torn_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v1/last-use");
        let [one, two] = [1, 2].map(|_| Store::open(folder.path()).unwrap());
        one.prepare().unwrap();
        let [a, b] = [b"a", b"b"].map(|text| Sha256::of(text));
        one.uses.record(a);
        two.uses.record(b);
        one.flush_uses(false).await;
        let first = std::fs::read(&path).unwrap();
        // In constant use.
        one.uses.record(a);
        one.flush_uses(false).await;
        assert_eq!(std::fs::read(&path).unwrap(), first);
        two.flush_uses(true).await;
        let both = std::fs::read(&path).unwrap();
        assert!(both.starts_with(&first) && both.len() == 2 * first.len());
        let mut torn = both.clone();
        torn.truncate(both.len() - 20);
        torn.extend_from_slice(b"\n\xff rubbish\n");
        std::fs::write(&path, torn).unwrap();
        let three = Store::open(folder.path()).unwrap();
        assert_eq!(three.last_uses().keys().collect::<Vec<_>>(), [&a]);
        assert_eq!(one.last_uses().len(), 1);
        assert_eq!(two.last_uses().len(), 2);
        std::fs::remove_file(&path).unwrap();
        assert!(three.last_uses().is_empty());
    }

    #[test]
    fn a_use_before_the_clock_was_set_back_keeps_no_file() {
        let uses = LastUses::default();
        let (today, future) = (Sha256::of(b"today"), Sha256::of(b"future"));
        let since = milliseconds(now());
        uses.record(today);
        uses.record(future);
        uses.0.lock().entry(future).or_default().used += 1_000_000;
        assert!(uses.is_used_since(today, since));
        assert!(!uses.is_used_since(future, since));
    }

    #[test]
    fn a_file_that_is_too_long_is_written_anew_with_the_latest_use_of_each_blob() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.prepare().unwrap();
        let path = store.layout.last_use();
        let sha256 = Sha256::of(b"");
        // A long line in the place of many: to read a hundred thousand lines takes seconds.
        let rubbish = "x".repeat(usize::try_from(MAX_LOG_BYTES).unwrap());
        let lines: String = (0..1_000).map(|time| line(sha256, time)).collect();
        append(&store.staging, &path, &(rubbish + "\n" + &lines)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line(sha256, 999));
    }
}
