//! The dependencies and features of one package, from its manifest or from the index.

use std::collections::BTreeMap;

use semver::VersionReq;

use super::manifest::{Dependency, LocalPackage};
use crate::resource::{EnabledFeatures, VersionNeeds};

/// The dependencies and features of a package, whatever its source.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) dependencies: Vec<Dependency>,
    pub(super) features: BTreeMap<String, Vec<String>>,
    pub(super) is_member: bool,
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
        let dependencies = needs.deps.into_iter().map(|needed| {
            Some(Dependency {
                package: needed.package.unwrap_or_else(|| needed.name.clone()),
                name: needed.name,
                requirement: VersionReq::parse(&needed.req).ok()?,
                is_local: false,
                source: None,
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
            features: needs.features,
            is_member: false,
        })
    }

    /// Tells if the package has a feature, be it by the name of an optional dependency alone.
    pub(super) fn has_feature(&self, feature: &str) -> bool {
        let is_optional = |one: &Dependency| one.is_optional && one.name == feature;
        // `dep:NAME` hides the feature that a dependency has by itself.
        let is_hidden = || {
            let mut values = self.features.values().flatten();
            values.any(|value| value.strip_prefix("dep:") == Some(feature))
        };
        self.features.contains_key(feature)
            || (self.dependencies.iter().any(is_optional) && !is_hidden())
    }

    /// A value in the package's own features that leads to nothing in the package.
    pub(super) fn dangling_value(&self) -> Option<&str> {
        let is_dependency = |name: &str| self.dependencies.iter().any(|one| one.name == name);
        let mut values = self.features.values().flatten().map(String::as_str);
        values.find(
            |value| match (value.strip_prefix("dep:"), value.split_once('/')) {
                (Some(name), _) => !is_dependency(name),
                (None, Some((name, _))) => !is_dependency(name.strip_suffix('?').unwrap_or(name)),
                (None, None) => !self.has_feature(value),
            },
        )
    }

    /// Enables a feature of the package and those it leads to.
    pub(super) fn enable(&self, enabled: &mut EnabledFeatures, feature: &str) {
        let is_dependency = |name: &str| self.dependencies.iter().any(|one| one.name == name);
        enabled.enable(&self.features, &is_dependency, feature);
    }
}
