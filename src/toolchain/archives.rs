//! Text search for one archive in a release manifest.
//!
//! A client asks for an archive, and larder must know the hash and the host of it before it can answer. Parsing the
//! whole manifest, about a megabyte of TOML, would take longer than the answer may. So this module finds the table
//! around the archive's path or hash and reads its few lines:
//!
//! ```toml
//! [pkg.cargo.target.x86_64-unknown-linux-gnu]                          # package and target
//! available = true
//! url = "https://.../cargo-1.95.0-x86_64-unknown-linux-gnu.tar.gz"
//! hash = "68f6..."                                                     # belongs to `url`
//! xz_url = "https://.../cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz"
//! xz_hash = "3e51..."                                                  # belongs to `xz_url`
//! ```
//!
//! A release has files of no component as well, such as the source code:
//!
//! ```toml
//! [[artifacts.source-code.target."*"]]
//! url = "https://.../rustc-1.95.0-src.tar.xz"
//! hash-sha256 = "0ab2..."
//! ```
//!
//! Releases are written in this form. In any other form the search finds nothing, and the caller falls back on the
//! archive's sidecar.

use std::collections::BTreeMap;

/// One archive as a manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedArchive<'a> {
    /// The SHA-256 of the archive: 64 lower-case hex digits.
    pub sha256: &'a str,
    /// The target triple in the header of its table, or `*`, also if it is of no component.
    pub target: &'a str,
}

/// Finds the archive whose URL ends in `/` and `path`. `None` if it is not listed, is listed in another form than
/// releases use, or is listed twice with different hashes.
pub fn find_archive<'a>(manifest: &'a str, path: &str) -> Option<ListedArchive<'a>> {
    let end = format!("/{path}\"");
    let mut found = None;
    for (at, _) in manifest.match_indices(&end) {
        let Some(listed) = find_archive_at(manifest, at, &end) else {
            continue;
        };
        match found {
            None => found = Some(listed),
            Some(ListedArchive { sha256, .. }) if sha256 == listed.sha256 => {}
            Some(_) => return None,
        }
    }
    found
}

/// The target triple, or `*`, in the header of the table that contains this hash.
pub fn target_of_archive<'a>(manifest: &'a str, sha256: &str) -> Option<&'a str> {
    let at = manifest.find(&format!("\"{sha256}\""))?;
    let (header, _) = table_around(manifest, at)?;
    package_and_target(header).map(|(_, target)| target)
}

/// All archives that rustup would download by this manifest, each under the name of its package and target. Of the
/// formats of an archive it is the one that rustup prefers (docs/client-behaviour.md R-17). A manifest in another form
/// than releases use has none.
pub fn preferred_archives(manifest: &str) -> BTreeMap<String, &str> {
    let mut archives = BTreeMap::new();
    let mut name = None;
    let mut best = 0;
    for line in manifest.lines() {
        if line.trim_start().starts_with('[') {
            name = package_and_target(line).map(|(package, target)| format!("{package} {target}"));
            best = 0;
        } else if let (Some(name), Some((field, sha256))) = (&name, text_field(line)) {
            let rank = match field {
                "zst_hash" => 3,
                "xz_hash" => 2,
                "hash" => 1,
                _ => 0,
            };
            if rank > best && is_sha256(sha256) {
                best = rank;
                archives.insert(name.clone(), sha256);
            }
        }
    }
    archives
}

/// Reads the archive whose URL ends at `at + end.len()`.
fn find_archive_at<'a>(manifest: &'a str, at: usize, end: &str) -> Option<ListedArchive<'a>> {
    let (header, table) = table_around(manifest, at)?;
    let is_artifact = header.trim_start().starts_with("[[artifacts.");
    let target = if is_artifact {
        "*"
    } else {
        package_and_target(header)?.1
    };
    let begin = manifest[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = manifest[begin..].lines().next()?;
    let (field, url) = text_field(line)?;
    // The quotation mark after the path must end the value and the line.
    if begin + line.trim_end().len() != at + end.len() || url.contains('\\') {
        return None;
    }
    let field = match (field, is_artifact) {
        ("url", true) => "hash-sha256",
        ("url", false) => "hash",
        ("xz_url", false) => "xz_hash",
        ("zst_url", false) => "zst_hash",
        _ => return None,
    };
    let hash = |line| text_field(line).filter(|(name, _)| *name == field);
    let (_, sha256) = table.lines().find_map(hash)?;
    is_sha256(sha256).then_some(ListedArchive { sha256, target })
}

/// The header of the table around this position, and the lines of the table.
fn table_around(manifest: &str, at: usize) -> Option<(&str, &str)> {
    let begin = manifest[..at].rfind("\n[").map(|newline| newline + 1)?;
    let (header, below) = manifest[begin..].split_once('\n')?;
    let end = below.find("\n[").unwrap_or(below.len());
    Some((header, &below[..end]))
}

/// Name and value of a line `NAME = "VALUE"`.
fn text_field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=')?;
    let value = value.trim_start().strip_prefix('"')?.strip_suffix('"')?;
    (!value.contains('"')).then_some((name.trim_end(), value))
}

/// `true` for 64 lower-case hex digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `NAME` and `TRIPLE` of `[pkg.NAME.target.TRIPLE]` and of the tables below it.
pub(super) fn package_and_target(header: &str) -> Option<(&str, &str)> {
    let header = header.trim_start().trim_start_matches('[');
    let (package, target) = header.strip_prefix("pkg.")?.split_once(".target.")?;
    let target = match target.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => target.split(['.', ']']).next(),
    };
    Some((package.trim_matches('"'), target?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::{
        files,
        fixture::{LINUX, MANIFEST, WASM, WINDOWS, strings},
    };

    #[test]
    fn find_archive_returns_the_hash_of_the_same_format() {
        let listed = |path: &str| {
            let listed = find_archive(MANIFEST, path)?;
            Some((&listed.sha256[..8], listed.target))
        };
        let cargo = "dist/2026-04-16/cargo-1.95.0-x86_64-unknown-linux-gnu.tar";
        let clippy = "dist/2026-04-16/clippy-1.95.0-x86_64-unknown-linux-gnu.tar";
        assert_eq!(listed(&format!("{cargo}.gz")), Some(("68f68d44", LINUX)));
        assert_eq!(listed(&format!("{cargo}.xz")), Some(("3e517d1b", LINUX)));
        assert_eq!(listed(&format!("{clippy}.gz")), Some(("6a36cb68", LINUX)));
        assert_eq!(listed(&format!("{clippy}.xz")), Some(("18b7bbd9", LINUX)));
        assert_eq!(listed(&format!("{clippy}.zst")), Some(("deb7e22e", LINUX)));
        let source = listed("dist/2026-04-16/rust-src-1.95.0.tar.xz");
        assert_eq!(source.map(|(_, target)| target), Some("*"));
        for path in [
            // Not the whole path, at either end.
            &format!("{cargo}.x"),
            &format!("{cargo}.xz.sha256"),
            &format!("{cargo}.zst"),
            &format!("x/{cargo}.xz"),
            "ist/2026-04-16/cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "",
        ] {
            assert_eq!(listed(path), None, "{path}");
        }
    }

    #[test]
    fn find_archive_agrees_with_files() {
        for host in [LINUX, WINDOWS] {
            for file in files(MANIFEST, host, "minimal", &[], &strings(&[WASM])).unwrap() {
                let path = file.url.strip_prefix("https://dist.example/").unwrap();
                let listed = find_archive(MANIFEST, path).unwrap();
                assert_eq!(listed.sha256, file.sha256);
                assert_eq!(
                    target_of_archive(MANIFEST, &file.sha256),
                    Some(listed.target)
                );
                assert_eq!(listed.target, file.target);
            }
        }
    }

    #[test]
    fn preferred_archives_agree_with_files() {
        let archives = preferred_archives(MANIFEST);
        for host in [LINUX, WINDOWS] {
            let profile = if host == LINUX { "default" } else { "minimal" };
            for file in files(MANIFEST, host, profile, &strings(&["rust-src"]), &[]).unwrap() {
                let name = format!("{} {}", file.package, file.target);
                assert_eq!(archives.get(&name), Some(&file.sha256.as_str()), "{name}");
            }
        }
        assert!(preferred_archives("<html>").is_empty());
    }

    /// Compares the hash found for `dist/a.tar.xz` in a manifest with these tables. `A` and `B` stand for hashes.
    #[track_caller]
    fn check_listed(tables: &str, expected: Option<char>) {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(64));
        let text = format!("date = \"2026-04-16\"\n{tables}")
            .replace("URL", "\"https://d.example/dist/a.tar.xz\"")
            .replace("\"A\"", &format!("\"{a}\""))
            .replace("\"B\"", &format!("\"{b}\""));
        let found =
            find_archive(&text, "dist/a.tar.xz").and_then(|listed| listed.sha256.chars().next());
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn find_archive_accepts_only_tables_written_as_releases_write_them() {
        check_listed(
            "[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"A\"\n",
            Some('a'),
        );
        check_listed(
            "[pkg.a.target.x]\r\nxz_hash=\"A\"\r\nxz_url=URL\r\n",
            Some('a'),
        );
        // The hash of another format, in another table, or missing.
        check_listed("[pkg.a.target.x]\nxz_url = URL\nhash = \"A\"\n", None);
        check_listed(
            "[pkg.a.target.x]\nxz_url = URL\n\n[pkg.a.target.y]\nxz_hash = \"A\"\n",
            None,
        );
        check_listed("[pkg.a.target.x]\nxz_url = URL\n", None);
        check_listed("[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"A0\"\n", None);
        check_listed("[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"\"\n", None);
        // Another field, a comment, another table.
        check_listed(
            "[pkg.a.target.x]\nabout = URL\nxz_hash = \"A\"\nhash = \"B\"\n",
            None,
        );
        check_listed("[pkg.a.target.x]\n# xz_url = URL\nxz_hash = \"A\"\n", None);
        check_listed("[artifacts.a]\nxz_url = URL\nxz_hash = \"A\"\n", None);
        let artifact = "[[artifacts.source-code.target.\"*\"]]\n";
        check_listed(
            &format!("{artifact}url = URL\nhash-sha256 = \"A\"\n"),
            Some('a'),
        );
        check_listed(&format!("{artifact}xz_url = URL\nxz_hash = \"A\"\n"), None);
        check_listed("[pkg.a.target.x]\nurl = URL\nhash-sha256 = \"A\"\n", None);
        check_listed("xz_url = URL\nxz_hash = \"A\"\n", None);
        check_listed(
            "[pkg.a.target.x]\nxz_url = URL # or \"another\"\nxz_hash = \"A\"\n",
            None,
        );
        // Twice.
        let twice = |second: &str| {
            format!(
                "[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"A\"\n\n[pkg.a.target.y]\nxz_url = URL\nxz_hash = \"{second}\"\n"
            )
        };
        check_listed(&twice("A"), Some('a'));
        check_listed(&twice("B"), None);
    }
}
