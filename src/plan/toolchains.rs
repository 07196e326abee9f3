//! From toolchain files, toolchain names and rustup's settings to the installs that rustup would do.

use std::{
    collections::BTreeSet,
    fmt, iter,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    PlanError, Problem,
    build_std::UnstableToolchain,
    rustup_home::{RustupHome, has_program, machine},
};
use crate::{
    cargo_config::{CargoConfig, Includes},
    files::{self, MAX_SETTINGS_BYTES},
    projects::{self, Member, Project},
    store::Owner,
    toolchain::{self, Channel, HomeState, Install, InstallError, ToolchainFile, ToolchainSpec},
};

/// The toolchain that `rustup-init.sh` installs unless the user names another.
const BOOTSTRAP_TOOLCHAIN: &str = "stable";
/// The profile that it uses.
const BOOTSTRAP_PROFILE: &str = "default";

/// The name of the plan for projects in which rustup runs no toolchain.
const UNNAMED_TOOLCHAIN: &str = "default";

/// A toolchain that the user names.
#[derive(Clone, Debug, Default)]
pub struct NamedToolchain {
    /// The name, as rustup takes it.
    pub name: String,
    /// The profile; without it, the user's setting.
    pub profile: Option<String>,
    /// Components beyond the profile.
    pub components: Vec<String>,
    /// Targets beyond the host.
    pub targets: Vec<String>,
}

/// Toolchains that the user names, and the settings that complete both these and toolchain files.
#[derive(Clone, Debug, Default)]
pub struct ToolchainOptions {
    /// The toolchains.
    pub named: Vec<NamedToolchain>,
    /// Host triples of all toolchains; if empty, this machine's.
    pub hosts: Vec<String>,
    /// True if the files that install rustup itself are needed too.
    pub bootstrap: bool,
    /// rustup's settings file.
    pub rustup_settings: Option<PathBuf>,
    /// The toolchain that `RUSTUP_TOOLCHAIN` names.
    pub rustup_toolchain: Option<String>,
    /// The cargo that a shell runs.
    pub cargo_in_path: Option<PathBuf>,
}

/// The toolchains that one owner asks for.
#[derive(Clone, Debug)]
pub struct ToolchainPlan {
    /// The toolchain file, or the toolchain that the user or rustup's settings name.
    pub owner: Owner,
    /// The reason for a toolchain that neither a file nor the user names.
    pub reason: Option<String>,
    /// One for each host; none if nothing has to be downloaded.
    pub installs: Vec<Install>,
    /// Toolchains that no dist server has.
    pub skipped: Vec<Problem>,
    /// The file cannot be read, rustup would refuse it, or the host is unknown.
    pub failed: Vec<Problem>,
}

/// The settings that complete a toolchain's name.
pub(super) struct InstallDefaults {
    home: RustupHome,
    /// Host triples of toolchains; empty if they cannot be told.
    hosts: Vec<String>,
    /// Host triples of rustup itself.
    pub(super) rustup_hosts: Vec<String>,
    /// True if the hosts are those of this user, so that toolchains in rustup's home matter.
    is_for_this_user: bool,
    /// The reason why nothing can be planned for this user.
    problem: Option<String>,
}

/// Where a toolchain's name comes from. rustup has different rules for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameOrigin {
    File,
    User,
    Settings,
}

impl InstallDefaults {
    /// Reads rustup's settings file. `hosts` override this machine's host.
    pub(super) fn read(rustup_settings: Option<&Path>, hosts: &[String]) -> Self {
        let mut problem = None;
        let mut refuse = |error: &dyn fmt::Display| {
            let path = rustup_settings.unwrap_or(Path::new("settings.toml"));
            problem = Some(format!("{}: {error}", path.display()));
        };
        let home = RustupHome::read(rustup_settings).unwrap_or_else(|error| {
            refuse(&error);
            RustupHome::unusable()
        });
        let machine = machine();
        let own_hosts = home.user.hosts(machine.as_deref()).unwrap_or_else(|error| {
            refuse(&error);
            Vec::new()
        });
        let is_for_this_user = hosts.is_empty();
        let rustup_hosts = match (is_for_this_user, machine) {
            (false, _) => hosts.to_vec(),
            (true, Some(machine)) => vec![machine],
            (true, None) => own_hosts.clone(),
        };
        Self {
            home,
            hosts: if is_for_this_user {
                own_hosts
            } else {
                hosts.to_vec()
            },
            rustup_hosts,
            is_for_this_user,
            problem: problem.filter(|_| is_for_this_user),
        }
    }

    /// The program that a toolchain in this folder lacks for a build. rustup's proxies run any folder as a toolchain and
    /// never repair it. One of the user's own may be without cargo: rustup then takes that of a release
    /// (`maybe_do_cargo_fallback` in rustup's `src/toolchain.rs`).
    fn lacking_program(&self, toolchain: &Path, is_own: bool) -> Option<&'static str> {
        let lacks = |program: &&str| !has_program(toolchain, program);
        let lacking = ["rustc", "cargo"].into_iter().find(lacks)?;
        if lacking == "cargo" && is_own {
            let names = ["nightly", "beta", "stable"].into_iter();
            let mut names = names.flat_map(|channel| {
                self.hosts
                    .iter()
                    .map(move |host| format!("{channel}-{host}"))
            });
            let release = names.find_map(|name| self.home.installed_folder(&name));
            return release
                .is_none_or(|release| !has_program(&release, "cargo"))
                .then_some(lacking);
        }
        Some(lacking)
    }

    /// The fault of the installed or linked toolchain of this name, if this user's builds would run it.
    fn fault(&self, name: &str, origin: NameOrigin, is_own: bool) -> Option<String> {
        let is_run = self.is_for_this_user && origin != NameOrigin::User;
        let folder = self.home.installed_folder(name).filter(|_| is_run)?;
        let program = self.lacking_program(&folder, is_own)?;
        let remedy = match is_own {
            true => "`rustup toolchain link` makes another",
            false => "after `rustup toolchain uninstall` of it, rustup installs it again",
        };
        Some(format!(
            "the installed toolchain `{name}` has no `{program}`; {remedy}"
        ))
    }

    /// Adds the folders below these projects for which rustup's settings have an override. Members may lie in them. Each
    /// belongs to the project whose folder is the nearest above it. Blocking.
    pub(super) fn add_overridden_members(&self, projects: &mut [Project]) {
        for folder in self.home.user.overrides.keys().map(Path::new) {
            let above = projects.iter_mut().filter_map(|project| {
                let real = project.folder.canonicalize().ok()?;
                let is_above = project.script.is_none() && folder.starts_with(&real);
                is_above.then_some((real, project))
            });
            let nearest = above.max_by_key(|(real, _)| real.components().count());
            if let Some((real, project)) = nearest
                && real != folder
                && folder.is_dir()
            {
                project.members.push(Member {
                    folder: folder.to_owned(),
                    toolchain_file: None,
                });
            }
        }
    }

    /// Tells if rustup would run no toolchain in this project of this user.
    fn has_no_toolchain(&self, project: &Project) -> bool {
        let file = project.toolchain_file.as_deref();
        self.is_for_this_user && self.home.chooses_none(&project.folder, file)
    }

    /// See [`RustupHome::set_variables`].
    pub(super) fn set_variables(&mut self, toolchain: Option<&str>, cargo: Option<&Path>) {
        self.home.set_variables(toolchain, cargo);
    }

    /// The treatment of `include` in a project's settings by its cargo, and the settings file with that key while only
    /// cargo knows the treatment. Blocking.
    pub(super) fn includes_of(
        &self,
        project: &Project,
        cargo_home: Option<&Path>,
    ) -> (Includes, Option<PathBuf>) {
        let Some(file) = CargoConfig::deciding_include(&project.folder, cargo_home) else {
            return (Includes::Followed, None);
        };
        match self.cargo_minor(project) {
            Some(minor) => (Includes::by_cargo(minor), None),
            None => (Includes::Followed, Some(file)),
        }
    }

    /// The same for the project with this lock file. Blocking. If only cargo knows it, the files are followed.
    pub(super) fn includes_of_lock(
        &self,
        lock: &Path,
        folder: &Path,
        cargo_home: Option<&Path>,
    ) -> Includes {
        if CargoConfig::deciding_include(folder, cargo_home).is_none() {
            return Includes::Followed;
        }
        let found = projects::find(&[lock.to_owned()]).projects;
        let project = found.first();
        let minor = project.and_then(|project| self.cargo_minor(project));
        minor.map_or(Includes::Followed, Includes::by_cargo)
    }

    /// The installed toolchain that rustup runs in this project, if it is a nightly or one of the user's own. Blocking.
    pub(super) fn unstable_toolchain(&self, project: &Project) -> Option<UnstableToolchain> {
        let file = project.toolchain_file.as_deref();
        let chosen = self.home.chosen(&project.folder, file);
        let spec = match chosen {
            Some((name, _)) => ToolchainSpec {
                channel: Some(name.to_owned()),
                ..ToolchainSpec::default()
            },
            None => read_spec(file?).ok()?,
        };
        let default = || self.home.user.default_toolchain.clone();
        let wanted = spec.path.or(spec.channel).or_else(default)?;
        let name = match wanted.parse::<Channel>() {
            Ok(channel) if !channel.is_nightly() => return None,
            Ok(channel) => {
                let (channel, host) = channel.resolve(self.hosts.first()?).ok()?;
                format!("{channel}-{host}")
            }
            Err(_) => wanted,
        };
        let folder = match Path::new(&name).is_absolute() {
            true => Some(PathBuf::from(&name)),
            false => self.home.installed_folder(&name),
        };
        Some(UnstableToolchain {
            folder: folder.filter(|_| self.is_for_this_user)?,
            adds_sources: spec.components.iter().any(|name| name == "rust-src"),
            name,
        })
    }

    /// The minor version of the cargo 1.x that rustup runs in this project, if the toolchain's name has it. Blocking.
    fn cargo_minor(&self, project: &Project) -> Option<u64> {
        let file = project.toolchain_file.as_deref();
        let name = match self.home.chosen(&project.folder, file) {
            Some((name, _)) => name.to_owned(),
            None => read_spec(file?).ok()?.channel?,
        };
        name.parse::<Channel>().ok()?.minor()
    }
}

/// Reads a toolchain file.
fn read_spec(file: &Path) -> Result<ToolchainSpec, PlanError> {
    let text = files::read_text(file, MAX_SETTINGS_BYTES).map_err(PlanError::Read)?;
    let kind = if file.extension().is_some() {
        ToolchainFile::Toml
    } else {
        ToolchainFile::Legacy
    };
    Ok(toolchain::parse_file(kind, &text)?)
}

/// Plans all toolchain files, named toolchains and those that rustup's variable or settings choose for projects, in this
/// order.
pub(super) fn read(
    files: &[PathBuf],
    projects: &[Project],
    request: &ToolchainOptions,
    defaults: &InstallDefaults,
) -> Vec<ToolchainPlan> {
    let files = files.par_iter().map(|file| {
        ToolchainPlan::read(file, defaults).unwrap_or_else(|error| {
            let mut plan = ToolchainPlan::new(file_owner(file));
            plan.failed.push(Problem::new(file.display(), error));
            plan
        })
    });
    let mut plans: Vec<_> = files.collect();
    let named = request.named.iter();
    plans.extend(named.map(|named| ToolchainPlan::named(named, defaults)));
    if request.bootstrap && plans.is_empty() {
        let named = NamedToolchain {
            name: BOOTSTRAP_TOOLCHAIN.to_owned(),
            profile: Some(BOOTSTRAP_PROFILE.to_owned()),
            ..NamedToolchain::default()
        };
        let mut plan = ToolchainPlan::named(&named, defaults);
        plan.reason = Some("what `rustup-init.sh` installs".to_owned());
        plans.push(plan);
    }
    let sets_default = request.bootstrap || plans.iter().any(ToolchainPlan::sets_default);
    let projects = projects.iter();
    let places =
        projects.flat_map(|project| iter::once(project.clone()).chain(project.in_members()));
    let places: Vec<_> = places.collect();
    for place in &places {
        plans.extend(ToolchainPlan::chosen(place, defaults, &plans));
    }
    let mut places = places.iter();
    if !sets_default && places.any(|place| defaults.has_no_toolchain(place)) {
        plans.push(ToolchainPlan::none(defaults));
    }
    plans
}

/// The toolchain plans that decide whether a project can be built in its folder and in those of its members.
pub(super) fn owners_of(project: &Project, defaults: &InstallDefaults) -> BTreeSet<Owner> {
    let members = project.in_members();
    let members = members.filter_map(|member| owner_of(&member, defaults));
    members.chain(owner_of(project, defaults)).collect()
}

/// The toolchain plan that decides whether a project can be built: of the toolchain that rustup's variable or settings
/// choose, or of its toolchain file.
pub(super) fn owner_of(project: &Project, defaults: &InstallDefaults) -> Option<Owner> {
    let file = project.toolchain_file.as_deref();
    match defaults.home.chosen(&project.folder, file) {
        Some((name, _)) if defaults.is_for_this_user => Some(Owner::Toolchain(name.to_owned())),
        None if defaults.has_no_toolchain(project) => {
            Some(Owner::Toolchain(UNNAMED_TOOLCHAIN.to_owned()))
        }
        Some(_) | None => file.map(file_owner),
    }
}

fn file_owner(file: &Path) -> Owner {
    Owner::File(std::path::absolute(file).unwrap_or_else(|_| file.to_owned()))
}

impl ToolchainPlan {
    fn new(owner: Owner) -> Self {
        Self {
            owner,
            reason: None,
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
        let wanted = read_spec(file)?;
        let mut plan = Self::new(file_owner(file));
        plan.add(file.display(), &wanted, NameOrigin::File, defaults);
        Ok(plan)
    }

    /// Plans a toolchain that the user named. A name that no dist server has is a failure here, not skipped as in a
    /// file.
    fn named(named: &NamedToolchain, defaults: &InstallDefaults) -> Self {
        let NamedToolchain {
            name,
            profile,
            components,
            targets,
        } = named.clone();
        let what = format!("toolchain `{name}`");
        let mut plan = Self::new(Owner::Toolchain(name.clone()));
        let wanted = ToolchainSpec {
            channel: Some(name),
            profile,
            components,
            targets,
            path: None,
        };
        plan.add(what, &wanted, NameOrigin::User, defaults);
        plan.failed.append(&mut plan.skipped);
        plan
    }

    /// Plans the toolchain that rustup's variable or settings choose for a project, unless it is installed or planned
    /// already.
    fn chosen(project: &Project, defaults: &InstallDefaults, plans: &[Self]) -> Option<Self> {
        let file = project.toolchain_file.as_deref();
        let (name, reason) = defaults.home.chosen(&project.folder, file)?;
        let owner = Owner::Toolchain(name.to_owned());
        if !defaults.is_for_this_user || plans.iter().any(|plan| plan.owner == owner) {
            return None;
        }
        let mut plan = Self::new(owner);
        let what = format!("{reason}, `{name}`");
        let is_path = Path::new(name).is_absolute();
        let name = Some(name.to_owned());
        let wanted = match is_path {
            true => ToolchainSpec {
                path: name,
                ..ToolchainSpec::default()
            },
            false => ToolchainSpec {
                channel: name,
                ..ToolchainSpec::default()
            },
        };
        plan.add(what, &wanted, NameOrigin::Settings, defaults);
        plan.installs
            .retain(|install| install.home != HomeState::Complete);
        plan.reason = Some(match plan.installs.is_empty() {
            true => reason,
            false => format!("{reason}, not installed"),
        });
        let is_needed =
            !(plan.installs.is_empty() && plan.skipped.is_empty() && plan.failed.is_empty());
        is_needed.then_some(plan)
    }

    /// The plan of a project in which no toolchain file decides; `None` if its toolchain is installed.
    pub(super) fn without_file(project: &Project, defaults: &InstallDefaults) -> Option<Self> {
        match defaults.has_no_toolchain(project) {
            true => Some(Self::none(defaults)),
            false => Self::chosen(project, defaults, &[]),
        }
    }

    /// Tells if the user's command to install it makes it the default toolchain, where none is set.
    fn sets_default(&self) -> bool {
        let mut installs = self.installs.iter();
        matches!(self.owner, Owner::Toolchain(_))
            && installs.any(|install| install.home == HomeState::Absent)
    }

    /// The plan of projects in which rustup runs no toolchain.
    fn none(defaults: &InstallDefaults) -> Self {
        let mut plan = Self::new(Owner::Toolchain(UNNAMED_TOOLCHAIN.to_owned()));
        let (reason, why) = match defaults.problem.as_deref() {
            Some(problem) => ("rustup's settings", problem),
            None => (
                "rustup's default toolchain, not set",
                "rustup runs no cargo, since nothing names a toolchain; `rustup default stable` does",
            ),
        };
        plan.reason = Some(reason.to_owned());
        plan.failed.push(Problem::new(reason, why));
        plan
    }

    /// Adds one install for each host.
    fn add(
        &mut self,
        what: impl fmt::Display,
        wanted: &ToolchainSpec,
        origin: NameOrigin,
        defaults: &InstallDefaults,
    ) {
        if let Some(problem) = &defaults.problem {
            return self.failed.push(Problem::new(what, problem));
        }
        if let Some(path) = &wanted.path {
            let folder = Path::new(path);
            // `PathBasedToolchainName::try_from` in rustup's `src/toolchain/names.rs`.
            let why = if !defaults.is_for_this_user {
                None
            } else if !folder.join("bin").is_dir() {
                Some("has no folder `bin`, so rustup refuses it".to_owned())
            } else {
                let lacking = defaults.lacking_program(folder, true);
                lacking.map(|program| format!("has no `{program}`"))
            };
            let problem =
                why.map(|why| Problem::new(what, format!("the toolchain `{path}` {why}")));
            return self.failed.extend(problem);
        }
        if let Some(why) = refused_host(wanted, origin, defaults) {
            return self.failed.push(Problem::new(what, why));
        }
        if defaults.hosts.is_empty() {
            let why = "which triple this machine is cannot be told; say `--host TRIPLE`";
            return self.failed.push(Problem::new(what, why));
        }
        for host in &defaults.hosts {
            match toolchain::install(wanted.clone(), &defaults.home.user, host) {
                Ok(mut install) => {
                    if let Some(why) = defaults.fault(&install.to_string(), origin, false) {
                        self.failed.push(Problem::new(&what, why));
                        continue;
                    }
                    install.home = home_state(&install, origin, defaults);
                    self.installs.push(install);
                }
                // A toolchain of the user's own needs no download.
                Err(InstallError::NotReleased(_))
                    if let Some(name) = linked_name(wanted, origin, defaults) =>
                {
                    let fault = defaults.fault(name, origin, true);
                    let problem = fault.map(|why| Problem::new(&what, why));
                    self.failed.extend(problem);
                }
                Err(error) => {
                    let why = unreleased(&error, origin);
                    self.skipped.push(Problem::new(&what, why));
                }
            }
        }
        self.installs.sort();
        self.installs.dedup();
        self.skipped.dedup();
    }
}

/// Why rustup refuses a toolchain file that names a host: only if that very toolchain is installed may it do so
/// (docs/client-behaviour.md R-18).
fn refused_host(
    wanted: &ToolchainSpec,
    origin: NameOrigin,
    defaults: &InstallDefaults,
) -> Option<String> {
    let name = wanted
        .channel
        .as_ref()
        .filter(|_| origin == NameOrigin::File)?;
    let channel: Channel = name.parse().ok()?;
    if !channel.names_host() || (defaults.is_for_this_user && defaults.home.has(name)) {
        return None;
    }
    Some(format!(
        "`{name}` names a host, which rustup refuses in a toolchain file unless that toolchain is installed; name the \
         channel alone"
    ))
}

/// The state of the toolchain of this name in rustup's home. rustup adds the components and targets that a toolchain
/// file requests and the installed toolchain lacks, by itself or by the user's command (`Cfg::ensure_installed` in
/// rustup's `src/config.rs`).
fn home_state(install: &Install, origin: NameOrigin, defaults: &InstallDefaults) -> HomeState {
    let name = install.to_string();
    if !defaults.is_for_this_user || !defaults.home.has(&name) {
        return HomeState::Absent;
    }
    let is_file = origin != NameOrigin::User;
    match defaults.home.installed(&name) {
        // rustup does not look into it.
        None if is_file && install.components.is_empty() && install.targets.is_empty() => {
            HomeState::Complete
        }
        None => HomeState::Absent,
        Some(installed) if !is_file => HomeState::Updated(installed),
        Some(installed) if installed.has(&install.components, &install.targets) => {
            HomeState::Complete
        }
        Some(installed) => HomeState::Incomplete(installed),
    }
}

/// The name, if it is that of a toolchain of the user's own, which exists here.
fn linked_name<'a>(
    wanted: &'a ToolchainSpec,
    origin: NameOrigin,
    defaults: &'a InstallDefaults,
) -> Option<&'a String> {
    let name = wanted.channel.as_ref();
    let name = name.or(defaults.home.user.default_toolchain.as_ref());
    let is_run = origin != NameOrigin::User && defaults.is_for_this_user;
    name.filter(|name| is_run && defaults.home.has(name))
}

fn unreleased(error: &InstallError, origin: NameOrigin) -> String {
    let is_own = matches!(error, InstallError::NotReleased(_)) && origin != NameOrigin::User;
    if is_own {
        format!(
            "{error}, and none of this name is installed here; `rustup toolchain link` makes one"
        )
    } else {
        error.to_string()
    }
}
