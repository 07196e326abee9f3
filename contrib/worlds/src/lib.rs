//! Random worlds: is the verdict of `larder check` what real cargo and rustup prove?
//!
//! A world is a registry or a dist server, a project or a toolchain request, and a story: larder's store is filled,
//! upstream changes, the disk loses or damages files. At its end upstream is gone. `larder check` gives its verdict,
//! and a real client with empty homes, behind an offline larder on the same store, gives the truth.
//!
//! ```text
//!   seed ──generate──> World ──run──> check's verdict ──┐
//!                        │     └────> the client's exit ─┴─compare──> Outcome
//!                        └─ JSON (kept worlds), Display (plain words)
//! ```
//!
//! | module | contains |
//! |---|---|
//! | [`cargo`] | worlds of cargo: crates, a project, a story; the truth is `cargo fetch` or `cargo build` |
//! | [`rustup`] | worlds of rustup: releases, a toolchain request, a story; the truth is `rustup toolchain install` |
//! | [`outcome`] | the comparison and its exceptions |
//! | `registry`, `project`, `harm` | parts of descriptions, and how they become files |
//! | `shrink` | removes what a disagreement does not depend on |
//! | `dice` | random choices from a seed |
//!
//! A description holds all that a run depends on, so that a kept world survives changes of the generator. Nothing here
//! uses larder's library: larder is a program that is run, as by its users.

pub mod cargo;
mod dice;
mod harm;
pub mod outcome;
mod project;
mod registry;
pub mod rustup;
mod shrink;
mod world;

pub use outcome::{Finding, Outcome};
pub use world::{Kept, Kind, World};
