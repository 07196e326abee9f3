//! Advisories: `larder advisories import`, and what `check` and `status` say about packages.

use std::{fmt::Write as _, io, path::Path, process::ExitCode};

use serde_json::json;
use walkdir::WalkDir;

use super::{
    CommandError,
    render::{note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli,
    config::Settings,
    files,
    overview::{AdvisoryCounts, TouchedPackage},
    trust::{AdvisoryDatabase, pack_advisories},
};

/// Size limit of an archive or a single file that is imported, in bytes.
const MAX_IMPORT_BYTES: u64 = 64 << 20;

/// Stores a database from a folder or an archive.
///
/// # Errors
/// It is none, or the store cannot be written to.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Advisories,
) -> Result<ExitCode, CommandError> {
    let cli::AdvisoriesCommand::Import { path } = flags.command;
    let app = App::build(settings, AppMode::Warm)?;
    app.store.prepare()?;
    let read = |source| CommandError::Import {
        path: path.clone(),
        source,
    };
    let archive = if path.is_dir() {
        packed_folder(&path).map_err(read)?
    } else {
        files::read_named(&path, MAX_IMPORT_BYTES).map_err(read)?
    };
    let database = AdvisoryDatabase::read(&archive);
    let database = database.map_err(|error| read(io::Error::other(error)))?;
    let resource = app.upstreams.advisory_archive();
    app.cache.import(&resource, archive.into()).await?;
    if shared.json {
        print_json(&json!({ "advisories": database.len() }))?;
    } else if shared.quiet == 0 {
        let noun = if database.len() == 1 {
            "advisory"
        } else {
            "advisories"
        };
        note(&format!("stored {} {noun}", database.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// An archive of the advisories in the folder of a database.
fn packed_folder(folder: &Path) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    for file in WalkDir::new(folder.join("crates")).sort_by_file_name() {
        let file = file?;
        if !file.file_type().is_file() {
            continue;
        }
        let relative = file.path().strip_prefix(folder).unwrap_or(file.path());
        let bytes = files::read(file.path(), MAX_IMPORT_BYTES)?;
        found.push((relative.to_string_lossy().into_owned(), bytes));
    }
    pack_advisories(found)
}

/// Two lines for each package: the advisory, and what to do about it.
pub(super) fn print_touched(touched: &[TouchedPackage]) -> Result<(), CommandError> {
    let mut text = String::new();
    for package in touched {
        let TouchedPackage {
            id,
            package: name,
            version,
            title,
            ..
        } = package;
        let kind = package.kind.as_str();
        let allowed = if package.allowed { ", allowed" } else { "" };
        let _ = writeln!(
            text,
            "advisory   {name} {version}: {title} ({id}, {kind}{allowed})"
        );
        let patched = match package.patched.as_slice() {
            [] => "no version is patched".to_owned(),
            patched => format!("patched: {}", patched.join(" or ")),
        };
        let projects: Vec<_> = package.projects.iter().map(String::as_str).collect();
        let _ = writeln!(text, "           {patched}; in {}", projects.join(", "));
    }
    print(&text)
}

/// The numbers of advisories in one line.
pub(super) fn counts_line(counts: &AdvisoryCounts) -> String {
    format!(
        "{} known; of warmed projects' packages {} malicious, {} vulnerable, {} with a remark{}",
        counts.known,
        counts.malicious,
        counts.vulnerable,
        counts.others,
        match counts.malicious + counts.vulnerable + counts.others {
            0 => "",
            _ => "; `larder check --advisories` lists them",
        }
    )
}
