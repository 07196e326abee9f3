//! Shared support of larder's integration tests, its benchmark and the fake upstream's tests: real clients in scrubbed
//! environments, and the built larder as a process.
//!
//! | module | contains |
//! |---|---|
//! | [`larder`] | [`larder::Site`] (a store, an index URL, variables) and [`larder::Larder`] (a running daemon) |
//! | [`cargo`] | real cargo with an empty home, and small projects for it |
//! | [`lock_file`] | lock files that name published crates |
//! | [`rustup`] | real rustup with empty homes |
//! | [`browser`] | Chromium without a window |
//! | [`http`] | a raw HTTP client that reports whether a body was complete |
//! | [`process`] | runs a child process with a time limit, waits for conditions and addresses |
//! | [`faults`] | failing writes, syncs, renames and reads below larder's store |
//! | [`store`] | the paths of larder's store on disk |
//! | [`paths`] | the paths that clients request |
//!
//! The origin is the crate `fake-upstream`. All helpers panic with a report when a precondition fails, because a test
//! that cannot run must not pass.

pub mod browser;
pub mod cargo;
pub mod faults;
pub mod http;
pub mod larder;
pub mod lock_file;
pub mod paths;
pub mod process;
pub mod rustup;
pub mod store;
