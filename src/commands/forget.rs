//! `larder forget`: drops the pins of a project or toolchain, or removes one stored crate or archive.

use std::process::ExitCode;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::{
    CommandError, gc,
    render::{note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli,
    config::Settings,
    eviction::{self, Forgotten},
};

/// Runs the command. Its exit code is 1 if nothing was forgotten.
///
/// # Errors
/// The store cannot be used, or another process is removing files all the time.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Forget,
) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Warm)?;
    app.store.prepare_to_remove()?;
    let _lock = gc::lock(&app.store).await?;
    let Some(version) = flags.version else {
        return forget_pins(shared, &app, &flags.what).await;
    };
    let (store, upstreams, name) = (&app.store, &app.upstreams, flags.what);
    let forgotten = eviction::forget_files(store, upstreams, &name, &version, flags.force).await?;
    let (removed, problem) = match forgotten {
        Forgotten::NotStored => (
            Vec::new(),
            Some(format!("`{name} {version}` is not stored")),
        ),
        Forgotten::Pinned(owners) => {
            let owners = owners.join(", ");
            let problem = format!(
                "`{name} {version}` is needed by {owners}; `larder forget {name} {version} --force` removes it anyway"
            );
            (Vec::new(), Some(problem))
        }
        Forgotten::Removed(removed) => (removed, None),
    };
    let names: Vec<_> = removed.iter().map(|(what, _)| what).collect();
    if shared.json {
        print_report(
            &json!({ "removed": names, "forgotten": [] }),
            problem.as_deref(),
        )?;
    } else {
        let lines = removed
            .iter()
            .map(|(what, bytes)| format!("removed {what}  ({})\n", HumanBytes(*bytes)));
        print(&lines.collect::<String>())?;
    }
    Ok(finish(problem))
}

async fn forget_pins(
    shared: &cli::GlobalFlags,
    app: &App,
    what: &str,
) -> Result<ExitCode, CommandError> {
    let owners = eviction::forget_pins(&app.store, what).await?;
    let owners: Vec<_> = owners.iter().map(ToString::to_string).collect();
    let problem = owners.is_empty().then(|| {
        format!("no warmed project and no toolchain is `{what}`; `larder status` lists them")
    });
    if shared.json {
        print_report(
            &json!({ "removed": [], "forgotten": owners }),
            problem.as_deref(),
        )?;
    } else {
        let lines = owners.iter().map(|owner| format!("forgot {owner}\n"));
        print(&lines.collect::<String>())?;
    }
    if problem.is_none() && shared.quiet == 0 {
        note("its files stay stored until `larder gc` or the daemon's max-size removes them");
    }
    Ok(finish(problem))
}

/// Writes the document, or that of an error.
fn print_report(report: &Value, problem: Option<&str>) -> Result<(), CommandError> {
    match problem {
        Some(problem) => print_json(&json!({ "error": problem })),
        None => print_json(report),
    }
}

fn finish(problem: Option<String>) -> ExitCode {
    match problem {
        Some(problem) => {
            note(&format!("error: {problem}"));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
