//! [`AdvisoryArchive`]: the archive of the RustSec advisory database.

use std::{fmt, sync::Arc, time::Duration};

use url::Url;

use super::{Audience, Freshness, InvalidBody, Key, Kind, Location, Policy, Resource, Source};
use crate::{hash::Sha256, trust::AdvisoryDatabase};

/// The folder of entries.
pub(super) const FOLDER: &str = "advisories";

/// The archive at an address, or an imported one.
#[derive(Debug)]
pub struct AdvisoryArchive {
    address: Option<Url>,
}

impl AdvisoryArchive {
    /// The archive at this address; `None` for one that only an import can store.
    pub fn of(address: Option<&Url>) -> Resource {
        Arc::new(Self {
            address: address.cloned(),
        })
    }
}

impl fmt::Display for AdvisoryArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("advisory database")
    }
}

impl Kind for AdvisoryArchive {
    /// Each address has an entry of its own, because validators of one say nothing about another.
    fn location(&self) -> Location {
        let name = match &self.address {
            None => "imported".to_owned(),
            Some(address) => format!("{:.8}", Sha256::of(address.as_str().as_bytes()).to_string()),
        };
        Location::Entry(Key::new(&[FOLDER, &name]))
    }

    fn policy(&self) -> Policy {
        Policy {
            freshness: Freshness::For(Duration::from_secs(3600)),
            stale_while_revalidate: false,
            max_bytes: 64 << 20,
            max_bytes_setting: None,
            negative_ttl: Duration::from_secs(60),
            content_type: "application/gzip",
            compressible: false,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        let nowhere = || Url::parse("data:,").expect("a valid address");
        Source::At(self.address.clone().unwrap_or_else(nowhere))
    }

    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        AdvisoryDatabase::read(body)
            .map(drop)
            .map_err(InvalidBody::Advisories)
    }
}
