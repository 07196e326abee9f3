//! `larder check`: says which projects can be built, and crates and toolchains installed, from the store alone.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use super::{
    CommandError, advisories,
    client_use::ClientUse,
    local_cargo::{self, LocalCargo},
    recalls,
    render::{by_cause, counted, note, print, print_json},
    selection::Selection,
};
use crate::{
    app::{App, AppMode},
    check::{self, Readiness},
    cli,
    config::Settings,
    overview::{RecallReport, TouchedPackage, touched_packages},
    plan::{self, ClientCargo, Inventory, Plan, Problem},
    store::{PinnedCrate, StoreError},
};

/// Manifests that are named at most in the line about packages that were not checked.
const NAMED_MANIFESTS: usize = 3;

/// Runs the command. Its exit code is 1 if anything is missing or, with `--advisories`, malicious or vulnerable.
///
/// # Errors
/// The store cannot be read.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Check,
) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Local)?;
    app.check_toolchain_format()?;
    let (verify, lists_advisories) = (flags.verify, flags.lists_advisories);
    let plan = plan(settings, flags, &app).await?;
    let database = app.refresh_advisories().await;
    let touched = match (lists_advisories, database) {
        (false, _) => None,
        (true, None) => return Err(CommandError::NoAdvisories),
        (true, Some(database)) => {
            let projects = locked_packages(&plan);
            Some(touched_packages(
                &database,
                &settings.trust.allow_advisories,
                projects,
            ))
        }
    };
    let recalls = app.store.recalls();
    let recalls = recalls::reports_of(&recalls, locked_packages(&plan));
    let readiness = readiness(settings, &app, plan, verify).await?;
    let is_well = !touched.iter().flatten().any(TouchedPackage::is_fault);
    if shared.json {
        let mut document = serde_json::to_value(&readiness)?;
        document["recalls"] = serde_json::to_value(&recalls)?;
        if let Some(touched) = &touched {
            document["advisories"] = serde_json::to_value(touched)?;
        }
        print_json(&document)?;
    } else {
        print_report(shared, &readiness, &recalls, touched.as_deref())?;
        if shared.quiet == 0 {
            if let Some(line) = not_covered(&readiness.not_covered, shared.verbose > 0) {
                note(&format!("note: {line}"));
            }
            let hint = hint(&readiness).map(str::to_owned);
            let hint = hint.or_else(|| next_step(settings, &readiness));
            if let Some(hint) = hint {
                note(&format!("hint: {hint}"));
            }
        }
    }
    Ok(if readiness.ready && is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Plans what to check.
async fn plan(settings: &Settings, flags: cli::Check, app: &App) -> Result<Plan, CommandError> {
    let cli::Check {
        path,
        crates,
        toolchains,
        target,
        ..
    } = flags;
    let selection = Selection::new(settings, path, crates, toolchains, &target)?;
    let registries = &app.upstreams.registries;
    let mut plan = plan::plan(selection.request, registries).await;
    if !selection.crates.is_empty() {
        let inventory = Inventory::new(&app.cache, &app.store, &app.upstreams);
        let scratch = app.store.scratch()?;
        plan.add_crates(selection.crates, &inventory, registries, &scratch)
            .await;
    }
    local_cargo::complete_plan(&mut plan, &target, settings, app).await;
    Ok(plan)
}

/// The report for people: the findings on stdout, what failed on stderr.
fn print_report(
    shared: &cli::GlobalFlags,
    readiness: &Readiness,
    recalls: &[RecallReport],
    touched: Option<&[TouchedPackage]>,
) -> Result<(), CommandError> {
    let all = shared.verbose > 0;
    print(&text(readiness, all))?;
    print(&recalls::lines(recalls))?;
    advisories::print_touched(touched.unwrap_or_default())?;
    for line in by_cause(&readiness.failed, all) {
        note(&format!("error: {line}"));
    }
    Ok(())
}

/// The name of each project or crate, with the packages that it locks.
fn locked_packages(plan: &Plan) -> impl Iterator<Item = (String, &[PinnedCrate])> {
    let projects = plan.projects.iter();
    projects.map(|project| (project.title(), project.packages.packages.as_slice()))
}

/// Compares lock files with manifests, and looks everything up in the store.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn readiness(
    settings: &Settings,
    app: &App,
    mut plan: Plan,
    verify: bool,
) -> Result<Readiness, StoreError> {
    let inventory = Inventory::new(&app.cache, &app.store, &app.upstreams);
    plan.compare_locks(&inventory).await;
    judge_settings(&mut plan, settings, app).await;
    if plan.has_unclear_locks()
        && let Ok(cargo) = LocalCargo::start(settings, app)
    {
        plan.ask_about_unclear_locks(&cargo.scratch).await;
        cargo.stop().await;
    }
    check::check(&app.cache, &app.store, &app.upstreams, plan, verify).await
}

/// Marks projects whose settings keep cargo from larder.
pub(super) async fn judge_settings(plan: &mut Plan, settings: &Settings, app: &App) {
    let variables = settings.client_variables.clone();
    let cargo = ClientCargo {
        home: settings.cargo_home.clone(),
        variable: move |name: &str| variables.get(name).map(str::to_owned),
        upstream: app.upstreams.registries.crates_io().index().clone(),
    };
    plan.judge_settings(cargo).await;
}

/// The user's next step once everything is ready: without it, no client would ask larder.
pub(super) fn next_step(settings: &Settings, readiness: &Readiness) -> Option<String> {
    let projects = readiness.projects.iter();
    let projects = projects.filter(|project| project.packages > 0);
    let projects = projects.map(|project| project.path.as_path());
    let has_toolchains = !readiness.toolchains.is_empty();
    let is_ready = readiness.ready;
    is_ready.then(|| ClientUse::read(settings, projects, has_toolchains).next_step())?
}

/// The part that `larder warm` can play in getting ready. What it cannot do is said with each missing thing.
fn hint(readiness: &Readiness) -> Option<&'static str> {
    let (fetchable, others): (Vec<_>, Vec<_>) = readiness
        .missing()
        .partition(|missing| missing.is_fetchable);
    match (fetchable.is_empty(), others.is_empty()) {
        (true, _) => None,
        (false, true) => Some("`larder warm` with the same arguments fetches what is missing"),
        (false, false) => Some(
            "`larder warm` with the same arguments fetches a part of what is missing; the lines above tell the rest",
        ),
    }
}

/// Names the packages that were not checked. Many of them are fixtures and templates, so a few names must do.
fn not_covered(manifests: &[PathBuf], all: bool) -> Option<String> {
    let named = if all {
        manifests.len()
    } else {
        NAMED_MANIFESTS
    };
    let names = manifests.iter().take(named);
    let mut names: Vec<_> = names.map(|path| path.display().to_string()).collect();
    if manifests.len() > named {
        names.push(format!("{} more", manifests.len() - named));
    }
    let last = names.pop()?;
    let (names, each) = match names.is_empty() {
        true => (last, "it"),
        false => (format!("{} and {last}", names.join(", ")), "each"),
    };
    Some(format!(
        "not covered: {names}: cargo would make a lock file for {each}; name the folder to check it"
    ))
}

/// One line for each project, crate and toolchain, and one below it for each missing thing, or for each cause of many.
fn text(readiness: &Readiness, all: bool) -> String {
    let mut text = String::new();
    for project in &readiness.projects {
        let size = counted(project.packages, "package");
        let path = project.path.display().to_string();
        push_item(
            &mut text,
            project.ready,
            &path,
            &size,
            describe(&project.missing, all),
        );
        for unknown in &project.unknown {
            push_detail(&mut text, &format!("unknown: {unknown}"));
        }
    }
    for one in &readiness.crates {
        let mut size = counted(one.packages, "package");
        if !one.has_lock && one.version.is_some() {
            size.push_str(", no lock file in its archive");
        }
        let missing = describe(&one.missing, all);
        push_item(&mut text, one.ready, &one.title(), &size, missing);
        for unknown in &one.unknown {
            push_detail(&mut text, &format!("unknown: {unknown}"));
        }
    }
    for toolchain in &readiness.toolchains {
        let size = counted(toolchain.components, "component");
        let title = toolchain.title();
        push_item(
            &mut text,
            toolchain.ready,
            &title,
            &size,
            describe(&toolchain.missing, all),
        );
    }
    text
}

/// One line for each thing, or for each cause of many: first what `larder warm` would fetch, then what it cannot mend.
fn describe(problems: &[Problem], all: bool) -> Vec<String> {
    let (missing, others): (Vec<_>, Vec<_>) = problems
        .iter()
        .cloned()
        .partition(|problem| problem.is_fetchable);
    let lines = |label: &str, problems: &[Problem]| -> Vec<String> {
        let lines = by_cause(problems, all).into_iter();
        lines.map(|line| format!("{label}: {line}")).collect()
    };
    [lines("missing", &missing), lines("problem", &others)].concat()
}

fn push_item(text: &mut String, is_ready: bool, title: &str, size: &str, lines: Vec<String>) {
    let word = if is_ready { "ready    " } else { "not ready" };
    let _ = writeln!(text, "{word}  {title}  ({size})");
    for line in lines {
        push_detail(text, &line);
    }
}

/// One thing below an item. Cargo's messages have several lines.
fn push_detail(text: &mut String, detail: &str) {
    for line in detail.lines() {
        let _ = writeln!(text, "           {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::ProjectReadiness;

    #[test]
    fn text_lists_missing_things_apart_from_what_warm_cannot_mend() {
        let project = |path: &str, missing: Vec<Problem>| ProjectReadiness {
            path: path.into(),
            ready: missing.is_empty(),
            packages: 1,
            missing,
            unknown: Vec::new(),
        };
        let problems = vec![
            Problem::new("Cargo.lock", "line 3 is a merge conflict mark"),
            Problem::new("cargo cannot read the project", "one\n  two"),
            Problem::not_stored("crate `one 1.0.0`"),
        ];
        let readiness = Readiness {
            ready: false,
            projects: vec![project("/a", Vec::new()), project("/b", problems)],
            crates: Vec::new(),
            toolchains: Vec::new(),
            not_covered: Vec::new(),
            failed: Vec::new(),
        };
        assert_eq!(
            text(&readiness, false),
            "ready      /a  (1 package)\n\
             not ready  /b  (1 package)\n           missing: crate `one 1.0.0`\n           \
             problem: Cargo.lock: line 3 is a merge conflict mark\n           \
             problem: cargo cannot read the project: one\n             two\n"
        );
    }
}
