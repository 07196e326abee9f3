//! Whether the user's clients use larder, as far as settings tell without a request.

use std::path::Path;

use url::Url;

use crate::{
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
