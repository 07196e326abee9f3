//! `larder list`: what `larder warm` has stored for projects, crates and toolchains, and keeps from eviction; with a
//! name, also the stored versions of crates.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use indicatif::HumanBytes;
use serde::Serialize;
use serde_json::json;

use super::{
    CommandError,
    local_time::local_day,
    readiness::{PinReadiness, ReadinessState, kind_of, readiness_of},
    render::{counted, note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli::{self, GlobalFlags},
    config::Settings,
    hash::Sha256,
    overview::{StoredVersion, stored_versions},
    resource::registry::CRATES_IO,
    store::{FileRecord, Owner, Pace, Pin, StoredFile},
};

/// One pin.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ListItem {
    /// `project`, `toolchain`, `crate` or `dependency`; a toolchain file is a toolchain.
    kind: &'static str,
    /// The path, or the name.
    name: String,
    /// Crates that it needs.
    packages: usize,
    /// Archives of toolchains that it needs.
    components: usize,
    /// Bytes of its stored files. Several items may share files.
    bytes: u64,
    /// When one of its files was last used, in seconds since 1970; `None` if nothing is stored.
    last_used: Option<u64>,
    /// True if all crates and archives that it needed when it was warmed are stored.
    complete: bool,
    /// Its readiness for offline use.
    state: ReadinessState,
    /// The missing parts.
    missing: Vec<String>,
    /// Reasons why it cannot be told whether it is ready.
    unknown: Vec<String>,
    /// True if its file no longer exists.
    gone: bool,
    /// The missing and unknown parts in a few lines, for people.
    #[serde(skip)]
    problems: Vec<String>,
}

/// Runs the command. With a name that matches nothing, its exit code is 1.
///
/// # Errors
/// The store cannot be read.
pub async fn run(
    settings: &Settings,
    shared: &GlobalFlags,
    flags: cli::List,
) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Local)?;
    let pins = app.store.pins().await?;
    let name = flags.name.as_deref();
    let records = app.store.file_records(&Pace::full_speed()).await?;
    let crates = match name {
        None => Vec::new(),
        Some(name) => crates_like(&app, &records, name, &pins).await,
    };
    let listed = pins.iter().filter(|pin| is_named(&pin.owner, name));
    let listed: Vec<_> = listed.cloned().collect();
    let readiness = readiness_of(settings, &app, &listed).await?;
    let stored = blobs(records);
    let items = listed.iter().zip(readiness);
    let items: Vec<_> = items
        .map(|(pin, readiness)| item(pin, readiness, &stored))
        .collect();
    let is_empty = items.is_empty() && crates.is_empty();
    if shared.json {
        print_json(&match name {
            None => json!({ "items": items }),
            Some(_) => json!({ "items": items, "crates": crates }),
        })?;
    } else {
        let lines = items.iter().map(line).chain(crates.iter().map(crate_line));
        print(&lines.collect::<String>())?;
    }
    if let Some(name) = name
        && is_empty
    {
        note(&format!("nothing that is stored has `{name}` in its name"));
        return Ok(ExitCode::FAILURE);
    }
    if shared.quiet == 0 && !shared.json {
        note(match is_empty {
            true => "nothing is kept; `larder warm` fetches what a project needs and keeps it",
            false => {
                "`larder check` tells whether builds work offline, `larder forget NAME` stops keeping one of these"
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns whether the owner's path or name contains `name`, in any case of letters.
fn is_named(owner: &Owner, name: Option<&str>) -> bool {
    name.is_none_or(|name| {
        let owner = owner.to_string().to_ascii_lowercase();
        owner.contains(&name.to_ascii_lowercase())
    })
}

/// The stored versions of the crates whose names contain `name`, the crate of that very name first.
async fn crates_like(
    app: &App,
    records: &[FileRecord],
    name: &str,
    pins: &[Pin],
) -> Vec<StoredVersion> {
    let wanted = name.to_ascii_lowercase();
    let keys = records.iter().filter_map(|record| record.file.entry());
    let entries = keys.filter(|key| key.as_str().contains("/index/"));
    let names = entries.filter_map(|key| key.as_str().rsplit('/').next());
    let names: BTreeSet<_> = names.filter(|name| name.contains(&wanted)).collect();
    let (exact, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| *name == wanted);
    let mut versions = Vec::new();
    for name in exact.into_iter().chain(others) {
        versions.extend(stored_versions(&app.cache, &app.store, &app.upstreams, name, pins).await);
    }
    versions
}

/// Size in bytes and last use, in milliseconds since 1970, of each stored blob.
fn blobs(records: Vec<FileRecord>) -> BTreeMap<Sha256, (u64, u64)> {
    let blobs = records.into_iter().filter_map(|record| match record.file {
        StoredFile::Blob(sha256) => Some((sha256, (record.bytes, record.used))),
        StoredFile::Entry(_) => None,
    });
    blobs.collect()
}

fn item(pin: &Pin, readiness: PinReadiness, stored: &BTreeMap<Sha256, (u64, u64)>) -> ListItem {
    let mut item = ListItem {
        kind: kind_of(&pin.owner),
        name: match &pin.owner {
            Owner::File(path) => path.display().to_string(),
            Owner::Toolchain(name) | Owner::Crate(name) | Owner::Dependency(name) => name.clone(),
        },
        packages: readiness.packages,
        components: readiness.components,
        bytes: 0,
        last_used: None,
        complete: true,
        state: readiness.state,
        problems: readiness.problems(),
        missing: readiness.missing,
        unknown: readiness.unknown,
        gone: readiness.gone,
    };
    let hashes: BTreeSet<_> = pin.needed_files().map(|file| file.sha256).collect();
    for sha256 in hashes {
        match stored.get(&sha256) {
            Some((bytes, used)) => {
                item.bytes += bytes;
                item.last_used = item.last_used.max(Some(used / 1000));
            }
            None => item.complete = false,
        }
    }
    item
}

fn line(item: &ListItem) -> String {
    let mut parts = Vec::new();
    if item.packages > 0 {
        parts.push(counted(item.packages, "package"));
    }
    if item.components > 0 {
        parts.push(counted(item.components, "component"));
    }
    parts.push(HumanBytes(item.bytes).to_string());
    if let Some(used) = item.last_used {
        let used = UNIX_EPOCH + Duration::from_secs(used);
        parts.push(format!("used {}", local_day(used)));
    }
    if item.gone {
        parts.push("its file is gone".to_owned());
    }
    let ListItem { kind, name, .. } = item;
    let word = item.state.as_str();
    let mut text = format!("{word:9}  {kind:10}  {name}  ({})\n", parts.join(", "));
    for problem in &item.problems {
        let _ = writeln!(text, "           {problem}");
    }
    text
}

fn crate_line(version: &StoredVersion) -> String {
    let StoredVersion {
        registry,
        name,
        version,
        bytes,
        needed_by,
    } = version;
    let mut parts = vec![HumanBytes(*bytes).to_string()];
    if registry != CRATES_IO {
        parts.push(format!("registry {registry}"));
    }
    if needed_by.is_empty() {
        parts.push("no warmed project needs it".to_owned());
    }
    let parts = parts.join(", ");
    let mut text = format!("stored     crate       {name} {version}  ({parts})\n");
    for owner in needed_by {
        let _ = writeln!(text, "           needed by {owner}");
    }
    text
}
