//! `larder warm`: fetches everything a plan names into the store.
//!
//! `plan` is the first act: it reads lock files and toolchain files. This module is the second act. It turns a [`Plan`]
//! into `Cache::ensure` calls, the same calls that serve clients, so it has no fetching code of its own.
//!
//! ```text
//!  Plan ─┬─ toolchains ─> manifest ─> archives ─> rust-src: the standard library's lock file ─┐
//!        └─ packages ──────────────────────────────────────────────────────────────────────┴─> index entry ─> crate
//!                                                                                                  └─> more entries
//!
//!  every arrow is a task; `jobs` tasks run at a time           tasks ─> WarmReport, and one Pin for each owner
//! ```
//!
//! Manifests come first, because only they list the archives, and archives are the largest files. A task that ends
//! may start others: a manifest starts its archives, and the archive of the standard library's sources starts the
//! packages in its lock file. A package starts the index entries of its other dependencies ([`ResolverReach`]), so that
//! `cargo add` and `cargo update` resolve offline. A failure never stops the other tasks. In a dry run, each task asks
//! [`Inventory`] instead of the cache.
//!
//! [`ResolverReach`]: crate::plan::ResolverReach

mod crates;
mod fetch;
mod packages;
mod report;
mod resolvable;
mod tasks;
mod toolchains;

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

pub use crates::CrateFetcher;
pub use fetch::{WarmMode, WouldFetch};
pub use report::{WarmProgress, WarmReport};

use crate::{
    cache::Cache,
    plan::{Inventory, Plan, Problem},
    resource::Upstreams,
    store::{Owner, Store},
};
use resolvable::SettledPins;
use tasks::Tasks;
use toolchains::ToolchainFetcher;

/// Settings of one run.
#[derive(Clone, Copy, Debug)]
pub struct WarmOptions {
    /// Tasks that run at a time.
    pub jobs: usize,
    /// Fetch, or only look at what is stored.
    pub mode: WarmMode,
    /// Start of the run, planning included, for [`WarmReport::seconds`].
    pub started: Instant,
}

/// Fetches everything that `plan` names and registers a pin for each owner. Sends `progress` after each task.
pub async fn warm(
    cache: &Cache,
    store: &Arc<Store>,
    upstreams: &Upstreams,
    plan: Plan,
    options: WarmOptions,
    progress: watch::Sender<WarmProgress>,
) -> WarmReport {
    let inventory = Inventory::new(cache, store, upstreams);
    if options.mode == WarmMode::Check {
        // Pins that cannot be read leave sizes unknown.
        inventory.learn_sizes(store.pins().await.unwrap_or_default());
    }
    let fetcher = ToolchainFetcher {
        cache: cache.clone(),
        store: store.clone(),
        upstreams: upstreams.clone(),
        inventory,
        mode: options.mode,
    };
    let settled = match options.mode {
        WarmMode::Fetch { refresh: false } => SettledPins::read(store, &upstreams.registries).await,
        WarmMode::Fetch { refresh: true } | WarmMode::Check => SettledPins::default(),
    };
    let mut tasks = Tasks::new(fetcher, settled, options.jobs, progress);
    tasks.start(plan);
    tasks.join_all().await;
    let (mut report, pins) = tasks.finish();
    if options.mode == WarmMode::Check {
        report.would_fetch.get_or_insert_default();
    }

    if options.mode != WarmMode::Check {
        for pin in pins {
            if let Err(error) = store.put_pin(&pin).await {
                let why = match &pin.owner {
                    Owner::File(path) if path.to_str().is_none() => {
                        "cannot be kept: a folder in its path has a name that is not UTF-8; rename that folder"
                            .to_owned()
                    }
                    Owner::File(_)
                    | Owner::Toolchain(_)
                    | Owner::Crate(_)
                    | Owner::Dependency(_) => format!("cannot be registered: {error}"),
                };
                report.failed.push(Problem::new(&pin.owner, why));
            }
        }
    }
    report.failed.sort();
    report.failed.dedup();
    if let Some(would_fetch) = &mut report.would_fetch {
        would_fetch.sort();
        would_fetch.dedup();
    }
    report.index_entries_failed.sort();
    report.skipped.sort();
    report.skipped.dedup();
    report.seconds = options.started.elapsed().as_secs_f64();
    report
}
