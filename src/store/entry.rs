//! Format of a stored entry: an index entry, a manifest with its sidecar, or another small file from upstream.
//!
//! A record is one line of JSON that describes the body, followed by the body, byte for byte as upstream sent it:
//!
//! ```text
//! larder-entry {"sha256":"2d71...","etag":"\"abc\"","max_age":600,"fetched":1800000000}
//! {"name":"serde","vers":"1.0.0",...}
//! ```
//!
//! Body and description are one file, so one rename replaces both and they always belong together. Reading verifies
//! the SHA-256 of the body, so a truncated or altered record is an error and never a wrong answer. The time of the
//! last check is not in the record; see [`Checked`]. This module knows no file system.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::{hash::Sha256, validators::Validators};

/// First bytes of every record. Another format gets another versioned folder in the store, never a migration.
const MAGIC: &[u8] = b"larder-entry ";

/// A stored body and its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The description that is stored with the body.
    pub head: EntryHead,
    /// The bytes upstream sent, after content decoding.
    pub body: Bytes,
    /// The last check.
    pub checked: Checked,
}

/// Description of a stored body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHead {
    /// SHA-256 of the body.
    pub sha256: Sha256,
    /// Validators from upstream's answer, for revalidation.
    #[serde(flatten)]
    pub validators: Validators,
    /// `max-age` from upstream's answer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// The sidecar that belongs to the body, verbatim. Only manifests have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// Time of the request that fetched the body, in seconds since 1970.
    pub fetched: u64,
}

/// Result of the last comparison of an entry with upstream.
///
/// Sorts by time; [`Checked::Invalidated`] sorts before every time. On disk it is the modification time of the entry's
/// file, so that a revalidation or an invalidation is one system call and leaves the record as it is. The start of 1970
/// stands for [`Checked::Invalidated`]; only [`Checked::from_mtime`] and [`Checked::to_mtime`] know that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checked {
    /// An entry that depends on this one has changed since the last check: revalidate before serving it as fresh.
    Invalidated,
    /// Time of the request that upstream answered with this body, or with 304 Not Modified.
    At(SystemTime),
}

impl Checked {
    /// Returns whether the entry must be revalidated, whatever its age.
    pub fn is_invalidated(self) -> bool {
        self == Self::Invalidated
    }

    /// Time since the check. `None` if the entry is invalidated, or if the check lies after `now`: then the clock was
    /// set back and the age is unknown.
    pub fn age(self, now: SystemTime) -> Option<Duration> {
        match self {
            Self::Invalidated => None,
            Self::At(time) => now.duration_since(time).ok(),
        }
    }

    /// [`Checked::Invalidated`] if the check is older than `since`, else unchanged.
    #[must_use]
    pub fn invalidated_before(self, since: SystemTime) -> Self {
        if self < Self::At(since) {
            Self::Invalidated
        } else {
            self
        }
    }

    /// Reads the state from a modification time.
    pub(super) fn from_mtime(mtime: SystemTime) -> Self {
        if mtime > SystemTime::UNIX_EPOCH {
            Self::At(mtime)
        } else {
            Self::Invalidated
        }
    }

    /// The modification time that stores the state.
    pub(super) fn to_mtime(self) -> SystemTime {
        match self {
            Self::Invalidated => SystemTime::UNIX_EPOCH,
            Self::At(time) => time,
        }
    }
}

impl Entry {
    /// An entry whose body was fetched by a request sent at `checked`.
    pub fn new(
        body: Bytes,
        validators: Validators,
        max_age: Option<Duration>,
        checked: SystemTime,
    ) -> Self {
        let fetched = checked
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let head = EntryHead {
            sha256: Sha256::of(&body),
            validators,
            max_age: max_age.map(|age| age.as_secs()),
            sidecar: None,
            fetched,
        };
        Self {
            head,
            body,
            checked: Checked::At(checked),
        }
    }

    /// Adds the sidecar that belongs to the body.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: String) -> Self {
        self.head.sidecar = Some(sidecar);
        self
    }

    /// The first line of the record, with its newline.
    pub(super) fn head_line(&self) -> Vec<u8> {
        let mut line = MAGIC.to_vec();
        serde_json::to_writer(&mut line, &self.head).expect("a head has only strings and numbers");
        line.push(b'\n');
        line
    }

    /// Reads a record and verifies the hash of its body.
    ///
    /// # Errors
    /// The first deviation from the format.
    pub(super) fn parse(mut record: Bytes, checked: Checked) -> Result<Self, DamagedEntry> {
        if !record.starts_with(MAGIC) {
            return Err(DamagedEntry::NoEntry);
        }
        let newline = record.iter().position(|&byte| byte == b'\n');
        let end = newline.ok_or(DamagedEntry::EndlessHead)?;
        let head: EntryHead = serde_json::from_slice(&record[MAGIC.len()..end])?;
        record.advance(end + 1);
        if Sha256::of(&record) != head.sha256 {
            return Err(DamagedEntry::WrongHash);
        }
        Ok(Self {
            head,
            body: record,
            checked,
        })
    }
}

/// First deviation of a record from the format.
#[derive(Debug, thiserror::Error)]
pub enum DamagedEntry {
    /// A link or a folder lies in the entry's place.
    #[error("it is not a file")]
    NoFile,
    /// The magic bytes are missing.
    #[error("it does not begin as an entry")]
    NoEntry,
    /// The first line has no newline.
    #[error("its first line does not end")]
    EndlessHead,
    /// The first line is not valid JSON.
    #[error("its first line: {0}")]
    InvalidHead(#[from] serde_json::Error),
    /// The hash of the body differs from the one in the first line.
    #[error("its body does not have the hash that its first line gives")]
    WrongHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entry: &Entry) -> Vec<u8> {
        let mut record = entry.head_line();
        record.extend_from_slice(&entry.body);
        record
    }

    #[test]
    fn parse_reads_a_record_and_rejects_any_changed_byte_or_truncation() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let validators = Validators {
            etag: Some("W/\"x:y z\"".into()),
            last_modified: None,
        };
        let entry = Entry::new(
            Bytes::from_static(b"{\"name\":\"left\"}\n\n"),
            validators,
            Some(Duration::from_secs(600)),
            now,
        );
        let good = record(&entry);
        assert_eq!(
            Entry::parse(Bytes::from(good.clone()), entry.checked).unwrap(),
            entry
        );

        let body = entry.head_line().len();
        for at in (0..good.len()).filter(|&at| at < MAGIC.len() || at >= body) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(
                Entry::parse(Bytes::from(bad), entry.checked).is_err(),
                "byte {at}"
            );
        }
        for len in 0..good.len() {
            assert!(
                Entry::parse(Bytes::copy_from_slice(&good[..len]), entry.checked).is_err(),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn the_format_does_not_change() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let entry = Entry::new(Bytes::from_static(b"x"), Validators::default(), None, now);
        let expected = "larder-entry {\"sha256\":\"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\
                        \"fetched\":1800000000}\nx";
        assert_eq!(String::from_utf8(record(&entry)).unwrap(), expected);
    }

    #[test]
    fn checked_survives_the_modification_time_and_sorts_by_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for checked in [Checked::Invalidated, Checked::At(at(1))] {
            assert_eq!(Checked::from_mtime(checked.to_mtime()), checked);
        }
        assert!(Checked::Invalidated < Checked::At(at(0)));
        assert!(Checked::At(at(1)) < Checked::At(at(2)));
        let checked = Checked::At(at(5));
        assert_eq!(checked.invalidated_before(at(5)), checked);
        assert!(checked.invalidated_before(at(6)).is_invalidated());
        assert_eq!(checked.age(at(7)), Some(Duration::from_secs(2)));
        assert_eq!(checked.age(at(4)), None);
        assert_eq!(Checked::Invalidated.age(at(7)), None);
    }
}
