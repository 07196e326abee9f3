//! `larder warm`: fetches everything that projects and toolchains need, with progress, and reports it.
//!
//! A first signal stops fetching and writes what has arrived; a second one ends the command at once.

use std::{
    collections::HashSet,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::HumanBytes;
use tokio::{sync::watch, time::timeout};

use super::{
    CommandError, check, import, local_cargo, progress,
    render::{by_cause, counted, note, print, print_json},
    selection::Selection,
};
use crate::{
    app::{App, AppMode},
    check::Readiness,
    cli,
    config::Settings,
    eviction::{Evictor, EvictorOptions},
    plan::{self, Inventory, Plan, Problem},
    signals::StopSignals,
    store::Store,
    warm::{self, CrateFetcher, WarmMode, WarmOptions, WarmProgress, WarmReport, WouldFetch},
};

/// Time between two writes of last uses, by which other processes see what this run uses.
const FLUSH_USES_INTERVAL: Duration = Duration::from_secs(15);
/// Longest time that an interrupted `warm` takes to write what has arrived.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// Runs the command. Its exit code is 0 only if `check` would call everything ready; a dry run's if nothing failed.
///
/// # Errors
/// The store cannot be used, or a signal ended the command.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    mut flags: cli::Warm,
) -> Result<ExitCode, CommandError> {
    let selection = selection(settings, &mut flags)?;
    let app = App::build(settings, AppMode::Warm)?;
    app.store.prepare()?;
    app.check_toolchain_format()?;
    if !flags.dry_run {
        app.remember_settings().await?;
        keep_limit(&app);
    }
    import::propose(settings, &app, shared.quiet == 0);
    let is_dry_run = flags.dry_run;
    let options = options(settings, &flags);
    let (sender, receiver) = watch::channel(WarmProgress::default());
    let is_shown = shared.quiet == 0 && !shared.json;
    let shown = is_shown.then(|| tokio::spawn(progress::show(receiver)));
    let mut signals = StopSignals::new()?;
    tokio::spawn(flush_uses(app.store.clone()));
    let work = async {
        if !is_dry_run {
            // Versions that it calls malicious are not fetched.
            app.refresh_advisories().await;
        }
        let plan = plan(settings, selection, &flags, &app).await?;
        let warm = warm::warm(
            &app.cache,
            &app.store,
            &app.upstreams,
            plan.clone(),
            options,
            sender,
        );
        Ok::<_, CommandError>((warm.await, plan))
    };
    let (mut report, plan) = tokio::select! {
        report = work => report?,
        () = signals.next() => return Err(interrupted(&app, &mut signals).await),
    };
    // Entries that were prefetched on the way are written too.
    app.cache.flush().await;
    app.store.flush_uses(true).await;
    if let Some(shown) = shown {
        let _ = shown.await;
    }
    let mut next_step = None;
    let unlocked = plan.unlocked_crates();
    if !is_dry_run {
        // Asks upstream nothing, and judges what is on the disk.
        let local = App::build(settings, AppMode::Local)?;
        local.refresh_advisories().await;
        let readiness = check::readiness(settings, &local, plan, false).await?;
        report.not_ready = not_ready(&readiness);
        next_step = check::next_step(settings, &readiness);
    }
    print_report(shared, &report)?;
    if shared.quiet == 0 {
        for title in &unlocked {
            note(&format!(
                "{title} has no lock file in its archive; stored is what cargo resolves for it today"
            ));
        }
        note(&summary(&report, is_dry_run));
        if let Some(next_step) = next_step.filter(|_| !shared.json) {
            note(&format!("hint: {next_step}"));
        }
    }
    Ok(if report.failed.is_empty() && report.not_ready.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn selection(settings: &Settings, flags: &mut cli::Warm) -> Result<Selection, CommandError> {
    let paths = std::mem::take(&mut flags.path);
    let crates = std::mem::take(&mut flags.crates);
    let toolchains = std::mem::take(&mut flags.toolchains);
    Selection::new(settings, paths, crates, toolchains, &flags.target)
}

/// Makes space for what this run stores, if a daemon on the store keeps a limit. The daemon itself would notice only
/// afterwards.
fn keep_limit(app: &App) {
    let daemons = app.store.announced();
    let limits = daemons.iter().filter_map(|daemon| daemon.max_bytes);
    let Some(max_bytes) = limits.min() else {
        return;
    };
    let options = EvictorOptions {
        max_bytes: Some(max_bytes),
        // The daemon drops pins.
        forget_after: Duration::MAX,
        is_command: true,
    };
    tokio::spawn(Evictor::new(app.store.clone(), app.upstreams.clone(), options).run());
}

/// Writes last uses for ever. Eviction leaves alone what a running command has used.
async fn flush_uses(store: Arc<Store>) {
    loop {
        tokio::time::sleep(FLUSH_USES_INTERVAL).await;
        store.flush_uses(false).await;
    }
}

/// Writes the report: one document, or what a dry run would fetch, and the problems.
fn print_report(shared: &cli::GlobalFlags, report: &WarmReport) -> Result<(), CommandError> {
    if shared.json {
        print_json(report)?;
    } else if let Some(would_fetch) = &report.would_fetch {
        print(&would_fetch.iter().map(would_fetch_line).collect::<String>())?;
    }
    note_problems(report, shared.verbose > 0);
    Ok(())
}

/// Writes what was not done, one line for each cause.
fn note_problems(report: &WarmReport, all: bool) {
    let said = report.skipped.iter().chain(&report.failed);
    let said: HashSet<_> = said.map(ToString::to_string).collect();
    let is_said =
        |problem: &Problem| said.contains(&problem.to_string()) || said.contains(&problem.why);
    let not_ready: Vec<_> = report
        .not_ready
        .iter()
        .filter(|problem| !is_said(problem))
        .cloned()
        .collect();
    let lists = [
        ("skipped", &report.skipped),
        ("failed", &report.failed),
        ("not ready", &not_ready),
    ];
    for (word, problems) in lists {
        for line in by_cause(problems, all) {
            note(&format!("{word} {line}"));
        }
    }
    for line in by_cause(&report.index_entries_failed, all) {
        note(&format!(
            "no build needs this, `cargo add` and `cargo update` may: {line}"
        ));
    }
}

/// One line of a dry run.
fn would_fetch_line(thing: &WouldFetch) -> String {
    let WouldFetch { what, bytes } = thing;
    match bytes {
        Some(bytes) => format!("would fetch {what}  ({})\n", HumanBytes(*bytes)),
        None => format!("would fetch {what}\n"),
    }
}

/// The projects and toolchains that are not ready although everything was done that `warm` can do, each with its first
/// reason.
fn not_ready(readiness: &Readiness) -> Vec<Problem> {
    let first = |what: String, missing: &[Problem], unknown: &[String]| {
        let mut all = missing
            .iter()
            .map(ToString::to_string)
            .chain(unknown.iter().cloned());
        let why = all.next().unwrap_or_default();
        match all.count() {
            0 => Problem::new(what, why),
            more => Problem::new(what, format_args!("{why}, and {more} more")),
        }
    };
    let projects = readiness.projects.iter().filter(|project| !project.ready);
    let projects = projects.map(|project| {
        let path = project.path.display().to_string();
        first(path, &project.missing, &project.unknown)
    });
    let crates = readiness.crates.iter().filter(|one| !one.ready);
    let crates = crates.map(|one| first(one.title(), &one.missing, &one.unknown));
    let toolchains = readiness.toolchains.iter();
    let toolchains = toolchains.filter(|toolchain| !toolchain.ready);
    let toolchains = toolchains.map(|toolchain| first(toolchain.title(), &toolchain.missing, &[]));
    projects
        .chain(crates)
        .chain(toolchains)
        .chain(readiness.failed.iter().cloned())
        .collect()
}

fn options(settings: &Settings, flags: &cli::Warm) -> WarmOptions {
    let refresh = flags.refresh;
    WarmOptions {
        jobs: usize::from(settings.jobs),
        mode: if flags.dry_run {
            WarmMode::Check
        } else {
            WarmMode::Fetch { refresh }
        },
        started: Instant::now(),
    }
}

/// Plans what to fetch. Projects without lock file and the choice of targets need the user's cargo, which a dry run
/// does not start.
async fn plan(
    settings: &Settings,
    selection: Selection,
    flags: &cli::Warm,
    app: &App,
) -> Result<Plan, CommandError> {
    let registries = &app.upstreams.registries;
    let inventory = Inventory::new(&app.cache, &app.store, &app.upstreams);
    let mut plan = plan::plan(selection.request, registries).await;
    let crates = selection.crates;
    if !crates.is_empty() {
        let scratch = app.store.scratch()?;
        if flags.dry_run {
            plan.add_crates(crates, &inventory, registries, &scratch)
                .await;
        } else {
            let fetcher = CrateFetcher {
                cache: app.cache.clone(),
                store: app.store.clone(),
                refresh: flags.refresh,
            };
            plan.add_crates(crates, &fetcher, registries, &scratch)
                .await;
        }
    }
    if flags.dry_run {
        plan.skip_unlocked();
    } else {
        local_cargo::complete_plan(&mut plan, &flags.target, settings, app).await;
    }
    Ok(plan)
}

/// Writes what has arrived, for [`LAST_FLUSH`] at most or until the next signal.
async fn interrupted(app: &App, signals: &mut StopSignals) -> CommandError {
    let is_flushed = tokio::select! {
        flushed = timeout(LAST_FLUSH, app.cache.flush()) => flushed.is_ok(),
        () = signals.next() => false,
    };
    CommandError::Interrupted(if is_flushed {
        "interrupted; what was fetched is kept"
    } else {
        "interrupted; what was stored so far is kept"
    })
}

/// One line about the whole run.
fn summary(report: &WarmReport, is_dry_run: bool) -> String {
    let toolchains = match report.toolchains {
        0 => String::new(),
        toolchains => format!(
            ", {} in {}",
            counted(report.components, "component"),
            counted(toolchains, "toolchain")
        ),
    };
    let mut owners = Vec::new();
    if report.projects > 0 || report.crates == 0 {
        owners.push(counted(report.projects, "project"));
    }
    if report.crates > 0 {
        owners.push(counted(report.crates, "crate"));
    }
    format!(
        "{} in {}{toolchains}: {} {}, {} were there, {} failed, {} skipped; {}{} in {:.1} s",
        counted(report.packages, "package"),
        owners.join(" and "),
        report.fetched + report.components_fetched,
        if is_dry_run { "to fetch" } else { "fetched" },
        report.cached + report.components_cached,
        report.failed.len(),
        report.skipped.len(),
        HumanBytes(report.bytes),
        unknown_sizes(report),
        report.seconds
    )
}

/// How many of the things that a dry run would fetch have an unknown size.
fn unknown_sizes(report: &WarmReport) -> String {
    let would_fetch = report.would_fetch.iter().flatten();
    match would_fetch.filter(|thing| thing.bytes.is_none()).count() {
        0 => String::new(),
        unknown => format!(" and {unknown} of unknown size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_names_toolchains_only_if_there_are_any() {
        let crates = WarmReport {
            projects: 1,
            packages: 2,
            fetched: 2,
            bytes: 2048,
            seconds: 0.25,
            ..WarmReport::default()
        };
        assert_eq!(
            summary(&crates, false),
            "2 packages in 1 project: 2 fetched, 0 were there, 0 failed, 0 skipped; 2.00 KiB in 0.2 s"
        );
        let toolchains = WarmReport {
            toolchains: 1,
            components: 3,
            components_cached: 1,
            components_fetched: 2,
            ..crates
        };
        assert_eq!(
            summary(&toolchains, true),
            "2 packages in 1 project, 3 components in 1 toolchain: 4 to fetch, 1 were there, 0 failed, 0 skipped; \
             2.00 KiB in 0.2 s"
        );
    }
}
