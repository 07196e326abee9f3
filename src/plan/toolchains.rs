//! From toolchain files and toolchain names to the installs that rustup would do.

use std::{
    env::consts::{ARCH, OS},
    fmt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{PlanError, Problem};
use crate::{
    files::{self, MAX_SETTINGS_BYTES},
    store::Owner,
    toolchain::{self, Install, ToolchainFile, UserSettings},
};

/// Toolchains that the user names on the command line, and the settings that complete both these and toolchain files.
#[derive(Clone, Debug, Default)]
pub struct ToolchainOptions {
    /// Names, as rustup takes them.
    pub names: Vec<String>,
    /// The profile of the named toolchains; without it, the user's setting.
    pub profile: Option<String>,
    /// Components of the named toolchains beyond the profile.
    pub components: Vec<String>,
    /// Targets of the named toolchains beyond the host.
    pub targets: Vec<String>,
    /// Host triples of all toolchains; if empty, this machine's.
    pub hosts: Vec<String>,
    /// True if the files that install rustup itself are needed too.
    pub bootstrap: bool,
    /// rustup's settings file.
    pub rustup_settings: Option<PathBuf>,
}

/// The toolchains that one owner asks for.
#[derive(Clone, Debug)]
pub struct ToolchainPlan {
    /// The toolchain file, or the toolchain that the user named.
    pub owner: Owner,
    /// One for each host; none if the toolchain file points to a folder.
    pub installs: Vec<Install>,
    /// Toolchains that no dist server has.
    pub skipped: Vec<Problem>,
    /// The file cannot be read, or the host is unknown.
    pub failed: Vec<Problem>,
}

/// The settings that complete a toolchain's name.
pub(super) struct InstallDefaults {
    user: UserSettings,
    /// Host triples; empty if this machine's cannot be told.
    pub(super) hosts: Vec<String>,
}

impl InstallDefaults {
    /// Reads rustup's settings file. `hosts` override this machine's host.
    pub(super) fn read(rustup_settings: Option<&Path>, hosts: &[String]) -> Self {
        let settings =
            rustup_settings.and_then(|path| files::read_text(path, MAX_SETTINGS_BYTES).ok());
        let user = UserSettings::parse(&settings.unwrap_or_default());
        let mut hosts = hosts.to_vec();
        if hosts.is_empty() {
            hosts.extend(user.host_triple(ARCH, OS));
        }
        Self { user, hosts }
    }
}

/// Plans all toolchain files and named toolchains, in this order; returns the plans and the hosts.
pub(super) fn read(
    files: &[PathBuf],
    request: &ToolchainOptions,
) -> (Vec<ToolchainPlan>, Vec<String>) {
    let defaults = InstallDefaults::read(request.rustup_settings.as_deref(), &request.hosts);
    let files = files.par_iter().map(|file| {
        ToolchainPlan::read(file, &defaults).unwrap_or_else(|error| {
            let mut plan = ToolchainPlan::new(file_owner(file));
            plan.failed.push(Problem::new(file.display(), error));
            plan
        })
    });
    let mut plans: Vec<_> = files.collect();
    let names = request.names.iter();
    plans.extend(names.map(|name| ToolchainPlan::named(name, request, &defaults)));
    (plans, defaults.hosts)
}

fn file_owner(file: &Path) -> Owner {
    Owner::File(std::path::absolute(file).unwrap_or_else(|_| file.to_owned()))
}

impl ToolchainPlan {
    fn new(owner: Owner) -> Self {
        Self {
            owner,
            installs: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Plans one toolchain file.
    ///
    /// # Errors
    /// If rustup would refuse the file.
    pub(super) fn read(file: &Path, defaults: &InstallDefaults) -> Result<Self, PlanError> {
        let text = files::read_text(file, MAX_SETTINGS_BYTES).map_err(PlanError::Read)?;
        let kind = if file.extension().is_some() {
            ToolchainFile::Toml
        } else {
            ToolchainFile::Legacy
        };
        let wanted = toolchain::parse_file(kind, &text)?;
        let mut plan = Self::new(file_owner(file));
        plan.add(file.display(), &wanted, defaults);
        Ok(plan)
    }

    /// Plans a toolchain that the user named. A name that no dist server has is a failure here, not skipped as in a
    /// file.
    fn named(name: &str, request: &ToolchainOptions, defaults: &InstallDefaults) -> Self {
        let mut plan = Self::new(Owner::Toolchain(name.to_owned()));
        let wanted = toolchain::ToolchainSpec {
            channel: Some(name.to_owned()),
            profile: request.profile.clone(),
            components: request.components.clone(),
            targets: request.targets.clone(),
            path: None,
        };
        plan.add(format_args!("toolchain `{name}`"), &wanted, defaults);
        plan.failed.append(&mut plan.skipped);
        plan
    }

    /// Adds one install for each host.
    fn add(
        &mut self,
        what: impl fmt::Display,
        wanted: &toolchain::ToolchainSpec,
        defaults: &InstallDefaults,
    ) {
        if defaults.hosts.is_empty() {
            let why = "which triple this machine is cannot be told; say `--host TRIPLE`";
            return self.failed.push(Problem::new(what, why));
        }
        for host in &defaults.hosts {
            match toolchain::install(wanted.clone(), &defaults.user, host) {
                Ok(install) => self.installs.extend(install),
                Err(error) => self.skipped.push(Problem::new(&what, error)),
            }
        }
        self.installs.sort();
        self.installs.dedup();
        self.skipped.dedup();
    }
}
