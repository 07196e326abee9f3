//! larder keeps Rust builds going: a caching registry for cargo and a caching dist server for rustup, which `larder
//! warm` fills before the network goes away.
//!
//! Calls go downwards only:
//!
//! ```text
//!              cli ──> config ──> commands ──> app            one process: arguments, settings, parts
//!                                    │
//!        ┌───────────────────────────┼──────────────────┐
//!     server                       warm               check
//!     route: path -> Resource        └─────── plan ─────┘     projects, lockfile, toolchain -> packages, toolchains
//!        │                             │
//!        └──> cache::get, ensure <─────┘
//!                 │
//!       write_behind, store ──> decide ─────┬─ serve the stored copy
//!                                           ├─ flight: one fetch per resource ──> upstream.get
//!                                           │    spool ──> verify the hash ──> write_behind ──> store
//!                                           └─ refuse
//!                 │
//!              Answer or Error ──> server::respond: status, headers, body
//! ```
//!
//! `prefetch` reads the cache's events and makes it fetch what clients will request next. `resource` defines the
//! resources that can be requested, and their rules. The cache applies these rules and knows no kind of resource
//! itself.
//!
//! The groups below are in reading order: start with [`resource`], then [`cache`], its `decide`, and [`store`].
//! ARCHITECTURE.md has the table of allowed dependencies, the invariants, and walkthroughs.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests move files and choose times"
    )
)]

// The path of a request.
pub mod cache;
pub mod prefetch;
pub mod resource;
pub mod store;
pub mod trust;
pub mod upstream;

// Clients.
pub mod intercept;
pub mod page;
pub mod server;

// Projects and toolchains.
pub mod cargo_config;
pub mod check;
pub mod crate_spec;
pub mod eviction;
pub mod import;
pub mod lockfile;
pub mod overview;
pub mod plan;
pub mod projects;
pub mod scratch;
pub mod script;
pub mod toolchain;
pub mod verify;
pub mod warm;

// The program.
pub mod app;
pub mod cli;
pub mod client_config;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod service_manager;
pub mod status_client;

// Shared by all.
mod clock;
mod duration;
pub mod error;
pub mod files;
pub mod hash;
pub mod log;
mod memory_budget;
mod open_files;
mod signals;
mod threads;
pub mod validators;
