//! The addresses of upstreams: those of the settings, or their defaults.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use url::{Host, Url};

use super::{
    ConfigError,
    file::RegistryTable,
    parse::{base_url, index_url},
    place::Place,
    source::Sources,
};
use crate::{
    cli::GlobalFlags,
    resource::{Registry, dist::DEFAULT_DIST_SERVER, registry::CRATES_IO},
};

/// Base addresses, ending in `/`.
pub(super) struct UpstreamAddresses {
    /// Of crates.io's index.
    pub(super) index: Url,
    /// Of toolchains.
    pub(super) dist_server: Url,
    /// Of rustup itself.
    pub(super) update_root: Url,
}

/// Merges these addresses.
pub(super) fn merge_addresses(
    shared: &GlobalFlags,
    sources: &Sources,
) -> Result<UpstreamAddresses, ConfigError> {
    let dist_server = sources.text("dist-server", shared.dist_server.as_deref(), base_url)?;
    let dist_server = match dist_server {
        Some(server) => server,
        None => usual_url("dist-server", DEFAULT_DIST_SERVER)?,
    };
    let update_root = sources.text("update-root", shared.update_root.as_deref(), base_url)?;
    let update_root = match update_root {
        Some(root) => root,
        None => usual_url("update-root", &format!("{dist_server}rustup/"))?,
    };
    let index = match sources.text("index", shared.index.as_deref(), index_url)? {
        Some(index) => index,
        None => usual_url("index", tame_index::CRATES_IO_HTTP_INDEX)?,
    };
    Ok(UpstreamAddresses {
        index,
        dist_server,
        update_root,
    })
}

/// The other registries: the address of each index, by name.
pub(super) fn registries(
    given: &BTreeMap<String, RegistryTable>,
) -> Result<BTreeMap<String, Url>, ConfigError> {
    let mut registries = BTreeMap::new();
    for (name, RegistryTable { index, .. }) in given {
        if !Registry::is_valid_name(name) || name == CRATES_IO {
            return Err(ConfigError::Value {
                place: index.place.clone(),
                text: name.clone(),
                reason: "it cannot be the name of a registry".to_owned(),
            });
        }
        let urls = index.parse(index_url)?;
        registries.extend(urls.into_iter().map(|url| (name.clone(), url)));
    }
    Ok(registries)
}

/// Returns whether this machine's listener at `address` gets the requests for `url`.
pub(super) fn is_at(url: &Url, address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_own = |host: IpAddr| host == ip || ip.is_unspecified() && host.is_loopback();
    url.port_or_known_default() == Some(address.port())
        && match url.host() {
            Some(Host::Ipv4(host)) => is_own(host.into()),
            Some(Host::Ipv6(host)) => is_own(host.into()),
            Some(Host::Domain(name)) => {
                name == "localhost" && (ip.is_loopback() || ip.is_unspecified())
            }
            None => false,
        }
}

/// The default of an address.
fn usual_url(key: &'static str, text: &str) -> Result<Url, ConfigError> {
    index_url(text).map_err(|reason| ConfigError::Value {
        place: Place::Flag(key),
        text: text.to_owned(),
        reason,
    })
}
