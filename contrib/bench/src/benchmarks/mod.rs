//! All benchmarks, one file each. A benchmark uses the common parts (`benchmark`, `fixture`, `payload`, `load`, `row`,
//! `process`, `nginx`, `server`, `observers`) and no other benchmark.
//!
//! The two sides of a comparison alternate within a round, so that a change of the machine's speed affects both.

mod cold;
mod crowd;
mod eviction;
mod hits;
mod import;
mod instructions;
mod memory;
mod million;
mod observed;
mod others;
mod outage;
mod run;
mod stale;
mod stale_while_revalidate;
mod warm;

use crate::benchmark::Benchmark;

/// In the order of the table.
pub(crate) const ALL: &[Benchmark] = &[
    Benchmark::new("cold", cold::run_near),
    Benchmark::new("run", run::run),
    Benchmark::new("import", import::run),
    Benchmark::new("stale", stale::run_near),
    Benchmark::new("stale-far", stale::run_far),
    Benchmark::new("stale-while-revalidate", stale_while_revalidate::run),
    Benchmark::new("crowd", crowd::run),
    Benchmark::new("hits", hits::run),
    Benchmark::new("warm-100", warm::run_100_megabit),
    Benchmark::new("warm-1000", warm::run_1000_megabit),
    Benchmark::new("outage", outage::run),
    Benchmark::new("memory", memory::run),
    Benchmark::new("others", others::run).footnote(others::not_installed),
    Benchmark::new("slow-empty", cold::run_slow).opt_in(),
    Benchmark::new("slow-filled", stale::run_slow).opt_in(),
    Benchmark::new("instructions", instructions::run).opt_in(),
    Benchmark::new("million", million::run).opt_in(),
    Benchmark::new("observed", observed::run).opt_in(),
    Benchmark::new("eviction", eviction::run).opt_in(),
];
