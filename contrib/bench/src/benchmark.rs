//! The interface of a benchmark: its name, its function, and the context it runs in.

use std::path::Path;
use std::time::Duration;

use crate::fixture::Fixture;
use crate::row::Row;

/// Round trip to a near upstream.
pub(crate) const NEAR: Duration = Duration::from_millis(40);
/// Round trip to another continent, or over a mobile network.
pub(crate) const FAR: Duration = Duration::from_millis(150);
/// Round trip of a slow link, as over a satellite.
pub(crate) const SLOW: Duration = Duration::from_millis(600);

/// The inputs of every benchmark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The built program.
    pub(crate) larder: &'a str,
    /// The text of the lock file that defines upstream's packages.
    pub(crate) lock: &'a str,
    /// The folder for cargo's homes.
    pub(crate) cargo_in: &'a Path,
    /// Repetitions of each comparison.
    pub(crate) rounds: u32,
}

impl Context<'_> {
    /// An upstream at this distance with the packages of the lock file. `bytes_per_second` limits its bandwidth.
    pub(crate) fn fixture(&self, round_trip: Duration, bytes_per_second: Option<u64>) -> Fixture {
        Fixture::new(
            self.larder,
            self.lock,
            self.cargo_in,
            round_trip,
            bytes_per_second,
        )
    }
}

/// One benchmark, which produces one or more rows of the table.
#[derive(Debug)]
pub(crate) struct Benchmark {
    pub(crate) name: &'static str,
    /// True if the benchmark runs only when `--only` names it.
    pub(crate) opt_in: bool,
    pub(crate) run: fn(&Context<'_>) -> Vec<Row>,
    /// A line to print below the table, if any.
    pub(crate) footnote: fn() -> Option<String>,
}

impl Benchmark {
    pub(crate) const fn new(name: &'static str, run: fn(&Context<'_>) -> Vec<Row>) -> Self {
        Self {
            name,
            opt_in: false,
            run,
            footnote: || None,
        }
    }

    /// Runs only when it is named.
    pub(crate) const fn opt_in(mut self) -> Self {
        self.opt_in = true;
        self
    }

    pub(crate) const fn footnote(mut self, footnote: fn() -> Option<String>) -> Self {
        self.footnote = footnote;
        self
    }
}
