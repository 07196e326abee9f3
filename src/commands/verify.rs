//! `larder verify`: rehashes every file of the store, and repairs damaged ones if asked to.

use std::{fmt::Write as _, io, process::ExitCode};

use indicatif::HumanBytes;
use tokio::sync::watch;

use super::{
    CommandError, progress,
    render::{counted, note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli,
    config::Settings,
    verify::{self, BadFile, Repairer, VerifyProgress, VerifyReport},
};

/// Runs the command. Its exit code is 1 if a damaged file is left.
///
/// # Errors
/// The store cannot be read.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Verify,
) -> Result<ExitCode, CommandError> {
    let mode = match flags.repair {
        true => AppMode::Warm,
        false => AppMode::Local,
    };
    let app = App::build(settings, mode)?;
    if flags.repair {
        app.store.prepare()?;
    }
    let (cache, store) = (app.cache.clone(), app.store.clone());
    let repairer = Repairer::new(cache, store, app.upstreams.clone());
    let (sender, receiver) = watch::channel(VerifyProgress::default());
    let is_shown = shared.quiet == 0 && !shared.json && io::IsTerminal::is_terminal(&io::stderr());
    let shown = is_shown.then(|| tokio::spawn(progress::show_bar(receiver)));
    let report = verify::verify(&app.store, &repairer, flags.repair, sender).await?;
    app.cache.flush().await;
    if let Some(shown) = shown {
        let _ = shown.await;
    }
    if shared.json {
        print_json(&report)?;
    } else {
        print(&text(&report.bad))?;
    }
    if shared.quiet == 0 {
        note(&summary(&report));
        if !report.is_good() && !flags.repair {
            note("hint: `larder verify --repair` moves damaged files away and fetches them again");
        }
    }
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One line for each damaged file, and one below it for the reason why it was not repaired.
fn text(bad: &[BadFile]) -> String {
    let mut text = String::new();
    for bad in bad {
        let word = if bad.repaired { "repaired" } else { "damaged " };
        let what = bad.what.as_ref();
        let what = what.map_or(String::new(), |what| format!("  ({what})"));
        let _ = writeln!(text, "{word}  {}{what}: {}", bad.file, bad.why);
        if let Some(path) = &bad.quarantined {
            let _ = writeln!(text, "          moved to {}", path.display());
        }
        if let Some(failure) = &bad.failure {
            let _ = writeln!(text, "          not fetched: {failure}");
        }
    }
    text
}

fn summary(report: &VerifyReport) -> String {
    let damaged = match report.bad.len() {
        0 => "all are good".to_owned(),
        count => {
            let repaired = report.bad.iter().filter(|bad| bad.repaired).count();
            format!("{count} damaged, {repaired} repaired")
        }
    };
    let rate = report.bytes as f64 / report.seconds.max(0.001);
    format!(
        "verified {}, {} in {:.1} s ({}/s): {damaged}",
        counted(report.files, "file"),
        HumanBytes(report.bytes),
        report.seconds,
        HumanBytes(rate as u64),
    )
}
