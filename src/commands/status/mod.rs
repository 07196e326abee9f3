//! `larder status`: whether a daemon runs, whether upstream is well, whether projects are ready, and the details.
//!
//! ```text
//!  store, settings ──┐
//!  pins ── readiness ┼── document ──> StatusDocument ──┬──> JSON
//!  daemon's status ──┘                                 └──> text (pure)
//! ```
//!
//! Without a daemon, the document has what the store alone tells.

mod document;
mod layout;
mod text;
mod why;

use std::process::ExitCode;

use super::{
    CommandError,
    render::{Screen, json_line, print},
    watch::watch,
};
use crate::{
    app::{App, AppMode},
    cli,
    clock::now,
    config::Settings,
};
use document::StatusDocument;

/// Runs the command.
///
/// # Errors
/// The store cannot be read.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Status,
) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Local)?;
    if let Some([name, version]) = flags.why.as_deref() {
        return why::run(settings, shared, &app, name, version).await;
    }
    let report = async |screen| {
        let document = StatusDocument::gather(settings, &app).await?;
        match shared.json {
            true => json_line(&document),
            false => Ok(text::text(&document, screen, now())),
        }
    };
    match flags.watch {
        true => watch(report).await?,
        false => print(&report(Screen::of_stdout()).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}
