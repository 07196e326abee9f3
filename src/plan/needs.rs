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

    /// Enables a feature of the package and those it leads to.
    pub(super) fn enable(&self, enabled: &mut EnabledFeatures, feature: &str) {
        let is_dependency = |name: &str| self.dependencies.iter().any(|one| one.name == name);
        enabled.enable(&self.features, &is_dependency, feature);
    }
}
