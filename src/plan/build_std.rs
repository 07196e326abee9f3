//! The crates of an installed standard library that a project compiles itself.
//!
//! ```toml
//! [unstable]                # .cargo/config.toml of a project that a nightly builds
//! build-std = ["std"]
//! ```
//!
//! Cargo then takes the standard library from the component `rust-src` and the crates in its lock file from the
//! registry. For a toolchain that is not installed, [`super::library`] reads that lock file in the archive. A flag
//! `-Zbuild-std` leaves no trace in files, so that only settings count here.

use std::path::{Path, PathBuf};

use super::PackageSet;
use crate::{
    cargo_config::{CargoConfig, LocalSources},
    files::{self, MAX_LOCK_FILE_BYTES},
    resource::Registries,
};

/// Folder of the standard library's sources in a toolchain.
const SOURCES: &str = "lib/rustlib/src/rust";
/// Its lock file in that folder. It moved in 2024.
const LOCKS: [&str; 2] = ["library/Cargo.lock", "Cargo.lock"];

/// An installed toolchain whose cargo knows unstable features.
#[derive(Debug)]
pub(super) struct UnstableToolchain {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// True if rustup will have added the sources of the standard library before cargo runs.
    pub(super) adds_sources: bool,
}

/// The crates that a build of the standard library needs, if the settings `config` ask for one. `toolchain` finds the
/// toolchain that is installed for it. Blocking.
pub(super) fn library_packages(
    toolchain: impl FnOnce() -> Option<UnstableToolchain>,
    config: CargoConfig,
    registries: &Registries,
) -> PackageSet {
    let mut set = PackageSet::default();
    let Some(settings) = config.build_std_file().map(Path::to_owned) else {
        return set;
    };
    let Some(toolchain) = toolchain() else {
        return set;
    };
    let sources = toolchain.folder.join(SOURCES);
    let mut locks = LOCKS.iter().map(|lock| sources.join(lock));
    let Some(lock) = locks.find(|lock| lock.is_file()) else {
        if !toolchain.adds_sources {
            let name = toolchain.name;
            let why = format!(
                "the toolchain `{name}` has no sources of the standard library; `rustup component add rust-src \
                 --toolchain {name}`"
            );
            set.fail(format_args!("build-std in {}", settings.display()), why);
        }
        return set;
    };
    let title = lock.display();
    let text = match files::read(&lock, MAX_LOCK_FILE_BYTES) {
        Ok(text) => text,
        Err(error) => {
            set.fail(title, error);
            return set;
        }
    };
    let mut local = LocalSources::of(config);
    match PackageSet::parse(&title.to_string(), &text, registries, &mut local) {
        Ok(packages) => packages,
        Err(error) => {
            set.fail(title, error);
            set
        }
    }
}
