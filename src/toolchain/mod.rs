//! Readers of rustup's formats: from a toolchain file to the archives that rustup would download.
//!
//! ```text
//!  rust-toolchain.toml    file.rs ───────> ToolchainSpec ──────┐
//!  settings.toml          settings.rs ───> UserSettings        │
//!  nightly-2026-01-15     channel.rs ────> Channel             ├─ install.rs ──> Install ─┐
//!  multirust-config.toml  installed.rs ──> InstalledToolchain ─┘                          ├─ manifest.rs ──> [DistFile]
//!  channel-rust-nightly.toml, the release's manifest ─────────────────────────────────────┘
//!
//!  one archive's path or hash ── archives.rs: text search in a manifest ──> its hash, its target
//! ```
//!
//! The result must agree with rustup exactly: `check` promises that an install would succeed offline. So each rule
//! cites the function of rustup 1.29 that it follows, or a fact of `docs/client-behaviour.md` by id.
//!
//! This module is pure: it reads text. `plan` finds toolchain files and goes back to earlier nightlies, the cache
//! fetches manifests, and [`crate::resource::dist::archive`] turns a URL into a resource.

mod archives;
mod channel;
mod file;
#[cfg(test)]
mod fixture;
mod install;
mod installed;
mod manifest;
mod profile;
mod settings;
mod triple;

pub use archives::{ListedArchive, find_archive, preferred_archives, target_of_archive};
pub use channel::{Channel, ChannelError, UnknownHost, day_before};
pub(crate) use channel::{is_date, midnight};
pub use file::{ToolchainFile, ToolchainFileError, ToolchainSpec, parse_file};
pub use install::{Install, InstallError, install};
pub use installed::{HomeState, InstalledToolchain, UpdateFiles};
pub use manifest::{DistFile, ManifestError, date, files, version};
pub use settings::{UserSettings, UserSettingsError, machine_triple};
