//! Memory cache of what was read from files, so that a hit needs no read and no hashing.
//!
//! A cached value is valid as long as the same file is in its place: same inode, size and times. One `stat` tells, so
//! the cache needs no notification from the other processes that write to the store.
//!
//! ```text
//!  get(path) ── cached? ── stat less than 10 ms old? ── yes ──────────────────────> value
//!                  │                  └── no ── stat(path) == fingerprint? ── yes ──> value
//!                  └── no ────────────────────────────── no ─────────────────────> None: the caller reads the file
//! ```
//!
//! Reusing a `stat` result for [`STAT_TTL`] delays changes by other processes that long. Each write by this process,
//! and each file that it reads, drops all `stat` results at once. So a client that has seen a new entry never gets an
//! older one of another entry that was written before it.
//!
//! The capacity is small while clients are idle and large during a burst; see [`Capacity`].

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quick_cache::{Weighter, sync::Cache};

use super::identity::FileIdentity;

/// Time without a `get` or `put` after which a burst is over.
const IDLE_BEFORE_SHRINK: Duration = Duration::from_secs(5);

/// Time for which the result of `stat` is reused.
pub(super) const STAT_TTL: Duration = Duration::from_millis(10);

/// A value may take one part in this many of the capacity. A larger one would evict too much else.
const LARGEST_SHARE: u64 = 8;

/// Limits of the weight of all values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// While clients are idle.
    pub(super) idle: u64,
    /// From a `put` until [`IDLE_BEFORE_SHRINK`] after the last use.
    pub(super) burst: u64,
}

/// Values by the path they were read from.
pub(super) struct MemoryCache<T> {
    created: Instant,
    /// `stat` results up to this time are not reused. In nanoseconds since `created`.
    stats_forgotten: AtomicU64,
    shared: Arc<MemoryTable<T>>,
    weight: fn(&T) -> u64,
    capacity: Capacity,
}

/// The part of a [`MemoryCache`] that the task which ends a burst needs.
struct MemoryTable<T> {
    /// Keys are strings, because hashing a `Path` component by component took longer than the rest of a lookup.
    table: Cache<OsString, Arc<CachedValue<T>>, ValueWeigher<T>>,
    /// True if there was a use since that task last checked.
    is_used: AtomicBool,
    /// True if the capacity is that of a burst.
    is_grown: AtomicBool,
}

struct CachedValue<T> {
    fingerprint: FileIdentity,
    /// Time of the last `stat` that gave this fingerprint. In nanoseconds since the cache was created.
    stat_taken: AtomicU64,
    value: T,
}

impl<T> CachedValue<T> {
    /// A value that needs a `stat` before its first use.
    fn new(fingerprint: FileIdentity, value: T) -> Arc<Self> {
        Arc::new(Self {
            fingerprint,
            stat_taken: AtomicU64::new(0),
            value,
        })
    }
}

impl<T> MemoryTable<T> {
    fn mark_used(&self) {
        // Reading first avoids a write to a shared cache line on every hit.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }
}

/// Reduces the capacity when the burst is over.
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
    /// An empty cache, prepared for `expected` values.
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

    /// The value of `path`, if the file is unchanged. May call `stat`, which waits for no disk: the kernel remembers
    /// files that were used lately.
    pub(super) fn get(&self, path: &Path) -> Option<(FileIdentity, T)> {
        let cached = self.shared.table.get(path.as_os_str())?;
        self.shared.mark_used();
        // Before `stat`, so that a change during it is later.
        let now = self.now();
        let stat_taken = cached.stat_taken.load(Ordering::Acquire);
        let is_recent = stat_taken > self.stats_forgotten.load(Ordering::Acquire)
            && Duration::from_nanos(now.saturating_sub(stat_taken)) < STAT_TTL;
        if !is_recent {
            match fs::symlink_metadata(path) {
                Ok(found) if FileIdentity::of(&found) == cached.fingerprint => {
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

    /// Makes every value need a `stat` before its next use. Called after each change of a file.
    pub(super) fn forget_stats(&self) {
        self.stats_forgotten.fetch_max(self.now(), Ordering::AcqRel);
    }

    /// Applies `change` to the value of `path`, whose file had the fingerprint `before` and now has `after`.
    pub(super) fn update(
        &self,
        path: &Path,
        before: FileIdentity,
        after: FileIdentity,
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

    /// Adds a value that was read from the file at `path` when it had this fingerprint.
    pub(super) fn put(&self, path: PathBuf, fingerprint: FileIdentity, value: T) {
        // The process that wrote this file may have invalidated other entries before.
        self.forget_stats();
        let capacity = self.grow();
        if (self.weight)(&value) <= capacity / LARGEST_SHARE {
            self.shared
                .table
                .insert(path.into_os_string(), CachedValue::new(fingerprint, value));
        }
    }

    /// Nanoseconds since the cache was created.
    fn now(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins a burst, or prolongs it, and returns the capacity. Outside a runtime there is no task that could end
    /// the burst.
    fn grow(&self) -> u64 {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.capacity.idle;
        };
        self.shared.mark_used();
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
    fn a_stat_is_reused_for_its_lifetime_or_until_the_next_read_or_write() {
        let folder = tempfile::tempdir().unwrap();
        let capacity = Capacity {
            idle: 100,
            burst: 100,
        };
        let cache = MemoryCache::new(100, capacity, |_: &u8| 1);
        let path = folder.path().join("file");
        let fingerprint = || FileIdentity::of(&fs::metadata(&path).unwrap());
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
        // At least one of twenty writes takes less than the lifetime.
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
    async fn a_burst_has_more_capacity_until_clients_are_idle() {
        let folder = tempfile::tempdir().unwrap();
        let capacity = Capacity {
            idle: 20,
            burst: 400,
        };
        let cache = MemoryCache::new(100, capacity, |value: &Vec<u8>| value.len() as u64);
        let path = |number: u64| folder.path().join(number.to_string());
        for number in 0..100 {
            fs::write(path(number), "x").unwrap();
            let fingerprint = FileIdentity::of(&fs::metadata(path(number)).unwrap());
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
