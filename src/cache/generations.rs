//! The pairs that clients were handed out: which generation each of them holds, and what those list. Knows the time, but
//! waits for nobody.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::prefetch::InstallSession;
use crate::{
    resource::{Key, Resource},
    store::{Checked, Entry},
};

/// How long a client that was handed a sidecar may take to ask for the body before a new generation replaces both. rustup
/// asks at once (rustup, `download_and_check` in `dist/download.rs`).
const MANIFEST_GRACE: Duration = Duration::from_secs(3);
/// How long a handed-out generation is served to those who ask for the body, if nothing newer was handed out since.
const PAIR_LIFETIME: Duration = Duration::from_secs(60);
/// How long its body proves what it lists: longer than an install takes over a slow line.
const LISTING_LIFETIME: Duration = Duration::from_secs(3600);
/// What is kept beyond [`PAIR_LIFETIME`], in bytes of bodies. A manifest has up to one megabyte; installs that go on at one time
/// are mostly of one or two channels. What is forgotten is looked up in the store, which costs some milliseconds, or else
/// asked for.
const MAX_BODY_BYTES: usize = 6 << 20;

/// A pair whose sidecar was handed out.
#[derive(Clone, Debug)]
struct Generation {
    key: Key,
    entry: Entry,
    at: Instant,
    session: Arc<InstallSession>,
}

/// All of them, the last one handed out last. Older generations stay for those who install them.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<Vec<Generation>>);

impl Generations {
    /// Hands out the sidecar of `entry`, or of a newer one that was handed out already. What was checked later than `now` was
    /// checked by a clock that has been set back since: whether it is newer can't be known.
    ///
    /// # Errors
    /// How long to wait, as the clients of an older one may still be asking for its body.
    pub(super) fn serve_checksum(
        &self,
        resource: &Resource,
        key: &Key,
        entry: &Entry,
        now: SystemTime,
    ) -> Result<Entry, Duration> {
        let mut all = self.lock();
        let last = all.iter().rposition(|handed| handed.key == *key);
        let is_newer = |checked| checked > entry.checked && checked <= Checked::At(now);
        let handed = match last {
            Some(last)
                if all[last].entry.head.sha256 == entry.head.sha256
                    || is_newer(all[last].entry.checked) =>
            {
                all.remove(last)
            }
            Some(last) if all[last].at.elapsed() < MANIFEST_GRACE => {
                return Err(MANIFEST_GRACE.saturating_sub(all[last].at.elapsed()));
            }
            Some(_) | None => Generation {
                key: key.clone(),
                entry: entry.clone(),
                at: Instant::now(),
                session: InstallSession::new(resource.clone(), entry.body.clone()),
            },
        };
        let entry = handed.entry.clone();
        all.push(Generation {
            at: Instant::now(),
            ..handed
        });
        forget(&mut all);
        Ok(entry)
    }

    /// The entry whose body belongs to the sidecar that was handed out last; its session begins.
    pub(super) fn serve_manifest(&self, key: &Key) -> Option<Entry> {
        let all = self.lock();
        let last = all.iter().rfind(|handed| handed.key == *key)?;
        if last.at.elapsed() >= PAIR_LIFETIME {
            return None;
        }
        last.session.begin();
        Some(last.entry.clone())
    }

    /// The bodies handed out of late, the last one first; those of which only the sidecar was asked for come after all others.
    pub(super) fn listings(&self) -> Vec<(Entry, Arc<InstallSession>)> {
        let all = self.lock();
        let recent = all
            .iter()
            .rev()
            .take_while(|handed| handed.at.elapsed() < LISTING_LIFETIME)
            .map(|handed| (handed.entry.clone(), handed.session.clone()));
        let (mut given, rest): (Vec<_>, Vec<_>) =
            recent.partition(|(_, session)| session.has_begun());
        given.extend(rest);
        given
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, Vec<Generation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is too old or too much, but never what a client may be about to ask the body of.
fn forget(all: &mut Vec<Generation>) {
    let mut bytes = 0;
    let first = all.iter().rposition(|handed| {
        bytes += handed.entry.body.len();
        let age = handed.at.elapsed();
        age >= LISTING_LIFETIME || (bytes > MAX_BODY_BYTES && age >= PAIR_LIFETIME)
    });
    all.drain(..first.map_or(0, |first| first + 1));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
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

    /// A manifest's key, and the pair of the generation that was checked at this second.
    fn pair(channel: &str, len: usize, second: u64) -> (Resource, Key, Entry) {
        let url = |text| Url::parse(text).unwrap();
        let dist = Dist::new(
            url("http://d.example/"),
            url("http://u.example/"),
            ArchiveFormat::Upstream,
        );
        let path = format!("dist/channel-rust-{channel}.toml");
        let resource = crate::resource::dist::manifest(&dist, &path).unwrap();
        let Location::Pair(key, _) = resource.location() else {
            panic!("a manifest is half of a pair")
        };
        let mut body = vec![0; len];
        body[..8].copy_from_slice(&second.to_be_bytes());
        let entry = Entry::new(Bytes::from(body), Validators::default(), None, at(second));
        (resource, key, entry)
    }

    #[test]
    fn a_new_generation_is_held_back_and_then_replaces_the_old_one_which_still_lists() {
        let pairs = Generations::default();
        let (resource, key, old) = pair("stable", 8, 1);
        let (_, _, new) = pair("stable", 8, 2);
        let sums = |pairs: &Generations| -> Vec<_> {
            let listings = pairs.listings().into_iter();
            listings.map(|(entry, _)| entry.head.sha256).collect()
        };
        pairs
            .serve_checksum(&resource, &key, &old, at(100))
            .unwrap();
        assert!(
            pairs
                .serve_checksum(&resource, &key, &new, at(100))
                .unwrap_err()
                <= MANIFEST_GRACE
        );
        assert_eq!(
            pairs.serve_manifest(&key).unwrap().head.sha256,
            old.head.sha256
        );
        pairs.lock()[0].at -= MANIFEST_GRACE;
        pairs
            .serve_checksum(&resource, &key, &new, at(100))
            .unwrap();
        assert_eq!(
            pairs.serve_manifest(&key).unwrap().head.sha256,
            new.head.sha256
        );
        assert_eq!(sums(&pairs), [new.head.sha256, old.head.sha256]);
        // What another process still had in hand does not turn it back.
        let handed = pairs
            .serve_checksum(&resource, &key, &old, at(100))
            .unwrap();
        assert_eq!(handed.head.sha256, new.head.sha256);
        for handed in pairs.lock().iter_mut() {
            handed.at -= LISTING_LIFETIME;
        }
        assert!(pairs.serve_manifest(&key).is_none());
        assert!(sums(&pairs).is_empty());
    }

    #[test]
    fn a_generation_from_the_future_is_replaced_as_any_other() {
        let pairs = Generations::default();
        let (resource, key, old) = pair("stable", 8, 99);
        pairs
            .serve_checksum(&resource, &key, &old, at(100))
            .unwrap();
        pairs.lock()[0].at -= MANIFEST_GRACE;
        // The clock was set back.
        let (_, _, new) = pair("stable", 8, 50);
        let handed = pairs.serve_checksum(&resource, &key, &new, at(50)).unwrap();
        assert_eq!(handed.head.sha256, new.head.sha256);
    }

    #[test]
    fn what_is_kept_is_bounded_once_nobody_can_be_about_to_ask_for_the_body() {
        let pairs = Generations::default();
        for number in 0..20 {
            let (resource, key, entry) = pair(&number.to_string(), 1 << 20, number);
            pairs
                .serve_checksum(&resource, &key, &entry, at(100))
                .unwrap();
        }
        assert_eq!(pairs.lock().len(), 20);
        for handed in pairs.lock().iter_mut() {
            handed.at -= PAIR_LIFETIME;
        }
        let (resource, key, entry) = pair("stable", 1 << 20, 99);
        pairs
            .serve_checksum(&resource, &key, &entry, at(100))
            .unwrap();
        assert_eq!(pairs.lock().len(), MAX_BODY_BYTES >> 20);
        assert_eq!(pairs.listings()[0].0.head.sha256, entry.head.sha256);
    }

    #[test]
    fn a_pair_whose_body_nobody_has_comes_last() {
        let pairs = Generations::default();
        let (resource, key, given) = pair("stable", 8, 1);
        pairs
            .serve_checksum(&resource, &key, &given, at(100))
            .unwrap();
        pairs.serve_manifest(&key).unwrap();
        let (resource, key, other) = pair("1.95.0", 8, 2);
        pairs
            .serve_checksum(&resource, &key, &other, at(100))
            .unwrap();
        let first = pairs.listings().remove(0).0;
        assert_eq!(first.head.sha256, given.head.sha256);
    }
}
