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
pub(super) struct Fingerprint {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self {
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// How long nobody asks until the capacity of a burst is given up.
const IDLE_BEFORE_SHRINK: Duration = Duration::from_secs(5);

/// How long a look at a file is believed, unless anything was read or written meanwhile. What another process puts is seen so much
/// later at most; and since whatever is read ends all belief, what was put before that is seen at once.
pub(super) const STAT_TTL: Duration = Duration::from_millis(10);

/// Capacity for values, by weight. None that weighs more than an eighth of it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// When nobody asks.
    pub(super) idle: u64,
    /// While somebody asks, and a moment longer.
    pub(super) burst: u64,
}

/// Values read from files, by path.
pub(super) struct MemoryCache<T> {
    created: Instant,
    /// Looks up to this moment, in nanoseconds since the beginning, count no more.
    stats_forgotten: AtomicU64,
    shared: Arc<MemoryTable<T>>,
    weight: fn(&T) -> u64,
    capacity: Capacity,
}

struct MemoryTable<T> {
    /// By paths as strings, since to hash a path part by part takes longer than all else.
    table: Cache<OsString, Arc<CachedValue<T>>, ValueWeigher<T>>,
    /// Whether somebody asked since this was last looked at.
    is_used: AtomicBool,
    /// Whether there is the capacity of a burst now.
    is_grown: AtomicBool,
}

struct CachedValue<T> {
    fingerprint: Fingerprint,
    /// When the file was last seen to be the same, in nanoseconds since the beginning.
    stat_taken: AtomicU64,
    value: T,
}

impl<T> CachedValue<T> {
    /// A value whose file is yet to be looked at.
    fn new(fingerprint: Fingerprint, value: T) -> Arc<Self> {
        Arc::new(Self {
            fingerprint,
            stat_taken: AtomicU64::new(0),
            value,
        })
    }
}

/// Takes the capacity of a burst away once nobody asks.
async fn shrink_when_idle<T: Clone>(shared: Weak<MemoryTable<T>>, idle: u64) {
    loop {
        tokio::time::sleep(IDLE_BEFORE_SHRINK).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if !shared.is_used.swap(false, Ordering::Relaxed) {
            shared.table.set_capacity(idle);
            shared.is_grown.store(false, Ordering::Release);
            return;
        }
    }
}

struct ValueWeigher<T>(fn(&T) -> u64);

impl<T> Clone for ValueWeigher<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T> fmt::Debug for MemoryCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").finish_non_exhaustive()
    }
}

impl<T> Weighter<OsString, Arc<CachedValue<T>>> for ValueWeigher<T> {
    fn weight(&self, _: &OsString, cached: &Arc<CachedValue<T>>) -> u64 {
        self.0(&cached.value).max(1)
    }
}

impl<T: Clone + Send + Sync + 'static> MemoryCache<T> {
    /// Nothing yet; `expected` many values are expected.
    pub(super) fn new(expected: usize, capacity: Capacity, weight: fn(&T) -> u64) -> Self {
        let shared = MemoryTable {
            table: Cache::with_weighter(expected, capacity.idle, ValueWeigher(weight)),
            is_used: AtomicBool::new(false),
            is_grown: AtomicBool::new(false),
        };
        Self {
            created: Instant::now(),
            stats_forgotten: AtomicU64::new(0),
            shared: Arc::new(shared),
            weight,
            capacity,
        }
    }

    /// What was read from `path`, if the same file is still there, or was a moment ago. May ask the file system, but waits for no
    /// disk if anybody asked lately.
    pub(super) fn get(&self, path: &Path) -> Option<(Fingerprint, T)> {
        let cached = self.shared.table.get(path.as_os_str())?;
        if !self.shared.is_used.load(Ordering::Relaxed) {
            self.shared.is_used.store(true, Ordering::Relaxed);
        }
        // Taken before the look: what is written meanwhile is later.
        let now = self.now();
        let stat_taken = cached.stat_taken.load(Ordering::Acquire);
        let is_recent = stat_taken > self.stats_forgotten.load(Ordering::Acquire)
            && Duration::from_nanos(now.saturating_sub(stat_taken)) < STAT_TTL;
        if !is_recent {
            match fs::symlink_metadata(path) {
                Ok(found) if Fingerprint::of(&found) == cached.fingerprint => {
                    cached.stat_taken.store(now, Ordering::Release);
                }
                Ok(_) | Err(_) => {
                    self.shared.table.remove(path.as_os_str());
                    return None;
                }
            }
        }
        Some((cached.fingerprint, cached.value.clone()))
    }

    /// Believes no look any more. To be called after each change of a file.
    pub(super) fn forget_stats(&self) {
        self.stats_forgotten.fetch_max(self.now(), Ordering::AcqRel);
    }

    /// Keeps what was read from the file whose fingerprint was `before`, now that it is `after`, with what `change` does to it.
    pub(super) fn update(
        &self,
        path: &Path,
        before: Fingerprint,
        after: Fingerprint,
        change: impl FnOnce(&mut T),
    ) {
        self.forget_stats();
        if let Some(cached) = self.shared.table.get(path.as_os_str())
            && cached.fingerprint == before
        {
            let mut value = cached.value.clone();
            change(&mut value);
            self.shared
                .table
                .insert(path.as_os_str().to_owned(), CachedValue::new(after, value));
        }
    }

    /// Keeps what was read from the file of this fingerprint.
    pub(super) fn put(&self, path: PathBuf, fingerprint: Fingerprint, value: T) {
        // Whoever put it may have made something else due before.
        self.forget_stats();
        let capacity = self.grow();
        if (self.weight)(&value) <= capacity / 8 {
            self.shared
                .table
                .insert(path.into_os_string(), CachedValue::new(fingerprint, value));
        }
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes the capacity of a burst for as long as somebody asks, where there is a runtime to take it away again; says how much
    /// capacity there is.
    fn grow(&self) -> u64 {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.capacity.idle;
        };
        self.shared.is_used.store(true, Ordering::Relaxed);
        if !self.shared.is_grown.swap(true, Ordering::AcqRel) {
            self.shared.table.set_capacity(self.capacity.burst);
            runtime.spawn(shrink_when_idle(
                Arc::downgrade(&self.shared),
                self.capacity.idle,
            ));
        }
        self.capacity.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_believed_for_a_moment_and_not_beyond_what_was_read_or_written_since() {
        let folder = tempfile::tempdir().unwrap();
        let capacity = Capacity {
            idle: 100,
            burst: 100,
        };
        let cache = MemoryCache::new(100, capacity, |_: &u8| 1);
        let path = folder.path().join("file");
        let fingerprint = || Fingerprint::of(&fs::metadata(&path).unwrap());
        let is_seen_at_once = |meanwhile: &dyn Fn()| {
            (0..20).all(|round| {
                cache.put(path.clone(), fingerprint(), 1);
                assert!(cache.get(&path).is_some());
                fs::write(&path, "x".repeat(round)).unwrap();
                meanwhile();
                cache.get(&path).is_none()
            })
        };
        fs::write(&path, "").unwrap();
        // One write in twenty takes less than a moment.
        assert!(!is_seen_at_once(&|| {}));
        assert!(is_seen_at_once(&|| cache.forget_stats()));
        assert!(is_seen_at_once(&|| cache.put(
            folder.path().join("other"),
            fingerprint(),
            2
        )));
        assert!(is_seen_at_once(&|| std::thread::sleep(STAT_TTL)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_has_more_room_and_keeps_it_while_somebody_asks() {
        let folder = tempfile::tempdir().unwrap();
        let capacity = Capacity {
            idle: 20,
            burst: 400,
        };
        let cache = MemoryCache::new(100, capacity, |value: &Vec<u8>| value.len() as u64);
        let path = |number: u64| folder.path().join(number.to_string());
        for number in 0..100 {
            fs::write(path(number), "x").unwrap();
            let fingerprint = Fingerprint::of(&fs::metadata(path(number)).unwrap());
            cache.put(path(number), fingerprint, vec![0; 3]);
        }
        let cached = || {
            (0..100)
                .filter(|number| cache.get(&path(*number)).is_some())
                .count()
        };
        for _ in 0..3 {
            assert!(cached() > 90, "{}", cached());
            tokio::time::sleep(IDLE_BEFORE_SHRINK * 9 / 10).await;
        }
        tokio::time::sleep(IDLE_BEFORE_SHRINK * 3).await;
        assert!(cached() <= 6, "{}", cached());
    }
}
