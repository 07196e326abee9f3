//! Judges from settings alone whether the user's clients use larder, and names the next step if they do not.

use std::path::Path;

use url::Url;

use crate::{
    cargo_config::{CargoConfig, CratesIoSource, is_on_this_machine},
    config::Settings,
    intercept::PROXY_USER,
    status_client::RunningDaemon,
};

/// The address in a proxy variable, if it is a proxy of larder. The proxy of `larder run` has the user name
/// [`PROXY_USER`]. That of `serve --intercept` has the port that the daemon states, or goes with root certificates in a
/// folder of larder.
pub(super) fn larder_proxy(
    settings: &Settings,
    variable: Option<&str>,
    daemon: Option<&RunningDaemon>,
) -> Option<Url> {
    let url = Url::parse(variable?).ok()?;
    let stated = daemon.and_then(|daemon| daemon.status["proxy"]["address"].as_str());
    let stated = stated.and_then(|address| Url::parse(address).ok());
    let is_stated = stated.is_some_and(|stated| stated.port() == url.port());
    let roots = settings.client_variables.get("CARGO_HTTP_CAINFO");
    let folder = settings.intercept.folder.as_deref();
    let has_roots = roots
        .is_some_and(|roots| folder.is_some_and(|folder| Path::new(roots).starts_with(folder)));
    (url.username() == PROXY_USER || is_stated || has_roots).then_some(url)
}

/// The things that a command has worked on, and whether their clients use larder.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientUse {
    /// There are projects whose cargo asks crates.io itself.
    pub(super) has_cargo_past_larder: bool,
    /// The address of the larder on another machine that the cargo of a project asks.
    pub(super) remote_larder: Option<String>,
    /// There are toolchains, and rustup asks its usual server.
    pub(super) has_rustup_past_larder: bool,
}

impl ClientUse {
    /// Reads the settings of the projects in these folders. Blocking.
    pub(super) fn read<'a>(
        settings: &Settings,
        projects: impl Iterator<Item = &'a Path>,
        has_toolchains: bool,
    ) -> Self {
        let variable = |name: &str| settings.client_variables.get(name);
        let is_proxied = |name: &str| larder_proxy(settings, variable(name), None).is_some();
        let home = settings.cargo_home.as_deref();
        let source = |folder: &Path| {
            let config = CargoConfig::with_home(folder, home);
            config.crates_io_source(|name: &str| variable(name).map(str::to_owned))
        };
        let sources: Vec<_> = match is_proxied("CARGO_HTTP_PROXY") {
            true => Vec::new(),
            false => projects.map(source).collect(),
        };
        let own = settings.serving.public_url.as_ref();
        let rustup = ["RUSTUP_DIST_SERVER", "RUSTUP_DIST_ROOT"];
        Self {
            has_cargo_past_larder: sources.iter().any(is_past_larder),
            remote_larder: sources
                .iter()
                .find_map(remote_larder)
                .filter(|address| own.is_none_or(|own| own.as_str() != address)),
            has_rustup_past_larder: has_toolchains
                && rustup.iter().all(|name| variable(name).is_none())
                && !is_proxied("https_proxy"),
        }
    }

    /// The step that makes the clients use what is stored; `None` if they do.
    pub(super) fn next_step(&self) -> Option<String> {
        if self.has_cargo_past_larder {
            let step = "cargo does not use larder yet: `larder client apply`, or `larder run -- cargo build` for one \
                        command";
            return Some(step.to_owned());
        }
        if let Some(address) = &self.remote_larder {
            return Some(format!(
                "cargo asks the larder at {address}, not the store of this machine; where that one cannot be reached, \
                 `larder run -- cargo build` uses what is stored here"
            ));
        }
        self.has_rustup_past_larder.then(|| {
            "rustup does not use larder yet: `larder client apply rustup`, or `larder run -- rustup update` for one \
             command"
                .to_owned()
        })
    }
}

/// True for crates.io and for a mirror. A registry on this machine is taken for larder.
fn is_past_larder(source: &CratesIoSource) -> bool {
    match source {
        CratesIoSource::CratesIo => true,
        CratesIoSource::Registry(registry) => {
            !registry.name.starts_with("larder") && !is_on_this_machine(&registry.index)
        }
        CratesIoSource::Folder { .. }
        | CratesIoSource::Ring { .. }
        | CratesIoSource::Undefined { .. } => false,
    }
}

/// The address of a registry that is larder by its name and lies on another machine.
fn remote_larder(source: &CratesIoSource) -> Option<String> {
    match source {
        CratesIoSource::Registry(registry)
            if registry.name.starts_with("larder") && !is_on_this_machine(&registry.index) =>
        {
            Some(registry.index.trim_start_matches("sparse+").to_owned())
        }
        CratesIoSource::Registry(_)
        | CratesIoSource::CratesIo
        | CratesIoSource::Folder { .. }
        | CratesIoSource::Ring { .. }
        | CratesIoSource::Undefined { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo_config::{ReplacingRegistry, SettingPlace};

    #[test]
    fn next_step_is_about_one_client_that_does_not_use_larder() {
        let step = |has_cargo_past_larder, remote: Option<&str>, has_rustup_past_larder| {
            let used = ClientUse {
                has_cargo_past_larder,
                remote_larder: remote.map(str::to_owned),
                has_rustup_past_larder,
            };
            used.next_step()
        };
        assert_eq!(step(false, None, false), None);
        let cargo = step(true, None, false).unwrap();
        assert!(cargo.contains("`larder client apply`"), "{cargo}");
        assert_eq!(step(true, Some("http://b/"), true), Some(cargo));
        let remote = step(false, Some("http://b/"), true).unwrap();
        assert!(remote.contains("the larder at http://b/, not"), "{remote}");
        let rustup = step(false, None, true).unwrap();
        assert!(rustup.contains("`larder client apply rustup`"), "{rustup}");
    }

    #[test]
    fn larder_of_another_machine_is_told_by_name_and_address() {
        let remote = |name: &str, index: &str| {
            let file = std::path::PathBuf::from("/c/config.toml");
            remote_larder(&CratesIoSource::Registry(ReplacingRegistry {
                name: name.to_owned(),
                index: index.to_owned(),
                file: file.clone(),
                index_place: SettingPlace::File(file),
            }))
        };
        let far = "sparse+http://builder.example:3263/";
        let address = Some("http://builder.example:3263/");
        assert_eq!(remote("larder", far).as_deref(), address);
        assert_eq!(remote("corp", far), None);
        assert_eq!(remote("larder", "sparse+http://127.0.0.1:3263/"), None);
    }
}
