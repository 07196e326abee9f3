//! Projects that cargo could not build through larder, by cargo's own settings.
//!
//! ```text
//!  app/.cargo/config.toml           [source.crates-io]  replace-with = "mirror"    wins
//!  /home/user/.cargo/config.toml    [source.crates-io]  replace-with = "larder"
//! ```
//!
//! A build of such a project fails offline, even if everything is stored, unless the other server is a larder that is
//! reachable then. A mirror that is larder's own upstream is no such server if it is set in cargo's home: cargo past
//! larder is the state before `larder client apply`, and `larder run` answers for that server.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use url::Url;

use super::Plan;
use crate::{
    cargo_config::{
        CargoConfig, CratesIoSource, NetOffline, ReplacingRegistry, is_on_this_machine,
    },
    lockfile::canonical_index,
    resource::registry::CRATES_IO,
};

/// The user's cargo beside its settings files.
#[derive(Clone, Debug)]
pub(crate) struct ClientCargo<V> {
    /// Its home.
    pub(crate) home: Option<PathBuf>,
    /// Reads its environment.
    pub(crate) variable: V,
    /// The index of crates.io that larder asks.
    pub(crate) upstream: Url,
}

/// The needs of one project, or of a crate that the user names.
#[derive(Clone, Copy, Debug)]
struct PackageNeeds {
    is_named: bool,
    needs_registry: bool,
    needs_crates_io: bool,
}

impl Plan {
    /// Marks projects whose settings cargo refuses, and those that need a registry while cargo is told to ask none. Marks
    /// also projects that need crates.io while settings replace it by a server that is not larder, or by nothing that
    /// cargo can use.
    pub(crate) async fn judge_settings<V>(&mut self, cargo: ClientCargo<V>)
    where
        V: Fn(&str) -> Option<String> + Clone + Send + 'static,
    {
        for project in &mut self.projects {
            let mut packages = project.packages.packages.iter();
            let needs_crates_io = packages.any(|package| package.registry == CRATES_IO);
            let needs = PackageNeeds {
                is_named: project.named.is_some(),
                needs_registry: !project.packages.packages.is_empty(),
                needs_crates_io,
            };
            let (folder, includes) = (project.folder.clone(), project.includes);
            let members = project.members.clone();
            let cargo = cargo.clone();
            let judging = spawn_blocking(move || {
                let home = cargo.home.as_deref();
                let config = CargoConfig::read(&folder, home, includes);
                let mut findings = cargo.problems(&config, needs);
                for folder in members {
                    let own = CargoConfig::read(&folder, home, includes);
                    let more = cargo.problems(&own, needs);
                    let more = more.into_iter().chain(lock_problem(&folder, &own, &config));
                    for finding in more {
                        if !findings.contains(&finding) {
                            findings.push(finding);
                        }
                    }
                }
                findings
            });
            project.unknown.extend(judging.await.unwrap_or_default());
        }
    }
}

/// The reason why settings of a member may lead cargo to another lock file than those of the project do.
fn lock_problem(folder: &Path, own: &CargoConfig, project: &CargoConfig) -> Option<String> {
    let (file, key) = match own.patching_file() {
        patching if patching == project.patching_file() => {
            if own.lockfile_path() == project.lockfile_path() {
                return None;
            }
            (folder.join(".cargo"), "resolver.lockfile-path")
        }
        Some((file, key)) => (file.to_owned(), key),
        None => return None,
    };
    Some(format!(
        "whether Cargo.lock fits in the folder of a member cannot be told: the settings in {} have `{key}`",
        file.display()
    ))
}

/// The reason why cargo cannot use this address of a larder.
fn address_fault(index: &str) -> Option<&'static str> {
    match index.strip_prefix("sparse+") {
        None if index.starts_with("http") => Some("without `sparse+`, cargo speaks git"),
        Some(url) if !url.ends_with('/') => Some("cargo refuses it without a final slash"),
        Some(_) | None => None,
    }
}

impl<V: Fn(&str) -> Option<String>> ClientCargo<V> {
    /// The reasons why a cargo with these settings may not build a project or crate with these needs.
    fn problems(&self, config: &CargoConfig, needs: PackageNeeds) -> Vec<String> {
        let faults = config.faults().iter();
        let mut problems: Vec<_> = faults
            .map(|fault| {
                format!(
                    "cargo refuses its settings: {} {}",
                    fault.path.display(),
                    fault.why
                )
            })
            .collect();
        if needs.needs_registry {
            problems.extend(self.offline_problem(config));
        }
        if needs.needs_crates_io {
            problems.extend(self.source_problem(config, needs.is_named));
        }
        problems
    }

    /// The reason why a cargo with these settings asks no registry. It builds with what its home has, which larder does
    /// not know.
    fn offline_problem(&self, config: &CargoConfig) -> Option<String> {
        let setting = config.net_offline(&self.variable)?;
        let (place, remedy) = (setting.place(), setting.remedy());
        Some(match setting {
            NetOffline::On(_) => format!(
                "whether cargo's own home has all packages cannot be told, and {place} keeps cargo from asking \
                 larder; {remedy}"
            ),
            NetOffline::Invalid(_) => {
                format!("cargo fails: {place} is neither true nor false; {remedy}")
            }
        })
    }

    /// The reason why a cargo with these settings may not ask larder for the packages of crates.io. `is_named` is true
    /// for a crate to install: unlike those of a project, its packages were not looked for in folders.
    fn source_problem(&self, config: &CargoConfig, is_named: bool) -> Option<String> {
        match config.crates_io_source(&self.variable) {
            CratesIoSource::CratesIo => None,
            CratesIoSource::Folder { file } => is_named.then(|| {
                format!(
                    "whether cargo finds its packages cannot be told: the settings in {} replace crates.io by a folder",
                    file.display()
                )
            }),
            CratesIoSource::Ring { file } => Some(format!(
                "cargo fails: the settings in {} replace crates.io by itself",
                file.display()
            )),
            CratesIoSource::Undefined { name, file } => Some(format!(
                "cargo fails: the settings in {} replace crates.io by `{name}`, which no settings describe",
                file.display()
            )),
            CratesIoSource::Registry(registry) if self.may_be_larder(&registry) => {
                let fault = address_fault(&registry.index)?;
                Some(format!(
                    "cargo fails: its address for `{}` is {} ({}): {fault}",
                    registry.name, registry.index, registry.index_place
                ))
            }
            CratesIoSource::Registry(ReplacingRegistry { name, file, .. }) => Some(format!(
                "whether cargo asks larder cannot be told: the settings in {} replace crates.io by `{name}`",
                file.display()
            )),
        }
    }

    /// True for a registry that is larder by its name or on this machine, and for larder's upstream in cargo's home.
    fn may_be_larder(&self, registry: &ReplacingRegistry) -> bool {
        let upstream = canonical_index(&format!("sparse+{}", self.upstream));
        let real = |path: Option<&Path>| path.and_then(|path| path.canonicalize().ok());
        let is_in_home = || {
            let home = real(self.home.as_deref());
            home.is_some() && real(registry.file.parent()) == home
        };
        registry.name.starts_with("larder")
            || is_on_this_machine(&registry.index)
            || (canonical_index(&registry.index) == upstream && is_in_home())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn cargo_that_does_not_ask_larder_is_told_by_project_and_home() {
        let top = tempfile::tempdir().unwrap();
        let (home, app) = (top.path().join("home"), top.path().join("app"));
        for folder in [&home, &app.join(".cargo")] {
            fs::create_dir_all(folder).unwrap();
        }
        let cargo = ClientCargo {
            home: Some(home.clone()),
            variable: |_: &str| None,
            upstream: "https://upstream.example/index/".parse().unwrap(),
        };
        let check = |in_home: &str, in_app: &str, expected: Option<&str>| {
            fs::write(home.join("config.toml"), in_home).unwrap();
            fs::write(app.join(".cargo/config.toml"), in_app).unwrap();
            let config = CargoConfig::with_home(&app, Some(&home));
            let found = cargo.source_problem(&config, false);
            let case = format!("{in_home}\n{in_app}\n{found:?}");
            let is_expected = match (&found, expected) {
                (Some(found), Some(part)) => found.contains(part),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{case}");
        };
        let replaced = |name: &str, index: &str| {
            format!(
                "[source.crates-io]\nreplace-with = '{name}'\n[registries.{name}]\nindex = 'sparse+{index}'\n"
            )
        };
        let far = replaced("far", "https://mirror.example/index/");
        let larder = replaced("larder", "https://larder.example/index/");
        let near = replaced("near", "http://127.0.0.1:3263/index/");
        let upstream = replaced("up", "https://upstream.example/index/");
        check("", "", None);
        check(&larder, "", None);
        check(
            &larder,
            &far,
            Some("app/.cargo/config.toml replace crates.io by `far`"),
        );
        check("", &far, Some("app/.cargo/config.toml replace"));
        check(
            &far,
            "",
            Some("home/config.toml replace crates.io by `far`"),
        );
        check(&far, &larder, None);
        check(&near, "", None);
        let index = "sparse+http://127.0.0.1:3263/index/";
        let near_but = |address: &str| near.replace(index, address);
        let cut = near_but("sparse+http://127.0.0.1:3263/index");
        check(
            &cut,
            "",
            Some("home/config.toml): cargo refuses it without a final slash"),
        );
        let git = near_but("http://127.0.0.1:3263/index/");
        check(&git, "", Some("without `sparse+`, cargo speaks git"));
        check(&near_but("file:///index"), "", None);
        check("", &near, None);
        check(&upstream, "", None);
        check(&larder, &upstream, Some("replace crates.io by `up`"));
        let vendored = "[source.crates-io]\nreplace-with = 'v'\n[source.v]\ndirectory = 'v'\n";
        check(&far, vendored, None);
        let undefined = "[source.crates-io]\nreplace-with = 'larder'\n";
        check(
            undefined,
            "",
            Some("by `larder`, which no settings describe"),
        );
    }
}
