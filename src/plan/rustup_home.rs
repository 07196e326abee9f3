//! [`RustupHome`]: what rustup has installed for this user, and which toolchain it would choose in a folder.
//!
//! ```text
//!  RUSTUP_TOOLCHAIN                                the toolchain for all folders
//!  RUSTUP_HOME/settings.toml                       default toolchain, overrides, profile, host
//!  /etc/rustup/settings.toml                       default toolchain of users who have set none
//!  RUSTUP_HOME/toolchains/stable-HOST/lib/rustlib  components of an installed toolchain
//! ```

use std::{
    env::consts::{ARCH, EXE_SUFFIX, OS},
    fs, io,
    path::{Path, PathBuf},
};

use super::PlanError;
use crate::{
    files::{self, MAX_SETTINGS_BYTES},
    toolchain::{self, InstalledToolchain, UserSettings},
};

/// Size limit of an installed manifest in bytes. Those of nightlies have a megabyte.
const MAX_INSTALLED_BYTES: u64 = 64 << 20;

/// The settings of a whole machine (`UNIX_FALLBACK_SETTINGS` in rustup's `src/config.rs`).
const MACHINE_SETTINGS: &str = "/etc/rustup/settings.toml";

/// Folder of a toolchain's own description.
const RUSTLIB: &str = "lib/rustlib";

/// rustup's home, with its settings.
#[derive(Debug, Default)]
pub(super) struct RustupHome {
    pub(super) user: UserSettings,
    /// True if there is such a folder. rustup makes it at its first start.
    exists: bool,
    /// True if a shell runs another cargo than rustup's proxy.
    has_other_cargo: bool,
    /// `None` if this user has no home.
    toolchains: Option<PathBuf>,
    /// The toolchain that the variable `RUSTUP_TOOLCHAIN` names.
    variable: Option<String>,
}

/// The triple that rustup's own program is for.
pub(super) fn machine() -> Option<String> {
    toolchain::machine_triple(ARCH, OS)
}

impl RustupHome {
    /// Reads the home with this settings file, which need not exist.
    ///
    /// # Errors
    /// rustup cannot read its settings either.
    pub(super) fn read(settings: Option<&Path>) -> Result<Self, PlanError> {
        Self::read_with(settings, Path::new(MACHINE_SETTINGS))
    }

    /// [`RustupHome::read`] with these settings of the machine.
    fn read_with(settings: Option<&Path>, machine: &Path) -> Result<Self, PlanError> {
        let text = settings.map(|path| files::read_text(path, MAX_SETTINGS_BYTES));
        let mut user = match text {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PlanError::Read(error));
            }
            Some(Ok(text)) => UserSettings::parse(&text)?,
            Some(Err(_)) | None => UserSettings::default(),
        };
        if user.default_toolchain.is_none() {
            user.default_toolchain = machine_default(machine);
        }
        let home = settings.and_then(Path::parent);
        Ok(Self {
            exists: home.is_some_and(Path::is_dir),
            has_other_cargo: false,
            user,
            toolchains: home.map(|home| home.join("toolchains")),
            variable: None,
        })
    }

    /// A home whose settings rustup refuses.
    pub(super) fn unusable() -> Self {
        Self {
            exists: true,
            ..Self::default()
        }
    }

    /// Takes the value of `RUSTUP_TOOLCHAIN`, as rustup cleans it (`validate` in its `src/toolchain/names.rs`).
    /// `cargo` is the program that a shell runs.
    pub(super) fn set_variables(&mut self, toolchain: Option<&str>, cargo: Option<&Path>) {
        self.variable = toolchain.map(|name| name.trim_end_matches('/').to_owned());
        self.has_other_cargo = cargo.is_some_and(|cargo| !is_proxy(cargo));
    }

    /// Tells if a toolchain of this name is installed or linked. As in rustup, any folder is one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.installed_folder(name).is_some()
    }

    /// The folder of an installed or linked toolchain.
    pub(super) fn installed_folder(&self, name: &str) -> Option<PathBuf> {
        self.folder(name).filter(|folder| folder.is_dir())
    }

    /// The toolchain of this name, if rustup has installed it from a dist server.
    pub(super) fn installed(&self, name: &str) -> Option<InstalledToolchain> {
        let folder = self.folder(name)?.join(RUSTLIB);
        let read = |file: &str| files::read_text(&folder.join(file), MAX_INSTALLED_BYTES).ok();
        let config = read("multirust-config.toml")?;
        InstalledToolchain::parse(&config, &read("multirust-channel-manifest.toml")?)
    }

    /// The folder of a toolchain. `None` if the name cannot be that of a toolchain.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        is_name.then(|| Some(self.toolchains.as_ref()?.join(name)))?
    }

    /// The toolchain that rustup uses in `folder` unless a toolchain file decides, with the reason. `toolchain_file` is
    /// the nearest one. The variable comes first (`Cfg::find_override_config` in rustup's `src/config.rs`). Overrides and
    /// files are searched together, from the folder upwards; in one folder the override wins
    /// (`Cfg::find_override_from_dir_walk`).
    pub(super) fn chosen(
        &self,
        folder: &Path,
        toolchain_file: Option<&Path>,
    ) -> Option<(&str, String)> {
        if let Some(name) = &self.variable {
            return Some((name, "the variable RUSTUP_TOOLCHAIN".to_owned()));
        }
        let real = folder.canonicalize().ok()?;
        let file_folder = toolchain_file.and_then(|file| {
            // A bare file name has an empty parent.
            let file = std::path::absolute(file).ok()?;
            file.parent()?.canonicalize().ok()
        });
        for above in real.ancestors() {
            if let Some(name) = above.to_str().and_then(|key| self.user.overrides.get(key)) {
                let reason = format!("rustup's override for {}", above.display());
                return Some((name, reason));
            }
            if file_folder.as_deref() == Some(above) {
                return None;
            }
        }
        let name = self.user.default_toolchain.as_ref()?;
        Some((name, "rustup's default toolchain".to_owned()))
    }

    /// Tells if rustup would run no toolchain in `folder`, because nothing names one. Without a home, or with another
    /// cargo in `PATH`, cargo comes from elsewhere, for example from a distribution's package.
    pub(super) fn chooses_none(&self, folder: &Path, toolchain_file: Option<&Path>) -> bool {
        let is_used = self.exists && !self.has_other_cargo;
        is_used && toolchain_file.is_none() && self.chosen(folder, None).is_none()
    }
}

/// Tells if the toolchain in this folder has a program.
pub(super) fn has_program(toolchain: &Path, name: &str) -> bool {
    let file = toolchain.join("bin").join(format!("{name}{EXE_SUFFIX}"));
    file.is_file()
}

/// Tells if a program is a proxy of rustup: a link to it or, where there are no links, a copy beside it.
fn is_proxy(program: &Path) -> bool {
    let real = program.canonicalize().unwrap_or_default();
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let len = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.len());
    let rustup = program.with_file_name(format!("rustup{EXE_SUFFIX}"));
    name.starts_with("rustup") || len(&rustup).is_some_and(|rustup| len(program) == Some(rustup))
}

/// The default toolchain in the settings of a machine.
fn machine_default(settings: &Path) -> Option<String> {
    let text = files::read_text(settings, MAX_SETTINGS_BYTES).ok()?;
    let settings: toml::Table = text.parse().ok()?;
    let name = settings.get("default_toolchain")?.as_str()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nearest_override_or_toolchain_file_decides_before_the_default() {
        let top = tempfile::tempdir().unwrap();
        let real = top.path().canonicalize().unwrap();
        let app = real.join("a/b");
        fs::create_dir_all(&app).unwrap();
        let file = real.join("a/rust-toolchain.toml");
        fs::write(&file, "").unwrap();
        let settings = real.join("settings.toml");
        let chosen = |overridden: Option<&str>, file: Option<&Path>| {
            let overrides = overridden.map(|folder| {
                // Without a slash at its end, as rustup writes it.
                let folder: PathBuf = real.join(folder).components().collect();
                format!("[overrides]\n'{}' = 'mine'\n", folder.display())
            });
            let text = format!(
                "version = '12'\ndefault_toolchain = 'stable'\n{}",
                overrides.unwrap_or_default()
            );
            fs::write(&settings, text).unwrap();
            let mut home = RustupHome::read(Some(&settings)).unwrap();
            let chosen = |home: &RustupHome| {
                let chosen = home.chosen(&app, file);
                chosen.map(|(name, _)| name.to_owned())
            };
            let by_settings = chosen(&home);
            home.set_variables(Some("beta/"), None);
            assert_eq!(chosen(&home).as_deref(), Some("beta"));
            by_settings
        };
        assert_eq!(chosen(None, None).as_deref(), Some("stable"));
        assert_eq!(chosen(None, Some(&file)), None);
        assert_eq!(chosen(Some("a/b"), Some(&file)).as_deref(), Some("mine"));
        // In the folder of the file, and above it.
        assert_eq!(chosen(Some("a"), Some(&file)).as_deref(), Some("mine"));
        assert_eq!(chosen(Some(""), Some(&file)), None);
        assert_eq!(chosen(Some(""), None).as_deref(), Some("mine"));
        assert_eq!(chosen(Some("other"), None).as_deref(), Some("stable"));
    }

    #[test]
    fn another_cargo_in_path_needs_no_toolchain_of_rustup() {
        let top = tempfile::tempdir().unwrap();
        let bin = top.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let settings = top.path().join("settings.toml");
        let chooses_none = |cargo: &Path| {
            let mut home = RustupHome::read_with(Some(&settings), Path::new("/none")).unwrap();
            home.set_variables(None, Some(cargo));
            home.chooses_none(top.path(), None)
        };
        let (rustup, cargo) = (bin.join("rustup"), bin.join("cargo"));
        fs::write(&cargo, "a cargo").unwrap();
        assert!(!chooses_none(&cargo));
        fs::write(&rustup, "a rustup").unwrap();
        assert!(!chooses_none(&cargo));
        fs::remove_file(&cargo).unwrap();
        fs::hard_link(&rustup, &cargo).unwrap();
        assert!(chooses_none(&cargo));
        let link = top.path().join("cargo");
        std::os::unix::fs::symlink(&rustup, &link).unwrap();
        assert!(chooses_none(&link));
    }

    #[test]
    fn default_of_the_machine_counts_for_users_without_one() {
        let top = tempfile::tempdir().unwrap();
        let (user, machine) = (top.path().join("user"), top.path().join("machine"));
        let chosen = || {
            let home = RustupHome::read_with(Some(&user), &machine).unwrap();
            let name = home
                .chosen(top.path(), None)
                .map(|(name, _)| name.to_owned());
            assert_eq!(home.chooses_none(top.path(), None), name.is_none());
            name
        };
        assert_eq!(chosen(), None);
        fs::write(&machine, "default_toolchain = 'beta'\n").unwrap();
        assert_eq!(chosen().as_deref(), Some("beta"));
        fs::write(&user, "version = '12'\ndefault_toolchain = 'stable'\n").unwrap();
        assert_eq!(chosen().as_deref(), Some("stable"));
    }

    #[test]
    fn toolchain_file_in_the_current_folder_decides_by_its_bare_name() {
        let top = tempfile::tempdir().unwrap();
        let settings = top.path().join("settings.toml");
        fs::write(&settings, "version = '12'\ndefault_toolchain = 'stable'\n").unwrap();
        let home = RustupHome::read(Some(&settings)).unwrap();
        let file = Path::new("rust-toolchain.toml");
        assert_eq!(home.chosen(Path::new("."), Some(file)), None);
    }
}
