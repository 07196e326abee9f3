//! [`Upstreams`]: the configured servers that resources come from.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{
    AdvisoryArchive, CrateFile, Dist, IndexEntry, Key, Location, Registries, Registry,
    RegistryConfig, Resource, advisories, dist,
};
use crate::hash::Sha256;

/// All configured upstream servers.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// The registries that cargo's resources come from.
    pub registries: Registries,
    /// The two trees that rustup's resources come from.
    pub dist: Arc<Dist>,
    /// Address of the archive of the advisory database, if one is configured.
    pub advisories: Option<Box<Url>>,
}

impl Upstreams {
    /// The addresses of the configured servers: indexes, dist server and update root. Resources are below them, or at
    /// the download addresses that the indexes name.
    pub fn addresses(&self) -> impl Iterator<Item = &Url> {
        let indexes = self.registries.iter().map(|registry| registry.index());
        indexes.chain(self.dist.addresses())
    }

    /// The resource at an address below a configured server.
    pub fn at(&self, url: &Url) -> Option<Resource> {
        for registry in self.registries.iter() {
            if let Some(path) = path_below(registry.index(), url) {
                let segments: Vec<_> = path.split('/').collect();
                let found = match segments.as_slice() {
                    ["config.json"] => Some(RegistryConfig::of(registry)),
                    segments => IndexEntry::parse(registry, segments),
                };
                if found.is_some() {
                    return found;
                }
            }
        }
        let [server, update_root] = self.dist.addresses();
        let path = match (path_below(update_root, url), path_below(server, url)) {
            (Some(path), _) => format!("rustup/{path}"),
            (None, Some(path)) if path.starts_with("dist/") => path,
            (None, _) => return None,
        };
        match path.as_str() {
            "rustup/rustup-init.sh" => Some(dist::script(&self.dist)),
            path => dist::parse(&self.dist, &path.split('/').collect::<Vec<_>>()),
        }
    }

    /// The advisory database.
    pub fn advisory_archive(&self) -> Resource {
        AdvisoryArchive::of(self.advisories.as_deref())
    }

    /// The resource whose entry has this key. `None` for an entry of a server that is not configured, and for an
    /// absence.
    pub(crate) fn entry_of(&self, key: &Key) -> Option<Resource> {
        let segments: Vec<_> = key.as_str().split('/').collect();
        let resource = match segments.as_slice() {
            ["rustup", path @ ..] => dist::parse(&self.dist, path),
            [advisories::FOLDER, _] => Some(self.advisory_archive()),
            [folder, path @ ..] => {
                let registry = self.registry_of(folder)?;
                match path {
                    ["config.json"] => Some(RegistryConfig::of(registry)),
                    ["index", _, name] => IndexEntry::of(registry, name),
                    _ => None,
                }
            }
            [] => None,
        }?;
        let is_same = match resource.location() {
            Location::Entry(found) | Location::Pair(found, _) => found == *key,
            Location::Blob(_) | Location::ListedIn(_) => false,
        };
        is_same.then_some(resource)
    }

    /// The blob with this hash, if the entry `key` with this body lists it.
    pub(crate) fn blob_of(&self, key: &Key, body: &[u8], sha256: Sha256) -> Option<Resource> {
        match key.as_str().split_once('/')? {
            ("rustup", _) => dist::archive_of_hash(&self.dist, body, sha256),
            (folder, _) => {
                let registry = self.registry_of(folder)?;
                let (name, version) = IndexEntry::package_of(body, sha256)?;
                CrateFile::of(registry, &name, &version, Some(sha256))
            }
        }
    }

    fn registry_of(&self, entry_folder: &str) -> Option<&Arc<Registry>> {
        let mut registries = self.registries.iter();
        registries.find(|registry| registry.entry_folder() == entry_folder)
    }
}

/// The decoded path of `url` below `base`, if `url` is below it and has no query.
fn path_below(base: &Url, url: &Url) -> Option<String> {
    let is_same_origin = base.scheme() == url.scheme()
        && base.host() == url.host()
        && base.port_or_known_default() == url.port_or_known_default();
    if !is_same_origin || url.query().is_some() {
        return None;
    }
    let path = url.path().strip_prefix(base.path())?;
    Some(percent_decode_str(path).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::dist::ArchiveFormat;

    #[test]
    fn every_kind_of_entry_is_found_by_its_key() {
        let url = |text| Url::parse(text).unwrap();
        let other = ("other".to_owned(), url("http://o.example/"));
        let upstreams = Upstreams {
            advisories: None,
            registries: Registries::new(url("http://127.0.0.1:9/"), [other]),
            dist: Dist::new(
                url("http://d.example/"),
                url("http://u.example/rustup/"),
                ArchiveFormat::Upstream,
            ),
        };
        let dist = |path: &str| {
            let segments: Vec<_> = path.split('/').collect();
            dist::parse(&upstreams.dist, &segments).unwrap()
        };
        let mut resources = vec![
            dist("dist/channel-rust-stable.toml"),
            dist("dist/2026-04-16/channel-rust-nightly.toml"),
            dist("rustup/release-stable.toml"),
            dist("rustup/dist/x/rustup-init.sha256"),
        ];
        for registry in upstreams.registries.iter() {
            resources.push(RegistryConfig::of(registry));
            resources.extend(["a", "serde"].map(|name| IndexEntry::of(registry, name).unwrap()));
        }
        for resource in resources {
            let (Location::Entry(key) | Location::Pair(key, _)) = resource.location() else {
                panic!("{resource} is no entry");
            };
            let found = upstreams.entry_of(&key).unwrap();
            assert_eq!(found.to_string(), resource.to_string(), "{key}");
        }
        for unknown in [
            "gone-01234567/index/se/serde",
            "rustup/absent/dist/x",
            "config.json",
        ] {
            let key = Key::of_path(unknown).unwrap();
            assert!(upstreams.entry_of(&key).is_none(), "{unknown}");
        }
    }
}
