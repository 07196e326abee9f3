//! `larder import`: takes over crates and index entries from cargo homes and local registries, without a download.

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use indicatif::HumanBytes;
use tokio::sync::watch;

use super::{
    CommandError, progress,
    render::{by_cause, counted, note, print_json},
};
use crate::{
    app::{App, AppMode},
    cli,
    config::Settings,
    import::{ImportProgress, ImportReport, Importer, SkippedFile, importable_crates},
    plan::Problem,
};

/// Runs the command. Its exit code is 1 if something could not be read or stored.
///
/// # Errors
/// The store cannot be used, or no cargo home is known.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Import,
) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Warm)?;
    app.store.prepare()?;
    if !flags.dry_run {
        app.remember_settings().await?;
    }
    let paths = match (flags.path.is_empty(), &settings.cargo_home) {
        (false, _) => flags.path,
        (true, Some(home)) if home.join("registry").is_dir() => vec![home.clone()],
        (true, Some(home)) => {
            note_empty_home(shared, home);
            Vec::new()
        }
        (true, None) => return Err(CommandError::NoCargoHome),
    };
    let (sender, receiver) = watch::channel(ImportProgress::default());
    let is_shown = shared.quiet == 0 && !shared.json && std::io::stderr().is_terminal();
    let shown = is_shown.then(|| tokio::spawn(progress::show_bar(receiver)));
    let importer = Importer {
        cache: &app.cache,
        store: &app.store,
        registries: &app.upstreams.registries,
        is_dry_run: flags.dry_run,
    };
    let report = importer.import(paths, &sender).await;
    drop(sender);
    app.store.flush_uses(true).await;
    if let Some(shown) = shown {
        let _ = shown.await;
    }
    if shared.json {
        print_json(&report)?;
    }
    let all = shared.verbose > 0;
    for (word, files) in [("skipped", &report.skipped), ("failed", &report.failed)] {
        for line in by_cause(&problems(files), all) {
            note(&format!("{word} {line}"));
        }
    }
    if shared.quiet == 0 {
        note(&summary(&report));
    }
    Ok(if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says that the user's cargo home, which no path named, has nothing to import.
fn note_empty_home(shared: &cli::GlobalFlags, home: &Path) {
    if shared.quiet > 0 {
        return;
    }
    let why = match home.is_dir() {
        true => "has no crates yet",
        false => "does not exist",
    };
    note(&format!(
        "nothing found: cargo's home {} {why}; name another cargo home or a local registry with `larder import PATH`, \
         or fetch with `larder warm`",
        home.display()
    ));
}

/// Writes the [`proposal`] for a person who wants to know.
pub(super) fn propose(settings: &Settings, app: &App, is_wanted: bool) {
    if let Some(proposal) = is_wanted.then(|| proposal(settings, app)).flatten() {
        note(&format!("hint: {proposal}"));
    }
}

/// A line that proposes an import, if the store is empty and the user's cargo home has crates for it.
pub(super) fn proposal(settings: &Settings, app: &App) -> Option<String> {
    let home = settings.cargo_home.as_ref()?;
    if !app.store.has_no_blobs() {
        return None;
    }
    match importable_crates(home, &app.upstreams.registries) {
        0 => None,
        crates => Some(format!(
            "{} holds {}: `larder import` takes over what is in there without a download",
            home.display(),
            counted(crates, "crate")
        )),
    }
}

fn problems(files: &[SkippedFile]) -> Vec<Problem> {
    let problems = files.iter();
    problems
        .map(|file| Problem::new(file.path.display(), &file.why))
        .collect()
}

fn summary(report: &ImportReport) -> String {
    let ImportReport {
        crates,
        reflinks,
        bytes,
        ..
    } = *report;
    let shared = match reflinks {
        0 => String::new(),
        reflinks if reflinks == crates => ", all sharing their disk space".to_owned(),
        reflinks => format!(", {reflinks} of them sharing their disk space"),
    };
    format!(
        "{} and {} {}, {}{shared}; {} and {} were there, {} skipped, {} failed",
        counted(crates, "crate"),
        entries(report.entries),
        if report.dry_run {
            "to take over"
        } else {
            "taken over"
        },
        HumanBytes(bytes),
        counted(report.stored_crates, "crate"),
        entries(report.stored_entries),
        report.skipped.len(),
        report.failed.len()
    )
}

fn entries(number: usize) -> String {
    match number {
        1 => "1 index entry".to_owned(),
        number => format!("{number} index entries"),
    }
}
