//! The treatment of `include` in cargo's settings, which depends on the cargo that builds the project.
//!
//! ```text
//!  does the key change sources or lock file? ── no ──> nothing to settle
//!      └─ yes ── the project's toolchain has a version, such as `1.90` ──> the version decides
//!                    └─ no, such as `stable` ──> the user's cargo is asked; without an answer, nothing is ready
//! ```
//!
//! [`super::toolchains`] has the first two questions.

use tokio::task::spawn_blocking;

use super::{Plan, ProjectPlan};
use crate::{
    cargo_config::{CargoConfig, Includes},
    resource::Registries,
    scratch::Scratch,
};

impl Plan {
    /// Asks cargo where its version is not known, and reads the lock files again of projects whose cargo ignores
    /// `include`.
    pub(super) async fn settle_includes(&mut self, scratch: &Scratch, registries: &Registries) {
        for project in &mut self.projects {
            let Some(file) = project.deciding_include.take() else {
                continue;
            };
            match scratch.follows_include(project.for_cargo()).await {
                Ok(true) => {}
                Ok(false) => project.ignore_includes(registries).await,
                Err(error) => project.unknown.push(format!(
                    "whether cargo reads the files that {} includes, as it does from 1.94 on, cannot be told: {}",
                    file.display(),
                    error.cause()
                )),
            }
        }
    }
}

impl ProjectPlan {
    async fn ignore_includes(&mut self, registries: &Registries) {
        self.includes = Includes::Ignored;
        if self.requested_lock.is_some() {
            let (folder, home) = (self.folder.clone(), self.cargo_home.clone());
            let reading = spawn_blocking(move || {
                CargoConfig::read(&folder, home.as_deref(), Includes::Ignored).lockfile_path()
            });
            self.requested_lock = reading.await.unwrap_or_default();
        }
        if let Some(lock) = self.lock.clone() {
            self.use_lock(lock, registries).await;
        }
    }
}
