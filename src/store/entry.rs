//! The record that an entry is kept as: one line that describes the body, then the body. Body and description can
//! never part, and a look at the file tells what it is. Knows no file system.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::{hash::Sha256, validators::Validators};

/// Opens every record. A change of format is a new versioned folder in the store, never a migration.
const MAGIC: &[u8] = b"larder-entry ";

/// A stored body with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What describes the body, as stored with it.
    pub head: Head,
    /// The bytes upstream sent, decoded.
    pub body: Bytes,
    /// The last time upstream confirmed the body. Not part of the record, because a revalidation changes nothing else.
    pub checked: Checked,
}

/// The state of an entry's last check: the time of the request that upstream answered with this body or with 304, or
/// invalidated since. An invalidated entry sorts before every time and is never fresh.
///
/// On disk it is the modification time of the entry's file. The start of 1970 stands for [`Checked::Invalidated`]: a
/// revalidation or an invalidation is then one system call and leaves the record as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checked {
    /// An entry that depends on this one has changed since the last check.
    Invalidated,
    /// Confirmed by a request that was sent at this time.
    At(SystemTime),
}

impl Checked {
    /// Whether the entry must be revalidated before it is fresh again.
    pub fn is_invalidated(self) -> bool {
        self == Self::Invalidated
    }

    /// Time since the check. `None` if the entry is invalidated, or if the check lies after `now`: then the clock was set
    /// back and the age is unknown.
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

/// What describes a stored body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Hash of the body.
    pub sha256: Sha256,
    /// Upstream's validators.
    #[serde(flatten)]
    pub validators: Validators,
    /// Upstream's `max-age`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// The sidecar that came with the body, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// When these bytes were fetched, in seconds since 1970.
    pub fetched: u64,
}

impl Entry {
    /// Describes a body that was fetched by a request sent at `checked`.
    pub fn new(
        body: Bytes,
        validators: Validators,
        max_age: Option<Duration>,
        checked: SystemTime,
    ) -> Self {
        let fetched = checked
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let head = Head {
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

    /// The same with the sidecar that came with it.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: String) -> Self {
        self.head.sidecar = Some(sidecar);
        self
    }

    /// The line that precedes the body, its end included.
    pub(crate) fn head_line(&self) -> Vec<u8> {
        let mut line = MAGIC.to_vec();
        serde_json::to_writer(&mut line, &self.head).expect("a head has only strings and numbers");
        line.push(b'\n');
        line
    }

    /// Reads a record back and proves that it is whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(mut record: Bytes, checked: Checked) -> Result<Self, String> {
        if !record.starts_with(MAGIC) {
            return Err("it does not begin as an entry".to_owned());
        }
        let end = record
            .iter()
            .position(|&b| b == b'\n')
            .ok_or("its first line does not end")?;
        let head: Head = serde_json::from_slice(&record[MAGIC.len()..end])
            .map_err(|cause| format!("its first line: {cause}"))?;
        record.advance(end + 1);
        if Sha256::of(&record) != head.sha256 {
            return Err("its body does not have the hash that its first line gives".to_owned());
        }
        Ok(Self {
            head,
            body: record,
            checked,
        })
    }
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
    fn a_record_reads_back_and_any_changed_byte_is_found() {
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
            Entry::parse(Bytes::from(good.clone()), entry.checked),
            Ok(entry.clone())
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
    fn the_format_is_pinned() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let entry = Entry::new(Bytes::from_static(b"x"), Validators::default(), None, now);
        let expected = "larder-entry {\"sha256\":\"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\
                        \"fetched\":1800000000}\nx";
        assert_eq!(String::from_utf8(record(&entry)).unwrap(), expected);
    }
}
