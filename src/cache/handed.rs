//! The pairs that clients were handed out: which generation each of them holds, and what those list. Knows the time, but
//! waits for nobody.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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
    /// Hands out the sidecar of `entry`, or of a newer one that was handed out already.
    ///
    /// # Errors
    /// How long to wait, as the clients of an older one may still be asking for its body.
    pub(super) fn hand_out(
        &self,
        resource: &Resource,
        key: &Key,
        entry: &Entry,
    ) -> Result<Entry, Duration> {
        let mut all = self.lock();
        let last = all.iter().rposition(|handed| handed.key == *key);
        let handed = match last {
            Some(last)
                if all[last].entry.head.sha256 == entry.head.sha256
                    || all[last].entry.checked > entry.checked =>
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
