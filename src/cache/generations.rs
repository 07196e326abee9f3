//! Generations of manifests that clients are using: rustup must get a manifest and its sidecar of one release.
//!
//! rustup asks for `channel-rust-stable.toml.sha256` first, then for the manifest, and refuses one that does not have
//! that hash. Then it downloads archives by the addresses in that manifest, which may take an hour. If a release
//! comes in between, the newest stored manifest is the wrong one. So the cache remembers which generation it served:
//!
//! ```text
//!  sidecar served ── 3 s: a newer generation waits ── 60 s: its manifest is served ── 1 h: it gives archives' hashes
//! ```
//!
//! This holds whichever process fetched the new generation. Generations are in memory; after a restart, the stored
//! manifest decides.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    resource::Key,
    store::{Checked, Entry},
};

/// Time within which a client asks for the manifest after its sidecar, before a newer generation replaces both.
/// rustup asks at once (rustup, `download_and_check` in `dist/download.rs`).
const MANIFEST_GRACE: Duration = Duration::from_secs(3);
/// Time for which a generation's manifest is served to clients that ask for it, unless a newer sidecar was served.
const PAIR_LIFETIME: Duration = Duration::from_secs(60);
/// Time for which a generation gives the hashes of its archives. Longer than an install takes over a slow connection.
const LISTING_LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes of all manifests above which those older than [`PAIR_LIFETIME`] are dropped. A manifest has up to one
/// megabyte, and concurrent installs are mostly of one or two channels. A forgotten generation is looked up in the
/// store, which takes some milliseconds, or fetched.
const MAX_BODY_BYTES: usize = 6 << 20;

/// A manifest with its sidecar, as served to a client.
#[derive(Clone, Debug)]
struct Generation {
    key: Key,
    entry: Entry,
    /// When its sidecar was last served.
    served: Instant,
    /// True if its manifest was served as well.
    is_in_use: bool,
}

/// The verdict on serving a generation after a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServeOrder {
    /// No: the newer one is served again. Another process may have stored it a moment ago.
    NeverOlder,
    /// Yes: archives of the newer one are missing and cannot be had.
    Exactly,
}

/// The generations served within [`LISTING_LIFETIME`], the latest last.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<Vec<Generation>>);

impl Generations {
    /// Serves the sidecar of `entry`, or, by [`ServeOrder::NeverOlder`], of a newer generation that was served already.
    /// Returns the entry to serve.
    /// A check time after `now` comes from a clock that was set back, so such a generation does not count as newer.
    ///
    /// # Errors
    /// How long to wait: clients of an older generation may be about to ask for its manifest.
    pub(super) fn serve_sidecar(
        &self,
        key: &Key,
        entry: &Entry,
        order: ServeOrder,
        now: SystemTime,
    ) -> Result<Entry, Duration> {
        let mut all = self.0.lock();
        let last = all.iter().rposition(|generation| generation.key == *key);
        let is_newer = |checked| {
            order == ServeOrder::NeverOlder
                && checked > entry.checked
                && checked <= Checked::At(now)
        };
        let mut generation = match last {
            Some(last)
                if all[last].entry.head.sha256 == entry.head.sha256
                    || is_newer(all[last].entry.checked) =>
            {
                all.remove(last)
            }
            Some(last) if all[last].served.elapsed() < MANIFEST_GRACE => {
                return Err(MANIFEST_GRACE.saturating_sub(all[last].served.elapsed()));
            }
            Some(_) | None => Generation {
                key: key.clone(),
                entry: entry.clone(),
                served: Instant::now(),
                is_in_use: false,
            },
        };
        generation.served = Instant::now();
        let entry = generation.entry.clone();
        all.push(generation);
        forget_old(&mut all);
        Ok(entry)
    }

    /// The entry whose manifest belongs to the sidecar that was served last.
    pub(super) fn serve_manifest(&self, key: &Key) -> Option<Entry> {
        let mut all = self.0.lock();
        let last = all.iter_mut().rfind(|generation| generation.key == *key)?;
        if last.served.elapsed() >= PAIR_LIFETIME {
            return None;
        }
        last.is_in_use = true;
        Some(last.entry.clone())
    }

    /// Entries of the generations served within [`LISTING_LIFETIME`], the latest first. Those of which only the sidecar
    /// was served come last.
    pub(super) fn listings(&self) -> Vec<Entry> {
        let all = self.0.lock();
        let recent = all
            .iter()
            .rev()
            .take_while(|generation| generation.served.elapsed() < LISTING_LIFETIME);
        let (in_use, rest): (Vec<_>, Vec<_>) = recent.partition(|generation| generation.is_in_use);
        let entries = in_use.into_iter().chain(rest);
        entries.map(|generation| generation.entry.clone()).collect()
    }
}

/// Forgets generations that are too old or take too much memory, but none whose manifest a client may be about to ask
/// for.
fn forget_old(all: &mut Vec<Generation>) {
    let mut bytes = 0;
    let last_forgotten = all.iter().rposition(|generation| {
        bytes += generation.entry.body.len();
        let age = generation.served.elapsed();
        age >= LISTING_LIFETIME || (bytes > MAX_BODY_BYTES && age >= PAIR_LIFETIME)
    });
    all.drain(..last_forgotten.map_or(0, |last| last + 1));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::advance;
    use url::Url;

    use super::*;
    use crate::{
        resource::{
            Location,
            dist::{ArchiveFormat, Dist},
        },
        validators::Validators,
    };

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// A manifest's key, and its generation that was checked at this second.
    fn generation(channel: &str, len: usize, second: u64) -> (Key, Entry) {
        let url = |text| Url::parse(text).unwrap();
        let dist = Dist::new(
            url("http://d.example/"),
            url("http://u.example/"),
            ArchiveFormat::Upstream,
        );
        let path = format!("dist/channel-rust-{channel}.toml");
        let resource = crate::resource::dist::manifest(&dist, &path).unwrap();
        let Location::Pair(key, _) = resource.location() else {
            panic!("a manifest is stored with its checksum")
        };
        let mut body = vec![0; len];
        body[..8].copy_from_slice(&second.to_be_bytes());
        let entry = Entry::new(Bytes::from(body), Validators::default(), None, at(second));
        (key, entry)
    }

    fn hashes(generations: &Generations) -> Vec<crate::hash::Sha256> {
        let listings = generations.listings().into_iter();
        listings.map(|entry| entry.head.sha256).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_generation_waits_and_then_replaces_the_old_one_which_still_lists_archives() {
        let generations = Generations::default();
        let (key, old) = generation("stable", 8, 1);
        let (_, new) = generation("stable", 8, 2);
        let now = at(100);
        generations
            .serve_sidecar(&key, &old, ServeOrder::NeverOlder, now)
            .unwrap();
        let wait = generations
            .serve_sidecar(&key, &new, ServeOrder::NeverOlder, now)
            .unwrap_err();
        assert_eq!(wait, MANIFEST_GRACE);
        let served = generations.serve_manifest(&key).unwrap();
        assert_eq!(served.head.sha256, old.head.sha256);
        advance(wait).await;
        generations
            .serve_sidecar(&key, &new, ServeOrder::NeverOlder, now)
            .unwrap();
        let served = generations.serve_manifest(&key).unwrap();
        assert_eq!(served.head.sha256, new.head.sha256);
        assert_eq!(hashes(&generations), [new.head.sha256, old.head.sha256]);
        // Another process may still have the old one in memory.
        let served = generations
            .serve_sidecar(&key, &old, ServeOrder::NeverOlder, now)
            .unwrap();
        assert_eq!(served.head.sha256, new.head.sha256);
        advance(LISTING_LIFETIME).await;
        assert!(generations.serve_manifest(&key).is_none());
        assert!(hashes(&generations).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_generation_from_the_future_is_replaced_like_any_other() {
        let generations = Generations::default();
        let (key, old) = generation("stable", 8, 99);
        generations
            .serve_sidecar(&key, &old, ServeOrder::NeverOlder, at(100))
            .unwrap();
        advance(MANIFEST_GRACE).await;
        // The clock was set back.
        let (_, new) = generation("stable", 8, 50);
        let served = generations
            .serve_sidecar(&key, &new, ServeOrder::NeverOlder, at(50))
            .unwrap();
        assert_eq!(served.head.sha256, new.head.sha256);
    }

    #[tokio::test(start_paused = true)]
    async fn manifests_are_bounded_in_memory_after_the_pair_lifetime() {
        let generations = Generations::default();
        for number in 0..20 {
            let (key, entry) = generation(&number.to_string(), 1 << 20, number);
            generations
                .serve_sidecar(&key, &entry, ServeOrder::NeverOlder, at(100))
                .unwrap();
        }
        assert_eq!(generations.listings().len(), 20);
        advance(PAIR_LIFETIME).await;
        let (key, entry) = generation("stable", 1 << 20, 99);
        generations
            .serve_sidecar(&key, &entry, ServeOrder::NeverOlder, at(100))
            .unwrap();
        assert_eq!(generations.listings().len(), MAX_BODY_BYTES >> 20);
        assert_eq!(hashes(&generations)[0], entry.head.sha256);
    }

    #[tokio::test(start_paused = true)]
    async fn a_generation_whose_manifest_was_not_asked_for_comes_last() {
        let generations = Generations::default();
        let (key, in_use) = generation("stable", 8, 1);
        generations
            .serve_sidecar(&key, &in_use, ServeOrder::NeverOlder, at(100))
            .unwrap();
        generations.serve_manifest(&key).unwrap();
        let (key, other) = generation("1.95.0", 8, 2);
        generations
            .serve_sidecar(&key, &other, ServeOrder::NeverOlder, at(100))
            .unwrap();
        assert_eq!(hashes(&generations)[0], in_use.head.sha256);
    }
}
