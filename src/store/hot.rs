//! What was read from files lately, kept for as long as the same file is in its place: several processes may write to one
//! store, and requests must see what any of them put. A look at the file's status tells, and is believed for a moment.
//! Bounded, more tightly when nobody asks; knows nothing of what is in the files.

use std::{
    ffi::OsString,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quick_cache::{Weighter, sync::Cache};

/// A file as it was when it was read. Every way to change what is in its place, or when it was last checked, changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self {
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// How long nobody asks until the room of a burst is given up.
const CALM: Duration = Duration::from_secs(5);

/// How long a look at a file is believed, unless anything was read or written meanwhile. What another process puts is seen so much
/// later at most; and since whatever is read ends all belief, what was put before that is seen at once.
pub(super) const BELIEF: Duration = Duration::from_millis(10);

/// Room for values, by weight. None that weighs more than an eighth of it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// When nobody asks.
    pub(super) idle: u64,
    /// While somebody asks, and a moment longer.
    pub(super) burst: u64,
}

/// Values read from files, by path.
pub(super) struct Hot<T> {
    began: Instant,
    /// Looks up to this moment, in nanoseconds since the beginning, count no more.
    doubted: AtomicU64,
    held: Arc<Held<T>>,
    weight: fn(&T) -> u64,
    room: Room,
}

struct Held<T> {
    /// By paths as strings, since to hash a path part by part takes longer than all else.
    table: Cache<OsString, Arc<Value<T>>, Weigh<T>>,
    /// Whether somebody asked since this was last looked at.
    is_used: AtomicBool,
    /// Whether there is the room of a burst now.
    is_wide: AtomicBool,
}

struct Value<T> {
    stamp: Stamp,
    /// When the file was last seen to be the same, in nanoseconds since the beginning.
    looked: AtomicU64,
    value: T,
}

impl<T> Value<T> {
    /// A value whose file is yet to be looked at.
    fn new(stamp: Stamp, value: T) -> Arc<Self> {
        Arc::new(Self {
            stamp,
            looked: AtomicU64::new(0),
            value,
        })
    }
}

/// Takes the room of a burst away once nobody asks.
async fn narrow<T: Clone>(held: Weak<Held<T>>, idle: u64) {
    loop {
        tokio::time::sleep(CALM).await;
        let Some(held) = held.upgrade() else { return };
        if !held.is_used.swap(false, Ordering::Relaxed) {
            held.table.set_capacity(idle);
            held.is_wide.store(false, Ordering::Release);
            return;
        }
    }
}

struct Weigh<T>(fn(&T) -> u64);

impl<T> Clone for Weigh<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T> fmt::Debug for Hot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").finish_non_exhaustive()
    }
}

impl<T> Weighter<OsString, Arc<Value<T>>> for Weigh<T> {
    fn weight(&self, _: &OsString, held: &Arc<Value<T>>) -> u64 {
        self.0(&held.value).max(1)
    }
}

impl<T: Clone + Send + Sync + 'static> Hot<T> {
    /// Nothing yet; `usual` many values are expected.
    pub(super) fn new(usual: usize, room: Room, weight: fn(&T) -> u64) -> Self {
        let held = Held {
            table: Cache::with_weighter(usual, room.idle, Weigh(weight)),
            is_used: AtomicBool::new(false),
            is_wide: AtomicBool::new(false),
        };
        Self {
            began: Instant::now(),
            doubted: AtomicU64::new(0),
            held: Arc::new(held),
            weight,
            room,
        }
    }

    /// What was read from `path`, if the same file is still there, or was a moment ago. May ask the file system, but waits for no
    /// disk if anybody asked lately.
    pub(super) fn get(&self, path: &Path) -> Option<(Stamp, T)> {
        let held = self.held.table.get(path.as_os_str())?;
        if !self.held.is_used.load(Ordering::Relaxed) {
            self.held.is_used.store(true, Ordering::Relaxed);
        }
        // Taken before the look: what is written meanwhile is later.
        let now = self.now();
        let looked = held.looked.load(Ordering::Acquire);
        let is_believed = looked > self.doubted.load(Ordering::Acquire)
            && Duration::from_nanos(now.saturating_sub(looked)) < BELIEF;
        if !is_believed {
            match fs::symlink_metadata(path) {
                Ok(found) if Stamp::of(&found) == held.stamp => {
                    held.looked.store(now, Ordering::Release);
                }
                Ok(_) | Err(_) => {
                    self.held.table.remove(path.as_os_str());
                    return None;
                }
            }
        }
        Some((held.stamp, held.value.clone()))
    }

    /// Believes no look any more. To be called after each change of a file.
    pub(super) fn doubt(&self) {
        self.doubted.fetch_max(self.now(), Ordering::AcqRel);
    }

    /// Keeps what was read from the file whose stamp was `before`, now that it is `after`, with what `change` does to it.
    pub(super) fn restamp(
        &self,
        path: &Path,
        before: Stamp,
        after: Stamp,
        change: impl FnOnce(&mut T),
    ) {
        self.doubt();
        if let Some(held) = self.held.table.get(path.as_os_str())
            && held.stamp == before
        {
            let mut value = held.value.clone();
            change(&mut value);
            self.held
                .table
                .insert(path.as_os_str().to_owned(), Value::new(after, value));
        }
    }

    /// Keeps what was read from the file of this stamp.
    pub(super) fn put(&self, path: PathBuf, stamp: Stamp, value: T) {
        // Whoever put it may have made something else due before.
        self.doubt();
        let room = self.widen();
        if (self.weight)(&value) <= room / 8 {
            self.held
                .table
                .insert(path.into_os_string(), Value::new(stamp, value));
        }
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes the room of a burst for as long as somebody asks, where there is a runtime to take it away again; says how much
    /// room there is.
    fn widen(&self) -> u64 {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.room.idle;
        };
        self.held.is_used.store(true, Ordering::Relaxed);
        if !self.held.is_wide.swap(true, Ordering::AcqRel) {
            self.held.table.set_capacity(self.room.burst);
            runtime.spawn(narrow(Arc::downgrade(&self.held), self.room.idle));
        }
        self.room.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_believed_for_a_moment_and_not_beyond_what_was_read_or_written_since() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room {
            idle: 100,
            burst: 100,
        };
        let hot = Hot::new(100, room, |_: &u8| 1);
        let path = folder.path().join("file");
        let stamp = || Stamp::of(&fs::metadata(&path).unwrap());
        let is_seen_at_once = |meanwhile: &dyn Fn()| {
            (0..20).all(|round| {
                hot.put(path.clone(), stamp(), 1);
                assert!(hot.get(&path).is_some());
                fs::write(&path, "x".repeat(round)).unwrap();
                meanwhile();
                hot.get(&path).is_none()
            })
        };
        fs::write(&path, "").unwrap();
        // One write in twenty takes less than a moment.
        assert!(!is_seen_at_once(&|| {}));
        assert!(is_seen_at_once(&|| hot.doubt()));
        assert!(is_seen_at_once(&|| hot.put(
            folder.path().join("other"),
            stamp(),
            2
        )));
        assert!(is_seen_at_once(&|| std::thread::sleep(BELIEF)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_has_more_room_and_keeps_it_while_somebody_asks() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room {
            idle: 20,
            burst: 400,
        };
        let hot = Hot::new(100, room, |value: &Vec<u8>| value.len() as u64);
        let path = |number: u64| folder.path().join(number.to_string());
        for number in 0..100 {
            fs::write(path(number), "x").unwrap();
            let stamp = Stamp::of(&fs::metadata(path(number)).unwrap());
            hot.put(path(number), stamp, vec![0; 3]);
        }
        let held = || {
            (0..100)
                .filter(|number| hot.get(&path(*number)).is_some())
                .count()
        };
        for _ in 0..3 {
            assert!(held() > 90, "{}", held());
            tokio::time::sleep(CALM * 9 / 10).await;
        }
        tokio::time::sleep(CALM * 3).await;
        assert!(held() <= 6, "{}", held());
    }
}
