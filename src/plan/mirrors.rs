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
    /// Marks projects whose settings cargo refuses. Marks also projects that need crates.io while their own settings
    /// replace it by another server.
    pub(crate) async fn find_mirrors(&mut self, cargo_home: Option<PathBuf>) {
        for project in &mut self.projects {
            let mut packages = project.packages.packages.iter();
            let needs_crates_io = packages.any(|package| package.registry == CRATES_IO);
            let (folder, home) = (project.folder.clone(), cargo_home.clone());
            let includes = project.includes;
            let findings = spawn_blocking(move || {
                let config = CargoConfig::read(&folder, includes);
                let faults = config.faults().iter();
                let mut findings: Vec<_> = faults
                    .map(|fault| {
                        format!(
                            "cargo refuses its settings: {} {}",
                            fault.path.display(),
                            fault.why
                        )
                    })
                    .collect();
                let mirror = config.mirror(home.as_deref()).filter(|_| needs_crates_io);
                findings.extend(mirror.map(|(name, file)| format!(
                    "whether cargo asks larder cannot be told: the settings in {} replace crates.io by `{name}`",
                    file.display()
                )));
                findings
            });
            project.unknown.extend(findings.await.unwrap_or_default());
        }
    }
}
