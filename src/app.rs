//! Builds the parts of larder from [`Settings`], and runs a command on them.
//!
//! ```text
//!   Settings ──> Store ─────┐
//!            ──> Upstream ──┴──> Cache ──> Server
//! ```
//!
//! Every command starts from the same [`App`]. [`AppMode`] says what kind of client the cache has. The daemon's clients
//! get their answers before these are written, and profit from prefetching. `warm` waits until everything is written.
//! The other commands only read and never contact upstream.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{
    cache::{Cache, CacheOptions, Demand},
    config::Settings,
    files,
    memory_budget::MemoryBudget,
    open_files,
    resource::{Dist, Registries, Upstreams, dist::ArchiveFormat},
    server::{
        AccessLogFile, BackgroundTasks, ConnectionLimits, Connections, Home, PublicAddress, Server,
        guard::Hosts,
    },
    signals,
    store::{Store, StoreError},
    threads,
    trust::{AdvisoryDatabase, SigningKeys, TrustPolicy},
    upstream::{Relay, SetupError, Upstream, UpstreamOptions},
};

/// Size limit of a file with signing keys, in bytes.
const MAX_KEY_BYTES: u64 = 1 << 20;
/// Time that worker threads get to end at exit.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);
/// Concurrent requests over HTTP/1.1 to one upstream.
const DEFAULT_UPSTREAM_CONNECTIONS: usize = 100;
/// Bodies written at a time by the daemon. Few: creating files competes with the clients for the processor.
const DAEMON_WRITERS: usize = 2;
/// Longest time that the daemon takes to write what clients have been served, after the last of them has left. With
/// the 8 s for requests in flight it ends before the 20 s that the container files give it.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// Time between two attempts to prepare a store whose disk is full.
const FULL_DISK_INTERVAL: Duration = Duration::from_secs(2);
/// Bodies written at a time by `warm`, which waits for all of them.
const WARM_WRITERS: usize = 64;

/// The parts that every command works with.
#[derive(Debug)]
pub struct App {
    /// The store.
    pub store: Arc<Store>,
    /// The configured registries and dist servers.
    pub upstreams: Upstreams,
    /// The cache between both.
    pub cache: Cache,
}

/// How a command uses the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppMode {
    /// Serves clients: prefetches, and answers before it writes. Offline if the settings say so.
    Daemon,
    /// Fills the store and waits until everything is written.
    Warm,
    /// Reads the store and never contacts upstream.
    Local,
}

/// How a server may use the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAccess {
    /// It reads and writes.
    Writable,
    /// Its disk is full. Writing succeeds once there is space.
    Full,
    /// It only reads.
    ReadOnly,
}

/// A part that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store's folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client for upstream cannot be made.
    #[error(transparent)]
    Upstream(#[from] SetupError),
    /// The file with signing keys cannot be used.
    #[error("cannot use the signing key {}: {why}", .path.display())]
    SigningKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The access log cannot be written.
    #[error("cannot open the access log {}: {source}", .path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The settings name another archive format than the running daemon serves.
    #[error(
        "the running daemon of this store serves toolchains as `{served}`, not as `{wanted}`; to change that, restart it \
         as `larder serve --toolchain-format {wanted}`"
    )]
    ToolchainFormat {
        /// The format of the settings.
        wanted: &'static str,
        /// The format of the daemon.
        served: String,
    },
}

impl App {
    /// Opens the store and builds the cache. Opens no socket and writes nothing.
    ///
    /// # Errors
    /// A store that cannot be used, or root certificates that cannot be read.
    pub fn build(settings: &Settings, mode: AppMode) -> Result<Self, AppError> {
        let store = match mode {
            AppMode::Daemon | AppMode::Warm => Store::open(&settings.store)?,
            AppMode::Local => Store::open_to_read(&settings.store)?,
        };
        let store = store.with_memory(MemoryBudget::new(settings.memory));
        let store = Arc::new(store.with_open_files(open_files::share()));
        let upstreams = Upstreams {
            advisories: settings.advisories.clone().map(Box::new),
            registries: Registries::new(settings.index.clone(), settings.registries.clone())
                .with_max_crate(settings.limits.max_crate),
            dist: Dist::new(
                settings.dist_server.clone(),
                settings.update_root.clone(),
                toolchain_format(&store, settings),
            ),
        };
        // One TLS provider for the process; installing it twice is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = cache_options(settings, mode);
        let upstream_options = upstream_options(settings, options.is_offline);
        let addresses = upstreams.addresses().chain(upstreams.advisories.as_deref());
        let upstream = Upstream::new(upstream_options, addresses)?;
        let cache = Cache::new(store.clone(), upstream, options, policy(settings, mode)?);
        Ok(Self {
            store,
            upstreams,
            cache,
        })
    }

    /// Stores settings for other commands on this store: the archive format of toolchain manifests, which all must plan
    /// with, and the addresses of the indexes.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn remember_settings(&self) -> Result<(), StoreError> {
        let format = self.upstreams.dist.format();
        self.store.put_toolchain_format(format.name()).await?;
        for registry in self.upstreams.registries.iter() {
            let address = registry.public_index();
            let folder = registry.entry_folder();
            self.store.put_index(folder, address.as_str()).await?;
        }
        Ok(())
    }

    /// Prepares the store for a server, and stores the settings for other commands. Returns how the server may use the
    /// store: what is stored can be served without writing.
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn prepare_to_serve(&self, settings: &Settings) -> Result<StoreAccess, StoreError> {
        match self.store.prepare() {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                let store = settings.store.display();
                warn!(
                    %store,
                    "the disk of the store is full; serving what is stored, and passing on the rest without storing it; \
                     free some space, and larder stores again without a restart"
                );
                return Ok(StoreAccess::Full);
            }
            Err(error) if settings.is_offline || error.is_read_only() => {
                warn!(%error, "the store is read-only; serving what is stored, storing nothing");
                return Ok(StoreAccess::ReadOnly);
            }
            Err(error) => return Err(error),
        }
        if let Err(error) = self.remember_settings().await {
            warn!(%error, "cannot store the settings for other commands");
        }
        Ok(StoreAccess::Writable)
    }

    /// Discards unfinished downloads and writes what clients have been served, for [`LAST_WRITES`] at most. Call it
    /// when no client is left: no fetch ends afterwards.
    pub async fn finish(&self) {
        let finish = async {
            self.cache.flush().await;
            self.store.flush_uses(true).await;
        };
        if timeout(LAST_WRITES, finish).await.is_err() {
            warn!(
                limit = %humantime::format_duration(LAST_WRITES),
                "the disk of the store is too slow to write everything; what is missing is fetched again"
            );
        }
    }

    /// Waits until the full disk of a store has space again, and prepares the store then. Files can be stored from the
    /// first free byte on, without this.
    pub async fn prepare_once_there_is_space(&self) {
        loop {
            sleep(FULL_DISK_INTERVAL).await;
            if self.store.prepare().is_ok() && self.remember_settings().await.is_ok() {
                info!("the disk of the store has space again");
                return;
            }
        }
    }

    /// Fetches the advisory database, if the settings name an address and it is due, and reads what is stored. A
    /// failure is logged. Returns the database; `None` if none is stored.
    pub async fn refresh_advisories(&self) -> Option<Arc<AdvisoryDatabase>> {
        let archive = self.upstreams.advisory_archive();
        if self.upstreams.advisories.is_some()
            && !self.cache.is_offline()
            && let Err(error) = self.cache.ensure(&archive, Demand::Fresh).await
        {
            warn!(%error, "cannot fetch the advisory database; the stored one is used");
        }
        self.cache.load_advisories(&archive).await
    }

    /// Checks that the archive format of the settings is the one that a running daemon serves.
    ///
    /// # Errors
    /// [`AppError::ToolchainFormat`].
    pub fn check_toolchain_format(&self) -> Result<(), AppError> {
        let wanted = self.upstreams.dist.format().name();
        match self.store.toolchain_format() {
            Some(served) if served != wanted && !self.store.announced().is_empty() => {
                Err(AppError::ToolchainFormat { wanted, served })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A relay for what larder does not answer itself. `proxy`, if given, replaces the proxies of the environment.
    ///
    /// # Errors
    /// Root certificates that cannot be read.
    pub fn relay(&self, settings: &Settings, proxy: Option<&str>) -> Result<Relay, AppError> {
        let mut options = upstream_options(settings, settings.is_offline);
        options.proxies.replacement = proxy.map(str::to_owned);
        Ok(Relay::new(&options)?)
    }

    /// The HTTP server for clients that reach it at `addresses`, without an access log.
    pub fn server(&self, settings: &Settings, addresses: &[SocketAddr]) -> Server {
        let limits = &settings.limits;
        let wanted = limits.max_connections;
        let limits = ConnectionLimits::new(
            wanted,
            limits.max_connections_per_peer,
            limits.max_requests,
            open_files::limit(),
        );
        if wanted.is_some_and(|wanted| wanted as usize > limits.total) {
            let max = limits.total;
            warn!(
                max,
                "lowered `max-connections`: the process may open too few files (see `ulimit -n`)"
            );
        }
        Server {
            cache: self.cache.clone(),
            upstreams: self.upstreams.clone(),
            hosts: Hosts::new(addresses, &settings.host_names())
                .with_machine(&rustix::system::uname().nodename().to_string_lossy()),
            public: PublicAddress {
                url: settings.serving.public_url.clone(),
                trusted: settings.serving.trusted_proxies.clone(),
            },
            redirects_on_trouble: settings.serving.redirects_on_trouble,
            connections: Arc::new(Connections::new(limits)),
            h2c: settings.h2c,
            tasks: BackgroundTasks::default(),
            home: Some(Arc::new(Home::new(self.store.clone()))),
            traffic: Arc::default(),
        }
    }
}

/// Opens the access log of the settings.
///
/// # Errors
/// [`AppError::AccessLog`].
pub fn open_access_log(settings: &Settings) -> Result<Option<AccessLogFile>, AppError> {
    let Some(options) = &settings.access_log else {
        return Ok(None);
    };
    let opened = AccessLogFile::open(options);
    opened.map(Some).map_err(|source| AppError::AccessLog {
        path: options.path.clone(),
        source,
    })
}

/// The rules, with the keys that sign toolchain manifests. A command that never goes upstream needs none.
fn policy(settings: &Settings, mode: AppMode) -> Result<TrustPolicy, AppError> {
    let rules = settings.trust.clone();
    if !settings.verify_signatures || mode == AppMode::Local {
        return Ok(rules);
    }
    let keys = match &settings.signing_key {
        None => SigningKeys::of_rust(),
        Some(path) => {
            let unusable = |why: String| AppError::SigningKey {
                path: path.clone(),
                why,
            };
            let text = files::read_named(path, MAX_KEY_BYTES).and_then(files::text);
            let text = text.map_err(|error| unusable(error.to_string()))?;
            SigningKeys::parse(&text).map_err(|error| unusable(error.to_string()))?
        }
    };
    Ok(TrustPolicy {
        signing_keys: Some(keys),
        ..rules
    })
}

/// The archive format of toolchain manifests: of the settings, else the one that the store remembers.
fn toolchain_format(store: &Store, settings: &Settings) -> ArchiveFormat {
    settings.toolchain_format.unwrap_or_else(|| {
        let stored = store.toolchain_format();
        stored
            .and_then(|name| ArchiveFormat::of_name(&name))
            .unwrap_or_default()
    })
}

fn upstream_options(settings: &Settings, is_offline: bool) -> UpstreamOptions {
    UpstreamOptions {
        dial_timeout: settings.upstream_timeout,
        // A command that never goes upstream needs no certificates, and works without their file.
        ca_file: settings.ca_file.clone().filter(|_| !is_offline),
        redirect_hosts: settings.redirect_hosts.clone(),
        proxies: settings.proxies.clone(),
        http1_requests: match settings.limits.upstream_connections {
            Some(requests) => requests as usize,
            None => DEFAULT_UPSTREAM_CONNECTIONS.min(open_files::share()),
        },
        rate: settings.limits.upstream_rate,
    }
}

fn cache_options(settings: &Settings, mode: AppMode) -> CacheOptions {
    CacheOptions {
        is_offline: match mode {
            AppMode::Daemon => settings.is_offline,
            AppMode::Warm => false,
            AppMode::Local => true,
        },
        max_age: settings.max_age,
        upstream_timeout: settings.upstream_timeout,
        max_entry_bytes: settings.max_entry,
        offline_view: !settings.full_index,
        writers: match mode {
            AppMode::Daemon => DAEMON_WRITERS,
            AppMode::Warm | AppMode::Local => WARM_WRITERS,
        },
        has_clients: mode == AppMode::Daemon,
    }
}

/// Runs a command to its end on a new tokio runtime.
///
/// # Errors
/// The system refuses threads or signal handlers.
pub fn block_on<T>(command: impl Future<Output = T>) -> io::Result<T> {
    let runtime = threads::runtime()?;
    let result = runtime.block_on(async {
        threads::keep_blocking_threads();
        signals::ignore_file_size_signal()?;
        open_files::raise_limit();
        Ok(command.await)
    });
    // Abandoned tasks must not delay the exit. Threads that are ending get a moment: glibc's `pthread_detach` can crash
    // when it reads what such a thread has freed.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    result
}
