//! Crates made in memory: the archive that real cargo unpacks and builds, and its index line.
//!
//! The same description gives the same bytes. `state` stores them, `reply` serves them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// One version of a crate, for [`FakeUpstream::publish`](crate::FakeUpstream::publish).
#[derive(Clone, Debug)]
pub struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    deps: Vec<Dep>,
    features: BTreeMap<String, Vec<String>>,
    yanked: bool,
    files: BTreeMap<String, Vec<u8>>,
    links: Option<String>,
    rust_version: Option<String>,
    pubtime: Option<String>,
    extra: Vec<(String, serde_json::Value)>,
}

#[derive(Clone, Debug)]
struct Dep {
    /// The name in the manifest.
    name: String,
    /// The real name, if it differs.
    package: Option<String>,
    req: String,
    kind: &'static str,
    optional: bool,
    target: Option<String>,
}

impl Crate {
    /// A crate with only an empty library.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            deps: Vec::new(),
            features: BTreeMap::new(),
            yanked: false,
            files: BTreeMap::from([("src/lib.rs".to_owned(), Vec::new())]),
            links: None,
            rust_version: None,
            pubtime: None,
            extra: Vec::new(),
        }
    }

    /// Adds a normal dependency.
    #[must_use]
    pub fn dep(self, name: &str, req: &str) -> Self {
        self.any_dep(name, None, req, "normal", false, None)
    }

    /// Adds a normal dependency on `package` under the name `name`.
    #[must_use]
    pub fn renamed_dep(self, name: &str, package: &str, req: &str) -> Self {
        self.any_dep(name, Some(package), req, "normal", false, None)
    }

    /// Adds a dependency that only a feature enables.
    #[must_use]
    pub fn optional_dep(self, name: &str, req: &str) -> Self {
        self.any_dep(name, None, req, "normal", true, None)
    }

    /// [`Crate::optional_dep`] under another name.
    #[must_use]
    pub fn renamed_optional_dep(self, name: &str, package: &str, req: &str) -> Self {
        self.any_dep(name, Some(package), req, "normal", true, None)
    }

    /// Adds a dev-dependency.
    #[must_use]
    pub fn dev_dep(self, name: &str, req: &str) -> Self {
        self.any_dep(name, None, req, "dev", false, None)
    }

    /// Adds a dependency of the build script, which the crate then has.
    #[must_use]
    pub fn build_dep(self, name: &str, req: &str) -> Self {
        self.any_dep(name, None, req, "build", false, None)
    }

    /// Adds a normal dependency for one target, given as `cfg(..)` or as a triple.
    #[must_use]
    pub fn target_dep(self, target: &str, name: &str, req: &str) -> Self {
        self.any_dep(name, None, req, "normal", false, Some(target))
    }

    /// [`Crate::target_dep`] that only a feature enables.
    #[must_use]
    pub fn optional_target_dep(self, target: &str, name: &str, req: &str) -> Self {
        self.any_dep(name, None, req, "normal", true, Some(target))
    }

    /// Adds a feature. One that uses `dep:` or `?/` goes to the line's `features2`, as on crates.io.
    #[must_use]
    pub fn feature(mut self, name: &str, switches_on: &[&str]) -> Self {
        let switches_on = switches_on.iter().map(|&item| item.to_owned()).collect();
        self.features.insert(name.to_owned(), switches_on);
        self
    }

    /// Marks the version as yanked.
    #[must_use]
    pub fn yanked(mut self) -> Self {
        self.yanked = true;
        self
    }

    /// Adds a file to the archive, or replaces the one with this path, `src/lib.rs` included.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files
            .insert(path.to_owned(), content.as_ref().to_vec());
        self
    }

    /// Adds a file of incompressible bytes. The archive is not compressed, so it grows by as much.
    #[must_use]
    pub fn padding(self, bytes: usize) -> Self {
        let content = noise(seed(&[&self.name, &self.version]), bytes);
        self.file("src/padding.bin", content)
    }

    /// Sets the native library that this crate links; the crate then has an empty build script, as cargo requires.
    #[must_use]
    pub fn links(mut self, library: &str) -> Self {
        self.links = Some(library.to_owned());
        self
    }

    /// Sets the minimum version of the compiler.
    #[must_use]
    pub fn rust_version(mut self, version: &str) -> Self {
        self.rust_version = Some(version.to_owned());
        self
    }

    /// Sets the time of publication in the line, as `YYYY-MM-DDThh:mm:ssZ`; not validated.
    #[must_use]
    pub fn pubtime(mut self, time: &str) -> Self {
        self.pubtime = Some(time.to_owned());
        self
    }

    /// Adds another field to the index line, which cargo may know or not.
    #[must_use]
    pub fn line_field(mut self, name: &str, value: serde_json::Value) -> Self {
        self.extra.push((name.to_owned(), value));
        self
    }

    fn any_dep(
        mut self,
        name: &str,
        package: Option<&str>,
        req: &str,
        kind: &'static str,
        optional: bool,
        target: Option<&str>,
    ) -> Self {
        self.deps.push(Dep {
            name: name.to_owned(),
            package: package.map(str::to_owned),
            req: req.to_owned(),
            kind,
            optional,
            target: target.map(str::to_owned),
        });
        self
    }

    /// The `.crate` file: a gzipped tar of `<name>-<version>/`.
    pub fn archive(&self) -> Bytes {
        let mut files = self.files.clone();
        let has_build_script =
            self.links.is_some() || self.deps.iter().any(|dep| dep.kind == "build");
        if has_build_script {
            files
                .entry("build.rs".to_owned())
                .or_insert_with(|| b"fn main() {}\n".to_vec());
        }
        files
            .entry("Cargo.toml".to_owned())
            .or_insert_with(|| self.manifest().into_bytes());

        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in &files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_153_704_088);
            let path = format!("{}-{}/{path}", self.name, self.version);
            tar.append_data(&mut header, path, content.as_slice())
                .expect("writing to memory succeeds");
        }
        let tar = tar.into_inner().expect("writing to memory succeeds");
        // Not compressed: an unoptimised build must also make many and large crates quickly.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        gzip.write_all(&tar).expect("writing to memory succeeds");
        gzip.finish().expect("writing to memory succeeds").into()
    }

    /// The line of the index entry, without the line end.
    pub fn index_line(&self, checksum: &str) -> String {
        let deps: Vec<String> = self.deps.iter().map(Dep::json).collect();
        let (features2, features): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.features.iter().partition(|(_, items)| {
                items
                    .iter()
                    .any(|item| item.starts_with("dep:") || item.contains("?/"))
            });
        let mut line = format!(
            r#"{{"name":{},"vers":{},"deps":[{}],"cksum":{},"features":{},"yanked":{}"#,
            quoted(&self.name),
            quoted(&self.version),
            deps.join(","),
            quoted(checksum),
            serde_json::json!(features),
            self.yanked,
        );
        if let Some(links) = &self.links {
            let _ = write!(line, r#","links":{}"#, quoted(links));
        }
        if !features2.is_empty() {
            let _ = write!(
                line,
                r#","features2":{},"v":2"#,
                serde_json::json!(features2)
            );
        }
        if let Some(version) = &self.rust_version {
            let _ = write!(line, r#","rust_version":{}"#, quoted(version));
        }
        if let Some(time) = &self.pubtime {
            let _ = write!(line, r#","pubtime":{}"#, quoted(time));
        }
        for (name, value) in &self.extra {
            let _ = write!(line, ",{}:{value}", quoted(name));
        }
        line.push('}');
        line
    }

    fn manifest(&self) -> String {
        let mut toml = format!(
            "[package]\nname = {}\nversion = {}\nedition = \"2021\"\n",
            quoted(&self.name),
            quoted(&self.version)
        );
        if let Some(links) = &self.links {
            let _ = writeln!(toml, "links = {}", quoted(links));
        }
        if let Some(version) = &self.rust_version {
            let _ = writeln!(toml, "rust-version = {}", quoted(version));
        }
        if !self.features.is_empty() {
            toml.push_str("\n[features]\n");
            for (name, items) in &self.features {
                let _ = writeln!(toml, "{} = {}", quoted(name), serde_json::json!(items));
            }
        }
        for dep in &self.deps {
            let _ = write!(toml, "\n{}\n", dep.toml());
        }
        toml
    }
}

impl Dep {
    fn json(&self) -> String {
        serde_json::json!({
            "name": self.name,
            "package": self.package,
            "req": self.req,
            "features": [],
            "optional": self.optional,
            "default_features": true,
            "target": self.target,
            "kind": self.kind,
        })
        .to_string()
    }

    fn toml(&self) -> String {
        let table = match self.kind {
            "dev" => "dev-dependencies",
            "build" => "build-dependencies",
            _ => "dependencies",
        };
        let target = self.target.as_ref().map_or(String::new(), |target| {
            format!("target.{}.", quoted(target))
        });
        let mut toml = format!(
            "[{target}{table}.{}]\nversion = {}\n",
            quoted(&self.name),
            quoted(&self.req)
        );
        if let Some(package) = &self.package {
            let _ = writeln!(toml, "package = {}", quoted(package));
        }
        if self.optional {
            toml.push_str("optional = true\n");
        }
        toml
    }
}

/// The path of a crate's entry below the index root (cargo's `make_dep_path`).
///
/// # Panics
/// For an empty name and for names that are not ASCII.
pub fn index_path(name: &str) -> String {
    assert!(
        !name.is_empty() && name.is_ascii(),
        "`{name}` is no crate name"
    );
    let name = name.to_lowercase();
    match name.len() {
        1 => format!("1/{name}"),
        2 => format!("2/{name}"),
        3 => format!("3/{}/{name}", &name[..1]),
        _ => format!("{}/{}/{name}", &name[..2], &name[2..4]),
    }
}

/// The SHA-256 of these bytes in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// A JSON string, which is also a TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A number derived from these texts (FNV-1a).
pub(crate) fn seed(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The next number of a deterministic sequence (SplitMix64).
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Incompressible bytes, the same for the same seed.
pub(crate) fn noise(mut seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend_from_slice(&next(&mut seed).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_paths_follow_the_length_of_the_name() {
        for (name, path) in [
            ("a", "1/a"),
            ("CC", "2/cc"),
            ("log", "3/l/log"),
            ("serde", "se/rd/serde"),
        ] {
            assert_eq!(index_path(name), path);
        }
    }

    #[test]
    fn same_description_gives_the_same_bytes() {
        let make = || {
            Crate::new("left", "1.0.0")
                .dep("right", "^1")
                .padding(10_000)
                .archive()
        };
        assert_eq!(make(), make());
        assert!(make().len() > 10_000);
    }

    #[test]
    fn features_with_new_syntax_go_to_features2() {
        let line = Crate::new("left", "1.0.0")
            .optional_dep("right", "^1")
            .feature("old", &["plain"])
            .feature("new", &["dep:right"])
            .line_field("oddity", serde_json::json!([1]))
            .index_line("00");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["features"], serde_json::json!({"old": ["plain"]}));
        assert_eq!(line["features2"], serde_json::json!({"new": ["dep:right"]}));
        assert_eq!(line["v"], 2);
        assert_eq!(line["oddity"], serde_json::json!([1]));
    }
}
