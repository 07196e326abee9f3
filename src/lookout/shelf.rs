//! The registered lock files, as they are now. Reads them, and only when they have changed; writes nothing. One that cannot be
//! read is none.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing::debug;

use super::{BUDGET, burst::Candidate, mark};
use crate::{
    hash::Sha256,
    lockfile,
    resource::{IndexEntry, Registries, Registry},
    store::{Owner, Pin, Pinned, Registration},
};

/// The largest lock file that is read, in bytes: some fifty thousand packages.
const LARGEST: u64 = 8 << 20;
/// A file that was changed less than this before it was read may change again without looking different.
const SETTLED: Duration = Duration::from_secs(1);
/// What a toolchain file's name begins with.
const TOOLCHAIN_FILE: &str = "rust-toolchain";

/// All of them. For each registration are kept its stamp and name, a path, 8 bytes for each crate that was left out, and 20 bytes
/// or so for each package that the lock file names; for each distinct package, some 200 bytes.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// By the names of their registrations.
    places: BTreeMap<String, Place>,
    /// Projects share most of their packages.
    packages: HashSet<Arc<Package>>,
}

/// What one registration is about.
#[derive(Debug)]
struct Place {
    /// As it was when it was read.
    registration: Registration,
    /// Where the lock file is; `None` if there is none, or nothing that larder would fetch.
    path: Option<PathBuf>,
    /// The marks of crates that were left out when it was registered, since the wanted targets need none of their versions.
    left_out: Arc<BTreeSet<u64>>,
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
    /// The marks of that, and of what packages from git depend on, whose index entries nobody has.
    roots: Vec<u64>,
    left_out: Arc<BTreeSet<u64>>,
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
        let wanted = |package: &&Arc<Package>| !self.left_out.contains(&package.mark);
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

    pub(super) fn roots(&self) -> impl Iterator<Item = u64> {
        self.roots.iter().copied()
    }

    /// The marks of all packages by their names. Who needs a name may mean that of any registry.
    pub(super) fn bearers(&self) -> HashMap<&str, BTreeSet<u64>> {
        let mut bearers: HashMap<_, BTreeSet<_>> = HashMap::new();
        for package in &self.packages {
            bearers
                .entry(&*package.name)
                .or_default()
                .insert(package.mark);
        }
        bearers
    }
}

impl Shelf {
    /// Forgets what is registered no more, and says which of the present registrations must be read.
    pub(super) fn unread(&mut self, present: Vec<Registration>) -> Vec<Registration> {
        let names: HashSet<_> = present.iter().map(Registration::name).collect();
        self.places.retain(|name, _| names.contains(&**name));
        let is_known = |registration: &Registration| {
            let place = self.places.get(registration.name());
            place.is_some_and(|place| place.registration == *registration)
        };
        let present = present.into_iter();
        present.filter(|one| !is_known(one)).collect()
    }

    /// Takes what one registration says; `None` if it can't be read.
    pub(super) fn register(
        &mut self,
        registration: Registration,
        pin: Option<&Pin>,
        registries: &Registries,
    ) {
        let about = pin.and_then(|pin| Some((pin, lock_path(pin)?)));
        let left_out = about.map(|(pin, _)| left_out(pin, registries));
        let place = Place {
            path: about.map(|(_, path)| path.to_owned()),
            left_out: Arc::new(left_out.unwrap_or_default()),
            stamp: None,
            lock: None,
            registration,
        };
        let name = place.registration.name().to_owned();
        match self.places.get_mut(&name) {
            // What is left out is told by the registration, all else by the file.
            Some(former) if former.path == place.path && former.left_out == place.left_out => {
                former.registration = place.registration;
            }
            Some(former) => *former = place,
            None => {
                self.places.insert(name, place);
            }
        }
    }

    /// Reads what has changed.
    pub(super) fn look(&mut self, registries: &Registries) {
        let paths = self
            .places
            .iter()
            .filter_map(|(name, place)| Some((Stamp::at(place.path.as_ref()?), name, place.stamp)));
        let mut changed: Vec<_> = paths
            .filter(|(stamp, _, known)| stamp.is_none() || stamp != known)
            .map(|(stamp, name, _)| (stamp, name.clone()))
            .collect();
        changed.sort_unstable_by_key(|(stamp, _)| std::cmp::Reverse(stamp.map(|s| s.changed)));
        let deadline = Instant::now() + BUDGET;
        for (stamp, name) in changed {
            let Some(place) = self.places.get_mut(&name) else {
                continue;
            };
            place.stamp = None;
            place.lock = None;
            let Some(path) = &place.path else {
                continue;
            };
            if stamp.is_none() || Instant::now() > deadline {
                continue;
            }
            let read = open(path).and_then(|(file, stamp)| {
                place.stamp = Some(stamp).filter(Stamp::is_settled);
                read(file, path, registries, &mut self.packages)
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
        self.places.values().filter_map(|place| place.lock.as_ref())
    }

    /// The hashes of all that they want, each once.
    pub(super) fn sums(&self) -> Vec<Sha256> {
        let sums = self.locks().flat_map(|lock| lock.sums());
        let sums: HashSet<_> = sums.collect();
        sums.into_iter().collect()
    }

    /// All of them, each with what it lacks if the store lacks these. None, if nothing is lacking.
    pub(super) fn candidates(&self, lacking: &HashSet<Sha256>) -> Vec<Candidate> {
        if lacking.is_empty() {
            return Vec::new();
        }
        let candidates = self.locks().map(|lock| Candidate {
            lacks: lock
                .wanted()
                .filter(|package| lacking.contains(&package.sum))
                .cloned()
                .collect(),
            lock: lock.clone(),
        });
        candidates.collect()
    }
}

/// Where the lock file is that is registered. What is registered for a toolchain file are the standard library's packages.
fn lock_path(pin: &Pin) -> Option<&Path> {
    let Owner::File(path) = &pin.owner else {
        return None;
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (!pin.packages.is_empty() && !name.starts_with(TOOLCHAIN_FILE)).then_some(path)
}

/// The marks of crates of which no version is wanted.
fn left_out(pin: &Pin, registries: &Registries) -> BTreeSet<u64> {
    let name = |package: &Pinned| (package.registry.clone(), package.name.clone());
    let (out, wanted): (Vec<_>, Vec<_>) =
        pin.packages.iter().partition(|package| package.is_left_out);
    let mut out: HashSet<_> = out.into_iter().map(name).collect();
    if !out.is_empty() {
        for package in wanted {
            out.remove(&name(package));
        }
    }
    out.iter()
        .filter_map(|(registry, name)| mark(&IndexEntry::of(registries.named(registry)?, name)?))
        .collect()
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
    let marks_of = |is_meant: &dyn Fn(&str) -> bool| {
        let meant = packages.iter().filter(|package| is_meant(&package.name));
        let mut marks: Vec<_> = meant.map(|package: &Arc<Package>| package.mark).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    };
    let (direct, of_git) = (&parsed.direct, &parsed.of_git);
    Ok(Lock {
        path: path.to_owned(),
        names: marks_of(&|_| true),
        direct: marks_of(&|name| direct.contains(name)),
        roots: marks_of(&|name| direct.contains(name) || of_git.contains(name)),
        packages,
        left_out: Arc::default(),
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
    use crate::store::{Files, Store as _};

    fn registries() -> Registries {
        Registries::new(url::Url::parse("http://127.0.0.1:9/").unwrap(), [])
    }

    /// Registers a lock file with a package of this name, that is left out or not.
    async fn put(store: &Files, path: &Path, name: &str, is_left_out: bool) {
        let package = Pinned {
            registry: "crates-io".to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            checksum: None,
            is_left_out,
        };
        let pin = Pin {
            owner: Owner::File(path.to_owned()),
            packages: vec![package],
            archives: Vec::new(),
        };
        store.put_pin(&pin).await.unwrap();
    }

    /// Takes what is registered, and says how many registrations had to be read.
    async fn register(shelf: &mut Shelf, store: &Files) -> usize {
        let unread = shelf.unread(store.registrations().await.unwrap());
        let pins = store.read_pins(unread.clone()).await.unwrap();
        let read = unread.len();
        for (registration, pin) in unread.into_iter().zip(pins) {
            shelf.register(registration, pin.as_ref(), &registries());
        }
        read
    }

    /// The text of a lock file that names these.
    fn text(names: &[&str]) -> String {
        let packages = names.iter().map(|name| {
            let sum = Sha256::of(name.as_bytes());
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{sum}\"\n"
            )
        });
        packages.collect()
    }

    /// What each lock file names that is not left out, sorted, and how many packages are kept.
    fn wanted(shelf: &mut Shelf) -> (Vec<String>, usize) {
        shelf.look(&registries());
        let of = |lock: &Arc<Lock>| {
            let names: Vec<_> = lock.wanted().map(|package| &*package.name).collect();
            names.join(" ")
        };
        let mut all: Vec<_> = shelf.locks().map(of).collect();
        all.sort();
        (all, shelf.packages.len())
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

    #[tokio::test]
    async fn a_lock_file_is_read_anew_when_it_has_changed_and_shares_what_others_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Files::open(&folder.path().join("store")).unwrap();
        let [one, two, gone] = ["one", "two", "gone"].map(|name| folder.path().join(name));
        for path in [&one, &two, &gone] {
            put(&store, path, "left", false).await;
        }
        fs::write(&one, text(&["left", "right"])).unwrap();
        fs::write(&two, text(&["left"])).unwrap();
        let mut shelf = Shelf::default();
        assert_eq!(register(&mut shelf, &store).await, 3);
        let mut check = |expected: &[&str], packages| {
            let (found, kept) = wanted(&mut shelf);
            assert_eq!(found, expected);
            assert_eq!(kept, packages);
        };
        check(&["left", "left right"], 2);
        fs::write(&one, text(&["left"])).unwrap();
        check(&["left", "left"], 1);
        fs::write(&one, "<<<<<<< ours\n").unwrap();
        check(&["left"], 1);
        fs::remove_file(&two).unwrap();
        check(&[], 0);
        fs::write(&two, text(&["right"])).unwrap();
        check(&["right"], 1);
    }

    #[tokio::test]
    async fn only_registrations_that_have_changed_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Files::open(&folder.path().join("store")).unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let broken = folder.path().join("store/v1/projects/broken.json");
        for path in [&one, &two] {
            fs::write(path, text(&["left", "right"])).unwrap();
            put(&store, path, "left", false).await;
        }
        fs::write(&broken, "{").unwrap();
        let mut shelf = Shelf::default();
        assert_eq!(register(&mut shelf, &store).await, 3);
        assert_eq!(register(&mut shelf, &store).await, 0);
        assert_eq!(wanted(&mut shelf).0, ["left right", "left right"]);

        // The same bytes, by a rename.
        put(&store, &one, "left", false).await;
        assert_eq!(register(&mut shelf, &store).await, 1);
        assert_eq!(wanted(&mut shelf).0, ["left right", "left right"]);
        put(&store, &one, "left", true).await;
        assert_eq!(register(&mut shelf, &store).await, 1);
        assert_eq!(wanted(&mut shelf).0, ["left right", "right"]);

        for file in fs::read_dir(broken.parent().unwrap()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        assert_eq!(register(&mut shelf, &store).await, 0);
        assert_eq!(wanted(&mut shelf), (Vec::new(), 0));
    }

    #[test]
    fn what_one_registry_leaves_out_another_may_want() {
        let folder = tempfile::tempdir().unwrap();
        let url = |port| url::Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
        let registries = Registries::new(url(9), [("corp".to_owned(), url(8))]);
        let pinned = |registry: &str, is_left_out| Pinned {
            registry: registry.to_owned(),
            name: "left".to_owned(),
            version: "1.0.0".to_owned(),
            checksum: None,
            is_left_out,
        };
        let pin = Pin {
            owner: Owner::File(folder.path().to_owned()),
            packages: vec![pinned("crates-io", true), pinned("corp", false)],
            archives: Vec::new(),
        };
        let mark = |registry| mark(&IndexEntry::of(registry, "left").unwrap()).unwrap();
        let out = left_out(&pin, &registries);
        assert_eq!(out, BTreeSet::from([mark(registries.crates_io())]));
    }
}
