//! The pairs that clients were handed out: which generation each of them holds, and what those list. Knows the time, but
//! waits for nobody.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::ahead::Course;
use crate::{
    resource::{Key, Resource},
    store::Entry,
};

/// How long a client that was handed a sidecar may take to ask for the body before a new generation replaces both. rustup
/// asks at once (rustup, `download_and_check` in `dist/download.rs`).
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long a handed-out generation is served to those who ask for the body, if nothing newer was handed out since.
const HANDED: Duration = Duration::from_secs(60);
/// How long its body proves what it lists: longer than an install takes over a slow line.
const LISTED: Duration = Duration::from_secs(3600);
/// What is kept beyond [`HANDED`], in bytes of bodies. A manifest has up to one megabyte; installs that go on at one time
/// are mostly of one or two channels. What is forgotten is looked up in the store, which costs some milliseconds, or else
/// asked for.
const KEPT: usize = 6 << 20;

/// A pair whose sidecar was handed out.
#[derive(Clone, Debug)]
struct Handed {
    key: Key,
    entry: Entry,
    at: Instant,
    course: Arc<Course>,
}

/// All of them, the last one handed out last. Older generations stay for those who install them.
#[derive(Debug, Default)]
pub(super) struct Pairs(Mutex<Vec<Handed>>);

impl Pairs {
    /// Hands out the sidecar of `entry`, or of a newer one that was handed out already. What was checked later than `now` was
    /// checked by a clock that has been set back since: whether it is newer can't be known.
    ///
    /// # Errors
    /// How long to wait, as the clients of an older one may still be asking for its body.
    pub(super) fn hand_out(
        &self,
        resource: &Resource,
        key: &Key,
        entry: &Entry,
        now: SystemTime,
    ) -> Result<Entry, Duration> {
        let mut all = self.lock();
        let last = all.iter().rposition(|handed| handed.key == *key);
        let is_newer = |checked| checked > entry.checked && checked <= now;
        let handed = match last {
            Some(last)
                if all[last].entry.head.sha256 == entry.head.sha256
                    || is_newer(all[last].entry.checked) =>
            {
                all.remove(last)
            }
            Some(last) if all[last].at.elapsed() < HAND_OVER => {
                return Err(HAND_OVER.saturating_sub(all[last].at.elapsed()));
            }
            Some(_) | None => Handed {
                key: key.clone(),
                entry: entry.clone(),
                at: Instant::now(),
                course: Course::new(resource.clone(), entry.body.clone()),
            },
        };
        let entry = handed.entry.clone();
        all.push(Handed {
            at: Instant::now(),
            ..handed
        });
        forget(&mut all);
        Ok(entry)
    }

    /// The entry whose body belongs to the sidecar that was handed out last; its course begins.
    pub(super) fn give_body(&self, key: &Key) -> Option<Entry> {
        let all = self.lock();
        let last = all.iter().rfind(|handed| handed.key == *key)?;
        if last.at.elapsed() >= HANDED {
            return None;
        }
        last.course.begin();
        Some(last.entry.clone())
    }

    /// The bodies handed out of late, the last one first; those of which only the sidecar was asked for come after all others.
    pub(super) fn listings(&self) -> Vec<(Entry, Arc<Course>)> {
        let all = self.lock();
        let recent = all
            .iter()
            .rev()
            .take_while(|handed| handed.at.elapsed() < LISTED)
            .map(|handed| (handed.entry.clone(), handed.course.clone()));
        let (mut given, rest): (Vec<_>, Vec<_>) =
            recent.partition(|(_, course)| course.has_begun());
        given.extend(rest);
        given
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, Vec<Handed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is too old or too much, but never what a client may be about to ask the body of.
fn forget(all: &mut Vec<Handed>) {
    let mut bytes = 0;
    let first = all.iter().rposition(|handed| {
        bytes += handed.entry.body.len();
        let age = handed.at.elapsed();
        age >= LISTED || (bytes > KEPT && age >= HANDED)
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
            dist::{Dist, Format},
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
            Format::Upstream,
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
        let pairs = Pairs::default();
        let (resource, key, old) = pair("stable", 8, 1);
        let (_, _, new) = pair("stable", 8, 2);
        let sums = |pairs: &Pairs| -> Vec<_> {
            let listings = pairs.listings().into_iter();
            listings.map(|(entry, _)| entry.head.sha256).collect()
        };
        pairs.hand_out(&resource, &key, &old, at(100)).unwrap();
        assert!(pairs.hand_out(&resource, &key, &new, at(100)).unwrap_err() <= HAND_OVER);
        assert_eq!(pairs.give_body(&key).unwrap().head.sha256, old.head.sha256);
        pairs.lock()[0].at -= HAND_OVER;
        pairs.hand_out(&resource, &key, &new, at(100)).unwrap();
        assert_eq!(pairs.give_body(&key).unwrap().head.sha256, new.head.sha256);
        assert_eq!(sums(&pairs), [new.head.sha256, old.head.sha256]);
        // What another process still had in hand does not turn it back.
        let handed = pairs.hand_out(&resource, &key, &old, at(100)).unwrap();
        assert_eq!(handed.head.sha256, new.head.sha256);
        for handed in pairs.lock().iter_mut() {
            handed.at -= LISTED;
        }
        assert!(pairs.give_body(&key).is_none());
        assert!(sums(&pairs).is_empty());
    }

    #[test]
    fn a_generation_from_the_future_is_replaced_as_any_other() {
        let pairs = Pairs::default();
        let (resource, key, old) = pair("stable", 8, 99);
        pairs.hand_out(&resource, &key, &old, at(100)).unwrap();
        pairs.lock()[0].at -= HAND_OVER;
        // The clock was set back.
        let (_, _, new) = pair("stable", 8, 50);
        let handed = pairs.hand_out(&resource, &key, &new, at(50)).unwrap();
        assert_eq!(handed.head.sha256, new.head.sha256);
    }

    #[test]
    fn what_is_kept_is_bounded_once_nobody_can_be_about_to_ask_for_the_body() {
        let pairs = Pairs::default();
        for number in 0..20 {
            let (resource, key, entry) = pair(&number.to_string(), 1 << 20, number);
            pairs.hand_out(&resource, &key, &entry, at(100)).unwrap();
        }
        assert_eq!(pairs.lock().len(), 20);
        for handed in pairs.lock().iter_mut() {
            handed.at -= HANDED;
        }
        let (resource, key, entry) = pair("stable", 1 << 20, 99);
        pairs.hand_out(&resource, &key, &entry, at(100)).unwrap();
        assert_eq!(pairs.lock().len(), KEPT >> 20);
        assert_eq!(pairs.listings()[0].0.head.sha256, entry.head.sha256);
    }

    #[test]
    fn a_pair_whose_body_nobody_has_comes_last() {
        let pairs = Pairs::default();
        let (resource, key, given) = pair("stable", 8, 1);
        pairs.hand_out(&resource, &key, &given, at(100)).unwrap();
        pairs.give_body(&key).unwrap();
        let (resource, key, other) = pair("1.95.0", 8, 2);
        pairs.hand_out(&resource, &key, &other, at(100)).unwrap();
        let first = pairs.listings().remove(0).0;
        assert_eq!(first.head.sha256, given.head.sha256);
    }
}
