//! [`ActiveToolchain`]: whether rustup can run cargo in a folder at once, for `larder client doctor`.

use std::path::Path;

use super::{InstallDefaults, ToolchainPlan, toolchains};
use crate::{
    projects::{Project, nearest_toolchain_file},
    store::Owner,
    toolchain::HomeState,
};

/// The toolchain that rustup would run in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActiveToolchain {
    /// It is installed, or this user has no rustup.
    Installed,
    /// rustup downloads it first. The text names it and who asks for it.
    Downloaded(String),
    /// rustup refuses to run cargo, for this reason.
    Refused(String),
}

impl ActiveToolchain {
    /// That of `folder`, by rustup's settings file, `RUSTUP_TOOLCHAIN` and the cargo that a shell runs. Blocking.
    pub(crate) fn of(
        folder: &Path,
        rustup_settings: Option<&Path>,
        variable: Option<&str>,
        cargo: Option<&Path>,
    ) -> Self {
        let mut defaults = InstallDefaults::read(rustup_settings, &[]);
        defaults.set_variables(variable, cargo);
        let project = Project {
            folder: folder.to_owned(),
            lock: None,
            script: None,
            toolchain_file: nearest_toolchain_file(folder),
            members: Vec::new(),
        };
        let plan = match toolchains::owner_of(&project, &defaults) {
            None => return Self::Installed,
            Some(Owner::File(file)) => match ToolchainPlan::read(&file, &defaults) {
                Ok(plan) => Some(plan),
                Err(error) => return Self::Refused(format!("{}: {error}", file.display())),
            },
            Some(Owner::Toolchain(_) | Owner::Crate(_) | Owner::Dependency(_)) => {
                ToolchainPlan::without_file(&project, &defaults)
            }
        };
        plan.map_or(Self::Installed, |plan| Self::of_plan(&plan))
    }

    fn of_plan(plan: &ToolchainPlan) -> Self {
        if let Some(problem) = plan.failed.iter().chain(&plan.skipped).next() {
            return Self::Refused(problem.to_string());
        }
        let installs = plan.installs.iter();
        let due = installs.filter(|install| install.home != HomeState::Complete);
        let due: Vec<_> = due.map(ToString::to_string).collect();
        let asking = plan.reason.clone();
        let asking = asking.unwrap_or_else(|| format!("as {} asks", plan.owner));
        match due.is_empty() {
            true => Self::Installed,
            false => Self::Downloaded(format!("{} ({asking})", due.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn state_of_the_toolchain_follows_variable_file_and_settings() {
        let top = tempfile::tempdir().unwrap();
        let home = top.path().join("rustup");
        let folder = top.path().join("app/src");
        fs::create_dir_all(&folder).unwrap();
        let settings = home.join("settings.toml");
        let state = |variable| ActiveToolchain::of(&folder, Some(&settings), variable, None);
        let refuses = |variable, says: &str| {
            let state = state(variable);
            assert!(matches!(state, ActiveToolchain::Refused(_)), "{state:?}");
            assert!(format!("{state:?}").contains(says), "{state:?}");
        };
        let downloads = |variable, says: &str| {
            let state = state(variable);
            assert!(matches!(state, ActiveToolchain::Downloaded(_)), "{state:?}");
            assert!(format!("{state:?}").contains(says), "{state:?}");
        };
        assert_eq!(state(None), ActiveToolchain::Installed);
        fs::create_dir_all(home.join("toolchains/mine/bin")).unwrap();
        refuses(None, "`rustup default stable` does");
        let text = "version = '12'\ndefault_toolchain = 'mine'\n\
                    default_host_triple = 'x86_64-unknown-linux-gnu'\n";
        fs::write(&settings, text).unwrap();
        refuses(None, "`mine` has no `rustc`");
        for program in ["cargo", "rustc"] {
            fs::write(home.join("toolchains/mine/bin").join(program), "").unwrap();
        }
        assert_eq!(state(None), ActiveToolchain::Installed);
        downloads(
            Some("1.80.0"),
            "1.80.0-x86_64-unknown-linux-gnu (the variable RUSTUP_TOOLCHAIN",
        );
        refuses(Some("nosuch"), "`nosuch` is no release channel");
        fs::write(top.path().join("app/rust-toolchain"), "1.81.0\n").unwrap();
        downloads(None, "1.81.0-x86_64-unknown-linux-gnu (as ");
        fs::write(top.path().join("app/rust-toolchain"), "\n").unwrap();
        refuses(None, "it is empty");
    }
}
