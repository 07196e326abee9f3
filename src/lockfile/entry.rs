//! One entry of a lock file: its name, version, source and checksum.

use std::collections::BTreeMap;

use cargo_lock::Version;
use toml::Spanned;

use super::{
    LockedPackage, LockfileError, PackageSource, line_of, raw::RawLockedPackage, shown,
    source::source,
};

/// Longest name of a registry package in bytes: what crates.io accepts.
pub(super) const MAX_REGISTRY_NAME: usize = 64;
/// Longest name of a local or git package in bytes. Cargo sets no limit; file systems end at 255.
pub(super) const MAX_OTHER_NAME: usize = 255;
/// Longest version in bytes. Together with the longest name it still fits a file name of 255.
pub(super) const MAX_VERSION: usize = 128;

/// A package without its checksum: what `[metadata]` of format 1 knows a package by.
pub(super) type PackageIdentity = (String, String, PackageSource);

/// The checksums of format 1, by what they belong to. The source is part of that: two registries may hold the same
/// name and version with different bytes.
pub(super) fn metadata_checksums(
    text: &str,
    metadata: &BTreeMap<String, Spanned<toml::Value>>,
) -> Result<BTreeMap<PackageIdentity, String>, LockfileError> {
    let mut checksums = BTreeMap::new();
    for (key, value) in metadata {
        let Some(id) = key.strip_prefix("checksum ") else {
            continue;
        };
        // An id that cannot be right belongs to no package that will be kept.
        let Ok(Some(identity)) = full_id(id) else {
            continue;
        };
        let bad = || LockfileError::BadChecksum {
            line: line_of(text, value.span().start),
            package: shown(id),
        };
        match value.get_ref().as_str() {
            Some("<none>") => {}
            Some(hex) => {
                checksums.insert(identity, checksum(hex).ok_or_else(bad)?);
            }
            None => return Err(bad()),
        }
    }
    Ok(checksums)
}

/// Outer error: the file is damaged. Inner error: this entry is left out, and why.
pub(super) fn package(
    text: &str,
    entry: &RawLockedPackage,
    checksums: &BTreeMap<PackageIdentity, String>,
) -> Result<Result<LockedPackage, &'static str>, LockfileError> {
    let source = entry
        .source
        .as_ref()
        .map_or(Ok(PackageSource::Local), |text| source(text.get_ref()));
    let identity = match source.and_then(|source| identity(entry.name(), entry.version(), source)) {
        Ok(identity) => identity,
        Err(reason) => return Ok(Err(reason)),
    };
    let own = match entry.checksum.as_ref() {
        Some(hex) => Some(
            checksum(hex.get_ref()).ok_or_else(|| LockfileError::BadChecksum {
                line: line_of(text, hex.span().start),
                package: shown(&entry.label()),
            })?,
        ),
        None => None,
    };
    let checksum = own.or_else(|| checksums.get(&identity).cloned());
    let (name, version, source) = identity;
    Ok(Ok(LockedPackage {
        name,
        version,
        source,
        checksum,
    }))
}

/// What a `replace` key points to. `None` if it is shortened: then the file has an entry for it anyway.
pub(super) fn replacement_package(
    id: &str,
    checksums: &BTreeMap<PackageIdentity, String>,
) -> Result<Option<LockedPackage>, &'static str> {
    let Some(identity) = full_id(id)? else {
        return Ok(None);
    };
    let checksum = checksums.get(&identity).cloned();
    let (name, version, source) = identity;
    Ok(Some(LockedPackage {
        name,
        version,
        source,
        checksum,
    }))
}

/// Takes `NAME VERSION (SOURCE)` apart; `None` if parts are missing, as cargo leaves out what is unambiguous
/// (`EncodablePackageId`'s `FromStr`).
pub(super) fn full_id(id: &str) -> Result<Option<PackageIdentity>, &'static str> {
    let mut parts = id.splitn(3, ' ');
    let (Some(name), Some(version), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let rest = rest
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    let source = source(rest.ok_or("its source is not in parentheses")?)?;
    identity(name, version, source).map(Some)
}

/// Lets only names and versions through that cannot lead a path or a URL astray.
pub(super) fn identity(
    name: &str,
    version: &str,
    source: PackageSource,
) -> Result<PackageIdentity, &'static str> {
    if name.is_empty() {
        return Err("it has no name");
    }
    match source {
        PackageSource::CratesIo | PackageSource::Registry(_) => {
            if name.len() > MAX_REGISTRY_NAME {
                return Err("its name is longer than 64 characters");
            }
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            {
                return Err(
                    "its name has characters other than ASCII letters, digits, `-` and `_`",
                );
            }
        }
        PackageSource::Local | PackageSource::Git(_) => {
            if name.len() > MAX_OTHER_NAME {
                return Err("its name is longer than 255 bytes");
            }
            if !name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            {
                return Err("its name has characters other than letters, digits, `-` and `_`");
            }
        }
    }
    if version.is_empty() {
        return Err("it has no version");
    }
    if version.len() > MAX_VERSION {
        return Err("its version is longer than 128 characters");
    }
    // SemVer has neither slashes nor control characters, and no dots without a digit or letter between them.
    if Version::parse(version).is_err() {
        return Err("its version is not a SemVer version");
    }
    Ok((name.to_owned(), version.to_owned(), source))
}

pub(super) fn checksum(text: &str) -> Option<String> {
    let is_sha256 = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| text.to_ascii_lowercase())
}
