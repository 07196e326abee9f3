//! `larder client apply` and `larder client undo`: switch cargo or rustup to larder, and back.
//!
//! | file | backup | edited since | `apply` | `undo` |
//! |---|---|---|---|---|
//! | any | no | | backs up, edits | nothing to undo |
//! | as written | yes | no | nothing to do, or takes a new address | restores every byte |
//! | other | yes | yes, with larder's lines | nothing to do, or refuses | refuses, says what to do by hand |
//! | other | yes | yes, without them | backs up anew, edits | nothing to undo |

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;
use url::Url;

use super::{
    CommandError,
    client_error::ClientChangeError,
    client_settings::{cargo_settings, daemon_or_configured, reachable},
    render::{note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cargo_config::included_settings,
    cli::{ClientApply, ClientKind, ClientTarget, GlobalFlags},
    client_config::{
        self,
        applied::{Backups, ClientFile},
        edit::{self, EditError, Edited, Setting},
    },
    config::Settings,
    status_client::{self, Probe},
};

/// Lines that a message names at most.
const NAMED_LINES: usize = 8;

/// Where a client's settings are, and how to read them.
struct Target {
    client: ClientKind,
    backups: Backups,
    path: PathBuf,
}

impl Target {
    fn new(settings: &Settings, target: &ClientTarget) -> Result<Self, ClientChangeError> {
        let missing = || ClientChangeError::NoFolder;
        let folders = &settings.client;
        let path = match (target.client, &target.project) {
            (ClientKind::Rustup, Some(_)) => return Err(ClientChangeError::NoProject),
            (ClientKind::Rustup, None) => {
                let folder = folders.settings.as_ref().ok_or_else(missing)?;
                folder.join("env")
            }
            (ClientKind::Cargo, Some(project)) => {
                if !project.is_dir() {
                    return Err(ClientChangeError::NotAFolder(project.clone()));
                }
                cargo_file(&project.join(".cargo"))
            }
            (ClientKind::Cargo, None) => {
                cargo_file(settings.cargo_home.as_ref().ok_or_else(missing)?)
            }
        };
        Ok(Self {
            client: target.client,
            backups: Backups::new(folders.backups.clone().ok_or_else(missing)?),
            path,
        })
    }

    fn open(&self) -> Result<ClientFile, ClientChangeError> {
        self.backups.open(&self.path).map_err(at(&self.path))
    }

    /// The text of the file with larder's settings.
    fn edited(
        &self,
        text: Option<&[u8]>,
        settings: &Settings,
        base: &str,
    ) -> Result<Edited, ClientChangeError> {
        let wanted = match self.client {
            ClientKind::Rustup => {
                let new = client_config::rustup_file(base);
                let changes = client_config::rustup_variables(base).into_iter();
                let changes = changes.map(|(name, value)| {
                    let keys = vec![name.to_owned()];
                    (Setting { keys, value }, None)
                });
                let is_there = text == Some(new.as_bytes());
                let changes = changes.filter(|_| !is_there).collect();
                return Ok(Edited { text: new, changes });
            }
            ClientKind::Cargo => edit::settings_in(&cargo_settings(settings, base)),
        };
        let edited = match std::str::from_utf8(text.unwrap_or_default()) {
            Ok(text) => edit::edit(text, &wanted, &included_settings(&self.path)),
            Err(_) => Err(EditError::NotToml("it is not UTF-8".to_owned())),
        };
        edited.map_err(|source| ClientChangeError::Edit {
            path: self.path.clone(),
            source,
        })
    }
}

/// The daemon that the settings name.
struct DaemonAddress {
    /// Its base address, ending in `/`.
    base: String,
    /// True if the user named the address.
    is_named: bool,
    /// True if it answers now.
    is_running: bool,
}

impl DaemonAddress {
    /// The daemon at the address that the user named, else the one of this machine.
    async fn find(settings: &Settings, named: Option<&Url>) -> Result<Self, CommandError> {
        if let Some(named) = named {
            return Ok(Self {
                base: named.to_string(),
                is_named: true,
                // Without a TLS client of its own, larder cannot ask an https address.
                is_running: named.scheme() == "https"
                    || matches!(status_client::probe(named, None).await, Probe::Larder(_)),
            });
        }
        let app = App::build(settings, AppMode::Local)?;
        let (base, daemon) = daemon_or_configured(settings, &app).await?;
        Ok(Self {
            base: reachable(&base),
            is_named: false,
            is_running: daemon.is_some(),
        })
    }

    /// The next step if the daemon does not answer.
    fn warning(&self) -> Option<String> {
        if self.is_running {
            return None;
        }
        Some(if self.is_named {
            format!(
                "warning: no larder answers at {} now, and without one downloads fail; `larder client doctor` says why",
                self.base
            )
        } else {
            "next: start `larder serve`; no larder is running now, and without one downloads fail"
                .to_owned()
        })
    }
}

/// The file that cargo reads in a folder: it prefers the older name (`get_file_path` in
/// `src/cargo/util/context/mod.rs`).
fn cargo_file(folder: &Path) -> PathBuf {
    let old = folder.join("config");
    if old.is_file() {
        old
    } else {
        folder.join("config.toml")
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> ClientChangeError {
    let path = path.to_owned();
    move |source| ClientChangeError::File {
        path: path.clone(),
        source,
    }
}

/// Runs `client apply`.
///
/// # Errors
/// The settings cannot be edited, or would contradict others.
pub(super) async fn apply(
    settings: &Settings,
    shared: &GlobalFlags,
    flags: ClientApply,
) -> Result<ExitCode, CommandError> {
    let target = Target::new(settings, &flags.target)?;
    let daemon = DaemonAddress::find(settings, flags.address.as_ref()).await?;
    let base = &*daemon.base;
    let file = target.open()?;
    let is_as_written = file.is_as_written();
    let before = match &file.backup {
        Some(backup) if is_as_written => &backup.before,
        Some(_) | None => &file.now,
    };
    let changes = target.edited(file.now.as_deref(), settings, base)?.changes;
    if !changes.is_empty() {
        let left = file.own_lines_left();
        if !is_as_written && !file.is_as_before() && !left.is_empty() {
            let what = changes.iter().map(|(setting, _)| shown(setting)).collect();
            return Err(ClientChangeError::Edited(edited_text(&file, "change", what)).into());
        }
        let text = target.edited(before.as_deref(), settings, base)?.text;
        let written = file.write(before.as_deref(), text.as_bytes());
        written.map_err(at(&file.path))?;
    }
    report(shared, &file, &changes)?;
    if shared.quiet == 0 && !shared.json {
        for line in next_steps(&target, &flags.target, changes.is_empty(), &daemon) {
            note(&line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what `apply` changed, and where the backup is.
fn report(
    shared: &GlobalFlags,
    file: &ClientFile,
    changes: &[(Setting, Option<String>)],
) -> Result<(), CommandError> {
    if shared.json {
        let changes = changes.iter().map(
            |(setting, was)| json!({ "key": setting.key(), "value": setting.value, "was": was }),
        );
        return print_json(&json!({
            "file": file.path,
            "changes": changes.collect::<Vec<_>>(),
            "backup": file.backup_folder,
        }));
    }
    let path = file.path.display();
    if changes.is_empty() {
        return print(&format!("{path} has larder's settings already\n"));
    }
    let mut text = format!("edited {path}\n");
    for (setting, was) in changes {
        text += &format!("  {}", shown(setting));
        if let Some(was) = was {
            text += &format!("  (was {was:?})");
        }
        text.push('\n');
    }
    text += &format!("backup in {}\n", file.backup_folder.display());
    print(&text)
}

fn shown(setting: &Setting) -> String {
    format!("{} = {:?}", setting.key(), setting.value)
}

/// The user's next step.
fn next_steps(
    target: &Target,
    flags: &ClientTarget,
    is_unchanged: bool,
    daemon: &DaemonAddress,
) -> Vec<String> {
    let mut lines = Vec::new();
    match target.client {
        ClientKind::Cargo if !is_unchanged => lines.push(
            "note: the next build of each project compiles everything once, because cargo keeps its caches by registry \
             address"
                .to_owned(),
        ),
        ClientKind::Cargo => {}
        ClientKind::Rustup => lines.push(format!(
            "next: rustup reads variables only, and larder edits no profile; put this line into your shell's profile, \
             such as ~/.profile:\n  {}",
            client_config::source_line(&target.path)
        )),
    }
    lines.extend(daemon.warning());
    lines.push(format!("to switch back: `{}`", undo_command(flags)));
    lines
}

/// `larder client undo` with the same arguments.
fn undo_command(flags: &ClientTarget) -> String {
    let mut command = "larder client undo".to_owned();
    if flags.client == ClientKind::Rustup {
        command += " rustup";
    }
    match &flags.project {
        Some(project) if project == Path::new(".") => command += " --project",
        Some(project) => command += &format!(" --project={}", project.display()),
        None => {}
    }
    command
}

/// A refusal to touch a file that was edited after `apply`, with what to do by hand.
fn edited_text(file: &ClientFile, verb: &str, mut lines: Vec<String>) -> String {
    let foreign = file.foreign_lines();
    let numbers = foreign.iter().take(NAMED_LINES);
    let numbers: Vec<_> = numbers.map(ToString::to_string).collect();
    let what = match numbers.as_slice() {
        [] => "lines are gone".to_owned(),
        [one] => format!("line {one} is new or changed"),
        many => format!("lines {} are new or changed", many.join(", ")),
    };
    lines.truncate(NAMED_LINES);
    let path = file.path.display();
    let backup = file.backup_folder.display();
    let lines = lines.join("\n  ");
    format!(
        "{path} was edited after `larder client apply` ({what}), so larder leaves it alone; {verb} by hand:\n  {lines}\n\
         What larder found and what it wrote are in {backup}"
    )
}

/// Runs `client undo`. Its exit code is 1 if the file keeps larder's settings.
///
/// # Errors
/// The file was edited meanwhile, or cannot be written.
pub(super) fn undo(
    settings: &Settings,
    shared: &GlobalFlags,
    flags: ClientTarget,
) -> Result<ExitCode, CommandError> {
    let target = Target::new(settings, &flags)?;
    let file = target.open()?;
    let path = file.path.display();
    let (is_restored, text) = match &file.backup {
        None => {
            if has_larder(&file) {
                return Err(ClientChangeError::NotApplied(file.path.clone()).into());
            }
            let text = format!("nothing to undo: `larder client apply` has not edited {path}\n");
            (false, text)
        }
        Some(backup) if file.is_as_written() => {
            file.restore().map_err(at(&file.path))?;
            let done = match backup.before {
                Some(_) => "restored",
                None => "removed",
            };
            (true, format!("{done} {path}\n"))
        }
        Some(_) if file.is_as_before() => {
            file.drop_backup().map_err(at(&file.path))?;
            (false, format!("{path} is as it was before already\n"))
        }
        Some(_) => {
            let left = file.own_lines_left();
            if !left.is_empty() {
                let text = edited_text(&file, "take back", left);
                return Err(ClientChangeError::Edited(text).into());
            }
            let text = format!(
                "nothing to undo: {path} has none of larder's lines any more; what it was before is in {}\n",
                file.backup_folder.display()
            );
            (false, text)
        }
    };
    if shared.json {
        print_json(&json!({ "file": file.path, "restored": is_restored }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&text)?;
    if is_restored && shared.quiet == 0 {
        note(match target.client {
            ClientKind::Cargo => {
                "note: the next build of each project compiles everything once, because cargo keeps its caches by \
                 registry address"
            }
            ClientKind::Rustup => {
                "next: remove the line that reads it from your shell's profile; in open shells, \
                 `unset RUSTUP_DIST_SERVER RUSTUP_UPDATE_ROOT`"
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells if cargo's settings replace crates.io by larder.
fn has_larder(file: &ClientFile) -> bool {
    let text = String::from_utf8_lossy(file.now.as_deref().unwrap_or_default());
    let settings = edit::settings_in(&text);
    settings.iter().any(|setting| {
        setting.key() == "source.crates-io.replace-with" && setting.value == "larder"
    })
}
