//! Makes crates from random choices. A crate depends only on crates that come after it in the list, so that there are
//! no cycles.

use std::collections::BTreeMap;

use fake_upstream::{HOST, WASM};

use super::{CrateSpec, Dep, DepKind, Origin, RegistryName};
use crate::dice::Dice;

/// Names with all kinds of places in an index, of differing spelling.
const NAMES: [&str; 8] = [
    "a",
    "bb",
    "ccc",
    "left",
    "right-hand",
    "Mixed",
    "under_score",
    "zed-9",
];
/// Versions in ascending order.
const VERSIONS: [&str; 9] = [
    "0.1.0",
    "0.1.3",
    "0.2.0",
    "1.0.0",
    "1.2.0",
    "1.2.7",
    "2.0.0-rc.1",
    "2.0.0",
    "2.1.0+meta.7",
];
/// Conditions of dependencies.
pub(crate) const CONDITIONS: [&str; 6] = [
    "cfg(windows)",
    "cfg(unix)",
    "cfg(not(target_os = \"linux\"))",
    "cfg(target_arch = \"wasm32\")",
    HOST,
    WASM,
];

/// All crates of a world at its beginning.
pub(crate) struct Shelf {
    pub(crate) crates: Vec<CrateSpec>,
}

/// Random crates in both registries. Most worlds have no crate in the second one.
pub(crate) fn shelf(dice: &mut Dice) -> Shelf {
    let count = dice.between(3, NAMES.len());
    let mut names: Vec<_> = NAMES[..count]
        .iter()
        .map(|&name| (RegistryName::CratesIo, name))
        .collect();
    if dice.chance(15) {
        // In front, because crates of crates.io do not depend on other registries.
        names.insert(0, (RegistryName::Corp, "corp-tool"));
        if dice.chance(50) {
            names.insert(0, (RegistryName::Corp, "left"));
        }
    }
    let mut shelf = Shelf { crates: Vec::new() };
    for (registry, name) in names.into_iter().rev() {
        let number = dice.weighted(&[(40, 1), (35, 2), (25, 3)]);
        let from = dice.between(0, VERSIONS.len() - number);
        for version in &VERSIONS[from..from + number] {
            let package = shelf.random_version(dice, registry, name, version);
            shelf.crates.insert(0, package);
        }
    }
    shelf
}

impl Shelf {
    /// A version whose dependencies are on the crates that are there already, unless they have its name.
    fn random_version(
        &self,
        dice: &mut Dice,
        registry: RegistryName,
        name: &str,
        version: &str,
    ) -> CrateSpec {
        let mut deps: Vec<Dep> = Vec::new();
        for _ in 0..dice.weighted(&[(30, 0), (35, 1), (25, 2), (10, 3)]) {
            let Some(mut dep) = self.dep(dice, &deps) else {
                continue;
            };
            let is_beyond = registry == RegistryName::CratesIo && dep.origin == Origin::Corp;
            if dep.package == name || is_beyond {
                continue;
            }
            vary(dice, &mut dep);
            deps.push(dep);
        }
        let features = features(dice, &deps);
        CrateSpec {
            registry,
            name: name.to_owned(),
            version: version.to_owned(),
            deps,
            features,
            // The second is newer than what some projects ask for.
            rust_version: dice
                .chance(8)
                .then(|| (*dice.pick(&["1.60", "1.80"])).to_owned()),
        }
    }

    /// A normal dependency on a random crate that none of `others` needs. Cargo builds no package that needs one
    /// version of a crate under two names.
    pub(crate) fn dep(&self, dice: &mut Dice, others: &[Dep]) -> Option<Dep> {
        if self.crates.is_empty() {
            return None;
        }
        let package = dice.pick(&self.crates);
        if others.iter().any(|other| other.package == package.name) {
            return None;
        }
        let mut dep = Dep::new(&package.name, &requirement(dice, &package.version));
        if package.registry == RegistryName::Corp {
            dep.origin = Origin::Corp;
        }
        let features: Vec<_> = package
            .features
            .keys()
            .filter(|name| *name != "default")
            .cloned()
            .collect();
        dep.features = dice.some(&features, 25);
        dep.is_bare = dice.chance(15);
        Some(dep)
    }

    /// The next version of one of the crates.
    pub(crate) fn newer(&self, dice: &mut Dice) -> CrateSpec {
        let package = dice.pick(&self.crates);
        let at = self
            .crates
            .iter()
            .rposition(|other| other.name == package.name && other.registry == package.registry);
        let later = Self {
            crates: self.crates[at.map_or(0, |at| at + 1)..].to_vec(),
        };
        let version = format!(
            "{}.{}.{}",
            dice.between(0, 2),
            dice.between(3, 9),
            dice.between(0, 3)
        );
        later.random_version(dice, package.registry, &package.name, &version)
    }
}

/// A requirement that this version meets.
fn requirement(dice: &mut Dice, version: &str) -> String {
    let plain = version.split('+').next().unwrap_or(version);
    let major = plain.split('.').next().unwrap_or(plain);
    let is_plain = !plain.contains('-') && major != "0";
    match dice.between(0, 9) {
        0 => format!("={plain}"),
        1 => format!("~{plain}"),
        2 => format!(">={plain}"),
        3 if !plain.contains('-') => "*".to_owned(),
        4 | 5 if is_plain => major.to_owned(),
        _ => plain.to_owned(),
    }
}

/// Gives a dependency another kind, a condition or another name.
pub(crate) fn vary(dice: &mut Dice, dep: &mut Dep) {
    dep.kind = dice.weighted(&[
        (80, DepKind::Normal),
        (10, DepKind::Dev),
        (10, DepKind::Build),
    ]);
    if dice.chance(20) {
        dep.target = Some((*dice.pick(&CONDITIONS)).to_owned());
    }
    if dep.kind != DepKind::Dev && dice.chance(20) {
        dep.is_optional = true;
    }
    if dice.chance(10) {
        dep.rename = Some(format!(
            "{}_again",
            dep.package.to_lowercase().replace('-', "_")
        ));
    }
}

/// Features of a package with these dependencies.
pub(crate) fn features(dice: &mut Dice, deps: &[Dep]) -> BTreeMap<String, Vec<String>> {
    let mut features = BTreeMap::new();
    if dice.chance(40) {
        features.insert("plain".to_owned(), Vec::new());
    }
    for dep in deps.iter().filter(|dep| dep.kind == DepKind::Normal) {
        let name = dep.name();
        let value = match (dep.is_optional, dep.features.first()) {
            (true, _) if dice.chance(40) => format!("dep:{name}"),
            (true, None) if dice.chance(60) => name.to_owned(),
            (true, Some(feature)) if dice.chance(60) => format!("{name}?/{feature}"),
            (_, Some(feature)) if dice.chance(50) => format!("{name}/{feature}"),
            _ => continue,
        };
        let more: &mut Vec<String> = features.entry("more".to_owned()).or_default();
        more.push(value);
    }
    if !features.is_empty() && dice.chance(30) {
        let all: Vec<String> = features.keys().cloned().collect();
        features.insert("default".to_owned(), dice.some(&all, 60));
    }
    features
}
