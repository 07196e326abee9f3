//! Samples of a daemon's memory, descriptors and threads, and of the disk space of its store.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(50);

/// One sample of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Resident memory in bytes.
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Sample {
    /// The present state of a process; `None` if it is gone.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        Some(Self {
            memory: number("VmRSS:")? * 1024,
            threads: number("Threads:")?,
            descriptors: descriptors.count() as u64,
        })
    }
}

/// The largest values seen so far.
#[derive(Debug, Default)]
pub(crate) struct Peaks {
    /// The process to sample; 0 while there is none.
    pub(crate) process: AtomicU32,
    pub(crate) memory: AtomicU64,
    pub(crate) descriptors: AtomicU64,
    pub(crate) threads: AtomicU64,
    pub(crate) disk: Mutex<DiskUse>,
}

/// The space that a store takes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskUse {
    pub(crate) total: u64,
    /// The part of it that unfinished files take, of living processes and of killed ones.
    pub(crate) staged: u64,
}

impl Peaks {
    /// Samples until `is_over`.
    pub(crate) fn watch(&self, store: &Path, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            let process = self.process.load(Ordering::Relaxed);
            if process != 0
                && let Some(sample) = Sample::of(process)
            {
                self.memory.fetch_max(sample.memory, Ordering::Relaxed);
                self.threads.fetch_max(sample.threads, Ordering::Relaxed);
                self.descriptors
                    .fetch_max(sample.descriptors, Ordering::Relaxed);
            }
            let now = disk_use(store);
            let mut largest = self.disk.lock().expect("no holder of this lock panics");
            if now.total > largest.total {
                *largest = now;
            }
            drop(largest);
            std::thread::sleep(INTERVAL);
        }
    }
}

impl Peaks {
    /// Says how large the store was at most, unfinished bodies included, and whether that was too much.
    pub(crate) fn judge_disk(&self, max_size: u64) -> (String, Option<String>) {
        let DiskUse { total, staged } = *self.disk.lock().expect("no holder of this lock panics");
        let percent = |bytes: u64| bytes as f64 * 100.0 / max_size as f64;
        let line = format!(
            "{:<44} {:>9.1}%\n{:<44} {:>9.1}%\n",
            "largest store, of max-size",
            percent(total),
            "  unfinished files in it",
            percent(staged),
        );
        let finding = format!("the store took {total} of {max_size} bytes, {staged} unfinished");
        (line, (total * 100 > max_size * 105).then_some(finding))
    }
}

/// The space of all files below a store, each with its length or its blocks, whichever is larger. A file that only
/// reserves space takes none.
fn disk_use(store: &Path) -> DiskUse {
    let mut space = DiskUse::default();
    for found in walkdir::WalkDir::new(store).into_iter().flatten() {
        let Ok(file) = found.metadata() else { continue };
        if file.is_file() && found.file_name() != "reserved" {
            let bytes = file.len().max(file.blocks() * 512);
            space.total += bytes;
            let mut parts = found.path().iter();
            if parts.any(|part| part == "staging") {
                space.staged += bytes;
            }
        }
    }
    space
}
