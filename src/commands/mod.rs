//! One file per command: arguments in, work done by the library, a report out.
//!
//! ```text
//!   flags + Settings ──> commands::warm::run ──> plan::plan ──> warm::warm ──> WarmReport ──> text or JSON, exit code
//! ```
//!
//! A command's `run` builds the [`crate::app::App`], calls the module that does the work, and renders the result. Rules
//! that hold for all of them:
//!
//! - stdout is for data: the report, or one JSON document with `--json`.
//! - stderr is for people: progress, notes, errors. `--quiet` leaves only errors.
//! - The exit code is 0 if everything was done, 1 if something failed or is missing, 2 for wrong usage.
//!
//! A new command is a variant of [`crate::cli::Command`], a file here, and a line in `main.rs`.

pub mod advisories;
pub mod check;
pub mod client;
mod client_change;
mod client_error;
mod client_settings;
mod client_use;
pub mod completions;
mod doctor;
pub mod forget;
pub mod gc;
pub mod import;
pub mod list;
mod local_cargo;
mod local_time;
pub mod man;
mod progress;
mod readiness;
mod recalls;
mod render;
pub mod run;
mod running_daemon;
mod selection;
pub mod serve;
mod serve_proxy;
mod serve_sockets;
pub mod service;
mod service_error;
pub mod status;
pub mod verify;
pub mod warm;
mod watch;

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

pub use client_error::ClientChangeError;
pub use render::print_error;
pub use service_error::ServiceError;

use crate::{
    app::AppError,
    config::ConfigError,
    intercept::{CertificateError, RootsError},
    store::StoreError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Arguments that clap refuses.
    #[error("{}", one_clap_error(.0))]
    Usage(clap::Error),
    /// `man` was asked for the page of an unknown command.
    #[error("there is no command `{0}`")]
    NoSuchCommand(String),
    /// A file for `--list` that cannot be used.
    #[error("cannot use the list {}{}: {reason}", .path.display(), at_line(*.line))]
    List {
        /// The file.
        path: PathBuf,
        /// The line, from 1; `None` if the file cannot be read.
        line: Option<usize>,
        /// The reason.
        reason: String,
    },
    /// `import` was given no path.
    #[error("no home folder is known; name the folder to import")]
    NoCargoHome,
    /// `--with-dependencies` is about no crate.
    #[error("`--with-dependencies` needs a crate: name one with `--crate` or in a list")]
    NoCrate,
    /// A setting that cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The store, the cache or the client for upstream cannot be built.
    #[error(transparent)]
    App(#[from] AppError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address that `serve` cannot listen on.
    #[error("cannot listen on {address}{}: {source}", listen_hint(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Another larder listens on that address.
    #[error(
        "cannot listen on {address}: another larder serves there, as process {pid}; use it, stop it (`kill {pid}`, or \
         `systemctl --user stop larder.socket larder` for a service), or choose another address with `--listen`"
    )]
    LarderListens {
        /// The address.
        address: SocketAddr,
        /// The process of the other one.
        pid: u64,
    },
    /// Sockets that the service manager has passed.
    #[error(
        "cannot use the sockets that the service manager has passed: {0}; a socket unit for larder has TCP addresses \
         in `ListenStream=`, and `Accept=no`"
    )]
    PassedSocket(#[source] io::Error),
    /// A socket of the service manager has another name than those that larder knows.
    #[error(
        "the service manager has passed a socket named `{name}` ({address}), and larder knows `http` and `proxy`; \
         write `FileDescriptorName=http` or `FileDescriptorName=proxy` into its socket unit, or leave the name out"
    )]
    PassedSocketName {
        /// The address of the socket.
        address: SocketAddr,
        /// Its name.
        name: String,
    },
    /// A socket of the service manager is for the proxy, which is switched off.
    #[error(
        "the service manager has passed a socket for the proxy ({address}), and the setting `intercept` is off; set \
         `intercept = \"{address}\"`, or disable the socket unit with `FileDescriptorName=proxy`"
    )]
    PassedProxySocket {
        /// The address of the socket.
        address: SocketAddr,
    },
    /// Another process removes files from the store.
    #[error("another process is removing files from this store; try again later")]
    EvictionRuns,
    /// `serve --intercept` has no place for its authority.
    #[error("no home folder is known; name a folder with `--intercept-folder`")]
    NoStateFolder,
    /// `client print proxy` finds no daemon that intercepts.
    #[error("no larder that intercepts is running; start it with `larder serve --intercept`")]
    NoProxy,
    /// A file or folder that cannot be imported.
    #[error("cannot import {}: {source}", .path.display())]
    Import {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `man --folder` cannot write.
    #[error("cannot write {}: {source}", .path.display())]
    ManualFolder {
        /// The folder, or a page in it.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No advisory database is stored.
    #[error(
        "no advisory database is stored; name its address with `--advisory-db` and run `larder warm`, or use `larder advisories import`"
    )]
    NoAdvisories,
    /// `client print` has no address to print.
    #[error("no address to listen on is configured")]
    NoAddress,
    /// A client's settings cannot be changed.
    #[error(transparent)]
    ClientChange(#[from] ClientChangeError),
    /// The service cannot be installed or removed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A signal ended the command before its work was done.
    #[error("{0}")]
    Interrupted(&'static str),
    /// stdout cannot be written to.
    #[error("cannot write to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// The intercepted hosts get no certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The root certificates that the user's settings name cannot be read.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// A report that cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The system refuses threads, sockets or signal handlers.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl CommandError {
    /// 2 if the user has to change the command line, a variable or the settings file, otherwise 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::NoSuchCommand(_)
            | Self::Settings(_)
            | Self::List { .. }
            | Self::NoCargoHome
            | Self::NoCrate => ExitCode::from(2),
            Self::App(_)
            | Self::Store(_)
            | Self::Listen { .. }
            | Self::LarderListens { .. }
            | Self::PassedSocket(_)
            | Self::PassedSocketName { .. }
            | Self::PassedProxySocket { .. }
            | Self::Import { .. }
            | Self::ManualFolder { .. }
            | Self::NoAdvisories
            | Self::NoAddress
            | Self::NoStateFolder
            | Self::NoProxy
            | Self::ClientChange(_)
            | Self::Service(_)
            | Self::EvictionRuns
            | Self::Interrupted(_)
            | Self::Stdout(_)
            | Self::Certificates(_)
            | Self::Roots(_)
            | Self::Json(_)
            | Self::System(_) => ExitCode::FAILURE,
        }
    }
}

// Written by hand, so that the error is no source: it would be printed twice.
impl From<clap::Error> for CommandError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

/// Clap's message without its own prefix: [`print_error`] adds one.
fn one_clap_error(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    text.trim_end().to_owned()
}

fn at_line(line: Option<usize>) -> String {
    line.map_or(String::new(), |line| format!(", line {line}"))
}

fn listen_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        " (another program uses it; choose another with `--listen`)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_usage_has_exit_code_two_and_failures_have_one() {
        let taken = CommandError::Listen {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            source: io::ErrorKind::AddrInUse.into(),
        };
        assert!(taken.to_string().contains("another program uses it"));
        assert_eq!(taken.exit_code(), ExitCode::FAILURE);
        let usage = clap::Error::raw(clap::error::ErrorKind::InvalidValue, "no such thing\n");
        let usage = CommandError::from(usage);
        assert_eq!(usage.to_string(), "no such thing");
        assert_eq!(usage.exit_code(), ExitCode::from(2));
    }
}
