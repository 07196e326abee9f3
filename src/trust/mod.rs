//! The versions that clients must not get: the rules of the user's settings.
//!
//! ```text
//!  setting      applies to                                   except
//!  min-age      versions published less than that long ago   those that a pin locks
//!  deny         the versions of its rules
//!  advisories   versions that an advisory calls malicious    those of `allow-advisory`
//! ```
//!
//! If a rule applies to a version, index entries mark it as yanked, so that no resolve chooses it anew. Its download is
//! refused with the rule and the facts ([`Objection`]). This module is pure: it knows neither the index nor the clock.
//! [`AdvisoryDatabase`] reads the database of advisories.

mod advisories;
mod deny;
mod openpgp;
mod ranges;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, SystemTime},
};

pub use advisories::{
    Advisory, AdvisoryDatabase, AdvisoryKind, DatabaseError, pack as pack_advisories,
};
pub use deny::{DenyRule, InvalidRule};
pub use openpgp::{OpenPgpError, SigningKeys};
use semver::Version;

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// Age that versions must have; zero for no rule.
    pub min_age: Duration,
    /// The same for single registries, by name.
    pub min_age_of: BTreeMap<String, Duration>,
    /// Versions that must not be used.
    pub deny: Vec<DenyRule>,
    /// Ids of advisories that forbid nothing.
    pub allow_advisories: BTreeSet<String>,
    /// Keys of which one must have signed each toolchain manifest; `None` if signatures do not matter.
    pub signing_keys: Option<SigningKeys>,
}

/// Why a client must not get a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It was published less than `min_age` ago.
    TooYoung {
        /// When it was published.
        published: SystemTime,
        /// The setting.
        min_age: Duration,
    },
    /// A rule of `deny` names it.
    Denied(DenyRule),
    /// An advisory calls it malicious.
    Malicious {
        /// The advisory's id.
        id: String,
        /// The advisory's title.
        title: String,
    },
}

impl TrustPolicy {
    /// The age that versions of this registry must have; `None` if any will do.
    pub fn min_age(&self, registry: &str) -> Option<Duration> {
        let own = self.min_age_of.get(registry).copied();
        Some(own.unwrap_or(self.min_age)).filter(|age| !age.is_zero())
    }

    /// The objection to a version that was published at this time. A version without a known time has any age.
    pub fn objection_to_age(
        &self,
        registry: &str,
        published: Option<SystemTime>,
        now: SystemTime,
    ) -> Option<Objection> {
        let (min_age, published) = self.min_age(registry).zip(published)?;
        // A time in the future is no age at all.
        let age = now.duration_since(published).unwrap_or_default();
        (age < min_age).then_some(Objection::TooYoung { published, min_age })
    }

    /// The objection to a version, whatever its age.
    pub fn objection_to(&self, name: &str, version: &str) -> Option<Objection> {
        let mut rules = self.deny.iter().filter(|rule| rule.is_about(name));
        let first = rules.next()?;
        let version = Version::parse(version).ok();
        let mut rules = std::iter::once(first).chain(rules);
        let rule = rules.find(|rule| rule.covers(version.as_ref()))?;
        Some(Objection::Denied(rule.clone()))
    }

    /// The objection to a version of a crate of crates.io that an advisory calls malicious.
    pub fn objection_by_advisory(
        &self,
        database: &AdvisoryDatabase,
        name: &str,
        version: &str,
    ) -> Option<Objection> {
        let touching = database.touching(name, version).into_iter();
        let mut malicious = touching.filter(|advisory| {
            advisory.kind == AdvisoryKind::Malicious
                && !self.allow_advisories.contains(&advisory.id)
        });
        let Advisory { id, title, .. } = malicious.next()?.clone();
        Some(Objection::Malicious { id, title })
    }

    /// Returns false if no version of any crate is ever objected to.
    pub fn has_rules(&self) -> bool {
        !self.deny.is_empty()
            || !self.min_age.is_zero()
            || self.min_age_of.values().any(|age| !age.is_zero())
    }

    /// Returns whether [`TrustPolicy::objection_to`] can apply to any version of the crate.
    pub fn may_object_to(&self, name: &str) -> bool {
        self.deny.iter().any(|rule| rule.is_about(name))
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooYoung { published, min_age } => {
                let time = humantime::format_rfc3339_seconds;
                let age = humantime::format_duration(*min_age);
                write!(
                    f,
                    "it was published at {}, and the setting `min-age = \"{age}\"` hides it",
                    time(*published)
                )?;
                if let Some(until) = published.checked_add(*min_age) {
                    write!(f, " until {}", time(until))?;
                }
                f.write_str("; a project whose lock file names it gets it after `larder warm`")
            }
            Self::Malicious { id, title } => write!(
                f,
                "the advisory {id} calls it malicious ({title}); the setting `allow-advisory = [\"{id}\"]` would allow it"
            ),
            Self::Denied(rule) => write!(f, "the setting `deny = [\"{rule}\"]` forbids it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn days(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * days
    }

    #[test]
    fn a_version_is_too_young_until_it_has_the_age_of_its_registry() {
        let policy = TrustPolicy {
            min_age: DAY * 7,
            min_age_of: BTreeMap::from([("corp".to_owned(), Duration::ZERO)]),
            ..TrustPolicy::default()
        };
        let is_young = |registry, published| {
            policy
                .objection_to_age(registry, published, days(100))
                .is_some()
        };
        assert!(is_young("crates-io", Some(days(94))));
        assert!(is_young("crates-io", Some(days(101))), "in the future");
        assert!(!is_young("crates-io", Some(days(93))));
        assert!(!is_young("crates-io", None));
        assert!(!is_young("corp", Some(days(100))));
        let none = TrustPolicy::default();
        assert_eq!(
            none.objection_to_age("crates-io", Some(days(100)), days(100)),
            None
        );
    }

    #[test]
    fn text_names_setting_and_dates() {
        let young = Objection::TooYoung {
            published: days(1),
            min_age: DAY * 7,
        };
        let text = young.to_string();
        for part in [
            "1970-01-02T00:00:00Z",
            "min-age = \"7days\"",
            "1970-01-09T00:00:00Z",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let rule: DenyRule = "left@1.0.0".parse().unwrap();
        let text = Objection::Denied(rule).to_string();
        assert_eq!(text, "the setting `deny = [\"left@1.0.0\"]` forbids it");
    }
}
