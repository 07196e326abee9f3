//! larder from outside: the built program against a fake upstream that misbehaves on command, with real clients.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, what cannot be prepared is a failure"
)]

mod bootstrap;
mod cargo;
mod cli;
mod connection;
mod container;
mod crash;
mod crates;
mod disk;
mod dist;
mod dist_ahead;
mod fixture;
mod index;
mod index_ahead;
mod large;
mod metrics;
mod outage;
mod rustup_updates;
mod scratch;
mod server;
mod start;
mod tidy;
mod tiny_registry;
mod toolchain;
mod upstream;
mod warm;
mod warm_toolchains;
