//! Integration tests: the built program between a fake upstream with faults on demand and real clients.
//!
//! All tests are in one binary, which links faster. Each module says in its first lines which part it covers. `fixture`
//! starts the larder under test; the crate `testkit` has the clients and the daemon's process. Facts about cargo,
//! rustup and HTTP are cited by their id in docs/client-behaviour.md.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a failed precondition is a failure"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests set the scene: they move files, choose times and read cargo's variables"
)]

mod absence;
mod advisories;
mod bootstrap;
mod cargo;
mod cargo_settings;
mod cli;
mod client;
mod connection;
mod container;
mod crash;
mod crates;
mod disk;
mod disk_limit;
mod dist;
mod doctor;
mod eviction;
#[cfg(target_os = "linux")]
mod faults;
mod fixture;
mod gc;
mod generations;
mod golden;
mod guides;
mod help;
mod import;
mod index;
mod index_prefetch;
mod install_prefetch;
mod integrity;
mod intercept;
mod keep_warm;
mod large;
mod layouts;
mod limits;
mod logs;
mod messages;
mod metrics;
mod mirror_files;
mod monitoring;
mod on_trouble;
mod outage;
mod packages;
mod page;
mod page_in_chromium;
mod promises;
mod public_address;
mod readme;
mod ready;
mod recalls;
mod resolve_offline;
mod run;
mod rustup_updates;
mod rustup_verdict;
mod scratch;
mod scripts;
mod scrub;
mod server;
mod service;
mod settings;
mod settings_reference;
mod shells;
mod signatures;
mod soak;
mod socket_activation;
mod stale_while_revalidate;
mod start;
mod start_prefetch;
mod status;
mod tidy;
mod tiny_registry;
mod token_registry;
mod toolchain;
mod trust;
mod units;
mod upstream;
mod vendored;
mod verify;
mod warm;
mod warm_crates;
mod warm_toolchains;
mod worlds;
