//! One entry of a lock file: checks its name, version, source and checksum.

use std::collections::BTreeMap;

use cargo_lock::Version;
use toml::Spanned;

use super::{
    error::{EntryError, LockfileError, line_of, shown},
    raw::RawLockedPackage,
    source::{PackageSource, parse_source},
};
use crate::hash::Sha256;

/// Longest name of a registry package in bytes: the limit of crates.io.
const MAX_REGISTRY_NAME_BYTES: usize = 64;
/// Longest name of a local or git package in bytes. Cargo sets no limit; file systems end at 255.
const MAX_OTHER_NAME_BYTES: usize = 255;
/// Longest version in bytes. With the longest registry name it still fits a file name of 255 bytes.
const MAX_VERSION_BYTES: usize = 128;

/// One package named by a lock file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockedPackage {
    /// The name in its own case. From a registry: ASCII letters, digits, `-` and `_`, at most 64. Otherwise letters
    /// and digits of any script are possible.
    pub name: String,
    /// The version, build metadata included. Prints as it is written in the file.
    pub version: Version,
    /// The place that the package comes from.
    pub source: PackageSource,
    /// The sha256 of its `.crate`; `None` if the lock file does not state it.
    pub checksum: Option<Sha256>,
    /// True if cargo reads its index entry and does not download it: another package takes its place by `[replace]`, or
    /// it is in `[patch]` and takes the place of no other.
    pub is_unused: bool,
}

/// The identity of a package. The source is part of it: two registries may have one name and version with different
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackageId {
    pub(super) name: String,
    pub(super) version: Version,
    source: PackageSource,
}

/// Checksums by package, from `[metadata]` of format 1.
type Checksums = BTreeMap<PackageId, Sha256>;

impl PackageId {
    /// Accepts only names and versions that are safe as part of a path or URL.
    fn new(name: &str, version: &str, source: PackageSource) -> Result<Self, EntryError> {
        check_name(name, &source)?;
        if version.is_empty() {
            return Err(EntryError::NoVersion);
        }
        if version.len() > MAX_VERSION_BYTES {
            return Err(EntryError::LongVersion);
        }
        // SemVer has neither slashes nor control characters, and no dots without a digit or letter between them.
        let version = Version::parse(version).map_err(|_| EntryError::BadVersion)?;
        Ok(Self {
            name: name.to_owned(),
            version,
            source,
        })
    }

    /// Parses `NAME VERSION (SOURCE)`. `None` if parts are missing: cargo leaves out what is unambiguous
    /// (`EncodablePackageId`'s `FromStr`).
    fn parse(id: &str) -> Result<Option<Self>, EntryError> {
        let mut parts = id.splitn(3, ' ');
        let (Some(name), Some(version), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        let source = rest
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or(EntryError::SourceNotInParentheses)?;
        Self::new(name, version, parse_source(source)?).map(Some)
    }

    pub(super) fn locked(self, checksum: Option<Sha256>) -> LockedPackage {
        LockedPackage {
            name: self.name,
            version: self.version,
            source: self.source,
            checksum,
            is_unused: false,
        }
    }
}

fn check_name(name: &str, source: &PackageSource) -> Result<(), EntryError> {
    if name.is_empty() {
        return Err(EntryError::NoName);
    }
    match source {
        PackageSource::CratesIo | PackageSource::Registry(_) => {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.len() > MAX_REGISTRY_NAME_BYTES {
                Err(EntryError::LongRegistryName)
            } else if !name.bytes().all(is_allowed) {
                Err(EntryError::BadRegistryName)
            } else {
                Ok(())
            }
        }
        PackageSource::Local | PackageSource::Git(_) => {
            let is_allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
            if name.len() > MAX_OTHER_NAME_BYTES {
                Err(EntryError::LongName)
            } else if !name.chars().all(is_allowed) {
                Err(EntryError::BadName)
            } else {
                Ok(())
            }
        }
    }
}

/// The checksums of format 1.
pub(super) fn metadata_checksums(
    text: &str,
    metadata: &BTreeMap<String, Spanned<toml::Value>>,
) -> Result<Checksums, LockfileError> {
    let mut checksums = BTreeMap::new();
    for (key, value) in metadata {
        let Some(id) = key.strip_prefix("checksum ") else {
            continue;
        };
        // An impossible id belongs to no package that stays in the list.
        let Ok(Some(package)) = PackageId::parse(id) else {
            continue;
        };
        let bad = || LockfileError::BadChecksum {
            line: line_of(text, value.span().start),
            package: shown(id),
        };
        match value.get_ref().as_str() {
            Some("<none>") => {}
            Some(hex) => {
                checksums.insert(package, Sha256::parse(hex).ok_or_else(bad)?);
            }
            None => return Err(bad()),
        }
    }
    Ok(checksums)
}

/// Reads one entry. The outer error means that the file is damaged, the inner one that this entry is excluded.
pub(super) fn package(
    text: &str,
    entry: &RawLockedPackage,
    checksums: &Checksums,
) -> Result<Result<(PackageId, Option<Sha256>), EntryError>, LockfileError> {
    let source = entry.source.as_ref();
    let source = source.map_or(Ok(PackageSource::Local), |text| {
        parse_source(text.get_ref())
    });
    let id = source.and_then(|source| PackageId::new(entry.name(), entry.version(), source));
    let id = match id {
        Ok(id) => id,
        Err(reason) => return Ok(Err(reason)),
    };
    let checksum = match &entry.checksum {
        None => checksums.get(&id).copied(),
        Some(hex) => {
            Some(
                Sha256::parse(hex.get_ref()).ok_or_else(|| LockfileError::BadChecksum {
                    line: line_of(text, hex.span().start),
                    package: shown(&entry.label()),
                })?,
            )
        }
    };
    Ok(Ok((id, checksum)))
}

/// The package that a `replace` key points to. `None` if the key is shortened: then the file has an entry for it
/// anyway.
pub(super) fn replacement_package(
    id: &str,
    checksums: &Checksums,
) -> Result<Option<(PackageId, Option<Sha256>)>, EntryError> {
    let id = PackageId::parse(id)?;
    Ok(id.map(|id| {
        let checksum = checksums.get(&id).copied();
        (id, checksum)
    }))
}
