//! Fuzz targets for files on the disk: the user's files, and the store's.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder::lockfile::{self, PackageSource, canonical_index, parse_source};
use larder::resource::{CrateFile, IndexEntry, Key, Location, Registries};
use larder::script::Script;
use larder::store::{Checked, Entry};
use larder::toolchain::{
    Channel, InstalledToolchain, ToolchainFile, UserSettings, install, parse_file,
};
use larder::validators::Validators;
use url::Url;

use crate::{halves, text};

static REGISTRIES: LazyLock<Registries> = LazyLock::new(|| {
    let url = Url::parse("https://index.example/").expect("a valid URL");
    Registries::new(url, [])
});

/// Each package of a lock file has a name and a version that can be part of a path, and is listed once.
pub(crate) fn lock_file(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = canonical_index(text);
    let _ = parse_source(text);
    let graph = lockfile::graph(text);
    let Ok(lock) = lockfile::parse(text) else {
        return;
    };
    let _ = graph;
    assert!(lock.packages.is_sorted());
    for pair in lock.packages.windows(2) {
        let is_same = (&pair[0].name, &pair[0].version, &pair[0].source)
            == (&pair[1].name, &pair[1].version, &pair[1].source);
        assert!(!is_same, "{pair:?}");
    }
    for package in &lock.packages {
        let version = package.version.to_string();
        for part in [&package.name, &version] {
            assert!(
                !part.contains(['/', '\\', '\0', '\n']) && !part.starts_with('.'),
                "{package:?}"
            );
        }
        if matches!(
            package.source,
            PackageSource::CratesIo | PackageSource::Registry(_)
        ) {
            let registry = REGISTRIES.crates_io();
            assert!(
                IndexEntry::of(registry, &package.name).is_some(),
                "{package:?}"
            );
            let file = CrateFile::of(registry, &package.name, &version, package.checksum);
            assert!(file.is_some(), "{package:?}");
        }
    }
}

/// A channel's manifest is below `dist/`, and its name is read back to the same channel.
pub(crate) fn toolchain_file(data: &[u8]) {
    let (data, other) = halves(data);
    let (Some(text), Some(other)) = (text(data), text(other)) else {
        return;
    };
    let settings = UserSettings::parse(other).unwrap_or_default();
    let hosts = settings
        .hosts(Some("x86_64-unknown-linux-gnu"))
        .unwrap_or_default();
    let _ = InstalledToolchain::parse(text, other);
    let _ = Script::parse(Path::new("script.rs"), text);
    for name in [ToolchainFile::Legacy, ToolchainFile::Toml] {
        let Ok(spec) = parse_file(name, text) else {
            continue;
        };
        for host in &hosts {
            if let Ok(install) = install(spec.clone(), &settings, host) {
                check_channel(&install.channel);
            }
        }
    }
    if let Ok(channel) = text.parse::<Channel>() {
        check_channel(&channel);
    }
}

fn check_channel(channel: &Channel) {
    let path = channel.manifest_path();
    let is_safe = |part: &str| !part.is_empty() && !part.starts_with('.');
    assert!(
        path.starts_with("dist/") && path.split('/').all(is_safe),
        "{path}"
    );
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.-_".contains(c);
    assert!(path.chars().all(is_plain), "{path}");
    let again: Channel = channel
        .to_string()
        .parse()
        .expect("a channel prints as one");
    assert_eq!(again.manifest_path(), path);
}

fn key(name: &str) -> Key {
    let entry = IndexEntry::of(REGISTRIES.crates_io(), name).expect("a valid name");
    let Location::Entry(key) = entry.location() else {
        panic!("an index entry is stored as an entry");
    };
    key
}

/// A record reads back as it was written, at its own place only. Any other record is damaged, or of an older release.
pub(crate) fn store_entry(data: &[u8]) {
    let checked = Checked::At(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let (left, right) = (key("left"), key("right"));
    if let Ok(entry) = Entry::parse(Bytes::copy_from_slice(data), checked, &left)
        && entry.is_sealed
    {
        assert_eq!(
            Entry::parse(record(&entry, &left), checked, &left).ok(),
            Some(entry)
        );
    }

    let (facts, body) = halves(data);
    let facts = text(facts).map(str::to_owned);
    let validators = Validators {
        etag: facts.clone(),
        last_modified: None,
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let age = body.first().map(|&age| Duration::from_secs(age.into()));
    let mut entry = Entry::new(Bytes::copy_from_slice(body), validators, age, now);
    entry.head.sidecar = facts;
    let good = record(&entry, &left);
    assert_eq!(Entry::parse(good.clone(), checked, &left).ok(), Some(entry));
    assert!(Entry::parse(good.clone(), checked, &right).is_err());
    // The input chooses a byte and its new value.
    if let [.., high, low, change] = *data {
        let at = usize::from(u16::from_be_bytes([high, low])) % good.len();
        let mut bad = good.to_vec();
        bad[at] ^= change;
        let is_bad = Entry::parse(Bytes::from(bad), checked, &left).is_err();
        assert_eq!(is_bad, change != 0, "byte {at} ^ {change}");
    }
}

fn record(entry: &Entry, key: &Key) -> Bytes {
    [&entry.head_line(key)[..], &entry.body].concat().into()
}
