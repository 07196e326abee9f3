//! Long and rough runs: is larder right, and does it stay small, when everything goes wrong at once?
//!
//! ```text
//!   fake upstream ── faults, stops, releases ──> larder ──> raw clients, real cargo and rustup
//!        │                                         │               │
//!      Truth  <──────────── every answer ──────────┼───────────────┘
//!                                                  ├─ SIGKILL, SIGTERM, clock jumps, gc, warm
//!                           store on disk ─────────┴─ inspected after every kill
//! ```
//!
//! | module | contains |
//! |---|---|
//! | [`kills`] | rounds of SIGKILL under mixed load with eviction running |
//! | [`load`] | real cargo and rustup, raw clients, faults and restarts for a long time |
//! | [`disk`] | a disk that is filled and freed under load |
//! | [`answers`] | one address for each kind of answer, for judges from outside |
//! | `events`, `faults`, `clock` | what happens in such a run |
//! | `truth` | what upstream has served so far, and the judgement of answers |
//! | `client` | raw clients of HTTP/1.1 and HTTP/2 |
//! | `inspect` | reads a store on disk with a reader of its own |
//! | `tools` | real cargo and rustup |
//! | `watch` | samples of memory, descriptors and disk |
//! | `tally` | counts and findings |
//!
//! Nothing here uses larder's library: larder is a program that is run, as by its users.

pub mod answers;
mod client;
mod clock;
pub mod disk;
mod events;
mod faults;
mod inspect;
pub mod kills;
pub mod load;
mod tally;
mod tools;
mod truth;
mod watch;

/// The result of a run.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Figures, for people.
    pub table: String,
    /// Findings; empty after a good run.
    pub findings: Vec<String>,
}
