//! Judges from settings alone whether the user's clients use larder, and names the next step if they do not.

use std::path::Path;

use url::Url;

use crate::{
    cargo_config::{CargoConfig, CratesIoSource},
    config::Settings,
    status_client::RunningDaemon,
};

/// User name in the address of the proxy of `larder run`.
const RUN_USER: &str = "larder";

/// The address that a proxy variable has, if it is a proxy of larder: that of `larder run`, or that of
/// `serve --intercept`, which the daemon states and whose root certificates are in a folder of larder.
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
    (url.username() == RUN_USER || is_stated || has_roots).then_some(url)
}

/// The things that a command has worked on, and whether their clients use larder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClientUse {
    /// There are projects whose cargo asks crates.io itself.
    pub(super) has_cargo_past_larder: bool,
    /// There are toolchains, and rustup asks its usual server.
    pub(super) has_rustup_past_larder: bool,
}

impl ClientUse {
    /// Reads the settings of the projects in these folders. Blocking.
    pub(super) fn read<'a>(
        settings: &Settings,
        mut projects: impl Iterator<Item = &'a Path>,
        has_toolchains: bool,
    ) -> Self {
        let variable = |name: &str| settings.client_variables.get(name);
        let is_proxied = |name: &str| larder_proxy(settings, variable(name), None).is_some();
        let home = settings.cargo_home.as_deref();
        let is_past_larder = |folder: &Path| {
            let config = CargoConfig::with_home(folder, home);
            let variable = |name: &str| variable(name).map(str::to_owned);
            config.crates_io_source(variable) == CratesIoSource::CratesIo
        };
        let rustup = ["RUSTUP_DIST_SERVER", "RUSTUP_DIST_ROOT"];
        Self {
            has_cargo_past_larder: !is_proxied("CARGO_HTTP_PROXY") && projects.any(is_past_larder),
            has_rustup_past_larder: has_toolchains
                && rustup.iter().all(|name| variable(name).is_none())
                && !is_proxied("https_proxy"),
        }
    }

    /// The step that makes the clients use what is stored; `None` if they do.
    pub(super) fn next_step(self) -> Option<&'static str> {
        match (self.has_cargo_past_larder, self.has_rustup_past_larder) {
            (true, _) => Some(
                "cargo does not use larder yet: `larder client apply`, or `larder run -- cargo build` for one command",
            ),
            (false, true) => Some(
                "rustup does not use larder yet: `larder client apply rustup`, or `larder run -- rustup update` for \
                 one command",
            ),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_step_is_about_one_client_that_does_not_use_larder() {
        let step = |has_cargo_past_larder, has_rustup_past_larder| {
            ClientUse {
                has_cargo_past_larder,
                has_rustup_past_larder,
            }
            .next_step()
        };
        assert_eq!(step(false, false), None);
        let cargo = step(true, false).unwrap();
        assert!(cargo.contains("`larder client apply`"), "{cargo}");
        assert_eq!(step(true, true), Some(cargo));
        let rustup = step(false, true).unwrap();
        assert!(rustup.contains("`larder client apply rustup`"), "{rustup}");
    }
}
