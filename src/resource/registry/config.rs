//! [`RegistryConfig`]: the `config.json` of a registry, and its download template.
//!
//! ```text
//!  {"dl": "https://files.example/{crate}/{version}", "api": "https://api.example", "auth-required": false}
//!          └─ template: where crate files are ─────┘
//! ```
//!
//! Clients never get upstream's file. [`config_for_client`] writes one whose `dl` points at larder.
//!
//! The template decides to which host larder connects, so larder checks it when the config arrives
//! ([`Kind::validate`]). It checks the template again when it locates a crate file, because an older release of larder
//! may have stored the config.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use url::{Position, Url};

use super::{Registry, index_folder};
use crate::{
    hash::Sha256,
    resource::{
        Audience, Freshness, InvalidBody, Key, Kind, Location, Policy, Resource, Retention, Source,
        TemplateError, TemplateProblem,
    },
};

/// The `config.json` of a registry, as upstream has it.
#[derive(Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// The registry.
    pub registry: Arc<Registry>,
}

/// The fields of `config.json` that larder reads (cargo, `RegistryConfig` in `sources/registry/mod.rs`).
#[derive(Deserialize)]
pub(super) struct ConfigFields<'a> {
    #[serde(borrow)]
    pub(super) dl: Cow<'a, str>,
    #[serde(borrow, default)]
    api: Option<Cow<'a, str>>,
}

impl RegistryConfig {
    /// The config of `registry`.
    pub fn of(registry: &Arc<Registry>) -> Resource {
        Arc::new(Self {
            registry: registry.clone(),
        })
    }
}

impl fmt::Display for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config of {}", self.registry.display_name())
    }
}

impl Kind for RegistryConfig {
    fn location(&self) -> Location {
        Location::Entry(Key::new(&[&self.registry.entry_folder, "config.json"]))
    }

    fn policy(&self) -> Policy {
        Policy {
            // A registry changes `dl` about once in years. If a download fails, the cache asks for the config again.
            freshness: Freshness::For(Duration::from_secs(24 * 60 * 60)),
            stale_while_revalidate: false,
            max_bytes: 1 << 20,
            max_bytes_setting: None,
            negative_ttl: Duration::from_secs(10),
            content_type: "application/json",
            compressible: false,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        Source::At(self.registry.url_of("config.json"))
    }

    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        let config: ConfigFields<'_> =
            serde_json::from_slice(body).map_err(InvalidBody::NotConfig)?;
        self.registry.check_download_template(&config.dl)?;
        Ok(())
    }

    fn retention(&self) -> Option<&dyn Retention> {
        Some(self)
    }
}

/// A registry without `config.json` is none: cargo stops there (docs/client-behaviour.md C-04).
impl Retention for RegistryConfig {
    fn witness(&self) -> Resource {
        Self::of(&self.registry)
    }

    fn package(&self) -> Option<(&str, &str)> {
        None
    }
}

/// The `config.json` for a client that reached larder at `base`, which ends in `/` and includes the registry's prefix.
///
/// Upstream's `api` is copied, so that `cargo search --registry larder` works, but not for an offline larder: cargo
/// would wait for a server that it cannot reach. Upstream's `auth-required` is not: cargo would
/// look up a token for larder's URL, and fail without one (docs/client-behaviour.md C-07).
pub fn config_for_client(base: &str, upstream: Option<&[u8]>, is_offline: bool) -> Bytes {
    let dl = format!("{base}crates/{{crate}}/{{version}}/{{sha256-checksum}}/download");
    let api = upstream
        .filter(|_| !is_offline)
        .and_then(|body| serde_json::from_slice::<ConfigFields<'_>>(body).ok())
        .and_then(|config| config.api);
    let config = match api {
        Some(api) => serde_json::json!({ "dl": dl, "api": api }),
        None => serde_json::json!({ "dl": dl }),
    };
    Bytes::from(format!("{config}\n"))
}

impl Registry {
    /// Accepts a download template only if it is http or https, no less secure than the index, and on one host for all
    /// crates. A crate's name can never choose a host.
    ///
    /// # Errors
    /// The template breaks one of these rules.
    pub(super) fn check_download_template(&self, template: &str) -> Result<(), TemplateError> {
        let refused = |reason| TemplateError {
            template: template.to_owned(),
            reason,
        };
        let example = |name, version, sum: &[u8]| {
            let url = fill_template(template, name, version, Some(Sha256::of(sum)));
            Url::parse(&url).map_err(|cause| refused(TemplateProblem::NotUrl(cause)))
        };
        // Each marker gets two values. If the part before the path differs, a marker stands in it.
        let one = example("aa", "0.0.0", b"1")?;
        let other = example("bbb", "1.1.1", b"2")?;
        if one[..Position::BeforePath] != other[..Position::BeforePath] {
            Err(refused(TemplateProblem::MarkerBeforePath))
        } else if !matches!(one.scheme(), "http" | "https") {
            Err(refused(TemplateProblem::NotHttp))
        } else if self.index.scheme() == "https" && one.scheme() == "http" {
            Err(refused(TemplateProblem::Downgrade))
        } else {
            Ok(())
        }
    }
}

/// The template with its markers. One without any stands for the usual path (docs/client-behaviour.md C-06).
pub(super) fn complete_template(template: &str) -> Cow<'_, str> {
    const MARKERS: [&str; 5] = [
        "{crate}",
        "{version}",
        "{prefix}",
        "{lowerprefix}",
        "{sha256-checksum}",
    ];
    if MARKERS.iter().any(|marker| template.contains(marker)) {
        return template.into();
    }
    let base = template.trim_end_matches('/');
    format!("{base}/{{crate}}/{{version}}/download").into()
}

/// Fills a download template as cargo does (docs/client-behaviour.md C-06): plain replacement without encoding, and a
/// default path if no marker occurs.
pub(super) fn fill_template(
    template: &str,
    name: &str,
    version: &str,
    checksum: Option<Sha256>,
) -> String {
    complete_template(template)
        .replace("{crate}", name)
        .replace("{version}", version)
        .replace("{prefix}", &index_folder(name))
        .replace("{lowerprefix}", &index_folder(&name.to_ascii_lowercase()))
        .replace(
            "{sha256-checksum}",
            &checksum.map_or_else(String::new, |sum| sum.to_string()),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registries;

    #[test]
    fn entries_of_different_index_urls_have_different_keys() {
        let key = |address: &str| {
            let registries = Registries::new(Url::parse(address).unwrap(), []);
            match RegistryConfig::of(registries.crates_io()).location() {
                Location::Entry(key) => key,
                other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                    panic!("{other:?}")
                }
            }
        };
        assert_eq!(key("http://a.example/"), key("http://a.example/"));
        assert_ne!(key("http://a.example/"), key("http://b.example/"));
    }

    #[test]
    fn client_config_carries_checksum_marker_and_api_but_no_credentials() {
        let upstream =
            br#"{"dl":"http://b.example/dl","api":"http://b.example","auth-required":true}"#;
        let served = config_for_client("http://127.0.0.1:3263/", Some(upstream), false);
        let config: serde_json::Value = serde_json::from_slice(&served).unwrap();
        assert_eq!(
            config["dl"],
            "http://127.0.0.1:3263/crates/{crate}/{version}/{sha256-checksum}/download"
        );
        assert_eq!(config["api"], "http://b.example");
        assert!(config.get("auth-required").is_none());
        let served = config_for_client("http://127.0.0.1:3263/", Some(upstream), true);
        let config: serde_json::Value = serde_json::from_slice(&served).unwrap();
        assert!(config.get("api").is_none() && config.get("dl").is_some());
    }
}
