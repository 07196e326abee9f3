//! Projects whose cargo would not ask larder.
//!
//! ```text
//!  app/.cargo/config.toml           [source.crates-io]  replace-with = "mirror"    wins
//!  /home/user/.cargo/config.toml    [source.crates-io]  replace-with = "larder"
//! ```
//!
//! A build of such a project fails offline, even if everything is stored, unless the other server is a larder that is
//! reachable then.

use std::path::PathBuf;

use tokio::task::spawn_blocking;

use super::Plan;
use crate::{cargo_config::CargoConfig, resource::registry::CRATES_IO};

impl Plan {
    /// Marks the projects that need crates.io and whose own settings replace it by another server.
    pub(crate) async fn find_mirrors(&mut self, cargo_home: Option<PathBuf>) {
        for project in &mut self.projects {
            let packages = &project.packages.packages;
            if !packages.iter().any(|package| package.registry == CRATES_IO) {
                continue;
            }
            let (folder, home) = (project.folder.clone(), cargo_home.clone());
            let finding = spawn_blocking(move || {
                let config = CargoConfig::of(&folder);
                let (name, file) = config.mirror(home.as_deref())?;
                Some(format!(
                    "whether cargo asks larder cannot be told: the settings in {} replace crates.io by `{name}`",
                    file.display()
                ))
            });
            project.unknown.extend(finding.await.ok().flatten());
        }
    }
}
