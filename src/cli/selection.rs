//! The flags that say what `warm` and `check` are about, besides paths.

use std::path::PathBuf;

use clap::Args;

use crate::crate_spec::CrateSpec;

/// Flags about crates and lists, of `warm` and `check`.
#[derive(Debug, Default, Args)]
pub struct Crates {
    /// Crate to install, as `cargo install --locked` takes it: the crate, and what the lock file in its archive names;
    /// repeatable. Without PATH, projects are then left out
    #[arg(long = "crate", value_name = "NAME[@VERSION]")]
    pub crates: Vec<CrateSpec>,
    /// Take the crates named as dependencies: what `cargo add NAME` and a build then need
    #[arg(long)]
    pub with_dependencies: bool,
    /// File with one crate or project on each line, and comments after `#`; repeatable. A line with `/` is a path,
    /// which starts at the folder of the file. Without PATH, the current folder is then left out
    #[arg(long, value_name = "FILE")]
    pub list: Vec<PathBuf>,
}

/// Flags about toolchains, of `warm` and `check`.
#[derive(Debug, Default, Args)]
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
    /// Include what `rustup-init.sh` needs to install rustup itself on these hosts and, if no toolchain is named or
    /// found, the toolchain `stable` that it installs
    #[arg(long)]
    pub bootstrap: bool,
}
