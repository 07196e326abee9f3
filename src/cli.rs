//! The command line: clap types and help text. What it means is `config`'s business, behaviour is others'.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{resource::dist::ArchiveFormat, server::H2c};

/// Keeps Rust builds going: on a flight, in a container, in CI, during an outage.
///
/// `larder serve` is a registry for cargo that fetches each crate once and keeps it. `larder warm` fills it from your
/// projects' lock files, `larder check` tells what is missing, and `larder serve --offline` needs no network at all.
#[derive(Debug, Parser)]
#[command(name = "larder", version, max_term_width = 100, after_help = AFTER)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub shared: Shared,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "Every setting has a flag, a LARDER_* variable and a key of the same name in the settings file; a flag beats the \
                     variable, the variable beats the file.\n\nExit codes: 0 done, 1 failed or incomplete, 2 wrong usage.";

/// Flags that every command takes.
#[derive(Debug, Default, Args)]
pub struct Shared {
    /// Settings file [default: larder/config.toml in the user's config folder]
    #[arg(
        long,
        value_name = "FILE",
        env = "LARDER_CONFIG",
        global = true,
        hide_env = true
    )]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: larder in the user's cache folder]
    #[arg(
        long,
        value_name = "PATH",
        env = "LARDER_STORE",
        global = true,
        hide_env = true
    )]
    pub store: Option<String>,
    /// Cap of the time an index entry is served without asking upstream [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, env = "LARDER_MAX_AGE", global = true, hide_env = true)]
    pub max_age: Option<Duration>,
    /// Upstream of crates.io; `sparse+` is accepted [default: crates.io itself]
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_INDEX",
        global = true,
        hide_env = true
    )]
    pub index: Option<String>,
    /// Upstream of toolchains, as `RUSTUP_DIST_SERVER` would name it [default: rustup's own]
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_DIST_SERVER",
        global = true,
        hide_env = true
    )]
    pub dist_server: Option<String>,
    /// Upstream of rustup itself, as `RUSTUP_UPDATE_ROOT` would name it [default: `rustup` below the dist server]
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_UPDATE_ROOT",
        global = true,
        hide_env = true
    )]
    pub update_root: Option<String>,
    /// Which archives toolchain manifests offer: `gz` unpacks three to four times as fast as what rustup would choose, for 65 %
    /// more bytes, and without larder the next update of such a toolchain fetches everything once [default: upstream]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "LARDER_TOOLCHAIN_FORMAT",
        global = true,
        hide_env = true
    )]
    pub toolchain_format: Option<ArchiveFormat>,
    /// Extra root certificates for upstream, PEM
    #[arg(
        long,
        value_name = "PEM",
        env = "LARDER_CA_FILE",
        global = true,
        hide_env = true
    )]
    pub ca_file: Option<PathBuf>,
    /// Host that upstream may redirect to besides the configured ones; repeatable
    #[arg(
        long,
        value_name = "HOST",
        env = "LARDER_REDIRECT_HOST",
        value_delimiter = ',',
        global = true,
        hide_env = true
    )]
    pub redirect_host: Vec<String>,
    /// How long a dial to upstream may take, and how long a request waits for upstream when a stale copy is at hand
    /// [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, env = "LARDER_PATIENCE", global = true, hide_env = true)]
    pub patience: Option<Duration>,
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Say less; twice: only errors
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub quiet: u8,
    /// Say more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: a registry for cargo that fetches what it lacks and keeps it
    Serve(Serve),
    /// Fetch all that the projects below PATH need, crates and toolchains, before the network goes away
    Warm(Warm),
    /// Tell whether the projects below PATH could be built offline, and what is missing
    Check(Check),
    /// Tell what is stored and whether a daemon runs
    Status,
    /// Settings for cargo, rustup and container builds
    Client(Client),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
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
    /// Never ask upstream: serve what is stored, however old
    #[arg(long, env = "LARDER_OFFLINE", hide_env = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    pub offline: Option<bool>,
    /// Whether, offline, index entries are shown as upstream left them; otherwise versions whose crate is not stored are
    /// marked as yanked, so that resolves choose what is there
    #[arg(long, env = "LARDER_FULL_INDEX", hide_env = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    pub full_index: Option<bool>,
    /// Host name by which clients may know this larder; repeatable. Loopback names, the addresses listened on and names
    /// that end in `.internal` need no mention
    #[arg(
        long,
        value_name = "HOST",
        env = "LARDER_ALLOW_HOST",
        value_delimiter = ',',
        hide_env = true
    )]
    pub allow_host: Vec<String>,
    /// Where cargo's upgrade to HTTP/2 is accepted [default: loopback]
    #[arg(long, value_name = "WHERE", env = "LARDER_H2C", hide_env = true)]
    pub h2c: Option<H2c>,
}

impl Serve {
    /// The flags that `larder serve` would have here if none were given.
    ///
    /// # Errors
    /// A variable that cannot be read.
    pub fn from_variables() -> Result<Self, clap::Error> {
        #[derive(Parser)]
        #[command(name = "larder")]
        struct Alone {
            #[command(flatten)]
            serve: Serve,
        }
        Alone::try_parse_from(["larder"]).map(|alone| alone.serve)
    }
}

/// Flags of `warm`.
#[derive(Debug, Args)]
pub struct Warm {
    /// Folders, lock files, manifests or toolchain files [default: .]
    pub path: Vec<PathBuf>,
    /// Tell what would be fetched, and fetch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Fetches at a time [default: 64]
    #[arg(long, value_name = "N", env = "LARDER_JOBS", hide_env = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Ask upstream about every index entry, stored or not
    #[arg(long)]
    pub refresh: bool,
    /// Fetch only the crates that a build for this target needs, and for the toolchains named the standard library for it;
    /// repeatable
    #[arg(long, value_name = "TRIPLE")]
    pub target: Vec<String>,
    /// Toolchains.
    #[command(flatten)]
    pub toolchains: Toolchains,
}

/// Flags about toolchains, of `warm` and `check`.
#[derive(Debug, Args)]
pub struct Toolchains {
    /// A toolchain as `rustup toolchain install` takes it, besides those of rust-toolchain files; repeatable. With it and
    /// without PATH, no projects are looked at
    #[arg(long, value_name = "CHANNEL")]
    pub toolchain: Vec<String>,
    /// Profile of the toolchains named [default: rustup's setting, else default]
    #[arg(long, value_name = "PROFILE", requires = "toolchain", value_parser = ["minimal", "default", "complete"])]
    pub profile: Option<String>,
    /// Component of the toolchains named, beyond the profile; repeatable
    #[arg(
        long,
        value_name = "NAME",
        requires = "toolchain",
        value_delimiter = ','
    )]
    pub component: Vec<String>,
    /// Machine that all toolchains are for; repeatable [default: rustup's setting, else this one]
    #[arg(long, value_name = "TRIPLE", value_delimiter = ',')]
    pub host: Vec<String>,
    /// Also what `rustup-init.sh` needs to install rustup itself on these machines
    #[arg(long)]
    pub bootstrap: bool,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Folders, lock files, manifests or toolchain files [default: .]
    pub path: Vec<PathBuf>,
    /// Target whose standard library the toolchains named shall have; repeatable
    #[arg(long, value_name = "TRIPLE", requires = "toolchain")]
    pub target: Vec<String>,
    /// Toolchains.
    #[command(flatten)]
    pub toolchains: Toolchains,
}

/// Flags of `client`.
#[derive(Debug, Args)]
pub struct Client {
    /// What to do.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// What `client` does.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Print the settings that make a client use the running larder
    Print {
        /// Which client
        #[arg(value_enum, default_value_t)]
        of: ClientKind,
    },
}

/// Whose settings `client print` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    /// TOML for cargo's config.toml
    #[default]
    Cargo,
    /// Variables for rustup, as a shell exports them: `eval "$(larder client print rustup)"`
    Rustup,
    /// Options for `podman build` or `docker build`: `podman build $(larder client print build) .`
    Build,
}
