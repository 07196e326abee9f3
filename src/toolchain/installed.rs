//! [`InstalledToolchain`]: a toolchain in rustup's home, as far as it decides what an update of it downloads.
//!
//! ```text
//!  toolchains/stable-HOST/lib/rustlib/multirust-config.toml             its components
//!  toolchains/stable-HOST/lib/rustlib/multirust-channel-manifest.toml   the manifest of its release
//! ```
//!
//! An update to another release downloads every installed component again, not only those that the user asks for
//! (docs/client-behaviour.md R-24).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::manifest::{
    DistFile, ManifestError, PackageRename, available_file, parse_manifest, release_of,
};

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

    /// The archives of its components in the release of this manifest, as far as that has them. None if it is of this
    /// release already.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn updated_files(
        &self,
        manifest: &str,
        host: &str,
    ) -> Result<Vec<DistFile>, ManifestError> {
        if release_of(manifest).is_some_and(|release| release == self.release) {
            return Ok(Vec::new());
        }
        let targets = self.components.iter();
        let targets: Vec<_> = targets.filter_map(|(_, target)| target.clone()).collect();
        let manifest = parse_manifest(manifest, host, &targets)?;
        let mut files = Vec::new();
        for (package, target) in &self.components {
            files.extend(available_file(&manifest, package, target.as_deref())?);
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
        let files = installed(&older).updated_files(MANIFEST, LINUX).unwrap();
        let names: Vec<_> = files
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
            ]
        );
        let same = installed(MANIFEST).updated_files(MANIFEST, LINUX);
        assert!(same.unwrap().is_empty());
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
