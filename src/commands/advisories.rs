//! Advisories: `larder advisories import`, and what `check` and `status` say about packages.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io,
    path::Path,
    process::ExitCode,
};

use serde::Serialize;
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
    resource::registry::CRATES_IO,
    store::{Pin, PinnedCrate},
    trust::{AdvisoryDatabase, AdvisoryKind, pack_advisories},
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

/// A version that an advisory is about, with the projects that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TouchedPackage {
    /// The advisory's id.
    pub(super) id: String,
    package: String,
    version: String,
    kind: AdvisoryKind,
    title: String,
    url: Option<String>,
    /// Requirements that mended versions meet.
    patched: Vec<String>,
    /// The setting `allow-advisory` has the id.
    allowed: bool,
    projects: BTreeSet<String>,
}

impl TouchedPackage {
    /// Returns whether a project with this package is not well.
    pub(super) fn is_fault(&self) -> bool {
        self.kind.is_fault() && !self.allowed
    }
}

/// The statements of the advisories about the packages of these projects, sorted by kind, crate and version.
pub(super) fn touched<'a>(
    database: &AdvisoryDatabase,
    settings: &Settings,
    projects: impl IntoIterator<Item = (String, &'a [PinnedCrate])>,
) -> Vec<TouchedPackage> {
    let mut owners: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for (project, packages) in projects {
        for package in packages
            .iter()
            .filter(|package| package.registry == CRATES_IO)
        {
            let id = (package.name.as_str(), package.version.as_str());
            owners.entry(id).or_default().insert(project.clone());
        }
    }
    let mut touched = Vec::new();
    for ((name, version), projects) in owners {
        for advisory in database.touching(name, version) {
            touched.push(TouchedPackage {
                id: advisory.id.clone(),
                package: name.to_owned(),
                version: version.to_owned(),
                kind: advisory.kind,
                title: advisory.title.clone(),
                url: advisory.url.clone(),
                patched: advisory.patched.iter().map(ToString::to_string).collect(),
                allowed: settings.trust.allow_advisories.contains(&advisory.id),
                projects: projects.clone(),
            });
        }
    }
    touched.sort_by_key(|touched| touched.kind);
    touched
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

/// The lines of `larder status` about advisories.
#[derive(Debug, Serialize)]
pub(super) struct AdvisoryStatus {
    /// Number of advisories in the stored database.
    known: usize,
    /// Packages of warmed projects that an advisory calls malicious.
    malicious: usize,
    /// Those with a vulnerability.
    vulnerable: usize,
    /// Those with another advisory.
    others: usize,
}

impl AdvisoryStatus {
    /// Counts the packages of pins, each once for each of its advisories. Leaves out what `allow-advisory` names.
    pub(super) fn of(database: &AdvisoryDatabase, settings: &Settings, pins: &[Pin]) -> Self {
        let projects = pins
            .iter()
            .map(|pin| (pin.owner.to_string(), pin.packages.as_slice()));
        let touched = touched(database, settings, projects);
        let count = |is_meant: fn(AdvisoryKind) -> bool| {
            let counted = touched.iter().filter(|touched| !touched.allowed);
            counted.filter(|touched| is_meant(touched.kind)).count()
        };
        Self {
            known: database.len(),
            malicious: count(|kind| kind == AdvisoryKind::Malicious),
            vulnerable: count(|kind| kind == AdvisoryKind::Vulnerability),
            others: count(|kind| !kind.is_fault()),
        }
    }

    /// The same in one line.
    pub(super) fn line(&self) -> String {
        format!(
            "advisories {} known; of warmed projects' packages {} malicious, {} vulnerable, {} with a remark{}\n",
            self.known,
            self.malicious,
            self.vulnerable,
            self.others,
            match self.malicious + self.vulnerable + self.others {
                0 => "",
                _ => "; `larder check --advisories` lists them",
            }
        )
    }
}
