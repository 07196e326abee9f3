//! What rustup would install, worked out from text alone: toolchain files, channel names, release manifests.
//!
//! Pure. Finding the files, fetching what is named here and rewriting addresses to the configured server are left to
//! others. Facts about rustup cite the function in its source (1.29) they were read from.

mod archives;
mod channel;
mod file;
#[cfg(test)]
mod fixture;
mod install;
mod manifest;
mod profile;
mod settings;

pub use archives::{ListedArchive, find_archive, target_of_archive};
pub(crate) use channel::is_date;
pub use channel::{Channel, ChannelError, day_before};
pub use file::{ToolchainFile, ToolchainFileError, ToolchainSpec, parse_file};
pub use install::{Install, InstallError, install};
pub use manifest::{DistFile, ManifestError, date, files};
pub use settings::UserSettings;
