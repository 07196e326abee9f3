//! Format of a stored entry: an index entry, a manifest with its sidecar, or another small file from upstream.
//!
//! A record is one line of JSON that describes the body, followed by the body, byte for byte as upstream sent it:
//!
//! ```text
//! larder-entry {"sha256":"2d71...","etag":"\"abc\"","max_age":600,"fetched":1800000000,"key":"...","seal":"9f86..."}
//! {"name":"serde","vers":"1.0.0",...}
//! ```
//!
//! Body and description are one file, so one rename replaces both and they always belong together. `sha256` is the
//! hash of the body, `key` is the record's place in the store, and `seal` is the hash of the JSON before it. Reading
//! verifies all three, so a truncated, altered or exchanged record is an error and never a wrong answer. The time of
//! the last check is not in the record; see [`Checked`]. This module knows no file system.
//!
//! Records of older releases have neither `key` nor `seal`. They are still read, and marked as unsealed: the cache then
//! asks the kind of resource whether the body can be right, and rewrites the record when it is next renewed.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::{clock::seconds, hash::Sha256, resource::Key, validators::Validators};

/// First bytes of every record. Another format gets another versioned folder in the store, never a migration.
const MAGIC: &[u8] = b"larder-entry ";
/// The text between the facts of the first line and the hexadecimal digits of their hash.
const SEAL: &[u8] = b",\"seal\":\"";
/// The text after these digits.
const SEAL_END: &[u8] = b"\"}";

/// A stored body and its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The description that is stored with the body.
    pub head: EntryHead,
    /// The bytes upstream sent, after content decoding.
    pub body: Bytes,
    /// The last check.
    pub checked: Checked,
    /// False for a stored record of an older release, which names no place and has no seal.
    pub is_sealed: bool,
}

/// The first line of a record, without the seal.
#[derive(Serialize)]
struct HeadLine<'a> {
    #[serde(flatten)]
    head: &'a EntryHead,
    key: &'a str,
}

/// The first line of a record as it is read.
#[derive(Deserialize)]
struct StoredHeadLine {
    #[serde(flatten)]
    head: EntryHead,
    key: Option<String>,
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
        let fetched = seconds(checked);
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
            is_sealed: true,
        }
    }

    /// The same entry with another body, and its hash.
    #[must_use]
    pub fn with_body(mut self, body: Bytes) -> Self {
        self.head.sha256 = Sha256::of(&body);
        self.body = body;
        self
    }

    /// Adds the sidecar that belongs to the body.
    #[must_use]
    pub fn with_sidecar(mut self, sidecar: String) -> Self {
        self.head.sidecar = Some(sidecar);
        self
    }

    /// The first line of the record of `key`, with its newline.
    pub fn head_line(&self, key: &Key) -> Vec<u8> {
        let facts = HeadLine {
            head: &self.head,
            key: key.as_str(),
        };
        let mut line = MAGIC.to_vec();
        serde_json::to_writer(&mut line, &facts).expect("a head has only strings and numbers");
        // Without the closing brace.
        line.pop();
        let seal = Sha256::of(&line[MAGIC.len()..]);
        line.extend_from_slice(SEAL);
        line.extend_from_slice(&seal.digits());
        line.extend_from_slice(SEAL_END);
        line.push(b'\n');
        line
    }

    /// Reads the record of `key` and verifies it.
    ///
    /// # Errors
    /// The first deviation from the format.
    pub fn parse(mut record: Bytes, checked: Checked, key: &Key) -> Result<Self, DamagedEntry> {
        if !record.starts_with(MAGIC) {
            return Err(DamagedEntry::NoEntry);
        }
        let newline = memchr::memchr(b'\n', &record);
        let end = newline.ok_or(DamagedEntry::EndlessHead)?;
        let line = &record[MAGIC.len()..end];
        let StoredHeadLine { head, key: place } = serde_json::from_slice(line)?;
        let is_sealed = match (place, seal(line)) {
            (None, None) => false,
            (Some(place), Some((facts, seal))) if Sha256::of(facts).digits() == seal => {
                if place != key.as_str() {
                    return Err(DamagedEntry::OtherPlace { place });
                }
                true
            }
            (Some(_) | None, Some(_) | None) => return Err(DamagedEntry::WrongSeal),
        };
        record.advance(end + 1);
        if Sha256::of(&record) != head.sha256 {
            return Err(DamagedEntry::WrongHash);
        }
        Ok(Self {
            head,
            body: record,
            checked,
            is_sealed,
        })
    }
}

/// Splits a first line into its facts and the digits of their hash; `None` if it has no seal.
fn seal(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_suffix(SEAL_END)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    Some((rest.strip_suffix(SEAL)?, digits))
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
    /// The record was written for another place.
    #[error("it is another entry, `{}`", .place.escape_debug())]
    OtherPlace {
        /// The key that the record names.
        place: String,
    },
    /// The facts in the first line do not have the hash at its end.
    #[error("its first line does not have the hash that it gives itself")]
    WrongSeal,
    /// No kind of resource allows so many bytes.
    #[error("it is larger than any entry")]
    TooLarge,
    /// The body of an unsealed record cannot be what its place says.
    #[error("its body {0}")]
    Unrecognised(String),
    /// The hash of the body differs from the one in the first line.
    #[error("its body does not have the hash that its first line gives")]
    WrongHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        let index = url::Url::parse("http://127.0.0.1:9/").unwrap();
        let registries = crate::resource::Registries::new(index, []);
        let entry = crate::resource::IndexEntry::of(registries.crates_io(), name).unwrap();
        let crate::resource::Location::Entry(key) = entry.location() else {
            panic!("an index entry is stored as an entry");
        };
        key
    }

    fn record(entry: &Entry) -> Vec<u8> {
        let mut record = entry.head_line(&key("left"));
        record.extend_from_slice(&entry.body);
        record
    }

    fn parse(record: &[u8], name: &str) -> Result<Entry, DamagedEntry> {
        let checked = Checked::At(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Entry::parse(Bytes::copy_from_slice(record), checked, &key(name))
    }

    fn entry(body: &'static [u8]) -> Entry {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let validators = Validators {
            etag: Some("W/\"x:y z\"".into()),
            last_modified: None,
        };
        let max_age = Some(Duration::from_secs(600));
        Entry::new(Bytes::from_static(body), validators, max_age, now)
    }

    #[test]
    fn parse_reads_a_record_and_rejects_any_changed_byte_or_truncation() {
        let entry = entry(b"{\"name\":\"left\"}\n\n");
        let good = record(&entry);
        assert_eq!(parse(&good, "left").unwrap(), entry);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(parse(&bad, "left").is_err(), "bit {bit} of byte {at}");
            }
        }
        for len in 0..good.len() {
            assert!(parse(&good[..len], "left").is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_record_in_another_place_is_refused() {
        let error = parse(&record(&entry(b"x")), "right").unwrap_err();
        assert!(matches!(error, DamagedEntry::OtherPlace { .. }), "{error}");
    }

    #[test]
    fn a_record_of_an_older_release_is_unsealed_and_one_of_a_newer_release_is_read() {
        let entry = entry(b"x");
        let mut old = MAGIC.to_vec();
        serde_json::to_writer(&mut old, &entry.head).unwrap();
        old.extend_from_slice(b"\nx");
        let read = parse(&old, "left").unwrap();
        assert!(!read.is_sealed);
        assert_eq!(read.head, entry.head);

        let line = entry.head_line(&key("left"));
        let (facts, _) = seal(line.strip_suffix(b"\n").unwrap()).unwrap();
        let mut new = facts.to_vec();
        new.extend_from_slice(b",\"new\":1");
        let seal = Sha256::of(&new[MAGIC.len()..]);
        let new = [&new, SEAL, &seal.digits(), SEAL_END, b"\nx"].concat();
        assert_eq!(parse(&new, "left").unwrap(), entry);
    }

    #[test]
    fn the_format_does_not_change() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let entry = Entry::new(Bytes::from_static(b"x"), Validators::default(), None, now);
        let text = String::from_utf8(record(&entry)).unwrap();
        let (facts, seal) = text.split_once(",\"seal\":\"").unwrap();
        let place = key("left");
        let expected = format!(
            "larder-entry {{\"sha256\":\"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\
             \"fetched\":1800000000,\"key\":\"{place}\""
        );
        assert_eq!(facts, expected);
        let hash = Sha256::of(&facts.as_bytes()[MAGIC.len()..]);
        assert_eq!(seal, format!("{hash}\"}}\nx"));
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
