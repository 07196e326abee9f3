//! The dependencies that the features of one package switch on.
//!
//! This follows cargo's resolver (`resolve_features` in `src/cargo/core/resolver/dep_cache.rs`), which ignores
//! conditions on targets. `name?/feature` makes `name` part of a lock file like `name/feature`.

use std::collections::{BTreeMap, BTreeSet};

use semver::VersionReq;

use super::manifest::{Dependency, LocalPackage};
use crate::resource::VersionNeeds;

/// The dependencies and features of a package, whatever its source.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) dependencies: Vec<Dependency>,
    pub(super) features: BTreeMap<String, Vec<String>>,
    pub(super) is_member: bool,
}

/// The features of one package that are switched on.
#[derive(Debug, Default)]
pub(super) struct ActiveFeatures {
    pub(super) is_reached: bool,
    pub(super) features: BTreeSet<String>,
    /// By the dependency's name: the features that features of this package ask of it.
    pub(super) dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl Needs {
    pub(super) fn of_local(package: &LocalPackage) -> Self {
        Self {
            dependencies: package.dependencies.clone(),
            features: package.features.clone(),
            is_member: package.is_member,
        }
    }

    /// `None` if a requirement cannot be read.
    pub(super) fn of_crate(needs: VersionNeeds) -> Option<Self> {
        let features = needs.features();
        let features = features
            .map(|(name, values)| (name.clone(), values.clone()))
            .collect();
        let dependencies = needs.deps.into_iter().map(|needed| {
            Some(Dependency {
                package: needed.package.unwrap_or_else(|| needed.name.clone()),
                name: needed.name,
                requirement: VersionReq::parse(&needed.req).ok()?,
                is_local: false,
                is_optional: needed.optional,
                is_dev: needed.kind.as_deref() == Some("dev"),
                default_features: needed.default_features,
                features: needed.features,
                is_for_target: needed.target.is_some(),
                registry: needed.registry,
            })
        });
        Some(Self {
            dependencies: dependencies.collect::<Option<_>>()?,
            features,
            is_member: false,
        })
    }
}

impl ActiveFeatures {
    /// Switches on a feature and those it leads to. Cargo reports features that do not exist.
    pub(super) fn feature(&mut self, needs: &Needs, feature: &str) {
        if !self.features.insert(feature.to_owned()) {
            return;
        }
        let Some(values) = needs.features.get(feature) else {
            // The feature that an optional dependency has by itself.
            if needs.dependencies.iter().any(|one| one.name == feature) {
                self.dependencies.entry(feature.to_owned()).or_default();
            }
            return;
        };
        for value in values {
            if let Some(name) = value.strip_prefix("dep:") {
                self.dependencies.entry(name.to_owned()).or_default();
            } else if let Some((name, of_dependency)) = value.split_once('/') {
                let name = name.strip_suffix('?').unwrap_or(name);
                let asked = self.dependencies.entry(name.to_owned()).or_default();
                asked.insert(of_dependency.to_owned());
                // `name/feature` also switches on a feature that has the name of the optional dependency.
                if !value.contains('?') && needs.features.contains_key(name) {
                    self.feature(needs, name);
                }
            } else {
                self.feature(needs, value);
            }
        }
    }
}
