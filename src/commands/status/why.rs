//! `larder status --why`: why a stored crate or archive stays.

use std::{
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use indicatif::HumanBytes;

use crate::{
    app::App,
    cli::GlobalFlags,
    commands::{
        CommandError,
        local_time::local_minute,
        render::{note, print, print_json},
        running_daemon::{find_daemon, max_size},
    },
    config::Settings,
    eviction::{self, WhyFile},
};

/// Says why it stays. The exit code is 1 if none is stored.
pub(super) async fn run(
    settings: &Settings,
    shared: &GlobalFlags,
    app: &App,
    name: &str,
    version: &str,
) -> Result<ExitCode, CommandError> {
    let daemon = find_daemon(settings, &app.store).await;
    let limits = (max_size(settings, daemon.as_ref()), settings.forget_after);
    let (store, upstreams) = (&app.store, &app.upstreams);
    let why = eviction::why(store, upstreams, name, version, limits.0, limits.1).await?;
    if shared.json {
        print_json(&why)?;
    } else {
        print(&why.files.iter().map(text).collect::<String>())?;
    }
    if why.files.is_empty() {
        note(&format!("`{name} {version}` is not stored"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn text(file: &WhyFile) -> String {
    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(file.last_used);
    let mut text = format!(
        "{}  ({}, last used {})\n",
        file.what,
        HumanBytes(file.bytes),
        local_minute(used)
    );
    for owner in &file.pinned_by {
        let _ = writeln!(text, "  needed by {owner}");
    }
    if file.pinned_by.is_empty() {
        text += "  no warmed project or toolchain needs it\n";
    }
    if let Some(held) = file.held {
        let _ = writeln!(text, "  kept: {held}");
    }
    text += match file.gc_would_remove {
        true => "  `larder gc` would remove it now\n",
        false => "  `larder gc` would leave it\n",
    };
    text
}
