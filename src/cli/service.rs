//! Flags of `larder service`.

use clap::{Args, Subcommand};

/// Flags of `service`.
#[derive(Debug, Args)]
pub struct Service {
    /// The command.
    #[command(subcommand)]
    pub command: ServiceCommand,
}

/// Commands below `service`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Let systemd (on macOS: launchd) start larder: systemd listens, and the first connection starts the daemon
    Install(ServiceInstall),
    /// Stop the service, and remove the files that `larder service install` wrote
    Uninstall(ServiceUninstall),
    /// Tell whether the service is installed and runs, and at which address
    Status,
}

/// Flags of `service install`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ServiceInstall {
    /// Print the files and the commands, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace files that larder did not write, or that were edited
    #[arg(long)]
    pub force: bool,
}

/// Flags of `service uninstall`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ServiceUninstall {
    /// Remove the files although they were edited
    #[arg(long)]
    pub force: bool,
}
