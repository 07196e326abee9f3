//! Runs random worlds and prints how often `larder check` and the truth agree.
//!
//! ```text
//!   contrib/worlds/run --count 1000 --seed-start 0 --kind rustup
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser as _;
use worlds::{Kept, Kind, Outcome, World};

#[derive(Debug, clap::Parser)]
#[command(
    about = "Compares the verdict of `larder check` with what real cargo and rustup can do offline, in random worlds"
)]
struct Arguments {
    /// The built larder
    #[arg(long, value_name = "FILE")]
    larder: PathBuf,
    /// Number of worlds
    #[arg(long, value_name = "N", default_value_t = 50)]
    count: u64,
    /// The seed of the first world; the next ones follow
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed_start: u64,
    /// Worlds of this kind only [default: all three in turn]
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    /// Parallel worlds
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Print the worlds, and run none
    #[arg(long)]
    describe: bool,
    /// Print verdict and truth of each world
    #[arg(long)]
    verbose: bool,
    /// Write each world that disagrees into this folder
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Before that, remove from the world what its disagreement does not depend on; takes a minute for each
    #[arg(long, requires = "save")]
    shrink: bool,
    /// Run the worlds in these files instead
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KindName {
    Cargo,
    Build,
    Rustup,
}

/// A world and its name.
type Named = (String, World);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs all worlds. Returns whether none disagreed or failed.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let larder = std::path::absolute(&arguments.larder).map_err(|error| error.to_string())?;
    if !larder.is_file() {
        return Err(format!("no larder at {}", larder.display()));
    }
    if arguments.describe {
        for number in 0..count(arguments) {
            let (name, world) = world(arguments, number)?;
            say(&format!("{name}\n{world}\n"));
        }
        return Ok(true);
    }
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count(arguments) {
                        return;
                    }
                    match world(arguments, number) {
                        Ok(named) => one(arguments, &larder, named, &tally),
                        Err(error) => say(&format!("error: {error}")),
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().map_err(|error| error.to_string())?;
    say(&format!(
        "{}\n{:.0} s",
        tally.table(),
        start.elapsed().as_secs_f64()
    ));
    Ok(tally.is_clean(count(arguments)))
}

fn count(arguments: &Arguments) -> u64 {
    match arguments.files.len() {
        0 => arguments.count,
        files => files as u64,
    }
}

/// The world with this number in the order of the run.
fn world(arguments: &Arguments, number: u64) -> Result<Named, String> {
    if let Some(file) = usize::try_from(number)
        .ok()
        .and_then(|at| arguments.files.get(at))
    {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        let kept: Kept =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        return Ok((file.display().to_string(), kept.world));
    }
    let seed = arguments.seed_start + number;
    let kind = match arguments.kind {
        Some(KindName::Cargo) => Kind::Cargo,
        Some(KindName::Build) => Kind::Build,
        Some(KindName::Rustup) => Kind::Rustup,
        None => Kind::ALL[(seed % 3) as usize],
    };
    let name = format!("{kind:?} {seed}").to_lowercase();
    Ok((name, World::from_seed(kind, seed)))
}

/// Runs one world and reports a disagreement.
fn one(arguments: &Arguments, larder: &Path, (name, world): Named, tally: &Mutex<Tally>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run(larder)));
    let (what, report) = match &outcome {
        Ok(Outcome::Disagreement(finding, report)) => (format!("{finding:?}"), report.as_str()),
        Ok(outcome) => (format!("{outcome:?}"), ""),
        Err(_) => ("World".to_owned(), "the world could not be built"),
    };
    if !report.is_empty() {
        say(&format!("== {name}: {what}\n{world}\n{report}\n"));
        let smaller = match &outcome {
            Ok(Outcome::Disagreement(finding, _)) if arguments.shrink => {
                world.shrink(larder, *finding)
            }
            _ => world.clone(),
        };
        save(arguments, &name, &what, &smaller);
    } else if arguments.verbose {
        say(&format!("== {name}: {what}"));
    }
    if let Ok(mut tally) = tally.lock() {
        tally.add(&world, outcome.ok().as_ref());
    }
}

fn save(arguments: &Arguments, name: &str, what: &str, world: &World) {
    let Some(folder) = &arguments.save else {
        return;
    };
    let kept = Kept {
        why: what.to_owned(),
        world: world.clone(),
    };
    let path = folder.join(format!("{}.json", name.replace(' ', "-")));
    let written = std::fs::create_dir_all(folder)
        .map_err(|error| error.to_string())
        .and_then(|()| serde_json::to_string_pretty(&kept).map_err(|error| error.to_string()))
        .and_then(|text| std::fs::write(&path, text + "\n").map_err(|error| error.to_string()));
    if let Err(error) = written {
        say(&format!("cannot write {}: {error}", path.display()));
    }
}

/// Numbers of worlds by client and state of the store.
#[derive(Debug, Default)]
struct Tally(BTreeMap<(&'static str, String), [u64; 5]>);

impl Tally {
    fn add(&mut self, world: &World, outcome: Option<&Outcome>) {
        let client = match world {
            World::Cargo(_) => "cargo",
            World::Rustup(_) => "rustup",
        };
        let column = match outcome {
            Some(Outcome::Ready) => 0,
            Some(Outcome::NotReady) => 1,
            Some(Outcome::NotReadyForMore) => 2,
            Some(Outcome::Disagreement(..)) => 3,
            None => 4,
        };
        self.0
            .entry((client, world.state().to_owned()))
            .or_default()[column] += 1;
    }

    fn table(&self) -> String {
        let mut text = format!(
            "{:<48} {:>6} {:>9} {:>9} {:>13} {:>6}\n",
            "store", "ready", "not ready", "for more", "disagreements", "failed"
        );
        let mut line = |name: &str, [ready, not_ready, more, differ, failed]: [u64; 5]| {
            let _ = writeln!(
                text,
                "{name:<48} {ready:>6} {not_ready:>9} {more:>9} {differ:>13} {failed:>6}"
            );
        };
        let mut sums = [0; 5];
        for ((client, state), numbers) in &self.0 {
            line(&format!("{client}: {state}"), *numbers);
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum += number;
            }
        }
        line("all", sums);
        text
    }

    /// True if all these worlds ran, and none disagreed or failed.
    fn is_clean(&self, count: u64) -> bool {
        let agreed = self
            .0
            .values()
            .map(|[ready, not_ready, more, ..]| ready + not_ready + more);
        agreed.sum::<u64>() == count
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
