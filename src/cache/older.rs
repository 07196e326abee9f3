//! Older releases: the manifest of a release stays available while blobs of that release are stored.
//!
//! A new release replaces the body of `channel-rust-stable.toml` as soon as anyone asks for it: a client's `rustup
//! check`, or a `warm` that then fails. Its archives are not stored at that time. Without the older manifest, the
//! older toolchain could not be installed any more, although all its archives are there. So the cache stores the
//! older body under its permanent name before it stores the newer one:
//!
//! ```text
//!  dist/channel-rust-stable.toml             1.96   1 of 3 archives stored
//!  dist/2026-04-16/channel-rust-stable.toml  1.95   3 of 3 archives stored   <── served while upstream is out of reach
//! ```
//!
//! In the same way `release-stable.toml` is a release of rustup, whose parts are its programs.
//!
//! While upstream is unreachable, clients get the newest release that can replace all older ones. A release can replace
//! an older one if it has a stored counterpart of each stored part, leaving out the parts that it no longer has.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tracing::warn;

use super::lookup::Lookup;
use crate::{
    error::chain,
    hash::Sha256,
    resource::{Location, Releases, Resource},
    store::{Entry, StoreError},
    validators::Validators,
};

/// Older releases that are read to choose one. Each is a manifest of up to a megabyte.
const MAX_OLDER_RELEASES: usize = 24;

/// One stored release, by the names of its parts.
#[derive(Debug)]
struct StoredRelease {
    listed: BTreeSet<String>,
    stored: BTreeSet<String>,
}

impl StoredRelease {
    /// Returns whether every stored part of `older` is stored in this release too, unless it has no such part.
    fn replaces(&self, older: &Self) -> bool {
        older
            .stored
            .iter()
            .all(|part| self.stored.contains(part) || !self.listed.contains(part))
    }
}

/// The index of the newest release that replaces all older ones. `releases` are sorted, the newest first.
fn newest_complete(releases: &[StoredRelease]) -> usize {
    (0..releases.len())
        .find(|&newest| {
            let older = releases.iter().skip(newest + 1);
            let mut older = older.filter(|older| !older.stored.is_empty());
            older.all(|older| releases[newest].replaces(older))
        })
        .unwrap_or(0)
}

impl Lookup {
    /// Stores `old`, which a newer body is about to replace, under its permanent name, if any of its blobs is stored.
    pub(super) async fn keep_older_release(&self, resource: &Resource, old: &Entry) {
        let Some(older) = resource
            .releases()
            .and_then(|releases| releases.of_body(&old.body))
        else {
            return;
        };
        let (Location::Entry(key) | Location::Pair(key, _)) = older.location() else {
            return;
        };
        let kept = async {
            let [release] = &self.stored_releases(resource, &[old]).await?[..] else {
                return Ok(());
            };
            if release.stored.is_empty() {
                return Ok(());
            }
            let mut old = old.clone();
            // They belong to the address that changes.
            old.head.validators = Validators::default();
            self.store.put_entry(&key, &old).await
        };
        if let Err(error) = kept.await {
            let error = chain(&error);
            warn!(%resource, %error, "cannot keep the manifest of the release before");
        }
    }

    /// The release to serve while upstream is out of reach: `newest`, or an older one if blobs of `newest` are missing.
    pub(super) async fn newest_complete_release(
        &self,
        resource: &Resource,
        newest: Entry,
    ) -> Entry {
        let Some(releases) = resource.releases() else {
            return newest;
        };
        match self.complete_release(resource, releases, &newest).await {
            Ok(Some(older)) => older,
            Ok(None) => newest,
            Err(error) => {
                let error = chain(&error);
                warn!(%resource, %error, "cannot tell which releases are complete; serving the newest");
                newest
            }
        }
    }

    /// The older release that must be served instead of `newest`, if any.
    async fn complete_release(
        &self,
        resource: &Resource,
        releases: &dyn Releases,
        newest: &Entry,
    ) -> Result<Option<Entry>, StoreError> {
        let mut names = self.store.names_in(&releases.folder()).await?;
        releases.sort_newest_first(&mut names);
        let mut entries = vec![newest.clone()];
        for older in names.iter().filter_map(|name| releases.of_name(name)) {
            if entries.len() > MAX_OLDER_RELEASES {
                break;
            }
            let (Location::Entry(key) | Location::Pair(key, _)) = older.location() else {
                continue;
            };
            match self.store.entry(&key).await {
                Ok(Some(entry)) if entry.head.sha256 != newest.head.sha256 => entries.push(entry),
                Ok(_) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if entries.len() == 1 {
            return Ok(None);
        }
        let stored = self
            .stored_releases(resource, &entries.iter().collect::<Vec<_>>())
            .await?;
        Ok(match newest_complete(&stored) {
            0 => None,
            older => Some(entries.swap_remove(older)),
        })
    }

    /// The stored part of each of these releases. Reading a manifest takes milliseconds, so a thread for blocking work
    /// does it.
    async fn stored_releases(
        &self,
        resource: &Resource,
        entries: &[&Entry],
    ) -> Result<Vec<StoredRelease>, StoreError> {
        let bodies: Vec<_> = entries.iter().map(|entry| entry.body.clone()).collect();
        let kind = resource.clone();
        let read = move || {
            let parts = |body| Some(kind.releases()?.parts(body));
            let parts = bodies.iter().map(|body| parts(body).unwrap_or_default());
            parts.collect::<Vec<BTreeMap<String, Sha256>>>()
        };
        let mut parts = tokio::task::spawn_blocking(read).await.unwrap_or_default();
        let unlisted = self
            .add_unlisted_parts(resource, entries, &mut parts)
            .await?;
        let hashes: Vec<_> = parts.iter().flat_map(BTreeMap::values).copied().collect();
        let stored = self.store.contains(hashes.clone()).await?;
        let stored: HashSet<_> = hashes
            .into_iter()
            .zip(stored)
            .filter_map(|(sha256, is_stored)| is_stored.then_some(sha256))
            .collect();
        Ok(parts
            .into_iter()
            .map(|parts| StoredRelease {
                stored: parts
                    .iter()
                    .filter(|(_, sha256)| stored.contains(sha256))
                    .map(|(name, _)| name.clone())
                    .collect(),
                listed: parts.into_keys().chain(unlisted.iter().cloned()).collect(),
            })
            .collect())
    }

    /// Adds the parts that bodies do not list, as far as the store knows their hashes. Returns the names of all of
    /// them: each release may have each of them.
    async fn add_unlisted_parts(
        &self,
        resource: &Resource,
        entries: &[&Entry],
        parts: &mut [BTreeMap<String, Sha256>],
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut names = BTreeSet::new();
        for (entry, parts) in entries.iter().zip(parts) {
            let body = &entry.body;
            let releases = resource.releases();
            let Some((releases, folder)) =
                releases.and_then(|releases| Some((releases, releases.part_folder(body)?)))
            else {
                continue;
            };
            for name in self.store.names_in(&folder).await? {
                let part = releases.part(body, &name);
                if let Some(part) = part
                    && let Some(sha256) = self.listed_hash(&part).await
                {
                    names.insert(name.clone());
                    parts.insert(name, sha256);
                }
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A release with these parts; those in upper case are stored.
    fn release(parts: &str) -> StoredRelease {
        let names = |keep: fn(&char) -> bool| {
            let kept = parts.chars().filter(keep);
            kept.map(|part| part.to_ascii_lowercase().to_string())
                .collect()
        };
        StoredRelease {
            listed: names(|_| true),
            stored: names(char::is_ascii_uppercase),
        }
    }

    #[test]
    fn newest_release_that_can_take_the_place_of_all_older_ones_is_served() {
        for (releases, expected) in [
            (&["abc"][..], 0),
            (&["ABC", "ABC"], 0),
            (&["ABc", "ABc"], 0),
            // After a release, or a `warm` that failed on one archive.
            (&["abc", "ABC"], 1),
            (&["AbC", "ABC"], 1),
            (&["abc", "AbC", "ABC"], 2),
            // Somebody else needs less of the newer one, or more.
            (&["Abc", "ABc"], 1),
            (&["ABC", "ABc"], 0),
            // The newer release has a part that the older one lacks, or lacks one.
            (&["Abcd", "Abc"], 0),
            (&["AB", "ABC"], 0),
            // Nothing of the one between is stored.
            (&["ABC", "abc", "ABC"], 0),
            (&["abc", "abc"], 0),
        ] {
            let stored: Vec<_> = releases.iter().map(|parts| release(parts)).collect();
            assert_eq!(newest_complete(&stored), expected, "{releases:?}");
        }
    }
}
