//! `larder list`: what `larder warm` has stored for projects, crates and toolchains, and keeps from eviction.

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
    render::{counted, note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli::GlobalFlags,
    config::Settings,
    eviction::missing_owners,
    hash::Sha256,
    projects,
    store::{FileRecord, Owner, Pin, StoredFile},
};

/// Missing files that are named one by one.
const NAMED_MISSING: usize = 3;

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
    /// Those that are not.
    missing: Vec<String>,
    /// True if its file no longer exists.
    gone: bool,
}

/// Runs the command.
///
/// # Errors
/// The store cannot be read.
pub async fn run(settings: &Settings, shared: &GlobalFlags) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Local)?;
    let pins = app.store.pins().await?;
    let gone: BTreeSet<_> = missing_owners(&pins).await.into_iter().collect();
    let stored = blobs(app.store.file_records().await?);
    let items = pins.iter().map(|pin| item(pin, &stored, &gone));
    let items: Vec<_> = items.collect();
    if shared.json {
        print_json(&json!({ "items": items }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&items.iter().map(line).collect::<String>())?;
    if shared.quiet == 0 {
        note(match items.is_empty() {
            true => "nothing is kept; `larder warm` fetches what a project needs and keeps it",
            false => {
                "`larder check` tells whether builds work offline, `larder forget NAME` stops keeping one of these"
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Size in bytes and last use, in milliseconds since 1970, of each stored blob.
fn blobs(records: Vec<FileRecord>) -> BTreeMap<Sha256, (u64, u64)> {
    let blobs = records.into_iter().filter_map(|record| match record.file {
        StoredFile::Blob(sha256) => Some((sha256, (record.bytes, record.used))),
        StoredFile::Entry(_) => None,
    });
    blobs.collect()
}

fn item(pin: &Pin, stored: &BTreeMap<Sha256, (u64, u64)>, gone: &BTreeSet<Owner>) -> ListItem {
    let mut item = ListItem {
        kind: kind(&pin.owner),
        name: match &pin.owner {
            Owner::File(path) => path.display().to_string(),
            Owner::Toolchain(name) | Owner::Crate(name) | Owner::Dependency(name) => name.clone(),
        },
        packages: pin.needed_packages().count(),
        components: pin.archives.iter().collect::<BTreeSet<_>>().len(),
        bytes: 0,
        last_used: None,
        complete: false,
        missing: Vec::new(),
        gone: gone.contains(&pin.owner),
    };
    let mut seen = BTreeSet::new();
    for file in pin.needed_files() {
        if !seen.insert(file.sha256) {
            continue;
        }
        match stored.get(&file.sha256) {
            Some((bytes, used)) => {
                item.bytes += bytes;
                item.last_used = item.last_used.max(Some(used / 1000));
            }
            None => item.missing.push(file.to_string()),
        }
    }
    item.complete = item.missing.is_empty();
    item
}

fn kind(owner: &Owner) -> &'static str {
    match owner {
        Owner::File(path) if projects::is_toolchain_file(path) => "toolchain",
        Owner::File(_) => "project",
        Owner::Toolchain(_) => "toolchain",
        Owner::Crate(_) => "crate",
        Owner::Dependency(_) => "dependency",
    }
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
        let day = humantime::format_rfc3339_seconds(used).to_string();
        parts.push(format!("used {}", day.get(..10).unwrap_or(&day)));
    }
    if item.gone {
        parts.push("its file is gone".to_owned());
    }
    let ListItem { kind, name, .. } = item;
    let word = if item.complete {
        "complete  "
    } else {
        "incomplete"
    };
    let mut text = format!("{word}  {kind:10}  {name}  ({})\n", parts.join(", "));
    for missing in item.missing.iter().take(NAMED_MISSING) {
        let _ = writeln!(text, "            missing: {missing}");
    }
    if item.missing.len() > NAMED_MISSING {
        let more = item.missing.len() - NAMED_MISSING;
        let _ = writeln!(text, "            and {more} more");
    }
    text
}
