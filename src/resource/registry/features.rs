//! The dependencies that the features of one version enable.
//!
//! This follows cargo's resolver (`resolve_features` in `src/cargo/core/resolver/dep_cache.rs`), which ignores
//! conditions on targets. `name?/feature` makes `name` part of a lock file like `name/feature`.

use std::collections::{BTreeMap, BTreeSet};

/// The enabled features of one version.
#[derive(Clone, Debug, Default)]
pub struct EnabledFeatures {
    /// Their names.
    pub features: BTreeSet<String>,
    /// By the name of a dependency that they enable: the features that they enable in it.
    pub dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl EnabledFeatures {
    /// Enables a feature and those it leads to. A feature that does not exist enables nothing. `table` has the
    /// features that the version declares, and `is_dependency` tells the names of its dependencies.
    pub fn enable(
        &mut self,
        table: &BTreeMap<String, Vec<String>>,
        is_dependency: &dyn Fn(&str) -> bool,
        feature: &str,
    ) {
        if !self.features.insert(feature.to_owned()) {
            return;
        }
        let Some(values) = table.get(feature) else {
            // The feature that an optional dependency has by itself.
            if is_dependency(feature) {
                self.dependencies.entry(feature.to_owned()).or_default();
            }
            return;
        };
        for value in values {
            if let Some(name) = value.strip_prefix("dep:") {
                self.dependencies.entry(name.to_owned()).or_default();
            } else if let Some((name, of_dependency)) = value.split_once('/') {
                let name = name.strip_suffix('?').unwrap_or(name);
                let enabled = self.dependencies.entry(name.to_owned()).or_default();
                enabled.insert(of_dependency.to_owned());
                // `name/feature` also enables a feature that has the name of the optional dependency.
                if !value.contains('?') && table.contains_key(name) {
                    self.enable(table, is_dependency, name);
                }
            } else {
                self.enable(table, is_dependency, value);
            }
        }
    }
}
