//! Fetches ahead what a registered lock file names and the store lacks, once a client sets out to ask for it. Listens to what
//! clients ask for, looks at the lock files, and has the cache fetch. Which lock file is meant is `burst`'s to say, what a lock file
//! names `shelf`'s, what of it this machine needs `wants`'s, not to wait for hung disks `lent`'s.

mod burst;
mod lent;
mod shelf;
mod wants;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};

use crate::{
    cache::{Cache, ExtraRoom, Lane, Strikes},
    hash::Sha256,
    resource::{Audience, CrateFile, IndexEntry, Place, Registries, Resource, Upstreams},
    store::{Store, StoreError},
};
use burst::{Burst, Candidate, Verdict};
use lent::{Away, Lent};
use shelf::{Lock, Package, Shelf};
use wants::Wants;

/// How often to look at the lock files at most. Looking is kept to a twentieth of one core besides.
const EVERY: Duration = Duration::from_secs(2);
const SHARE: u32 = 20;
/// How long reading registrations, or lock files, may go on at a time. What was changed last is read first, and the rest the next
/// time; and so many registrations are in memory at once as they are, of which little is kept.
const BUDGET: Duration = Duration::from_millis(500);
const READ_AT_ONCE: usize = 16;
/// How long looking at all lock files may take: what they are on may be mounted from a machine that does not answer.
const LOOK: Duration = Duration::from_secs(10);
/// What is asked for at once comes within this time, and no pause in it is longer than the other.
const VOLLEY: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(4);
/// Clients that have asked for nothing for so long do something else next.
const QUIET: Duration = Duration::from_secs(2);
/// What was begun ahead, or found to be for another platform, is not begun again for so long: it may be what can't be had.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// Crates fetched ahead at a time.
const IN_FLIGHT: u16 = 64;
/// Index entries asked for ahead at a time. Clients may ask for other things meanwhile, and the cache has room for 300 such requests:
/// a third of it is left to them, however many packages lock files name.
const ENTRIES_IN_FLIGHT: usize = 200;
/// So many failures end it: upstream or the disk has trouble.
const STRIKES: usize = 3;
/// Names that wait to be looked at. What comes beyond them is not noted, which costs no more than a fetch ahead.
const BACKLOG: usize = 4096;

/// The handle that is told what clients ask for. To tell it costs next to nothing while there is nothing to fetch ahead.
#[derive(Debug)]
pub struct Lookout {
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    /// Whether it matters now what clients ask for.
    is_listening: AtomicBool,
    /// When to look again at the earliest, in milliseconds since the beginning.
    due: AtomicU64,
    /// Bursts that one lock file explained, and those that none did which was registered.
    followed: AtomicU64,
    unexplained: AtomicU64,
}

/// Why it can't be told what lock files name.
#[derive(Debug, thiserror::Error)]
enum Blind {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Away(Away),
}

impl From<Away> for Blind {
    fn from(away: Away) -> Self {
        Self::Away(away)
    }
}

#[derive(Debug)]
enum Event {
    /// A client sets out, and it is time to look.
    Begin,
    /// A client asks for the index entry of this name.
    Asked(u64),
}

impl Shared {
    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A registry and a name in it, for telling them apart. Two that look the same cost a fetch in vain.
fn mark(entry: &Resource) -> Option<u64> {
    let Place::Entry(key) = entry.place() else {
        return None;
    };
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    Some(hasher.finish())
}

impl Lookout {
    /// Keeps watch over what is registered in `store`, for as long as the handle is held.
    pub fn keep(cache: Cache, store: Arc<dyn Store>, upstreams: Upstreams) -> Self {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            is_listening: AtomicBool::new(false),
            due: AtomicU64::new(0),
            followed: AtomicU64::new(0),
            unexplained: AtomicU64::new(0),
        });
        let (sender, events) = mpsc::channel(BACKLOG);
        let lane = Lane::new(
            IN_FLIGHT.into(),
            "crates-ahead-fetched",
            "crates-ahead-asked",
        );
        let watch = Watch {
            cache,
            store,
            upstreams,
            lane: Arc::new(lane),
            entries: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT)),
            room: Weak::new(),
            shared: shared.clone(),
            shelf: Lent::new(LOOK),
            has_warned: false,
            begun: HashMap::new(),
        };
        tokio::spawn(watch.run(events));
        Self {
            events: sender,
            shared,
        }
    }

    /// What became of bursts while something was lacking: those that a lock file explained, and those that ended because something
    /// was asked for that no lock file with the rest names. To the latter belong two clients that begin at the same moment.
    pub fn totals(&self) -> [(&'static str, u64); 2] {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        [
            ("bursts-followed", count(&self.shared.followed)),
            ("bursts-unexplained", count(&self.shared.unexplained)),
        ]
    }

    /// A client asks for a registry's config, which it does before anything else, if it has none.
    pub fn note_start(&self) {
        if self.shared.now() >= self.shared.due.load(Ordering::Relaxed) {
            self.begin();
        }
    }

    /// A client asks for this.
    pub fn note(&self, resource: &Resource) {
        let is_listening = self.shared.is_listening.load(Ordering::Relaxed);
        if !is_listening && self.shared.now() < self.shared.due.load(Ordering::Relaxed) {
            return;
        }
        // Of all that is kept as an entry, cargo is given only what belongs to an index.
        if resource.policy().audience != Audience::Cargo {
            return;
        }
        let Some(mark) = mark(resource) else {
            return;
        };
        if !is_listening {
            self.begin();
        }
        let _ = self.events.try_send(Event::Asked(mark));
    }

    fn begin(&self) {
        let due = self.shared.now() + millis(EVERY);
        self.shared.due.store(due, Ordering::Relaxed);
        self.shared.is_listening.store(true, Ordering::Relaxed);
        let _ = self.events.try_send(Event::Begin);
    }
}

/// The task behind the handle.
#[derive(Debug)]
struct Watch {
    cache: Cache,
    store: Arc<dyn Store>,
    upstreams: Upstreams,
    lane: Arc<Lane>,
    /// Room for asking for index entries, shared by all errands.
    entries: Arc<Semaphore>,
    /// Of the errands that are under way: clients are to have no less of theirs, and no more when there are none.
    room: Weak<ExtraRoom>,
    shared: Arc<Shared>,
    shelf: Lent<Shelf>,
    /// Whether it was said that a disk does not answer, since one last did.
    has_warned: bool,
    begun: HashMap<Sha256, Instant>,
}

impl Watch {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let mut next = match event {
                Event::Begin => Some(HashSet::new()),
                Event::Asked(_) => None,
            };
            while let Some(earlier) = next {
                next = self.burst(&mut events, &earlier).await;
            }
            self.shared.is_listening.store(false, Ordering::Relaxed);
        }
    }

    /// Looks, then listens until it is clear which lock file clients work on, or that it is none. If a client sets out before
    /// that, another burst begins, after what was asked for in this one, which is returned.
    async fn burst(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        earlier: &HashSet<u64>,
    ) -> Option<HashSet<u64>> {
        if self.cache.is_offline() {
            debug!("larder runs offline: nothing is fetched ahead");
            return None;
        }
        self.shared.is_listening.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let looked = self.look().await;
        let due = self.shared.now() + millis(EVERY.max(began.elapsed() * SHARE));
        self.shared.due.store(due, Ordering::Relaxed);
        let candidates = match looked {
            Ok(candidates) => {
                self.has_warned = false;
                candidates
            }
            Err(error) => {
                let is_first = matches!(error, Blind::Away(_)) && !self.has_warned;
                if is_first {
                    self.has_warned = true;
                    warn!(%error, "nothing is fetched ahead for lock files until it does");
                } else {
                    debug!(%error, "cannot look at what is registered");
                }
                return None;
            }
        };
        let mut burst = Burst::after(earlier, candidates);
        if let Verdict::Nothing = burst.verdict() {
            debug!("no registered lock file lacks anything");
            return None;
        }
        loop {
            // One volley.
            let mut first = None;
            let mut patience = QUIET;
            while let Ok(event) = timeout(patience, events.recv()).await {
                match event? {
                    Event::Asked(mark) => burst.note(mark),
                    Event::Begin => return Some(burst.into_asked()),
                }
                if first.get_or_insert_with(Instant::now).elapsed() > VOLLEY {
                    break;
                }
                patience = PAUSE;
            }
            match burst.verdict() {
                Verdict::Follow(candidate) => {
                    self.shared.followed.fetch_add(1, Ordering::Relaxed);
                    self.follow(candidate);
                    return None;
                }
                Verdict::Unclear if first.is_some() => {}
                verdict @ (Verdict::Unclear | Verdict::Nothing) => {
                    if matches!(verdict, Verdict::Nothing) {
                        self.shared.unexplained.fetch_add(1, Ordering::Relaxed);
                    }
                    debug!("clients work on no registered lock file that lacks anything");
                    return None;
                }
            }
        }
    }

    /// Every lock file that can be read, and what the store lacks of it. Nothing, if it lacks nothing of any.
    async fn look(&mut self) -> Result<Vec<Candidate>, Blind> {
        let present = self.store.registrations().await?;
        let unread = self
            .with_shelf(move |shelf, _| shelf.unread(present))
            .await?;
        let began = Instant::now();
        for some in unread.chunks(READ_AT_ONCE) {
            if began.elapsed() > BUDGET {
                break;
            }
            let (some, pins) = (some.to_vec(), self.store.read_pins(some.to_vec()).await?);
            self.with_shelf(move |shelf, registries| {
                for (registration, pin) in some.into_iter().zip(pins) {
                    shelf.register(registration, pin.as_ref(), registries);
                }
            })
            .await?;
        }
        let look = |shelf: &mut Shelf, registries: &Registries| {
            shelf.look(registries);
            shelf.sums()
        };
        let sums = self.with_shelf(look).await?;

        self.begun.retain(|_, at| at.elapsed() < AGAIN);
        let held = self.store.holds(sums.clone()).await?;
        let lacking = sums
            .into_iter()
            .zip(held)
            .filter(|(sum, is_held)| !is_held && !self.begun.contains_key(sum))
            .map(|(sum, _)| sum);
        let lacking: HashSet<_> = lacking.collect();
        let candidates = self.with_shelf(move |shelf, _| shelf.candidates(&lacking));
        Ok(candidates.await?)
    }

    /// Does some work on the shelf, which may take a while for many lock files. Should the work die, the shelf is empty, and all is
    /// read anew the next time.
    async fn with_shelf<T: Default + Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Shelf, &Registries) -> T + Send + 'static,
    ) -> Result<T, Away> {
        let upstreams = self.upstreams.clone();
        let work = move |shelf: &mut Shelf| work(shelf, &upstreams.registries);
        self.shelf.with(work).await
    }

    /// Begins to fetch what the store lacks of a lock file.
    fn follow(&mut self, candidate: Candidate) {
        let Candidate { lock, mut lacks } = candidate;
        // What is begun is not begun again soon; that upstream can't be asked now says nothing about then.
        lacks.retain(|package| {
            let entry = IndexEntry::of(&package.registry, &package.name);
            entry.is_some_and(|entry| self.cache.may_ask(&entry))
        });
        if lacks.is_empty() {
            return debug!("upstream is out of reach: nothing is fetched ahead");
        }
        let now = Instant::now();
        self.begun
            .extend(lacks.iter().map(|package| (package.sum, now)));
        info!(
            lock = %lock.path.display(),
            crates = lacks.len(),
            "a client sets out to ask for what a registered lock file names; fetching ahead"
        );
        let room = self.room.upgrade();
        let room = room.unwrap_or_else(|| Arc::new(self.cache.extra_room(IN_FLIGHT)));
        self.room = Arc::downgrade(&room);
        let errand = Errand {
            cache: self.cache.clone(),
            lane: self.lane.clone(),
            entries: self.entries.clone(),
            _room: room,
            strikes: Arc::new(Strikes::new(STRIKES)),
        };
        tokio::spawn(errand.run(lock, lacks));
    }
}

/// One lock file's fetching.
#[derive(Clone)]
struct Errand {
    cache: Cache,
    lane: Arc<Lane>,
    entries: Arc<Semaphore>,
    _room: Arc<ExtraRoom>,
    strikes: Arc<Strikes>,
}

impl Errand {
    /// Asks for all index entries, as cargo is about to; as soon as they tell that a crate is needed here, and that the lock file
    /// is right about its hash, the crate.
    async fn run(self, lock: Arc<Lock>, lacks: Vec<Arc<Package>>) {
        let mut versions: HashMap<u64, Vec<Arc<Package>>> = HashMap::new();
        for package in lock.packages() {
            versions
                .entry(package.mark)
                .or_default()
                .push(package.clone());
        }
        // What is lacking is asked for first.
        let order = lacks.iter().chain(lock.packages());
        let mut entries = JoinSet::new();
        for package in order {
            let Some(versions) = versions.remove(&package.mark) else {
                continue;
            };
            let errand = self.clone();
            entries.spawn(async move { errand.entry(versions).await });
        }
        let lacking: HashSet<_> = lacks.iter().map(|package| package.sum).collect();
        let bearers = lock.bearers();
        let mut wants = Wants::of(lock.roots());
        let mut ready: HashMap<u64, Vec<Arc<Package>>> = HashMap::new();
        while let Some(learnt) = entries.join_next().await {
            let Ok(Some(learnt)) = learnt else { continue };
            let right = learnt.right.into_iter();
            let right = right.filter(|package| lacking.contains(&package.sum));
            ready.entry(learnt.mark).or_default().extend(right);
            let needs = learnt.needs.iter().filter_map(|name| bearers.get(&**name));
            for mark in wants.learn(learnt.mark, needs.flatten().copied().collect()) {
                for package in ready.remove(&mark).into_iter().flatten() {
                    let errand = self.clone();
                    tokio::spawn(async move { errand.fetch(&package).await });
                }
            }
        }
    }

    /// Has the index entry of a crate, of which these versions are locked.
    async fn entry(&self, versions: Vec<Arc<Package>>) -> Option<Learnt> {
        let first = versions.first()?;
        let entry = IndexEntry::of(&first.registry, &first.name)?;
        let turn = self.entries.acquire().await;
        let body = self.cache.fetch_entry_ahead(&entry).await?;
        drop(turn);
        let mut needs = Vec::new();
        let mut right = Vec::new();
        for package in &versions {
            needs.extend(IndexEntry::needs_here(&body, &package.version));
            if IndexEntry::checksum(&body, &package.version) == Some(package.sum) {
                right.push(package.clone());
            }
        }
        Some(Learnt {
            mark: first.mark,
            needs,
            right,
        })
    }

    async fn fetch(&self, package: &Package) {
        let (registry, name, version) = (&package.registry, &package.name, &package.version);
        let Some(file) = CrateFile::of(registry, name, version, Some(package.sum)) else {
            return;
        };
        self.cache
            .fetch_blob_ahead(&file, &self.lane, &self.strikes)
            .await;
    }
}

/// What an index entry told.
struct Learnt {
    mark: u64,
    /// What the locked versions need, by name.
    needs: Vec<String>,
    /// Those of them about which lock file and index agree.
    right: Vec<Arc<Package>>,
}
