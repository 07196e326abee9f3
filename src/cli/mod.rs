//! The command line: clap types and help texts.
//!
//! Clap fills [`Cli`] from arguments. Nothing here has an effect: [`crate::config`] merges the values with the
//! `LARDER_*` variables and the settings file, and [`crate::commands`] acts on them. The values and parsers that flags
//! share with variables and file ([`ToolchainFormat`], [`H2cListeners`], [`parse_duration`]) are defined here.
//!
//! Every command takes every global flag, so that one set of flags fits all commands. [`settings_of`] tells which
//! settings a command uses: the help shows only those, and a fault in another one is no error.
//!
//! Help texts give every default. `tests/it/help` holds a snapshot of each.

mod choices;
mod client;
mod parse;
mod selection;
mod service;
mod settings;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

pub use choices::{AccessLogFormatName, H2cListeners, LogFormatName, OnTrouble};
pub use client::{Client, ClientApply, ClientCommand, ClientKind, ClientTarget, SettingsKind};
pub use parse::{
    PORT, PROXY_PORT, parse_age, parse_duration, parse_intercept, parse_listen, parse_network,
    parse_size, parse_switch,
};
pub use selection::{Crates, Toolchains};
pub use service::{Service, ServiceCommand, ServiceInstall, ServiceUninstall};
pub use settings::{all_settings, settings_of};

use clap::{Arg, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

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
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Folder of the store [default: larder in the user's cache folder]
    #[arg(long, value_name = "PATH", global = true)]
    pub store: Option<String>,
    /// Longest time an index entry is served without revalidation, whatever upstream allows [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, global = true)]
    pub max_age: Option<Duration>,
    /// Upstream index for crates.io, with or without `sparse+` [default: crates.io itself]
    #[arg(long, value_name = "URL", global = true)]
    pub index: Option<String>,
    /// Upstream server for toolchains, like `RUSTUP_DIST_SERVER` [default: rustup's own]
    #[arg(long, value_name = "URL", global = true)]
    pub dist_server: Option<String>,
    /// Upstream server for rustup itself, like `RUSTUP_UPDATE_ROOT` [default: `rustup` below the dist server]
    #[arg(long, value_name = "URL", global = true)]
    pub update_root: Option<String>,
    /// Archive format that toolchain manifests offer. `gz` installs three to four times as fast as `upstream` and
    /// downloads 65 % more bytes; without larder, the next update of such a toolchain downloads every component again
    /// [default: what the store was last used with, else upstream]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub toolchain_format: Option<ToolchainFormat>,
    /// File with further root certificates for upstream, PEM [default: none]
    #[arg(long, value_name = "PEM", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Host that upstream may redirect to besides the configured hosts; repeatable [default: none]
    #[arg(long, value_name = "HOST", value_delimiter = ',', global = true)]
    pub redirect_host: Vec<String>,
    /// Time limit for connecting to upstream, and for its answer when a stale copy is stored [default: 2s]
    #[arg(long, alias = "patience", value_name = "DURATION", value_parser = parse_duration, global = true)]
    pub upstream_timeout: Option<Duration>,
    /// Largest index entry or toolchain manifest that is accepted from upstream, in MB, from 1 to 64 [default: 32]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u16).range(1..=64), global = true)]
    pub max_entry: Option<u16>,
    /// Largest crate that is accepted from upstream, in MB [default: 256]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..), global = true)]
    pub max_crate: Option<u32>,
    /// Memory that arriving bodies may take together, in MB; at least that of one `--max-entry` [default: 64]
    #[arg(long, value_name = "MB", global = true)]
    pub memory: Option<u32>,
    /// Concurrent requests to one upstream that speaks only HTTP/1.1 [default: 100, less where few files may be open]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), global = true)]
    pub upstream_connections: Option<u32>,
    /// Requests a second to upstream; 0 for no limit [default: 0]
    #[arg(long, value_name = "N", global = true)]
    pub upstream_rate: Option<u32>,
    /// Age that a version must have before clients get it, such as `7d`; until then it seems yanked. Versions that a
    /// warmed project's lock file names are served at any age [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_age, global = true)]
    pub min_age: Option<Duration>,
    /// Crate that clients must not get: NAME, NAME@VERSION for one version, or NAME@REQUIREMENT; repeatable
    /// [default: none]
    #[arg(long, value_name = "CRATE", global = true)]
    pub deny: Vec<String>,
    /// Address of the archive (tar.gz) of the RustSec advisory database; versions that it calls malicious are refused
    /// [default: none]
    #[arg(long, value_name = "URL", global = true)]
    pub advisory_db: Option<String>,
    /// Id of an advisory that is not to be counted, nor to forbid a version; repeatable [default: none]
    #[arg(long, value_name = "ID", value_delimiter = ',', global = true)]
    pub allow_advisory: Vec<String>,
    /// Accept only toolchain manifests that Rust's release key has signed [default: false]
    #[arg(long, value_name = "BOOL", value_parser = parse_switch, global = true)]
    pub verify_signatures: Option<bool>,
    /// File with the public keys for `--verify-signatures`, ASCII-armored, RSA [default: Rust's release key]
    #[arg(long, value_name = "FILE", global = true)]
    pub signing_key: Option<PathBuf>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
    /// Run a command whose cargo and rustup go through larder; nothing else changes, and no settings are needed
    Run(Run),
    /// Download everything that the projects below PATH need: crates and toolchains
    Warm(Warm),
    /// Check whether the projects below PATH can be built offline, and list what is missing
    Check(Check),
    /// Rehash every stored file, and list the damaged ones
    Verify(Verify),
    /// Remove stored files, the longest unused first; never what warmed projects and toolchains need
    Gc(Gc),
    /// Stop keeping files for a project or toolchain, or remove one stored crate or archive
    Forget(Forget),
    /// List the projects, crates and toolchains whose files are kept, and whether they work offline; with NAME, search
    /// these and the stored crates
    List(List),
    /// Take over crates and index entries from cargo's home, without a download
    Import(Import),
    /// Show what is stored and whether a daemon is running
    Status(Status),
    /// Import the RustSec advisory database
    Advisories(Advisories),
    /// Print settings for cargo, rustup and container builds, or switch clients to larder and back
    Client(Client),
    /// Install larder as a service that the first connection starts
    Service(Service),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of larder or of a command
    Man {
        /// The command, for example `warm` or `client print`
        command: Vec<String>,
        /// Write the pages of larder and of all commands to this folder, for a package
        #[arg(long, value_name = "PATH", conflicts_with = "command")]
        folder: Option<PathBuf>,
    },
}

/// Flags of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// Address to listen on, with or without a port; repeatable; port 0 takes a free one. Sockets that a service
    /// manager passes are used instead [default: 127.0.0.1:3263]
    #[arg(
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        value_parser = parse_listen,
    )]
    pub listen: Vec<SocketAddr>,
    /// Exit after this time without a request, such as `30m`; 0 for never. Has an effect only if the service manager
    /// has passed the sockets, since it starts the daemon again at the next connection, and only without
    /// `--intercept`: connections through the proxy are not counted [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub idle_exit: Option<Duration>,
    /// Address by which all clients reach this daemon, such as that of a proxy that ends TLS; it is written into
    /// `config.json` [default: the address that each client uses]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Proxy whose `X-Forwarded-For`, `-Proto` and `-Host` or `Forwarded` headers are believed, as an address or a
    /// network such as `10.0.0.0/8`; repeatable [default: none]
    #[arg(long, value_name = "NET", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxy: Vec<IpNet>,
    /// Answer for what larder cannot serve because of its own trouble, such as a full disk or a broken way to upstream;
    /// never a redirect offline, or where `--min-age`, `--deny`, advisories or signatures may forbid it
    /// [default: error]
    #[arg(long, value_name = "ANSWER")]
    pub on_trouble: Option<OnTrouble>,
    /// Never contact upstream: serve what is stored, stale or not [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, value_parser = parse_switch)]
    pub offline: Option<bool>,
    /// Serve index entries unchanged while upstream is unreachable. Without it, versions whose crate is not stored
    /// are marked as yanked, so that new resolutions choose stored versions [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, value_parser = parse_switch)]
    pub full_index: Option<bool>,
    /// Host name by which clients may address this daemon; repeatable [default: loopback names, private addresses, the
    /// addresses listened on, this machine's name, and the names that container engines give to their host, such as
    /// `host.docker.internal`; these are always accepted]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub allow_host: Vec<String>,
    /// Connections of clients; at the limit, the longest idle one closes for a new one [default: 1024, or half of the
    /// files that the process may open]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// Connections of clients from one address [default: half of `--max-connections`, and no limit on this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_peer: Option<u32>,
    /// Requests of clients in flight; further ones wait for up to ten seconds [default: 2048]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: Option<u32>,
    /// Ask upstream without a client: for `config.json` at the start, and for what warmed projects need after their
    /// lock file or toolchain file has changed [default: true]
    #[arg(long, value_name = "BOOL", value_parser = parse_switch)]
    pub keep_warm: Option<bool>,
    /// Megabytes a second that the check of stored files may read; 0 turns it off [default: 4]
    #[arg(long, value_name = "MB")]
    pub scrub_rate: Option<u32>,
    /// Time from one check of all stored files to the next one [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub scrub_interval: Option<Duration>,
    /// Disk space for the whole store, such as `20GB`: the longest unused files are removed, never what warmed projects
    /// and toolchains need [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// Time after which a warmed project whose folder is gone no longer keeps its files [default: 14d]
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub forget_after: Option<Duration>,
    /// Run an intercepting proxy on this address, with or without a port: clients keep the registry's own addresses.
    /// `larder client print proxy` prints what they need [default: no proxy; without an address: 127.0.0.1:3264]
    #[arg(long, num_args = 0..=1, default_missing_value = "127.0.0.1:3264", value_name = "ADDR", require_equals = true, value_parser = parse_intercept)]
    pub intercept: Option<SocketAddr>,
    /// Host, with a port or for 443, that clients may reach through the proxy besides the intercepted ones; `*` for all
    /// on port 443; repeatable [default: none]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub tunnel: Vec<String>,
    /// Folder for the proxy's certificate authority and the file `roots.pem` for clients [default: larder/intercept in
    /// the user's folder for state]
    #[arg(long, value_name = "PATH")]
    pub intercept_folder: Option<PathBuf>,
    /// Format of the log on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormatName>,
    /// File that gets a line for each request; a file that is moved away is begun anew [default: none]
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Format of the access log [default: combined]
    #[arg(long, value_name = "FORMAT")]
    pub access_log_format: Option<AccessLogFormatName>,
    /// Size from which the access log becomes FILE.1, and another begins; 0 for no limit [default: 100MB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub access_log_size: Option<u64>,
    /// Addresses on which cargo's upgrade to HTTP/2 is accepted [default: loopback]
    #[arg(long, value_name = "WHERE")]
    pub h2c: Option<H2cListeners>,
}

/// Flags of `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct Run {
    /// Never contact upstream: serve what is stored, stale or not [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true, value_parser = parse_switch)]
    pub offline: Option<bool>,
    /// The command and its arguments, for example `cargo build`
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Move damaged files to the folder `quarantine` of the store, and fetch them again
    #[arg(long)]
    pub repair: bool,
}

/// Flags of `gc`.
#[derive(Clone, Debug, Default, Args)]
pub struct Gc {
    /// List what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove files until the whole store takes no more disk space than this, such as `20GB` [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// Remove files that were not used for this long, such as `90d`
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub older_than: Option<Duration>,
    /// Of stable toolchains keep this many releases, the newest, and remove older ones
    #[arg(long, value_name = "N")]
    pub keep_last_stables: Option<usize>,
    /// Of nightly toolchains keep this many releases, the newest, and remove older ones
    #[arg(long, value_name = "N")]
    pub keep_last_nightlies: Option<usize>,
    /// Time after which a warmed project whose folder is gone no longer keeps its files [default: 14d]
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub forget_after: Option<Duration>,
}

/// Flags of `forget`.
#[derive(Clone, Debug, Args)]
pub struct Forget {
    /// A folder, lock file or toolchain file that was warmed, or the name of a toolchain or crate that was; with
    /// VERSION, the name of a stored crate or of a toolchain's component
    pub what: String,
    /// The version of the stored crate to remove. For a component, a part of its file's path, such as a date
    pub version: Option<String>,
    /// Remove it although a warmed project or toolchain needs it
    #[arg(long, requires = "version")]
    pub force: bool,
}

/// Flags of `import`.
#[derive(Clone, Debug, Default, Args)]
pub struct Import {
    /// Cargo homes, local registries, or folders of `.crate` files [default: CARGO_HOME, else ~/.cargo]
    pub path: Vec<PathBuf>,
    /// Count what would be taken over, and store nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `list`.
#[derive(Clone, Debug, Default, Args)]
pub struct List {
    /// Part of the name of a crate, project or toolchain. Lists only these, with the stored versions of crates, their
    /// sizes and the projects that need them
    pub name: Option<String>,
}

/// Flags of `status`.
#[derive(Clone, Debug, Default, Args)]
pub struct Status {
    /// Tell why this crate, or the archives of this component of a toolchain, stay stored. VERSION of a component is a
    /// part of its file's path, such as a date
    #[arg(long, num_args = 2, value_names = ["NAME", "VERSION"])]
    pub why: Option<Vec<String>>,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long, conflicts_with = "why")]
    pub watch: bool,
}

/// Flags of `warm`.
#[derive(Debug, Args)]
pub struct Warm {
    /// Folders, lock files, manifests, cargo scripts or toolchain files [default: . and the tables `[[warm.*]]` of the
    /// settings file]
    pub path: Vec<PathBuf>,
    /// List what would be downloaded, and download nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Number of parallel downloads [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Revalidate every index entry, however fresh
    #[arg(long)]
    pub refresh: bool,
    /// Download only crates that a build for this target needs, and its standard library for the toolchains named;
    /// repeatable [default: crates for all targets]
    #[arg(long, value_name = "TRIPLE", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Crates.
    #[command(flatten)]
    pub crates: Crates,
    /// Toolchains.
    #[command(flatten)]
    pub toolchains: Toolchains,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Folders, lock files, manifests, cargo scripts or toolchain files [default: . and the tables `[[warm.*]]` of the
    /// settings file]
    pub path: Vec<PathBuf>,
    /// Rehash every crate and component that the answer depends on, to find files that the disk has damaged
    #[arg(long)]
    pub verify: bool,
    /// List the packages that RustSec advisories are about, by the stored database. Malicious and vulnerable ones count
    /// as not ready
    #[arg(long = "advisories")]
    pub lists_advisories: bool,
    /// Check only crates that a build for this target needs, and its standard library for the toolchains named;
    /// repeatable [default: crates for all targets]
    #[arg(long, value_name = "TRIPLE", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Crates.
    #[command(flatten)]
    pub crates: Crates,
    /// Toolchains.
    #[command(flatten)]
    pub toolchains: Toolchains,
}

/// Flags of `advisories`.
#[derive(Debug, Args)]
pub struct Advisories {
    /// The command.
    #[command(subcommand)]
    pub command: AdvisoriesCommand,
}

/// Commands below `advisories`.
#[derive(Debug, Subcommand)]
pub enum AdvisoriesCommand {
    /// Store the database from a folder or an archive, as for a machine without network
    Import {
        /// Clone of the database's repository, or its archive (tar.gz)
        path: PathBuf,
    },
}

/// [`Cli`] as a command for clap, with the global flags hidden from the help of commands that do not use them.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let globals = command.get_arguments().filter(|arg| arg.is_global_set());
    let globals: Vec<Arg> = globals.cloned().collect();
    let command = command.mut_args(|arg| show_if_used("larder", arg));
    command.mut_subcommands(|inner| with_globals(inner, None, &globals))
}

/// Adds the global flags, which clap would otherwise copy from the command above.
fn with_globals(command: clap::Command, above: Option<&str>, globals: &[Arg]) -> clap::Command {
    // The commands below these have names of others.
    let name = above.unwrap_or(command.get_name()).to_owned();
    let own = globals.iter().map(|arg| show_if_used(&name, arg.clone()));
    let command = command.args(own);
    let above = ["service", "advisories"]
        .contains(&&*name)
        .then_some(&*name);
    command.mut_subcommands(|inner| with_globals(inner, above, globals))
}

fn show_if_used(command: &str, arg: Arg) -> Arg {
    let is_used = arg
        .get_long()
        .is_none_or(|long| settings_of(command).contains(&long));
    arg.hide(!is_used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn former_name_of_the_upstream_timeout_is_a_hidden_alias() {
        for name in ["--upstream-timeout", "--patience"] {
            let cli = Cli::try_parse_from(["larder", "status", name, "3s"]).unwrap();
            assert_eq!(cli.shared.upstream_timeout, Some(Duration::from_secs(3)));
        }
    }
}
