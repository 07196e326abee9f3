//! The registered lock files, as they are now. Reads them, and only when they have changed; writes nothing. One that cannot be
//! read is none.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing::debug;

use super::mark;
use crate::{
    hash::Sha256,
    lockfile,
    resource::{IndexEntry, Registries, Registry},
    store::{Owner, Pin},
};

/// The largest lock file that is read, in bytes: some fifty thousand packages.
const LARGEST: u64 = 8 << 20;
/// How long reading may go on at a time. What was changed last is read first, and the rest the next time.
const BUDGET: Duration = Duration::from_millis(500);
/// A file that was changed less than this before it was read may change again without looking different.
const SETTLED: Duration = Duration::from_secs(1);
/// What a toolchain file's name begins with: the packages that are registered for one are the standard library's.
const TOOLCHAIN_FILE: &str = "rust-toolchain";

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    locks: BTreeMap<PathBuf, Place>,
    /// Projects share most of their packages.
    packages: HashSet<Arc<Package>>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    /// Crates that were left out when it was registered, since the wanted targets need none of their versions.
    left_out: BTreeSet<String>,
    /// Of the file as it was read.
    stamp: Option<Stamp>,
    lock: Option<Arc<Lock>>,
}

/// What a lock file names.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) path: PathBuf,
    packages: Vec<Arc<Package>>,
    /// The marks of all packages, sorted.
    names: Vec<u64>,
    /// The marks of what the project depends on directly.
    direct: Vec<u64>,
    /// The names of that, and of what packages from git depend on, whose index entries nobody has.
    roots: BTreeSet<String>,
    left_out: BTreeSet<String>,
}

/// One crate with a checksum, of a registry that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) registry: Arc<Registry>,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) sum: Sha256,
    /// Of its index entry.
    pub(super) mark: u64,
}

impl std::hash::Hash for Package {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.mark, &self.version, self.sum).hash(state);
    }
}

/// What tells a file from a changed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if it is no file.
    fn of(found: &fs::Metadata) -> Option<Self> {
        found.is_file().then(|| Self {
            file: (found.dev(), found.ino()),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    fn at(path: &Path) -> Option<Self> {
        Self::of(&fs::metadata(path).ok()?)
    }

    fn is_settled(&self) -> bool {
        let changed = Duration::from_secs(self.changed.0.try_into().unwrap_or_default());
        let age = (SystemTime::UNIX_EPOCH + changed).elapsed();
        age.is_ok_and(|age| age > SETTLED + Duration::from_secs(1))
    }
}

impl Lock {
    pub(super) fn packages(&self) -> impl Iterator<Item = &Arc<Package>> {
        self.packages.iter()
    }

    /// Those that were not left out.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Arc<Package>> {
        let wanted = |package: &&Arc<Package>| !self.left_out.contains(&package.name);
        self.packages().filter(wanted)
    }

    pub(super) fn sums(&self) -> impl Iterator<Item = Sha256> {
        self.wanted().map(|package| package.sum)
    }

    /// Whether it names the package whose index entry has this mark.
    pub(super) fn names(&self, mark: u64) -> bool {
        self.names.binary_search(&mark).is_ok()
    }

    pub(super) fn direct(&self) -> &[u64] {
        &self.direct
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = String> {
        self.roots.iter().cloned()
    }
}

impl Shelf {
    /// Takes the lock files that are registered now.
    pub(super) fn register(&mut self, pins: &[Pin]) {
        let mut former = std::mem::take(&mut self.locks);
        for pin in pins {
            let Owner::File(path) = &pin.owner else {
                continue;
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(TOOLCHAIN_FILE) {
                continue;
            }
            let (out, wanted): (Vec<_>, Vec<_>) =
                pin.packages.iter().partition(|package| package.is_left_out);
            let wanted: HashSet<_> = wanted.iter().map(|package| &package.name).collect();
            let out = out.into_iter().map(|package| &package.name);
            let left_out = out.filter(|name| !wanted.contains(name)).cloned().collect();
            let mut place = former.remove(path).unwrap_or_default();
            if place.left_out != left_out {
                place = Place {
                    left_out,
                    ..Place::default()
                };
            }
            self.locks.insert(path.clone(), place);
        }
    }

    /// Reads what has changed.
    pub(super) fn look(&mut self, registries: &Registries) {
        let mut changed: Vec<_> = self
            .locks
            .iter()
            .map(|(path, place)| (Stamp::at(path), path, place.stamp))
            .filter(|(stamp, _, known)| stamp.is_none() || stamp != known)
            .map(|(stamp, path, _)| (stamp, path.clone()))
            .collect();
        changed.sort_unstable_by_key(|(stamp, _)| std::cmp::Reverse(stamp.map(|s| s.changed)));
        let deadline = Instant::now() + BUDGET;
        for (stamp, path) in changed {
            let Some(place) = self.locks.get_mut(&path) else {
                continue;
            };
            place.stamp = None;
            place.lock = None;
            if stamp.is_none() || Instant::now() > deadline {
                continue;
            }
            let read = open(&path).and_then(|(file, stamp)| {
                place.stamp = Some(stamp).filter(Stamp::is_settled);
                read(file, &path, registries, &mut self.packages)
            });
            match read {
                Ok(lock) => {
                    let left_out = place.left_out.clone();
                    place.lock = Some(Arc::new(Lock { left_out, ..lock }));
                }
                Err(error) => {
                    debug!(lock = %path.display(), error, "cannot read a registered lock file");
                }
            }
        }
        self.packages
            .retain(|package| Arc::strong_count(package) > 1);
    }

    /// Those that can be read.
    pub(super) fn locks(&self) -> impl Iterator<Item = &Arc<Lock>> {
        self.locks.values().filter_map(|place| place.lock.as_ref())
    }
}

/// Opens a file and tells what it looked like then. Never waits: what was a file may have been replaced by a pipe since.
fn open(path: &Path) -> Result<(File, Stamp), String> {
    let opened = || {
        let nonblock =
            i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock)
            .open(path)?;
        let found = file.metadata()?;
        Ok((file, found))
    };
    let (file, found) = opened().map_err(|cause: io::Error| cause.to_string())?;
    match Stamp::of(&found) {
        Some(stamp) => Ok((file, stamp)),
        None => Err("it is not a file".to_owned()),
    }
}

fn read(
    file: File,
    path: &Path,
    registries: &Registries,
    known: &mut HashSet<Arc<Package>>,
) -> Result<Lock, String> {
    let mut text = String::new();
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|cause| cause.to_string())?;
    if text.len() as u64 > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    let parsed = lockfile::parse(&text).map_err(|error| error.to_string())?;
    let mut packages = Vec::new();
    for package in parsed.packages {
        let (Some(registry), Some(sum)) = (
            package.source.registry(registries),
            package.checksum.as_deref().and_then(Sha256::parse),
        ) else {
            continue;
        };
        let entry = IndexEntry::of(registry, &package.name);
        let Some(mark) = entry.as_ref().and_then(mark) else {
            continue;
        };
        let package = Package {
            registry: registry.clone(),
            name: package.name,
            version: package.version,
            sum,
            mark,
        };
        let package = match known.get(&package) {
            Some(package) => package.clone(),
            None => {
                let package = Arc::new(package);
                known.insert(package.clone());
                package
            }
        };
        packages.push(package);
    }
    let mut names: Vec<_> = packages.iter().map(|package| package.mark).collect();
    names.sort_unstable();
    names.dedup();
    let direct = packages
        .iter()
        .filter(|package| parsed.direct.contains(&package.name));
    let mut direct: Vec<_> = direct.map(|package| package.mark).collect();
    direct.sort_unstable();
    direct.dedup();
    let mut roots = parsed.direct;
    roots.extend(parsed.of_git);
    Ok(Lock {
        path: path.to_owned(),
        packages,
        names,
        direct,
        roots,
        left_out: BTreeSet::new(),
    })
}

/// A lock file for tests, as `DIRECT | INDIRECT`, and its packages with the words that named them. A `!` is no part of a name.
#[cfg(test)]
pub(super) fn named(text: &str) -> (Arc<Lock>, Vec<(Arc<Package>, String)>) {
    use std::fmt::Write as _;
    let url = url::Url::parse("http://127.0.0.1:9/").unwrap();
    let registries = Registries::new(url, []);
    let (direct, _) = text.split_once('|').unwrap_or((text, ""));
    let bare = |word: &str| word.trim_end_matches('!').to_owned();
    let direct: Vec<_> = direct.split_whitespace().map(bare).collect();
    let mut lock = format!(
        "[[package]]\nname = \"project\"\nversion = \"0.1.0\"\ndependencies = {direct:?}\n"
    );
    let words = text.split_whitespace().filter(|word| *word != "|");
    for word in words.clone() {
        let name = bare(word);
        let sum = Sha256::of(name.as_bytes());
        let source = "registry+https://github.com/rust-lang/crates.io-index";
        let _ = write!(
            lock,
            "\n[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{source}\"\nchecksum = \"{sum}\"\n"
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, lock).unwrap();
    let (opened, _) = open(file.path()).unwrap();
    let lock = read(opened, file.path(), &registries, &mut HashSet::new()).unwrap();
    let of = |word: &str| {
        let mut packages = lock.packages();
        let package = packages.find(|package| package.name == bare(word));
        (package.unwrap().clone(), word.to_owned())
    };
    let packages = words.map(of).collect();
    (Arc::new(lock), packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(path: &Path) -> Pin {
        Pin {
            owner: Owner::File(path.to_owned()),
            packages: Vec::new(),
            archives: Vec::new(),
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_a_lock_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("Cargo.lock");
        let (kind, mode) = (
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        );
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        assert_eq!(open(&pipe).unwrap_err(), "it is not a file");
    }

    #[test]
    fn a_lock_file_is_read_anew_when_it_has_changed_and_shares_what_others_name() {
        let url = url::Url::parse("http://127.0.0.1:9/").unwrap();
        let registries = Registries::new(url, []);
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one.lock", "two.lock"].map(|name| folder.path().join(name));
        let text = |names: &[&str]| {
            let packages = names.iter().map(|name| {
                let sum = Sha256::of(name.as_bytes());
                format!(
                    "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{sum}\"\n"
                )
            });
            packages.collect::<String>()
        };
        fs::write(&one, text(&["left", "right"])).unwrap();
        fs::write(&two, text(&["left"])).unwrap();
        let mut shelf = Shelf::default();
        shelf.register(&[pin(&one), pin(&two), pin(&folder.path().join("gone"))]);
        let mut named = || {
            shelf.look(&registries);
            let of = |lock: &Arc<Lock>| {
                let names: Vec<_> = lock.packages().map(|package| &*package.name).collect();
                names.join(" ")
            };
            let all: Vec<_> = shelf.locks().map(of).collect();
            (all.join(", "), shelf.packages.len())
        };
        assert_eq!(named(), ("left right, left".to_owned(), 2));
        fs::write(&one, text(&["left"])).unwrap();
        assert_eq!(named(), ("left, left".to_owned(), 1));
        fs::write(&one, "<<<<<<< ours\n").unwrap();
        assert_eq!(named(), ("left".to_owned(), 1));
        fs::remove_file(&two).unwrap();
        assert_eq!(named(), (String::new(), 0));
        fs::write(&two, text(&["right"])).unwrap();
        assert_eq!(named(), ("right".to_owned(), 1));
    }
}
