//! [`InstalledToolchain`]: a toolchain in rustup's home, as far as it decides what an update of it downloads.
//!
//! ```text
//!  toolchains/stable-HOST/lib/rustlib/multirust-config.toml             its components
//!  toolchains/stable-HOST/lib/rustlib/multirust-channel-manifest.toml   the manifest of its release
//! ```
//!
//! An update to another release downloads every installed component again, not only those that the user asks for, and
//! no component of a profile (docs/client-behaviour.md R-24).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::manifest::{
    ComponentId, DistFile, ManifestError, PackageRename, available_file, parse_manifest, release_of,
};

/// A toolchain of the wanted name in rustup's home, and what rustup does with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HomeState {
    /// There is none, or homes do not count: rustup installs it anew.
    #[default]
    Absent,
    /// It has all that a toolchain file asks for. rustup downloads nothing.
    Complete,
    /// It lacks something that a toolchain file asks for. rustup updates it, and leaves out what the release lacks.
    Incomplete(InstalledToolchain),
    /// The user's command updates it, and fails on what the release lacks.
    Updated(InstalledToolchain),
}

/// The downloads of an update by one release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateFiles {
    /// Archives that the release has.
    pub available: Vec<DistFile>,
    /// Components that it lacks, written as `name` or `name for triple`.
    pub unavailable: Vec<String>,
}

/// A toolchain in rustup's home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstalledToolchain {
    /// Date, version and archive formats of its release.
    release: String,
    /// Package and target of its components; no target if the package serves all.
    components: Vec<(String, Option<String>)>,
    /// Users' names of packages that have another.
    renames: Vec<(String, String)>,
}

/// `multirust-config.toml`.
#[derive(Deserialize)]
struct InstalledConfig {
    #[serde(default)]
    components: Vec<InstalledComponent>,
}

#[derive(Deserialize)]
struct InstalledComponent {
    pkg: String,
    target: Option<String>,
}

#[derive(Deserialize)]
struct Renames {
    #[serde(default)]
    renames: BTreeMap<String, PackageRename>,
}

impl InstalledToolchain {
    /// Reads the two files of a toolchain. `None` if rustup did not write them.
    pub fn parse(config: &str, manifest: &str) -> Option<Self> {
        let config: InstalledConfig = toml::from_str(config).ok()?;
        let components = config.components.into_iter().map(|component| {
            let target = component.target.filter(|target| target != "*");
            (component.pkg, target)
        });
        // The tables of renames stand together; the other tables are a megabyte.
        let renames = manifest.find("\n[renames").map(|at| &manifest[at..]);
        let renames = renames.and_then(|tables| toml::from_str::<Renames>(tables).ok());
        let renames = renames.map(|tables| tables.renames).unwrap_or_default();
        Some(Self {
            release: release_of(manifest)?,
            components: components.collect(),
            renames: renames
                .into_iter()
                .map(|(name, rename)| (name, rename.to))
                .collect(),
        })
    }

    /// `true` if all these components and targets are installed. Then a toolchain file causes no update
    /// (`DistributableToolchain::components_exist` in `src/toolchain/distributable.rs`).
    pub fn has(&self, components: &[String], targets: &[String]) -> bool {
        let has_package = |name: &String| {
            let renamed = self.renames.iter().find(|(user, _)| user == name);
            let package = renamed.map_or(name, |(_, package)| package);
            self.components
                .iter()
                .any(|(installed, _)| installed == package)
        };
        let has_target = |name: &String| {
            let mut all = self.components.iter();
            all.any(|(package, target)| package == "rust-std" && target.as_ref() == Some(name))
        };
        components.iter().all(has_package) && targets.iter().all(has_target)
    }

    /// The date of its release, `YYYY-MM-DD`.
    pub fn date(&self) -> &str {
        self.release.split(' ').next().unwrap_or_default()
    }

    /// The archives that an update to the release of this manifest downloads. These are the archives of the installed
    /// and the requested components, or of the requested ones alone if the toolchain has this release already.
    ///
    /// # Errors
    /// The manifest cannot be read, or has no toolchain for this host.
    pub fn updated_files(
        &self,
        manifest: &str,
        host: &str,
        components: &[String],
        targets: &[String],
    ) -> Result<UpdateFiles, ManifestError> {
        let is_same_release = release_of(manifest).is_some_and(|release| release == self.release);
        let installed: Vec<ComponentId<'_>> = self
            .components
            .iter()
            .map(|(package, target)| (package.as_str(), target.as_deref()))
            .collect();
        let mut all_targets = targets.to_vec();
        all_targets.extend(
            self.components
                .iter()
                .filter_map(|(_, target)| target.clone()),
        );
        let manifest = parse_manifest(manifest, host, &all_targets)?;
        let mut wanted = manifest.requested(host, components, targets)?;
        let mut files = UpdateFiles::default();
        let describe =
            |(package, target): ComponentId<'_>| manifest.description(package, target, host);
        for &component in &installed {
            match manifest.successor(component, host)? {
                Some(successor) => wanted.push(successor),
                None => files.unavailable.push(describe(component)),
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|component| !is_same_release || !installed.contains(component));
        for component in wanted {
            match available_file(&manifest, component.0, component.1)? {
                Some(file) => files.available.push(file),
                None => files.unavailable.push(describe(component)),
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::fixture::{LINUX, MANIFEST, WASM, strings};

    const CONFIG: &str = "config_version = '1'\n\
        [[components]]\npkg = 'cargo'\ntarget = 'x86_64-unknown-linux-gnu'\n\
        [[components]]\npkg = 'clippy-preview'\ntarget = 'x86_64-unknown-linux-gnu'\n\
        [[components]]\npkg = 'rust-src'\n\
        [[components]]\npkg = 'rust-std'\ntarget = 'wasm32-unknown-unknown'\n\
        [[components]]\npkg = 'gone'\ntarget = 'x86_64-unknown-linux-gnu'\n";

    fn installed(manifest: &str) -> InstalledToolchain {
        InstalledToolchain::parse(CONFIG, manifest).unwrap()
    }

    #[test]
    fn update_downloads_the_installed_components_that_the_release_has() {
        let older = MANIFEST.replacen("date = \"2026-04-16\"", "date = \"2026-03-05\"", 1);
        let files = installed(&older).updated_files(MANIFEST, LINUX, &strings(&["rustfmt"]), &[]);
        let files = files.unwrap();
        assert_eq!(files.unavailable, ["gone"]);
        let names: Vec<_> = files
            .available
            .iter()
            .map(|file| format!("{} {}", file.package, file.target))
            .collect();
        assert_eq!(
            names,
            [
                format!("cargo {LINUX}"),
                format!("clippy-preview {LINUX}"),
                "rust-src *".to_owned(),
                format!("rust-std {WASM}"),
                format!("rustfmt-preview {LINUX}"),
            ]
        );
        let same = installed(MANIFEST).updated_files(
            MANIFEST,
            LINUX,
            &strings(&["clippy", "rustfmt", "miri"]),
            &strings(&[WASM, "none"]),
        );
        let same = same.unwrap();
        let names: Vec<_> = same.available.iter().map(|file| &file.package).collect();
        assert_eq!(names, ["rustfmt-preview"]);
        assert_eq!(same.unavailable, ["gone", "miri", "rust-std for none"]);
    }

    #[test]
    fn toolchain_that_has_all_components_is_not_updated_by_a_toolchain_file() {
        let installed = installed(MANIFEST);
        for (components, targets, expected) in [
            (&[][..], &[][..], true),
            (&["clippy", "clippy-preview", "rust-src"], &[WASM], true),
            (&["rustfmt"], &[], false),
            (&[], &[LINUX], false),
        ] {
            let has = installed.has(&strings(components), &strings(targets));
            assert_eq!(has, expected, "{components:?} {targets:?}");
        }
    }

    #[test]
    fn files_that_rustup_did_not_write_are_no_toolchain() {
        assert_eq!(InstalledToolchain::parse("no toml", MANIFEST), None);
        assert_eq!(InstalledToolchain::parse(CONFIG, "no manifest"), None);
    }
}
