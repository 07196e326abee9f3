//! Cargo scripts: a package in one `.rs` file, whose manifest is its frontmatter (RFC 3502 and 3503).
//!
//! ```text
//!  #!/usr/bin/env -S cargo +nightly -Zscript     shebang line; may name the toolchain
//!  ---cargo                                      fence of three or more `-`, then `cargo` or nothing
//!  [dependencies]                                the manifest
//!  left = "1"
//!  ---                                           the same fence
//!  fn main() {}
//! ```
//!
//! [`Script::parse`] completes the frontmatter to the manifest of an ordinary package. So every cargo can resolve a
//! script, although only a nightly one runs it. Defaults are those of cargo (`src/cargo/util/toml/embedded.rs`).

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::files::{self, MAX_MANIFEST_BYTES};

/// Bytes at the start of a file that tell a script from a lock file.
const START_BYTES: u64 = 1024;
/// A fence has at least so many `-`.
const SHORTEST_FENCE: usize = 3;
/// Cargo's default for scripts is its latest edition. It decides which resolver is used.
const DEFAULT_EDITION: &str = "2024";
const DEFAULT_VERSION: &str = "0.0.0";
/// Tables that cargo refuses in a script.
const REFUSED_TABLES: [&str; 6] = ["workspace", "lib", "bin", "example", "test", "bench"];
/// Keys of `[package]` that cargo refuses in a script.
const REFUSED_KEYS: [&str; 9] = [
    "workspace",
    "build",
    "links",
    "autolib",
    "autobins",
    "autoexamples",
    "autotests",
    "autobenches",
    "default-run",
];

/// One cargo script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The file, as the user spells it.
    pub path: PathBuf,
    /// The manifest of a package that has this script as its only target.
    pub manifest: String,
    /// The toolchain that the shebang line asks rustup for, without `+`.
    pub toolchain: Option<String>,
}

/// The reason why a file is no cargo script.
#[derive(Debug, thiserror::Error)]
pub enum FrontmatterError {
    /// The file cannot be read, or is not text.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The opening fence is too short.
    #[error("its frontmatter must begin with `---`")]
    ShortFence,
    /// No line repeats the opening fence.
    #[error("its frontmatter has no closing `{0}`")]
    Unclosed(String),
    /// The closing fence is followed by something.
    #[error("the closing `{0}` of its frontmatter must stand alone in its line")]
    AfterFence(String),
    /// The frontmatter is for another tool.
    #[error("its frontmatter is for `{0}`, not for `cargo`")]
    OtherTool(String),
    /// The frontmatter is not TOML.
    #[error("its frontmatter is no manifest: {0}")]
    Toml(String),
    /// Cargo refuses these in scripts.
    #[error("cargo allows no {0} in scripts")]
    Refused(String),
}

/// Tells if a file is a script: by its name, or by its first line if it has no extension. Cargo takes no other names.
pub fn is_script(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => extension == "rs",
        None => starts_like_script(path),
    }
}

fn starts_like_script(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    let text = String::from_utf8_lossy(&start);
    read.is_ok() && (shebang(&text).is_some() || text.trim_start().starts_with("---"))
}

impl Script {
    /// Reads a script. Blocking.
    ///
    /// # Errors
    /// See [`FrontmatterError`].
    pub fn read(path: &Path) -> Result<Self, FrontmatterError> {
        let text = files::read_text(path, MAX_MANIFEST_BYTES).map_err(FrontmatterError::Read)?;
        Self::parse(path, &text)
    }

    /// Parses the text of the script at `path`.
    ///
    /// # Errors
    /// See [`FrontmatterError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FrontmatterError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let shebang = shebang(text);
        let frontmatter = frontmatter(&text[shebang.map_or(0, str::len)..])?;
        let manifest: Table = toml::from_str(&frontmatter)
            .map_err(|error: toml::de::Error| FrontmatterError::Toml(error.message().to_owned()))?;
        Ok(Self {
            path: path.to_owned(),
            manifest: complete(path, manifest)?.to_string(),
            toolchain: shebang.and_then(toolchain),
        })
    }
}

/// The first line with its end, if it is a shebang and no attribute of Rust.
fn shebang(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("#!")?;
    let is_attribute = rest.trim_start().starts_with('[');
    let line = text.split_inclusive('\n').next()?;
    (!is_attribute).then_some(line)
}

/// The toolchain in `cargo +NAME`.
fn toolchain(shebang: &str) -> Option<String> {
    let mut words = shebang.split_whitespace();
    let _cargo = words.find(|word| *word == "cargo" || word.ends_with("/cargo"))?;
    let name = words.next()?.strip_prefix('+')?;
    Some(name.to_owned())
}

/// The text between the fences; empty if there are none.
fn frontmatter(text: &str) -> Result<String, FrontmatterError> {
    let mut lines = text.lines().skip_while(|line| line.trim().is_empty());
    let opening = lines.next().unwrap_or_default();
    let length = opening.len() - opening.trim_start_matches('-').len();
    let (fence, tool) = opening.split_at(length);
    match length {
        0 => return Ok(String::new()),
        _ if length < SHORTEST_FENCE => return Err(FrontmatterError::ShortFence),
        _ => {}
    }
    match tool.trim() {
        "" | "cargo" => {}
        other => return Err(FrontmatterError::OtherTool(other.to_owned())),
    }
    let mut frontmatter = String::new();
    for line in lines {
        if let Some(rest) = line.strip_prefix(fence) {
            if !rest.trim().is_empty() {
                return Err(FrontmatterError::AfterFence(fence.to_owned()));
            }
            return Ok(frontmatter);
        }
        frontmatter.push_str(line);
        frontmatter.push('\n');
    }
    Err(FrontmatterError::Unclosed(fence.to_owned()))
}

/// Adds what cargo adds, and turns off what cargo does not look for beside a script.
fn complete(path: &Path, mut manifest: Table) -> Result<Table, FrontmatterError> {
    let package = manifest
        .entry("package")
        .or_insert_with(|| Table::new().into());
    let Value::Table(package) = package else {
        return Err(FrontmatterError::Toml(
            "`package` must be a table".to_owned(),
        ));
    };
    let mut refused: Vec<_> = REFUSED_KEYS
        .into_iter()
        .filter(|key| package.contains_key(*key))
        .map(|key| format!("`package.{key}`"))
        .collect();
    let default_name = default_name(path);
    for (key, default) in [
        ("name", default_name.as_str()),
        ("version", DEFAULT_VERSION),
        ("edition", DEFAULT_EDITION),
    ] {
        package.entry(key).or_insert_with(|| default.into());
    }
    for key in [
        "build",
        "autobins",
        "autoexamples",
        "autotests",
        "autobenches",
    ] {
        package.insert(key.to_owned(), false.into());
    }
    let name = package["name"].clone();
    let tables = REFUSED_TABLES.into_iter();
    refused.extend(
        tables
            .filter(|table| manifest.contains_key(*table))
            .map(|table| format!("`{table}`")),
    );
    if !refused.is_empty() {
        return Err(FrontmatterError::Refused(refused.join(", ")));
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let target = Table::from_iter([
        ("name".to_owned(), name),
        ("path".to_owned(), file.as_ref().into()),
    ]);
    manifest.insert("bin".to_owned(), Value::Array(vec![target.into()]));
    // A script belongs to no workspace.
    manifest.insert("workspace".to_owned(), Table::new().into());
    Ok(manifest)
}

/// The package name that cargo derives from a file's name (`sanitize_name` in the source above).
fn default_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let placeholder = if stem.contains('_') { '_' } else { '-' };
    let start = |c: char| c.is_alphabetic() || c == '_';
    let name: String = stem
        .chars()
        .skip_while(|&c| !start(c))
        .map(|c| match c.is_alphanumeric() || c == '_' || c == '-' {
            true => c,
            false => placeholder,
        })
        .collect();
    if name.is_empty() {
        "package".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(text: &str) -> Result<Table, String> {
        match Script::parse(Path::new("a/my tool.rs"), text) {
            Ok(script) => Ok(script.manifest.parse().unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn frontmatter_is_found_behind_a_shebang_and_empty_lines() {
        let left = "[dependencies]\nleft = \"1\"\n";
        let texts = [
            format!("---\n{left}---\nfn main() {{}}\n"),
            format!("---cargo\n{left}---\n"),
            format!("#!/usr/bin/env -S cargo -Zscript\n\n  \n--- cargo \n{left}---  \n"),
            format!("-----\n{left}\"---\" = \"1\"\n-----\n"),
            format!("---\r\n{}---\r\n", left.replace('\n', "\r\n")),
        ];
        for text in texts {
            let manifest = parsed(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                manifest["dependencies"]["left"].as_str(),
                Some("1"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_script_without_frontmatter_has_no_dependencies() {
        for text in [
            "",
            "fn main() {}\n",
            "#![allow(unused)]\nfn main() {}\n",
            "#!/bin/x\n// ---\n",
        ] {
            let manifest = parsed(text).unwrap();
            assert!(!manifest.contains_key("dependencies"), "{text}");
        }
    }

    #[test]
    fn package_is_completed_as_cargo_does() {
        let manifest = parsed("---\n[package]\nedition = \"2021\"\n---\n").unwrap();
        let package = &manifest["package"];
        assert_eq!(package["name"].as_str(), Some("my-tool"));
        assert_eq!(package["version"].as_str(), Some("0.0.0"));
        assert_eq!(package["edition"].as_str(), Some("2021"));
        assert_eq!(manifest["bin"][0]["path"].as_str(), Some("my tool.rs"));
        let name = |path: &str| default_name(Path::new(path));
        assert_eq!(name("1st_try!.rs"), "st_try_");
        assert_eq!(name("7.rs"), "package");
    }

    #[test]
    fn a_fault_in_the_frontmatter_is_named() {
        for (text, fault) in [
            ("--\n--\n", "must begin with `---`"),
            ("---\n[dependencies]\n", "no closing `---`"),
            ("---\n---x\n", "must stand alone"),
            ("---\n----\n", "must stand alone"),
            ("---toml\n---\n", "for `toml`"),
            ("---\nno toml\n---\n", "no manifest"),
            (
                "---\n[workspace]\n[package]\nlinks = \"x\"\n---\n",
                "no `package.links`, `workspace`",
            ),
        ] {
            let error = parsed(text).expect_err(text);
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn shebang_names_the_toolchain() {
        for (line, expected) in [
            ("#!/usr/bin/env -S cargo +nightly -Zscript", Some("nightly")),
            (
                "#!/home/me/.cargo/bin/cargo +1.99.0 -Zscript",
                Some("1.99.0"),
            ),
            ("#!/usr/bin/env -S cargo -Zscript", None),
            ("#!/usr/bin/env run-cargo-script", None),
        ] {
            let script = Script::parse(Path::new("x.rs"), line).unwrap();
            assert_eq!(script.toolchain.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn only_rust_files_and_files_without_extension_that_start_like_one_are_scripts() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("a.rs", "", true),
            ("tool", "#!/usr/bin/env -S cargo -Zscript\n", true),
            ("fenced", "\n---cargo\n", true),
            ("lock", "# This file is generated\nversion = 4\n", false),
            ("other", "#![no_std]\n", false),
            ("Cargo.lock", "---\n", false),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_script(&path), expected, "{name}");
        }
    }
}
