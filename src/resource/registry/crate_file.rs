//! [`CrateFile`]: the gzip archive of one version of a crate.
//!
//! Two addresses lead to it. Cargo uses the one of the config that it has stored, which may be old, so larder serves
//! both without an end date (docs/client-behaviour.md C-05):
//!
//! ```text
//!  crates/serde/1.0.1/9f86...0a08/download    with the hash: a hit needs no index entry
//!  crates/serde/1.0.1/download                without: the index entry lists the hash
//! ```

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use url::Url;

use super::{
    Registry, RegistryConfig,
    config::{ConfigFields, fill_template},
    index_entry::IndexEntry,
    is_crate_name, is_version, write_registry_suffix,
};
use crate::{
    hash::Sha256,
    resource::{
        Audience, CrateVersion, Freshness, Kind, Listed, LocateError, Located, Location, Policy,
        Resource, Source, Unlisted,
    },
};

/// The archive of one version of a crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrateFile {
    /// The registry.
    pub registry: Arc<Registry>,
    /// Spelled as in the index line: download URLs keep its case (docs/client-behaviour.md C-03).
    name: String,
    version: String,
    checksum: Option<Sha256>,
}

impl CrateFile {
    /// The archive of this name and version, with its hash if a lock file or the address gave it. `None` if these
    /// cannot be a crate's name and version.
    pub fn of(
        registry: &Arc<Registry>,
        name: &str,
        version: &str,
        checksum: Option<Sha256>,
    ) -> Option<Resource> {
        (is_crate_name(name) && is_version(version)).then(|| {
            Arc::new(Self {
                registry: registry.clone(),
                name: name.to_owned(),
                version: version.to_owned(),
                checksum,
            }) as Resource
        })
    }

    /// Parses path segments below a registry's base: `crates/NAME/VERSION/download`, or with the hash before the last
    /// segment. `None` for any other path.
    pub fn parse(registry: &Arc<Registry>, segments: &[&str]) -> Option<Resource> {
        match segments {
            ["crates", name, version, "download"] => Self::of(registry, name, version, None),
            ["crates", name, version, checksum, "download"] => {
                Self::of(registry, name, version, Some(Sha256::parse(checksum)?))
            }
            _ => None,
        }
    }
}

impl fmt::Display for CrateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crate `{} {}`", self.name, self.version)?;
        write_registry_suffix(f, &self.registry)
    }
}

impl Kind for CrateFile {
    fn location(&self) -> Location {
        match self.checksum {
            Some(sum) => Location::Blob(sum),
            None => Location::ListedIn(self.entry()),
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            freshness: Freshness::Forever,
            stale_while_revalidate: false,
            max_bytes: self.registry.max_crate_bytes,
            max_bytes_setting: Some("max-crate"),
            negative_ttl: Duration::from_secs(30),
            content_type: "application/gzip",
            compressible: false,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        Source::NamedBy(RegistryConfig::of(&self.registry))
    }

    fn listed(&self) -> Option<&dyn Listed> {
        Some(self)
    }

    fn located(&self) -> Option<&dyn Located> {
        Some(self)
    }

    fn crate_version(&self) -> Option<&dyn CrateVersion> {
        Some(self)
    }
}

impl CrateVersion for CrateFile {
    fn registry(&self) -> &str {
        self.registry.name()
    }

    fn name(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn entry(&self) -> Resource {
        Arc::new(
            IndexEntry::new(&self.registry, &self.name)
                .expect("`CrateFile::of` has checked the name"),
        )
    }

    fn is_listed(&self, listing: &[u8]) -> bool {
        IndexEntry::checksum(listing, &self.version).is_some()
    }

    fn published(&self, listing: &[u8]) -> Option<SystemTime> {
        IndexEntry::published(listing, &self.version)
    }
}

impl Listed for CrateFile {
    fn resolve(&self, listing: &[u8]) -> Result<Resource, Unlisted> {
        let sum = IndexEntry::checksum(listing, &self.version).ok_or(Unlisted)?;
        Ok(Arc::new(Self {
            checksum: Some(sum),
            ..self.clone()
        }))
    }
}

impl Located for CrateFile {
    fn locate(&self, naming: &[u8]) -> Result<Url, LocateError> {
        let config: ConfigFields<'_> =
            serde_json::from_slice(naming).map_err(LocateError::Config)?;
        // Checked on arrival, but perhaps by an older release, and other programs can write to the disk.
        self.registry
            .check_download_template(&config.dl)
            .map_err(LocateError::Template)?;
        let address = fill_template(&config.dl, &self.name, &self.version, self.checksum);
        Url::parse(&address).map_err(|source| LocateError::NotUrl { address, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{
        Registries,
        registry::fixture::{SUM, line, registry},
    };

    #[test]
    fn build_metadata_is_part_of_the_version() {
        let segments = [
            "crates",
            "wasi",
            "0.11.1+wasi-snapshot-preview1",
            "download",
        ];
        let found = CrateFile::parse(&registry(), &segments).unwrap();
        assert_eq!(
            found.to_string(),
            "crate `wasi 0.11.1+wasi-snapshot-preview1`"
        );
        let body = format!(
            "{}\n{}",
            line("wasi", "0.11.1", &"0".repeat(64)),
            line("wasi", "0.11.1+x", SUM)
        );
        assert_eq!(
            IndexEntry::checksum(body.as_bytes(), "0.11.1+x"),
            Sha256::parse(SUM)
        );
    }

    #[track_caller]
    fn check_download_url(dl: &str, expected: &str) {
        let sum = Sha256::parse(SUM);
        let file = CrateFile::of(&registry(), "MixedCase", "1.0.0+b", sum).unwrap();
        let config = serde_json::json!({ "dl": dl }).to_string();
        assert_eq!(
            file.located()
                .unwrap()
                .locate(config.as_bytes())
                .unwrap()
                .as_str(),
            expected
        );
    }

    #[test]
    fn download_templates_are_filled_as_cargo_fills_them() {
        check_download_url(
            "http://a.example/dl",
            "http://a.example/dl/MixedCase/1.0.0+b/download",
        );
        check_download_url(
            "http://a.example/dl/",
            "http://a.example/dl/MixedCase/1.0.0+b/download",
        );
        check_download_url(
            "http://a.example/{lowerprefix}/{prefix}/{crate}-{version}.crate",
            "http://a.example/mi/xe/Mi/xe/MixedCase-1.0.0+b.crate",
        );
        check_download_url(
            "http://a.example/{sha256-checksum}",
            &format!("http://a.example/{SUM}"),
        );
    }

    #[track_caller]
    fn check_template_refused(index: &str, dl: &str, part: &str) {
        let registries = Registries::new(Url::parse(index).unwrap(), []);
        let registry = registries.crates_io();
        let config = serde_json::json!({ "dl": dl }).to_string();
        let file = CrateFile::of(registry, "left", "1.0.0", Sha256::parse(SUM)).unwrap();
        let located = file
            .located()
            .unwrap()
            .locate(config.as_bytes())
            .unwrap_err();
        let recognised = RegistryConfig::of(registry)
            .validate(config.as_bytes())
            .unwrap_err();
        for why in [located.to_string(), recognised.to_string()] {
            assert!(why.contains(part), "{dl}: {why}");
        }
    }

    #[test]
    fn download_templates_must_be_http_and_as_secure_as_the_index() {
        for dl in ["file:///etc", "ftp://a.example/dl", "data:{crate}"] {
            check_template_refused("http://a.example/", dl, "neither http nor https");
        }
        check_template_refused("https://a.example/", "http://a.example/dl", "http although");
        check_template_refused("https://a.example/", "dl/{crate}", "no address");
        check_download_url(
            "https://a.example/",
            "https://a.example/MixedCase/1.0.0+b/download",
        );
    }

    #[test]
    fn markers_before_the_path_of_a_template_are_refused() {
        for dl in [
            "http://{crate}.example/",
            "http://{crate}/",
            "http:///{crate}/x",
            "http:{crate}",
            "http:\\\\{lowerprefix}.example/",
            "http://{prefix}.example/",
            "http://a.example{crate}",
            "http://{sha256-checksum}.example/",
            "http://{crate}@a.example/",
            "{crate}://a.example/",
            "http://v{version}.example/{crate}",
        ] {
            check_template_refused("http://a.example/", dl, "before the path");
        }
    }

    #[test]
    fn crate_without_hash_is_resolved_by_its_index_entry() {
        let file = CrateFile::of(&registry(), "left", "1.0.0", None).unwrap();
        let Location::ListedIn(listing) = file.location() else {
            panic!("needs a listing")
        };
        assert_eq!(listing.to_string(), "index entry of `left`");
        let complete = file
            .listed()
            .unwrap()
            .resolve(line("left", "1.0.0", SUM).as_bytes())
            .unwrap();
        assert!(matches!(complete.location(), Location::Blob(sum) if sum.to_string() == SUM));
        assert_eq!(
            file.listed()
                .unwrap()
                .resolve(line("left", "2.0.0", SUM).as_bytes())
                .unwrap_err(),
            Unlisted
        );
    }

    #[test]
    fn of_two_lines_of_one_version_the_last_counts() {
        let file = CrateFile::of(&registry(), "left", "1.0.0", None).unwrap();
        let last = Sha256::of(b"last").to_string();
        let lines = [line("left", "1.0.0", SUM), line("left", "1.0.0", &last)];
        for spelling in ["\"vers\":", "\"vers\" : "] {
            let entry = lines.join("\n").replace("\"vers\":", spelling);
            let found = file.listed().unwrap().resolve(entry.as_bytes()).unwrap();
            assert!(matches!(found.location(), Location::Blob(sum) if sum.to_string() == last));
        }
    }
}
