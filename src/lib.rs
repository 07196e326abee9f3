//! larder keeps Rust builds going: a lazy, caching registry for cargo that can be warmed ahead and serves offline.
//!
//! The flow, downwards only:
//!
//! ```text
//!  GET path                                    Cargo.lock files
//!     |                                               |
//!  server::route   path -> Resource            lockfile, projects
//!     |                                               |
//!     |                                        warm   packages -> Resources
//!     +------------> cache::get, cache::ensure <------+
//!                           |
//!                    store.entry -> cache::decide
//!                           |
//!      serve ---------------+---- revalidate, fetch ------ refuse
//!        |                            |                      |
//!        |                  cache::flight: one per place     |
//!        |                  cache::fetch -> upstream.get     |
//!        |                  spool -> prove -> put            |
//!        +--------------------------- Answer or Error -------+
//!                           |
//!                    server::respond -> status, headers, body
//! ```
//!
//! Modules in reading order:

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests move files and choose times"
    )
)]

pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod log;

pub mod resource;

pub mod cache;
pub mod store;
pub mod upstream;

pub mod server;

pub mod lockfile;
pub mod plan;
pub mod prefetch;
pub mod projects;
pub mod scratch;
pub mod toolchain;
pub mod warm;

pub mod check;
pub mod client_config;
pub mod status_client;

mod clock;
pub mod error;
pub mod hash;
pub mod validators;
