//! Crates of a world: their versions, dependencies and features, as index lines and as manifests.

pub(crate) mod generate;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use fake_upstream::{Crate, FakeUpstream};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The index of crates.io, as lock files and index lines name it.
const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";

/// A registry that crates are published to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum RegistryName {
    #[default]
    CratesIo,
    /// The second registry, which is called `corp` everywhere.
    Corp,
}

/// The origin of a dependency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    #[default]
    CratesIo,
    Corp,
    /// A folder of the project, relative to its root.
    Path(String),
    /// The world's git repository.
    Git,
    /// The same, by its tag.
    GitTag,
    /// The `[workspace.dependencies]` of the root manifest.
    Workspace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DepKind {
    #[default]
    Normal,
    Dev,
    Build,
}

/// One dependency, of a crate or of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dep {
    /// The package.
    pub(crate) package: String,
    /// The name in the manifest, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rename: Option<String>,
    /// The requirement; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) req: String,
    #[serde(default)]
    pub(crate) kind: DepKind,
    #[serde(default)]
    pub(crate) is_optional: bool,
    /// A condition as `cfg(..)` or a triple.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) features: Vec<String>,
    /// True if the dependency says `default-features = false`.
    #[serde(default)]
    pub(crate) is_bare: bool,
    #[serde(default)]
    pub(crate) origin: Origin,
}

impl Dep {
    pub(crate) fn new(package: &str, req: &str) -> Self {
        Self {
            package: package.to_owned(),
            rename: None,
            req: req.to_owned(),
            kind: DepKind::Normal,
            is_optional: false,
            target: None,
            features: Vec::new(),
            is_bare: false,
            origin: Origin::CratesIo,
        }
    }

    /// The name in the manifest.
    pub(crate) fn name(&self) -> &str {
        self.rename.as_deref().unwrap_or(&self.package)
    }

    fn json(&self, of: RegistryName, addresses: &Addresses) -> serde_json::Value {
        let registry = match (of, &self.origin) {
            (RegistryName::Corp, Origin::CratesIo) => Some(CRATES_IO.to_owned()),
            (RegistryName::CratesIo, Origin::Corp) => Some(format!("sparse+{}", addresses.corp)),
            _ => None,
        };
        json!({
            "name": self.name(),
            "package": self.rename.as_ref().map(|_| &self.package),
            "req": self.req,
            "features": self.features,
            "optional": self.is_optional,
            "default_features": !self.is_bare,
            "target": self.target,
            "kind": match self.kind {
                DepKind::Normal => "normal",
                DepKind::Dev => "dev",
                DepKind::Build => "build",
            },
            "registry": registry,
        })
    }

    /// The dependency's table in a manifest. `source` are the lines that say where it comes from.
    pub(crate) fn toml(&self, source: &str) -> String {
        let table = match self.kind {
            DepKind::Normal => "dependencies",
            DepKind::Dev => "dev-dependencies",
            DepKind::Build => "build-dependencies",
        };
        let target = self.target.as_ref();
        let target = target.map_or(String::new(), |target| {
            format!("target.{}.", quoted(target))
        });
        format!(
            "\n[{target}{table}.{}]\n{}",
            self.name(),
            self.fields(source)
        )
    }

    /// The fields of the dependency's table.
    pub(crate) fn fields(&self, source: &str) -> String {
        let mut toml = source.to_owned();
        if !self.req.is_empty() {
            let _ = writeln!(toml, "version = {}", quoted(&self.req));
        }
        if self.rename.is_some() {
            let _ = writeln!(toml, "package = {}", quoted(&self.package));
        }
        if self.is_optional {
            toml.push_str("optional = true\n");
        }
        if self.is_bare {
            toml.push_str("default-features = false\n");
        }
        if !self.features.is_empty() {
            let _ = writeln!(toml, "features = {}", json!(self.features));
        }
        toml
    }
}

impl fmt::Display for Dep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.package)?;
        if !self.req.is_empty() {
            write!(f, " {}", self.req)?;
        }
        match &self.origin {
            Origin::CratesIo => {}
            Origin::Corp => f.write_str(" of corp")?,
            Origin::Path(folder) => write!(f, " in ./{folder}")?,
            Origin::Git => f.write_str(" from git")?,
            Origin::GitTag => f.write_str(" from a tag in git")?,
            Origin::Workspace => f.write_str(" of the workspace")?,
        }
        match self.kind {
            DepKind::Normal => {}
            DepKind::Dev => f.write_str(" for tests")?,
            DepKind::Build => f.write_str(" for the build script")?,
        }
        if let Some(name) = &self.rename {
            write!(f, " as {name}")?;
        }
        if self.is_optional {
            f.write_str(", optional")?;
        }
        if self.is_bare {
            f.write_str(", no default features")?;
        }
        if !self.features.is_empty() {
            write!(f, ", features {}", self.features.join("+"))?;
        }
        match &self.target {
            Some(target) => write!(f, ", on {target}"),
            None => Ok(()),
        }
    }
}

/// One version of a crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrateSpec {
    #[serde(default)]
    pub(crate) registry: RegistryName,
    pub(crate) name: String,
    pub(crate) version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deps: Vec<Dep>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) features: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rust_version: Option<String>,
}

/// The addresses of the registries' indexes.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) crates_io: String,
    pub(crate) corp: String,
}

impl CrateSpec {
    /// Publishes the version at `upstream`, which is the world's server for this crate's registry.
    pub(crate) fn publish(&self, upstream: &FakeUpstream, addresses: &Addresses) {
        let mut package = Crate::new(&self.name, &self.version);
        package = package.file("Cargo.toml", self.manifest(addresses));
        if self.deps.iter().any(|dep| dep.kind == DepKind::Build) {
            package = package.file("build.rs", "fn main() {}\n");
        }
        let checksum = upstream.publish_archive(&package);
        upstream.append_index_line(&self.name, &self.index_line(&checksum, addresses));
    }

    fn index_line(&self, checksum: &str, addresses: &Addresses) -> String {
        let deps: Vec<_> = self
            .deps
            .iter()
            .map(|dep| dep.json(self.registry, addresses))
            .collect();
        let is_new = |values: &[String]| {
            values
                .iter()
                .any(|value| value.starts_with("dep:") || value.contains("?/"))
        };
        let (features2, features): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.features.iter().partition(|(_, values)| is_new(values));
        let mut line = json!({
            "name": self.name, "vers": self.version, "deps": deps, "cksum": checksum,
            "features": features, "yanked": false,
        });
        if !features2.is_empty() {
            line["features2"] = json!(features2);
            line["v"] = json!(2);
        }
        if let Some(version) = &self.rust_version {
            line["rust_version"] = json!(version);
        }
        line.to_string()
    }

    fn manifest(&self, addresses: &Addresses) -> String {
        let mut toml = package_table(&self.name, &self.version);
        if let Some(version) = &self.rust_version {
            let _ = writeln!(toml, "rust-version = {}", quoted(version));
        }
        toml.push_str(&features_table(&self.features));
        for dep in &self.deps {
            let source = match (self.registry, &dep.origin) {
                (RegistryName::CratesIo, Origin::CratesIo) => String::new(),
                (_, Origin::Corp) => format!("registry-index = \"sparse+{}\"\n", addresses.corp),
                _ => format!("registry-index = \"{CRATES_IO}\"\n"),
            };
            toml.push_str(&dep.toml(&source));
        }
        toml
    }
}

impl fmt::Display for CrateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)?;
        if self.registry == RegistryName::Corp {
            f.write_str(" in corp")?;
        }
        if let Some(version) = &self.rust_version {
            write!(f, " for Rust {version}")?;
        }
        write!(f, "{}", list(" needs ", &self.deps))?;
        write!(f, "{}", features(&self.features))
    }
}

pub(crate) fn package_table(name: &str, version: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n")
}

pub(crate) fn features_table(features: &BTreeMap<String, Vec<String>>) -> String {
    let mut toml = String::new();
    if !features.is_empty() {
        toml.push_str("\n[features]\n");
        for (name, values) in features {
            let _ = writeln!(toml, "{} = {}", quoted(name), json!(values));
        }
    }
    toml
}

/// Items in brackets behind a word; nothing if there are none.
pub(crate) fn list(word: &str, items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    format!("{word}[{}]", items.join("; "))
}

/// Features in words.
pub(crate) fn features(features: &BTreeMap<String, Vec<String>>) -> String {
    let items: Vec<_> = features
        .iter()
        .map(|(name, values)| format!("{name} = {}", values.join("+")))
        .collect();
    list(", features ", &items)
}

/// A JSON string, which is also a TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
