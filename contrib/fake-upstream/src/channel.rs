//! Toolchain releases made in memory, small ones that real rustup installs: archives in the format of rust-installer,
//! and the manifest with their hashes.
//!
//! The same description gives the same bytes. `installer` makes rustup's own files; `reply` serves them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;

use crate::FakeUpstream;
use crate::package::{noise, seed, sha256};
use crate::state::{File, Lifetime};
use crate::{xz, zst};

/// The root of URLs in real manifests. Rustup replaces exactly this text by its configured server (`DownloadCfg::url`
/// in its `src/dist/download.rs`); it uses other URLs unchanged, which bypasses a mirror.
///
/// Joined from parts, so that no file spells the host. No test connects to it.
pub const DEFAULT_ROOT: &str = concat!("https://static.rust", "-lang.org");

/// The triple that rustup detects on this machine.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub const HOST: &str = "x86_64-unknown-linux-gnu";
/// The triple that rustup detects on this machine.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub const HOST: &str = "aarch64-unknown-linux-gnu";
/// The triple that rustup detects on this machine.
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
pub const HOST: &str = "aarch64-apple-darwin";
/// The triple that rustup detects on this machine.
#[cfg(all(target_os = "macos", target_arch = "x86_64"))]
pub const HOST: &str = "x86_64-apple-darwin";

/// The target besides the host for which every toolchain has a rust-std.
pub const WASM: &str = "wasm32-unknown-unknown";

/// The packages of a host, with the names of their archives.
const PACKAGES: [(&str, &str); 6] = [
    ("cargo", "cargo"),
    ("clippy-preview", "clippy"),
    ("rust-docs", "rust-docs"),
    ("rust-std", "rust-std"),
    ("rustc", "rustc"),
    ("rustfmt-preview", "rustfmt"),
];

/// One release of a channel, for [`FakeUpstream::release`].
///
/// It has cargo, clippy, rust-docs, rust-std, rustc and rustfmt for one host, rust-std for [`WASM`], and rust-src. Its
/// programs are scripts that print their name and version.
#[derive(Clone, Debug)]
pub struct Toolchain {
    channel: String,
    version: String,
    date: String,
    host: String,
    root: String,
    targets: BTreeSet<String>,
    padding: BTreeMap<String, usize>,
    unavailable: BTreeSet<String>,
    library_lock: String,
    has_xz: bool,
    has_zst: bool,
}

/// One file of a release, from [`Toolchain::archives`].
#[derive(Clone, Debug)]
pub struct Archive {
    /// The package's name, for example `clippy-preview`.
    pub package: String,
    /// Its triple, or `*`.
    pub target: String,
    /// The request path, from the root of the server.
    pub path: String,
    /// The content.
    pub body: Bytes,
}

impl Toolchain {
    /// The release of `version` on `channel` (`stable`, `beta` with a version like `1.96.0-beta.3`, `nightly`), of
    /// 2026-04-16 for [`HOST`].
    pub fn new(channel: &str, version: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            version: version.to_owned(),
            date: "2026-04-16".to_owned(),
            host: HOST.to_owned(),
            root: DEFAULT_ROOT.to_owned(),
            targets: BTreeSet::from([WASM.to_owned()]),
            padding: BTreeMap::new(),
            unavailable: BTreeSet::new(),
            library_lock: "version = 4\n\n[[package]]\nname = \"std\"\nversion = \"0.0.0\"\n"
                .to_owned(),
            has_xz: true,
            has_zst: false,
        }
    }

    /// Sets the day of the release, `YYYY-MM-DD`.
    #[must_use]
    pub fn date(mut self, date: &str) -> Self {
        self.date = date.to_owned();
        self
    }

    /// Sets another host.
    #[must_use]
    pub fn host(mut self, triple: &str) -> Self {
        self.host = triple.to_owned();
        self
    }

    /// Sets the root of the manifest's URLs, instead of [`DEFAULT_ROOT`].
    #[must_use]
    pub fn root(mut self, url: &str) -> Self {
        self.root = url.trim_end_matches('/').to_owned();
        self
    }

    /// Adds a target with a rust-std.
    #[must_use]
    pub fn target(mut self, triple: &str) -> Self {
        self.targets.insert(triple.to_owned());
        self
    }

    /// Adds incompressible bytes to a package's archives, which are not compressed at all.
    #[must_use]
    pub fn padding(mut self, package: &str, bytes: usize) -> Self {
        self.padding.insert(package.to_owned(), bytes);
        self
    }

    /// Lists the package in the manifest without an archive, as happens on nightly.
    #[must_use]
    pub fn unavailable(mut self, package: &str) -> Self {
        self.unavailable.insert(package.to_owned());
        self
    }

    /// Sets the text of `lib/rustlib/src/rust/library/Cargo.lock` in rust-src.
    #[must_use]
    pub fn library_lock(mut self, text: &str) -> Self {
        self.library_lock = text.to_owned();
        self
    }

    /// Makes gz archives only. By default there are xz archives too, which rustup prefers.
    #[must_use]
    pub fn gz_only(mut self) -> Self {
        self.has_xz = false;
        self
    }

    /// Makes zst archives too, which rustup prefers to all others.
    #[must_use]
    pub fn zst(mut self) -> Self {
        self.has_zst = true;
        self
    }

    /// The path of an archive without its compression suffix: a matcher for faults, gates and counts.
    ///
    /// # Panics
    /// For a package that toolchains do not have.
    #[track_caller]
    pub fn archive_path(&self, package: &str, target: &str) -> String {
        let short = PACKAGES
            .iter()
            .chain(&[("rust-src", "rust-src")])
            .find(|(name, _)| *name == package)
            .unwrap_or_else(|| panic!("`{package}` is no package of toy toolchains"))
            .1;
        format!("/dist/{}/{}.tar", self.date, self.stem(short, target))
    }

    /// The request paths of the manifest: the channel's, the day's, and those of the version if the channel has them.
    pub fn manifest_paths(&self) -> Vec<String> {
        let mut names = vec![
            self.channel.clone(),
            format!("{}/{}", self.date, self.channel),
        ];
        match self.channel.as_str() {
            "stable" => {
                names.push(self.version.clone());
                names.extend(
                    self.version
                        .rsplit_once('.')
                        .map(|(without_patch, _)| without_patch.to_owned()),
                );
            }
            "beta" => {
                names.push(self.version.clone());
                names.extend(
                    self.version
                        .rsplit_once("-beta.")
                        .map(|(version, _)| format!("{version}-beta")),
                );
            }
            _ => {}
        }
        names
            .iter()
            .map(|name| match name.split_once('/') {
                Some((date, channel)) => format!("/dist/{date}/channel-rust-{channel}.toml"),
                None => format!("/dist/channel-rust-{name}.toml"),
            })
            .collect()
    }

    /// All archives, each in all its formats.
    pub fn archives(&self) -> Vec<Archive> {
        let mut archives = Vec::new();
        for (package, target) in self.parts() {
            if self.unavailable.contains(package) {
                continue;
            }
            let tar = self.tar(package, &target);
            let path = self.archive_path(package, &target);
            let mut add = |format: &str, body: Vec<u8>| {
                archives.push(Archive {
                    package: package.to_owned(),
                    target: target.clone(),
                    path: format!("{path}.{format}"),
                    body: body.into(),
                });
            };
            if self.has_xz {
                add("xz", xz::store(&tar));
            }
            if self.has_zst {
                add("zst", zst::store(&tar));
            }
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
            gzip.write_all(&tar).expect("writing to memory succeeds");
            add("gz", gzip.finish().expect("writing to memory succeeds"));
        }
        archives
    }

    /// The manifest of these archives, which must be [`Toolchain::archives`] of the same toolchain.
    pub fn manifest(&self, archives: &[Archive]) -> String {
        let mut toml = format!("manifest-version = \"2\"\ndate = \"{}\"\n\n", self.date);
        let parts = self.parts();
        let mut last = "";
        for (package, target) in &parts {
            if *package > "rust" && last < "rust" {
                self.write_rust(&mut toml, &parts);
            }
            if *package != last {
                let _ = write!(
                    toml,
                    "[pkg.{package}]\nversion = \"{}\"\n\n",
                    self.full_version()
                );
                last = package;
            }
            let _ = writeln!(toml, "[pkg.{package}.target.{}]", key(target));
            let _ = writeln!(toml, "available = {}", !self.unavailable.contains(*package));
            let of_part = archives
                .iter()
                .filter(|archive| archive.package == *package && archive.target == *target);
            for archive in of_part {
                let prefix = match archive.path.rsplit_once('.') {
                    Some((_, "xz")) => "xz_",
                    Some((_, "zst")) => "zst_",
                    _ => "",
                };
                let _ = write!(
                    toml,
                    "{prefix}url = \"{}{}\"\n{prefix}hash = \"{}\"\n",
                    self.root,
                    archive.path,
                    sha256(&archive.body)
                );
            }
            toml.push_str("components = []\nextensions = []\n\n");
        }
        for (package, short) in PACKAGES.iter().filter(|(package, short)| package != short) {
            let _ = write!(toml, "[renames.{short}]\nto = \"{package}\"\n\n");
        }
        let minimal = r#""rustc", "cargo", "rust-std", "rust-mingw""#;
        let default = format!(r#"{minimal}, "rust-docs", "rustfmt-preview", "clippy-preview""#);
        let _ = write!(
            toml,
            "[profiles]\nminimal = [{minimal}]\ndefault = [{default}]\ncomplete = [{default}, \"rust-src\"]\n"
        );
        toml
    }

    /// Writes the package `rust`, which lists the components of the host.
    fn write_rust(&self, toml: &mut String, parts: &[(&'static str, String)]) {
        let table = format!("pkg.rust.target.{}", key(&self.host));
        let _ = write!(
            toml,
            "[pkg.rust]\nversion = \"{}\"\n\n[{table}]\navailable = false\n\n",
            self.full_version()
        );
        for (package, target) in parts {
            let is_extension = *target != self.host;
            let list = if is_extension {
                "extensions"
            } else {
                "components"
            };
            let _ = write!(
                toml,
                "[[{table}.{list}]]\npkg = \"{package}\"\ntarget = \"{target}\"\nis_extension = {is_extension}\n\n"
            );
        }
    }

    /// Packages and targets, sorted by package.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let mut parts: Vec<_> = PACKAGES
            .iter()
            .map(|&(package, _)| (package, self.host.clone()))
            .collect();
        parts.extend(
            self.targets
                .iter()
                .filter(|target| **target != self.host)
                .map(|target| ("rust-std", target.clone())),
        );
        parts.push(("rust-src", "*".to_owned()));
        parts.sort();
        parts
    }

    fn full_version(&self) -> String {
        format!("{} (0123abcde {})", self.version, self.date)
    }

    /// `clippy-1.95.0-x86_64-unknown-linux-gnu`: the name of the archive and of the folder in it.
    fn stem(&self, short: &str, target: &str) -> String {
        let release = if self.channel == "stable" {
            &self.version
        } else {
            &self.channel
        };
        match target {
            "*" => format!("{short}-{release}"),
            _ => format!("{short}-{release}-{target}"),
        }
    }

    /// The archive of one component before compression, as rust-installer makes it and rustup reads it
    /// (`DirectoryPackage` in its `src/dist/component/package.rs`).
    fn tar(&self, package: &str, target: &str) -> Vec<u8> {
        let component = match package {
            "rust-std" => format!("{package}-{target}"),
            _ => package.to_owned(),
        };
        let mut lines = String::new();
        let mut files = vec![
            ("rust-installer-version".to_owned(), b"3\n".to_vec()),
            (
                "components".to_owned(),
                format!("{component}\n").into_bytes(),
            ),
        ];
        let mut add = |kind: &str, listed: &str, below: &str, content: Vec<u8>| {
            let _ = writeln!(lines, "{kind}:{listed}");
            files.push((format!("{component}/{listed}{below}"), content));
        };
        for program in programs(package) {
            let script = format!("#!/bin/sh\necho '{program} {}'\n", self.full_version());
            add("file", &format!("bin/{program}"), "", script.into_bytes());
        }
        match package {
            "rust-docs" => add(
                "dir",
                "share/doc/rust/html",
                "/index.html",
                b"<p>All about it.</p>\n".to_vec(),
            ),
            "rust-std" => add(
                "file",
                &format!("lib/rustlib/{target}/lib/libstd.rlib"),
                "",
                format!("std {}\n", self.full_version()).into_bytes(),
            ),
            "rust-src" => {
                let library = "lib/rustlib/src/rust/library";
                add(
                    "file",
                    &format!("{library}/Cargo.lock"),
                    "",
                    self.library_lock.clone().into_bytes(),
                );
                add("file", &format!("{library}/std/src/lib.rs"), "", Vec::new());
            }
            _ => {}
        }
        if let Some(&bytes) = self.padding.get(package) {
            let content = noise(seed(&[package, target, &self.version, &self.date]), bytes);
            add(
                "file",
                &format!("share/padding-{package}-{}.bin", target.replace('*', "all")),
                "",
                content,
            );
        }
        files.push((format!("{component}/manifest.in"), lines.into_bytes()));

        let short = package.strip_suffix("-preview").unwrap_or(package);
        pack(&self.stem(short, target), &files)
    }
}

impl FakeUpstream {
    /// Publishes a release below `dist/`: archives, and the manifest under all its names, each with its `.sha256`.
    /// Replaces the files of an earlier release with the same names in one step.
    pub fn release(&self, toolchain: &Toolchain) {
        let archives = toolchain.archives();
        let manifest = Bytes::from(toolchain.manifest(&archives));
        let dated = format!("/dist/{}/", toolchain.date);
        let manifests = toolchain.manifest_paths().into_iter().map(|path| {
            let lifetime = if path.starts_with(&dated) {
                Lifetime::Immutable
            } else {
                Lifetime::Short
            };
            let file = File::new(manifest.clone(), "text/plain", lifetime);
            (path, file)
        });
        let archives = archives.into_iter().map(|archive| {
            let content_type = match archive.path.rsplit_once('.') {
                Some((_, "xz")) => "application/x-xz",
                Some((_, "zst")) => "application/zstd",
                _ => "application/gzip",
            };
            let file = File::new(archive.body, content_type, Lifetime::Immutable);
            (archive.path, file)
        });
        self.state().put_all(archives.chain(manifests).collect());
    }
}

fn programs(package: &str) -> &'static [&'static str] {
    match package {
        "cargo" => &["cargo"],
        "clippy-preview" => &["cargo-clippy", "clippy-driver"],
        "rustc" => &["rustc", "rustdoc"],
        "rustfmt-preview" => &["rustfmt", "cargo-fmt"],
        _ => &[],
    }
}

/// A tar of these files below one folder. Rustup requires every folder before its content.
fn pack(folder: &str, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut folders = BTreeSet::new();
    for (path, _) in files {
        let path = format!("{folder}/{path}");
        folders.extend(
            path.match_indices('/')
                .map(|(at, _)| path[..=at].to_owned()),
        );
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_153_704_088);
        tar.append_data(&mut header, path, content)
            .expect("writing to memory succeeds");
    };
    for folder in &folders {
        add(folder, 0o755, &[]);
    }
    for (path, content) in files {
        let mode = if path.contains("/bin/") { 0o755 } else { 0o644 };
        add(&format!("{folder}/{path}"), mode, content);
    }
    tar.into_inner().expect("writing to memory succeeds")
}

/// A target as a TOML key.
fn key(target: &str) -> String {
    if target.contains(['*', '.']) {
        format!("\"{target}\"")
    } else {
        target.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_published_under_all_its_names() {
        let names = |channel, version| {
            let paths = Toolchain::new(channel, version).manifest_paths();
            let mut names: Vec<_> = paths
                .iter()
                .map(|path| path["/dist/".len()..].replace("channel-rust-", ""))
                .collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(
            names("stable", "1.95.1"),
            "1.95.1.toml 1.95.toml 2026-04-16/stable.toml stable.toml"
        );
        assert_eq!(
            names("beta", "1.96.0-beta.3"),
            "1.96.0-beta.3.toml 1.96.0-beta.toml 2026-04-16/beta.toml beta.toml"
        );
        assert_eq!(
            names("nightly", "1.97.0-nightly"),
            "2026-04-16/nightly.toml nightly.toml"
        );
    }

    #[test]
    fn same_description_gives_the_same_bytes() {
        let make = || {
            let toolchain = Toolchain::new("stable", "1.95.0").padding("rustc", 10_000);
            toolchain.manifest(&toolchain.archives())
        };
        assert_eq!(make(), make());
        assert!(make().contains(DEFAULT_ROOT));
    }
}
