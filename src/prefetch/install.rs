//! Prefetch of toolchain archives: rustup asks for the components of a profile one after another, in the manifest's
//! order.
//!
//! A client that was served a manifest and then asks for archives out of it installs one of the profiles, or adds a
//! component to an installed toolchain. An [`InstallSession`] compares what the client has asked for with the
//! download order of each profile. Once the requests are the beginning of a profile's order, the rest of that profile
//! is prefetched.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    cache::{Cache, PREFETCHED_BLOBS_IN_FLIGHT},
    hash::Sha256,
    resource::Resource,
    store,
};

/// Sessions remembered. Each holds a manifest of up to one megabyte; concurrent installs are mostly of one or two
/// channels.
const MAX_SESSIONS: usize = 8;
/// Number of archives that only the larger profile has and that must have been requested before the rest of it is
/// prefetched. A single one may be an extra beside the smaller profile: `--component clippy`.
const MIN_EVIDENCE: usize = 2;

/// Follows installs and prefetches the rest of their profiles.
#[derive(Debug)]
pub(super) struct InstallPrefetch {
    cache: Cache,
    /// By the manifest's hash, the latest last.
    sessions: Mutex<VecDeque<(Sha256, Arc<InstallSession>)>>,
    permits: Arc<Semaphore>,
}

impl InstallPrefetch {
    pub(super) fn new(cache: Cache) -> Self {
        Self {
            cache,
            sessions: Mutex::default(),
            permits: Arc::new(Semaphore::new(PREFETCHED_BLOBS_IN_FLIGHT)),
        }
    }

    /// A client was served a manifest: a new session begins.
    pub(super) fn manifest_served(&self, manifest: Resource, entry: store::Entry) {
        let generation = entry.head.sha256;
        let mut sessions = self.sessions.lock();
        let known = sessions.iter().position(|(known, _)| *known == generation);
        let session = match known.and_then(|at| sessions.remove(at)) {
            Some((_, session)) => session,
            None => InstallSession::new(manifest, entry.body),
        };
        session.begin();
        sessions.push_back((generation, session));
        if sessions.len() > MAX_SESSIONS {
            sessions.pop_front();
        }
    }

    /// A client asks for an archive that the manifest `generation` lists.
    pub(super) fn blob_requested(&self, generation: Sha256, sha256: Sha256) {
        let sessions = self.sessions.lock();
        let found = sessions.iter().find(|(known, _)| *known == generation);
        let Some((_, session)) = found else {
            return;
        };
        if !session.archive_requested(sha256) {
            return;
        }
        let (cache, permits, session) = (self.cache.clone(), self.permits.clone(), session.clone());
        tokio::spawn(async move {
            for archive in session.next_after(sha256).await {
                let (cache, permits) = (cache.clone(), permits.clone());
                tokio::spawn(async move {
                    if let Ok(_permit) = permits.acquire().await {
                        cache.prefetch_blob(&archive).await;
                    }
                });
            }
        });
    }
}

/// One served manifest, and which of its archives were asked for since.
#[derive(Debug)]
struct InstallSession {
    manifest: Resource,
    body: Bytes,
    requests: Mutex<Requests>,
    /// Locked while the manifest is parsed, so that it is parsed once.
    profiles: tokio::sync::Mutex<Profiles>,
}

/// Requests since the manifest was last served.
#[derive(Debug, Default)]
struct Requests {
    requested: HashSet<Sha256>,
    prefetched: HashSet<Sha256>,
}

/// The parsed download orders of the manifest.
#[derive(Debug, Default)]
struct Profiles {
    /// Profiles of one host, as [`crate::resource::InstallProfiles::profile_downloads`] gives them.
    hosts: Vec<Vec<Vec<Resource>>>,
    /// Index into `hosts` by archive; `None` for an archive that belongs to no profile.
    host_of: HashMap<Sha256, Option<usize>>,
}

impl InstallSession {
    fn new(manifest: Resource, body: Bytes) -> Arc<Self> {
        Arc::new(Self {
            manifest,
            body,
            requests: Mutex::default(),
            profiles: tokio::sync::Mutex::default(),
        })
    }

    /// Forgets earlier requests: another install begins.
    fn begin(&self) {
        *self.requests.lock() = Requests::default();
    }

    /// Records a request. Returns whether it is the first for this archive.
    fn archive_requested(&self, sha256: Sha256) -> bool {
        self.requests.lock().requested.insert(sha256)
    }

    /// The archives to prefetch after `sha256` was asked for, in download order; each once until
    /// [`InstallSession::begin`].
    async fn next_after(self: &Arc<Self>, sha256: Sha256) -> Vec<Resource> {
        let mut profiles = self.profiles.lock().await;
        let host = match profiles.host_of.get(&sha256) {
            Some(host) => *host,
            None => {
                // A manifest has up to a megabyte of text, too much for a thread that serves requests.
                let session = self.clone();
                let parse = move || {
                    let profiles = session.manifest.install_profiles();
                    profiles
                        .map(|profiles| profiles.profile_downloads(&session.body, sha256))
                        .unwrap_or_default()
                };
                let parsed = tokio::task::spawn_blocking(parse).await;
                profiles.add(sha256, parsed.unwrap_or_default())
            }
        };
        let Some(host) = host.and_then(|host| profiles.hosts.get(host)) else {
            return Vec::new();
        };
        let orders: Vec<Vec<_>> = host
            .iter()
            .map(|profile| profile.iter().filter_map(archive_hash).collect())
            .collect();
        let mut requests = self.requests.lock();
        let mut next = next_downloads(&orders, &requests.requested);
        next.retain(|sha256| requests.prefetched.insert(*sha256));
        let resource = |sha256: &Sha256| {
            let mut all = host.iter().flatten();
            all.find(|archive| archive_hash(archive) == Some(*sha256))
                .cloned()
        };
        next.iter().filter_map(resource).collect()
    }
}

impl Profiles {
    /// Adds the profiles of the host whose archive `sha256` is. Returns their index.
    fn add(&mut self, sha256: Sha256, profiles: Vec<Vec<Resource>>) -> Option<usize> {
        let host = self.hosts.len();
        let archives: Vec<_> = profiles.iter().flatten().filter_map(archive_hash).collect();
        self.hosts.push(profiles);
        self.host_of.insert(sha256, None);
        for archive in archives {
            self.host_of.insert(archive, Some(host));
        }
        self.host_of.get(&sha256).copied().flatten()
    }
}

fn archive_hash(resource: &Resource) -> Option<Sha256> {
    resource.location().blob_hash()
}

/// The archives that will be asked for next, given the download order of each profile and what was asked for. Each
/// profile contains the one before it.
///
/// rustup asks in the manifest's order. So a profile counts as being installed if the requests for its archives are
/// the beginning of its order: a client that adds one component to a toolchain does not begin with the first.
/// Requests for other archives say nothing, since any profile may come with extras.
fn next_downloads(profiles: &[Vec<Sha256>], requested: &HashSet<Sha256>) -> Vec<Sha256> {
    let mut next = Vec::new();
    let mut smaller: &[Sha256] = &[];
    for profile in profiles {
        let is_requested = |sha256: &&Sha256| requested.contains(sha256);
        let beginning = profile.iter().take_while(is_requested).count();
        let in_profile = profile.iter().filter(is_requested).count();
        let evidence = profile[..beginning]
            .iter()
            .filter(|sha256| !smaller.contains(sha256))
            .count();
        let needed = if smaller.is_empty() { 1 } else { MIN_EVIDENCE };
        if beginning == in_profile && evidence >= needed {
            let rest = profile[beginning..].iter();
            let rest: Vec<_> = rest
                .filter(|sha256| !next.contains(*sha256))
                .copied()
                .collect();
            next.extend(rest);
        }
        smaller = profile;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "cargo rust-std rustc";
    const DEFAULT: &str = "cargo clippy rust-docs rust-std rustc rustfmt";

    /// Checks the prefetch during an install that asks for `requested`, one after another.
    #[track_caller]
    fn check(requested: &str, expected: &str) {
        let hash = |name: &str| Sha256::of(name.as_bytes());
        let profiles = [MINIMAL, DEFAULT].map(|profile| profile.split(' ').map(hash).collect());
        let mut prefetched: Vec<&str> = Vec::new();
        let mut so_far = HashSet::new();
        for name in requested.split(' ') {
            so_far.insert(hash(name));
            for next in next_downloads(&profiles, &so_far) {
                let name = DEFAULT.split(' ').find(|name| hash(name) == next).unwrap();
                if !prefetched.contains(&name) {
                    prefetched.push(name);
                }
            }
        }
        assert_eq!(prefetched.join(" "), expected, "after {requested}");
    }

    #[test]
    fn the_first_component_of_the_smallest_profile_starts_its_prefetch() {
        check("cargo", "rust-std rustc");
        check(MINIMAL, "rust-std rustc");
        // rustup asks for two at a time, and either may arrive first.
        check("rust-std", "");
        check("rust-std cargo", "rustc");
    }

    #[test]
    fn two_components_of_a_larger_profile_start_its_prefetch() {
        check("cargo clippy", "rust-std rustc");
        check("clippy cargo", "rust-std rustc");
        check("cargo clippy rust-docs", "rust-std rustc rustfmt");
        check("cargo rust-docs clippy", "rust-std rustc rustfmt");
        check(DEFAULT, "rust-std rustc rustfmt");
    }

    #[test]
    fn components_outside_every_profile_start_no_prefetch() {
        check("cargo rust-src", "rust-std rustc");
        check("cargo clippy rust-std rustc rustfmt", "rust-std rustc");
        check("cargo rust-std rustc rust-docs", "rust-std rustc");
        for alone in ["rust-src", "clippy", "rustfmt", "clippy rustfmt", "rustc"] {
            check(alone, "");
        }
        // Added later to a minimal toolchain.
        check("cargo rust-std rustc clippy", "rust-std rustc");
        check("cargo rust-std rustc clippy rustfmt", "rust-std rustc");
    }

    #[test]
    fn a_manifest_without_profiles_causes_no_prefetch() {
        let requested = HashSet::from([Sha256::of(b"x")]);
        assert!(next_downloads(&[], &requested).is_empty());
        assert!(next_downloads(&[Vec::new()], &requested).is_empty());
    }
}
