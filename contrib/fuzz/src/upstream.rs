//! Fuzz targets for the bytes that upstream sends.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use larder::hash::Sha256;
use larder::resource::dist::{self, ArchiveFormat, Dist};
use larder::resource::registry::config_for_client;
use larder::resource::{
    CrateFile, IndexEntry, ListedVersion, Location, Registries, RegistryConfig, Resource,
    VersionNeeds,
};
use larder::toolchain;
use larder::trust::SigningKeys;
use serde_json::Value;
use url::Url;

use crate::{halves, text};

static REGISTRIES: LazyLock<Registries> = LazyLock::new(|| {
    let url = Url::parse("https://index.example/").expect("a valid URL");
    Registries::new(url, [])
});

static SIGNING_KEYS: LazyLock<SigningKeys> = LazyLock::new(|| {
    let text = include_str!("../../../fixtures/openpgp/key.asc");
    SigningKeys::parse(text).expect("a file of keys")
});

/// The entry that index lines are read for.
fn left() -> Resource {
    IndexEntry::of(REGISTRIES.crates_io(), "left").expect("a valid name")
}

/// An accepted entry lists the checksums that a plain JSON parser reads, and its offline view is an accepted entry of
/// the same versions, in which only offered ones can be chosen.
///
/// The lines that are kept of one entry when another replaces it make an accepted entry.
pub(crate) fn index_entry(data: &[u8]) {
    let entry = left();
    let (old, new) = halves(data);
    if let Some(retention) = entry.retention()
        && entry.validate(old).is_ok()
        && entry.validate(new).is_ok()
    {
        let recalled = retention.recalled_versions(old, new);
        let kept = retention.with_kept_versions(old, new, &recalled, &recalled.removed);
        if let Some(kept) = kept {
            entry.validate(&kept).expect("what is kept makes an entry");
        }
    }
    let accepted = entry.validate(data).is_ok();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Some(dependencies) = entry.dependencies() {
        for hint in dependencies.prefetch_hints(data) {
            assert!(matches!(hint.resource.location(), Location::Entry(_)));
        }
        for (_, time) in dependencies.invalidates(None, data, SystemTime::UNIX_EPOCH, now) {
            assert!(time <= now);
        }
    }
    let versions = ListedVersion::all_of(data);
    for listed in &versions {
        let _ = listed.needs();
        let version = listed.version.to_string();
        let _ = VersionNeeds::of(data, &version);
        let _ = IndexEntry::checksum(data, &version);
    }
    if !accepted {
        return;
    }
    let plain = plain_checksums(data);
    for (version, _) in &plain {
        let found = IndexEntry::checksum(data, version);
        let is_listed = plain
            .iter()
            .any(|(known, sum)| known == version && found == Some(*sum));
        assert!(is_listed, "{version}: {found:?}");
    }
    let (Some(views), Some(retention)) = (entry.views(), entry.retention()) else {
        panic!("an index entry has views")
    };
    let offered: HashSet<_> = views.checksums(data).into_iter().take(1).collect();
    let view = views.offline_view(Bytes::copy_from_slice(data), &offered);
    entry.validate(&view).expect("the offline view is an entry");
    let removed = retention.recalled_versions(data, &view).removed;
    assert!(removed.is_empty(), "the offline view lost {removed:?}");
    if !offered.is_empty() {
        for line in values(&view) {
            let sum = line["cksum"].as_str().and_then(Sha256::parse);
            let is_offered = sum.is_some_and(|sum| offered.contains(&sum));
            assert!(
                is_offered || line["yanked"] == true || !line.is_object(),
                "{line}"
            );
        }
    }
}

/// The lines that are JSON.
fn values(body: &[u8]) -> impl Iterator<Item = Value> {
    let lines = body.split(|&byte| byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line.trim_ascii()).ok())
}

/// Version and checksum in all lines that are JSON. Unlike cargo, larder does not check fields that it does not need,
/// so lines that cargo skips may be among them.
fn plain_checksums(body: &[u8]) -> Vec<(String, Sha256)> {
    #[derive(serde::Deserialize)]
    struct Line {
        vers: String,
        cksum: String,
    }
    let lines = body.split(|&byte| byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line.trim_ascii()).ok());
    lines
        .filter_map(|line| Some((line.vers, Sha256::parse(&line.cksum)?)))
        .collect()
}

/// A config never leads to a less secure address, nor to a host that depends on the crate. What clients get is JSON.
pub(crate) fn registry_config(data: &[u8]) {
    let config = RegistryConfig::of(REGISTRIES.crates_io());
    let accepted = config.validate(data).is_ok();
    let mut hosts = HashSet::new();
    for (name, version) in [
        ("left", "1.0.0"),
        ("MixedCase", "0.1.0+x"),
        ("a", "2.0.0-rc.1"),
    ] {
        let sum = Some(Sha256::of(name.as_bytes()));
        let file =
            CrateFile::of(REGISTRIES.crates_io(), name, version, sum).expect("a valid crate");
        let url = file.located().expect("a crate is located").locate(data);
        if let Ok(url) = &url {
            assert_eq!(url.scheme(), "https");
            hosts.insert(url.host_str().map(str::to_owned));
        }
        assert!(url.is_ok() || !accepted, "{url:?}");
    }
    assert!(hosts.len() <= 1, "{hosts:?}");
    for is_offline in [false, true] {
        let served = config_for_client("http://127.0.0.1:3263/", Some(data), is_offline);
        let served: Value = serde_json::from_slice(&served).expect("JSON");
        let dl = served["dl"].as_str().expect("an address");
        assert!(dl.starts_with("http://127.0.0.1:3263/crates/"), "{dl}");
        assert!(served.as_object().is_some_and(|fields| fields.len() <= 2));
    }
}

const HOST: &str = "x86_64-unknown-linux-gnu";

/// All readers of a manifest return. The archives of an install have valid hashes, and stay below the dist server.
pub(crate) fn manifest(data: &[u8]) {
    let dist = dist(ArchiveFormat::Gz);
    let resource = dist::manifest(&dist, "dist/channel-rust-stable.toml").expect("a manifest");
    let _ = resource.validate(data);
    let body = Bytes::copy_from_slice(data);
    if let Some(profiles) = resource.install_profiles() {
        let _ = profiles.profile_downloads(&body, Sha256::of(b""));
    }
    if let Some(releases) = resource.releases() {
        let _ = releases.of_body(data);
        let _ = releases.other_names(data);
        let _ = releases.parts(&body);
    }
    if let Some(view) = resource.views().and_then(|views| views.client_view(&body)) {
        assert!(view.len() <= data.len());
        let again = resource.views().and_then(|views| views.client_view(&view));
        assert!(
            again.is_none_or(|again| again == view),
            "a view has no other view"
        );
    }
    let Some(manifest) = text(data) else { return };
    let _ = toolchain::version(manifest);
    if let Ok(date) = toolchain::date(manifest) {
        let _ = toolchain::day_before(&date);
    }
    for sum in toolchain::preferred_archives(manifest).into_values() {
        assert!(Sha256::parse(sum).is_some(), "{sum}");
        let _ = toolchain::target_of_archive(manifest, sum);
    }
    let components = ["clippy".to_owned()];
    for profile in ["minimal", "default", "complete"] {
        for file in toolchain::files(manifest, HOST, profile, &components, &[]).unwrap_or_default()
        {
            let sum = Sha256::parse(&file.sha256).expect("a valid hash");
            if let Some(archive) = dist::archive(&dist, &file.url, sum) {
                let larder::resource::Source::At(url) = archive.source() else {
                    panic!("archives have fixed addresses")
                };
                assert_eq!(url.host_str(), Some("dist.example"));
                assert!(
                    url.path().starts_with("/dist/") || url.path().starts_with("/rustup/"),
                    "{url}"
                );
            }
        }
    }
}

/// A signature that a change made of a good one proves the signed file or none, and never another file. The input is
/// the armored text, and also the bytes inside it, which random changes of Base64 would rarely reach.
pub(crate) fn signature(data: &[u8]) {
    let armored = format!(
        "-----BEGIN PGP SIGNATURE-----\n\n{}\n-----END PGP SIGNATURE-----\n",
        STANDARD.encode(data)
    );
    for text in text(data).into_iter().chain([armored.as_str()]) {
        let _ = SigningKeys::parse(text);
        let _ = SIGNING_KEYS.verify(text, include_bytes!("../../../fixtures/openpgp/file"));
        assert!(SIGNING_KEYS.verify(text, b"another file").is_err());
        assert!(SIGNING_KEYS.verify(text, b"").is_err());
    }
}

fn dist(format: ArchiveFormat) -> Arc<Dist> {
    let url = |text| Url::parse(text).expect("a valid URL");
    Dist::new(
        url("https://dist.example/"),
        url("https://dist.example/rustup/"),
        format,
    )
}
