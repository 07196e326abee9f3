//! Arguments of `larder client`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use url::Url;

use super::parse::parse_base_url;

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
    ///
    /// A shell takes the variables with `eval "$(larder client print rustup)"`, and a container build the options with
    /// `podman build $(larder client print build) .`
    Print {
        /// The client
        #[arg(value_enum, default_value_t)]
        of: SettingsKind,
        /// Address by which clients reach the daemon [default: where it listens; if that is every address, this
        /// machine's name or address]
        #[arg(long, value_name = "URL", value_parser = parse_base_url)]
        address: Option<Url>,
    },
    /// Make cargo or rustup use larder: edits cargo's config.toml, or writes rustup's variables to a file
    Apply(ClientApply),
    /// Take back what `larder client apply` did, unless the file was edited meanwhile
    Undo(ClientTarget),
    /// Find out why cargo or rustup does not reach larder, with requests that take the way of theirs. Exit code 1 if
    /// something is wrong
    Doctor {
        /// The client, which then must use larder [default: both, and one may do without]
        #[arg(value_enum, value_name = "CLIENT")]
        of: Option<ClientKind>,
    },
}

/// Flags of `client apply`.
#[derive(Clone, Debug, Args)]
pub struct ClientApply {
    /// The settings.
    #[command(flatten)]
    pub target: ClientTarget,
    /// Address of a daemon on another machine, such as `http://larder.example:3263/` [default: where the daemon of
    /// this machine listens]
    #[arg(long, value_name = "URL", value_parser = parse_base_url)]
    pub address: Option<Url>,
}

/// The settings that `client apply` and `client undo` work on.
#[derive(Clone, Debug, Args)]
pub struct ClientTarget {
    /// The client
    #[arg(value_enum, default_value_t)]
    pub client: ClientKind,
    /// Edit cargo's settings of one project, below PATH/.cargo, instead of those of the user [default: the user's
    /// cargo home; without PATH: .]
    #[arg(long, num_args = 0..=1, default_missing_value = ".", value_name = "PATH", require_equals = true)]
    pub project: Option<PathBuf>,
}

/// Clients whose settings are files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    /// config.toml in cargo's home or in a project
    #[default]
    Cargo,
    /// A file with rustup's variables in larder's folder for settings; your shell's profile must read it
    Rustup,
}

/// Kinds of settings that `client print` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SettingsKind {
    /// TOML for cargo's config.toml
    #[default]
    Cargo,
    /// Variables for rustup, as shell exports
    Rustup,
    /// Variables for clients of `larder serve --intercept`, as shell exports
    Proxy,
    /// Options for `podman build` or `docker build`
    Build,
}
