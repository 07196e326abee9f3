//! `larder gc`: removes stored files by size, age and release, and says what it removed.

use std::{
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use indicatif::HumanBytes;
use tokio::time::{Instant, sleep};

use super::{
    CommandError,
    local_time::local_minute,
    render::{counted, note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli,
    config::Settings,
    eviction::{self, GonePin, KeepReleases, PassOptions, PassReport, Reason},
    store::{EvictionLock, Pace, Store},
};

/// Longest wait for a pass of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two attempts to begin.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// The store cannot be used, or another process is removing files all the time.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Gc,
) -> Result<ExitCode, CommandError> {
    let mode = match flags.dry_run {
        true => AppMode::Local,
        false => AppMode::Warm,
    };
    let app = App::build(settings, mode)?;
    let _lock = match flags.dry_run {
        true => None,
        false => {
            app.store.prepare_to_remove()?;
            Some(lock(&app.store).await?)
        }
    };
    let options = PassOptions {
        max_bytes: settings.max_size,
        older_than: flags.older_than,
        own_since: None,
        keep: KeepReleases {
            stables: flags.keep_last_stables,
            nightlies: flags.keep_last_nightlies,
        },
        forget_after: settings.forget_after,
        is_dry_run: flags.dry_run,
        with_names: true,
    };
    let (counter, pace) = (app.store.space_counter(), Pace::full_speed());
    let report = eviction::pass(&app.store, &app.upstreams, options, counter, &pace).await?;
    if shared.json {
        print_json(&report)?;
    } else {
        print(&text(&report))?;
    }
    if shared.quiet == 0 {
        for line in notes(&report) {
            note(&line);
        }
        let has_rule = options.max_bytes.is_some()
            || options.older_than.is_some()
            || options.keep != KeepReleases::default();
        if !has_rule {
            note(
                "hint: there is no limit; `--max-size`, `--older-than`, `--keep-last-stables` and \
                 `--keep-last-nightlies` set one",
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The right to remove files, as soon as no other process has it.
pub(super) async fn lock(store: &Store) -> Result<EvictionLock, CommandError> {
    let started = Instant::now();
    loop {
        if let Some(lock) = store.lock_for_eviction(true)? {
            return Ok(lock);
        }
        if started.elapsed() > LOCK_TIMEOUT {
            return Err(CommandError::EvictionRuns);
        }
        sleep(LOCK_INTERVAL).await;
    }
}

/// One line for each removed file.
fn text(report: &PassReport) -> String {
    let mut text = String::new();
    for removed in &report.removed {
        let what = removed.what.as_ref().unwrap_or(&removed.file);
        let reason = match removed.reason {
            Reason::Size => "",
            Reason::Age => ", not used for too long",
            Reason::OldRelease => ", an old release",
            Reason::ListsNothing => ", nothing that it lists is left",
        };
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(removed.last_used);
        let used = local_minute(used);
        let bytes = HumanBytes(removed.bytes);
        let _ = writeln!(text, "{what}  ({bytes}, last used {used}{reason})");
    }
    text
}

/// Lines for people.
fn notes(report: &PassReport) -> Vec<String> {
    let verb = if report.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let mut lines = vec![format!(
        "{verb} {}, {}; the store takes {}{}",
        counted(report.removed.len(), "file"),
        HumanBytes(report.removed_bytes()),
        HumanBytes(report.size_after),
        match report.max_size {
            Some(max) => format!(" of {}", HumanBytes(max)),
            None => String::new(),
        }
    )];
    if report.quarantine_files > 0 {
        let files = counted(
            usize::try_from(report.quarantine_files).unwrap_or(0),
            "damaged file",
        );
        let bytes = HumanBytes(report.quarantine_bytes);
        lines.push(format!("{verb} {files} from the quarantine, {bytes}"));
    }
    if report.in_use > 0 {
        let files = counted(usize::try_from(report.in_use).unwrap_or(0), "file");
        lines.push(format!("left alone: {files} in use"));
    }
    for owner in &report.forgotten {
        lines.push(format!("{owner} is gone; its files are no longer kept"));
    }
    lines.extend(report.gone.iter().map(gone_line));
    lines.extend(limit_line(report.pinned, report.max_size));
    lines
}

/// The line about a project that is gone.
fn gone_line(gone: &GonePin) -> String {
    format!("{} is gone; {}", gone.owner, kept_until(gone))
}

/// Until when the files of a project that is gone are kept.
pub(super) fn kept_until(gone: &GonePin) -> String {
    match gone.dropped_from {
        Some(seconds) => {
            let day = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            format!("its files are kept until {}", local_minute(day))
        }
        None => "its files are still kept".to_owned(),
    }
}

/// The line about pins that alone exceed the limit.
fn limit_line(pinned: u64, max_size: Option<u64>) -> Option<String> {
    let max = max_size.filter(|max| pinned > *max)?;
    Some(format!(
        "warmed projects and toolchains alone take {}, more than max-size {}; nothing of them is removed",
        HumanBytes(pinned),
        HumanBytes(max)
    ))
}
