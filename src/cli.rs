//! The command line: clap types and help texts.
//!
//! Clap fills [`Cli`] from arguments and from the `LARDER_*` variables beside each flag. Nothing here has an effect:
//! [`crate::config`] merges the values with the settings file, and [`crate::commands`] acts on them. The values that
//! flags share with the settings file ([`ToolchainFormat`], [`H2cListeners`]) are defined here and converted there.
//!
//! Help texts give every default. `tests/it/help` holds a snapshot of each.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

/// Keeps Rust builds going: on a flight, in a container, in CI, during an outage.
///
/// `larder serve` is a caching registry for cargo and a caching dist server for rustup: it downloads each file once
/// and stores it. `larder warm` fills the store from your projects' lock files. `larder check` lists what is missing.
/// `larder serve --offline` works without a network.
#[derive(Debug, Parser)]
#[command(name = "larder", version, max_term_width = 100, after_help = AFTER)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub shared: GlobalFlags,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "Every setting has a flag, a LARDER_* variable and a key of the same name in the settings file. The flag beats \
                     the variable, the variable beats the file.\n\nExit codes: 0 done, 1 failed or incomplete, 2 wrong usage.";

/// Flags that every command takes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalFlags {
    /// Settings file, TOML [default: larder/config.toml in the user's config folder]
    #[arg(
        long,
        value_name = "FILE",
        env = "LARDER_CONFIG",
        global = true,
        hide_env = true
    )]
    pub config: Option<PathBuf>,
    /// Folder of the store [default: larder in the user's cache folder]
    #[arg(
        long,
        value_name = "PATH",
        env = "LARDER_STORE",
        global = true,
        hide_env = true
    )]
    pub store: Option<String>,
    /// Longest time an index entry is served without revalidation, whatever upstream allows [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, env = "LARDER_MAX_AGE", global = true, hide_env = true)]
    pub max_age: Option<Duration>,
    /// Upstream index for crates.io, with or without `sparse+` [default: crates.io itself]
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_INDEX",
        global = true,
        hide_env = true
    )]
    pub index: Option<String>,
    /// Upstream server for toolchains, like `RUSTUP_DIST_SERVER` [default: rustup's own]
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_DIST_SERVER",
        global = true,
        hide_env = true
    )]
    pub dist_server: Option<String>,
    /// Upstream server for rustup itself, like `RUSTUP_UPDATE_ROOT` [default: `rustup` below the dist server]
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_UPDATE_ROOT",
        global = true,
        hide_env = true
    )]
    pub update_root: Option<String>,
    /// Archive format that toolchain manifests offer. `gz` installs three to four times as fast as `upstream` and
    /// downloads 65 % more bytes; without larder, the next update of such a toolchain downloads every component again
    /// [default: what the store was last used with, else upstream]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "LARDER_TOOLCHAIN_FORMAT",
        global = true,
        hide_env = true
    )]
    pub toolchain_format: Option<ToolchainFormat>,
    /// File with further root certificates for upstream, PEM [default: none]
    #[arg(
        long,
        value_name = "PEM",
        env = "LARDER_CA_FILE",
        global = true,
        hide_env = true
    )]
    pub ca_file: Option<PathBuf>,
    /// Host that upstream may redirect to besides the configured hosts; repeatable [default: none]
    #[arg(
        long,
        value_name = "HOST",
        env = "LARDER_REDIRECT_HOST",
        value_delimiter = ',',
        global = true,
        hide_env = true
    )]
    pub redirect_host: Vec<String>,
    /// Time limit for connecting to upstream, and for its answer when a stale copy is stored [default: 2s]
    #[arg(long, alias = "patience", value_name = "DURATION", value_parser = humantime::parse_duration, env = "LARDER_UPSTREAM_TIMEOUT", global = true, hide_env = true)]
    pub upstream_timeout: Option<Duration>,
    /// Print one JSON document to stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Print less; twice: only errors
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub quiet: u8,
    /// Print more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// Archive formats for `--toolchain-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolchainFormat {
    /// Every format that upstream offers; rustup takes the smallest
    Upstream,
    /// gzip only
    Gz,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: a registry for cargo and a dist server for rustup that stores what it downloads
    Serve(Serve),
    /// Download everything that the projects below PATH need: crates and toolchains
    Warm(Warm),
    /// Check whether the projects below PATH can be built offline, and list what is missing
    Check(Check),
    /// Show what is stored and whether a daemon is running
    Status,
    /// Print settings for cargo, rustup and container builds
    Client(Client),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Flags of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// Address to listen on; repeatable; port 0 takes a free one [default: 127.0.0.1:3263]
    #[arg(
        long,
        value_name = "ADDR",
        env = "LARDER_LISTEN",
        value_delimiter = ',',
        hide_env = true
    )]
    pub listen: Vec<SocketAddr>,
    /// Never contact upstream: serve what is stored, stale or not [default: false]
    #[arg(long, env = "LARDER_OFFLINE", hide_env = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    pub offline: Option<bool>,
    /// Serve index entries unchanged while upstream is unreachable. Without it, versions whose crate is not stored
    /// are marked as yanked, so that new resolutions choose stored versions [default: false]
    #[arg(long, env = "LARDER_FULL_INDEX", hide_env = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    pub full_index: Option<bool>,
    /// Host name by which clients may address this daemon; repeatable [default: loopback names, the addresses
    /// listened on and names that end in `.internal`, which are always accepted]
    #[arg(
        long,
        value_name = "HOST",
        env = "LARDER_ALLOW_HOST",
        value_delimiter = ',',
        hide_env = true
    )]
    pub allow_host: Vec<String>,
    /// Fetch what warmed projects need after their lock file or toolchain file has changed [default: true]
    #[arg(long, env = "LARDER_KEEP_WARM", hide_env = true, value_name = "BOOL")]
    pub keep_warm: Option<bool>,
    /// Addresses on which cargo's upgrade to HTTP/2 is accepted [default: loopback]
    #[arg(long, value_name = "WHERE", env = "LARDER_H2C", hide_env = true)]
    pub h2c: Option<H2cListeners>,
}

/// Listeners for `--h2c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum H2cListeners {
    /// Loopback addresses only
    Loopback,
    /// All addresses
    On,
    /// No address
    Off,
}

impl Serve {
    /// The flags that `larder serve` without arguments would have here, from its variables.
    ///
    /// # Errors
    /// A variable with a value that clap refuses.
    pub fn from_variables() -> Result<Self, clap::Error> {
        #[derive(Parser)]
        #[command(name = "larder")]
        struct ServeOnly {
            #[command(flatten)]
            serve: Serve,
        }
        ServeOnly::try_parse_from(["larder"]).map(|only| only.serve)
    }
}

/// Flags of `warm`.
#[derive(Debug, Args)]
pub struct Warm {
    /// Folders, lock files, manifests or toolchain files [default: .]
    pub path: Vec<PathBuf>,
    /// List what would be downloaded, and download nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Number of parallel downloads [default: 64]
    #[arg(long, value_name = "N", env = "LARDER_JOBS", hide_env = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Revalidate every index entry, however fresh
    #[arg(long)]
    pub refresh: bool,
    /// Download only crates that a build for this target needs, and its standard library for the toolchains named;
    /// repeatable [default: crates for all targets]
    #[arg(long, value_name = "TRIPLE")]
    pub target: Vec<String>,
    /// Toolchains.
    #[command(flatten)]
    pub toolchains: Toolchains,
}

/// Flags about toolchains, of `warm` and `check`.
#[derive(Debug, Args)]
pub struct Toolchains {
    /// Toolchain, as `rustup toolchain install` takes it, besides those of rust-toolchain files; repeatable. Without
    /// PATH, projects are then left out
    #[arg(long, value_name = "CHANNEL")]
    pub toolchain: Vec<String>,
    /// Profile of the toolchains named [default: rustup's setting, else default]
    #[arg(long, value_name = "PROFILE", requires = "toolchain", value_parser = ["minimal", "default", "complete"])]
    pub profile: Option<String>,
    /// Component of the toolchains named, besides those of the profile; repeatable
    #[arg(
        long,
        value_name = "NAME",
        requires = "toolchain",
        value_delimiter = ','
    )]
    pub component: Vec<String>,
    /// Host that all toolchains are for; repeatable [default: rustup's setting, else this machine]
    #[arg(long, value_name = "TRIPLE", value_delimiter = ',')]
    pub host: Vec<String>,
    /// Include what `rustup-init.sh` needs to install rustup itself on these hosts
    #[arg(long)]
    pub bootstrap: bool,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Folders, lock files, manifests or toolchain files [default: .]
    pub path: Vec<PathBuf>,
    /// Rehash every crate and component that the answer depends on, to find files that the disk has damaged
    #[arg(long)]
    pub verify: bool,
    /// Check only crates that a build for this target needs, and its standard library for the toolchains named; repeatable
    /// [default: crates for all targets]
    #[arg(long, value_name = "TRIPLE")]
    pub target: Vec<String>,
    /// Toolchains.
    #[command(flatten)]
    pub toolchains: Toolchains,
}

/// Flags of `client`.
#[derive(Debug, Args)]
pub struct Client {
    /// The command.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// Commands below `client`.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Print the settings that make a client use the running daemon
    Print {
        /// The client
        #[arg(value_enum, default_value_t)]
        of: SettingsKind,
    },
}

/// Kinds of settings that `client print` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SettingsKind {
    /// TOML for cargo's config.toml
    #[default]
    Cargo,
    /// Variables for rustup, as shell exports: `eval "$(larder client print rustup)"`
    Rustup,
    /// Options for `podman build` or `docker build`: `podman build $(larder client print build) .`
    Build,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_name_of_the_upstream_timeout_is_a_hidden_alias() {
        for name in ["--upstream-timeout", "--patience"] {
            let cli = Cli::try_parse_from(["larder", "status", name, "3s"]).unwrap();
            assert_eq!(cli.shared.upstream_timeout, Some(Duration::from_secs(3)));
        }
    }
}
