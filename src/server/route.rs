//! Maps a path to a [`Route`].
//!
//! ```text
//!   /  /-/style.css  live.js  events       Home; its style sheet, script and events
//!   /-/health  ready  status.json  metrics monitoring
//!   /config.json  /se/rd/serde  /crates/…  the registry of crates.io
//!   /registry/NAME/…                       another registry, the same paths below it
//!   /dist/…  /rustup/…                     toolchains, rustup
//!   /rustup-init.sh                        its installer script, also at /rustup/rustup-init.sh
//! ```
//!
//! Paths come from untrusted clients and end up as file names in the store. `segments` therefore decodes
//! percent-encoding once and refuses dot segments, encoded slashes and control characters; the parsers in `resource`
//! accept only names that their kind allows. The module is pure.

use std::{borrow::Cow, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::resource::{CrateFile, IndexEntry, Registry, Resource, Upstreams, dist};

/// The meaning of a path.
#[derive(Clone, Debug)]
pub enum Route {
    /// A page for people who open the address in a browser.
    Home,
    /// The style sheet of that page.
    Style,
    /// The script of that page.
    PageScript,
    /// The changes of that page.
    Events,
    /// The generated `config.json` of a registry.
    Config(Arc<Registry>),
    /// `rustup-init.sh`, edited.
    Script,
    /// A resource of the cache.
    Resource(Resource),
    /// Liveness.
    Health,
    /// Readiness.
    Ready,
    /// Counters and outages as JSON.
    Status,
    /// The same for Prometheus.
    Metrics,
}

/// The reason why a path has no route. The client sees its `Display`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No valid client sends such a path.
    #[error("refused the path: {0}")]
    Malformed(&'static str),
    /// Cargo uses the git protocol, because its settings lack `sparse+` (docs/client-behaviour.md, C-37).
    #[error("this is a sparse registry: write `sparse+` before its address in cargo's settings")]
    GitProtocol,
    /// The settings have no registry of that name.
    #[error("no registry `{0}` is configured here")]
    UnknownRegistry(String),
    /// Nothing is served at this path.
    #[error("nothing is served at this path")]
    Unknown,
}

/// Parses a path as it came in the request, with its percent-encoding.
///
/// # Errors
/// [`NoRoute`] if nothing is served there.
pub fn route(path: &str, query: Option<&str>, upstreams: &Upstreams) -> Result<Route, NoRoute> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match segments.as_slice() {
        [""] => Ok(Route::Home),
        ["-", "style.css"] => Ok(Route::Style),
        ["-", "live.js"] => Ok(Route::PageScript),
        ["-", "events"] => Ok(Route::Events),
        ["-", "health"] => Ok(Route::Health),
        ["-", "ready"] => Ok(Route::Ready),
        ["-", "status.json"] => Ok(Route::Status),
        ["-", "metrics"] => Ok(Route::Metrics),
        [.., "info", "refs"] if query.is_some_and(|query| query.contains("service=git-")) => {
            Err(NoRoute::GitProtocol)
        }
        // The second place is upstream's, below the update root.
        ["rustup-init.sh"] | ["rustup", "rustup-init.sh"] | ["", "rustup", "rustup-init.sh"] => {
            Ok(Route::Script)
        }
        // rustup doubles a trailing slash of `RUSTUP_DIST_SERVER` (docs/client-behaviour.md, R-05).
        ["", rest @ ..] | rest if is_dist_path(rest) => dist::parse(&upstreams.dist, rest)
            .map(Route::Resource)
            .ok_or(NoRoute::Unknown),
        ["registry", name, rest @ ..] => match upstreams.registries.named(name) {
            Some(registry) => registry_route(registry, rest),
            None => Err(NoRoute::UnknownRegistry((*name).to_owned())),
        },
        rest => registry_route(upstreams.registries.crates_io(), rest),
    }
}

fn is_dist_path(segments: &[&str]) -> bool {
    matches!(segments, ["dist" | "rustup", ..])
}

fn registry_route(registry: &Arc<Registry>, segments: &[&str]) -> Result<Route, NoRoute> {
    if segments == ["config.json"] {
        return Ok(Route::Config(registry.clone()));
    }
    CrateFile::parse(registry, segments)
        .or_else(|| IndexEntry::parse(registry, segments))
        .map(Route::Resource)
        .ok_or(NoRoute::Unknown)
}

/// Splits a path at its slashes and decodes each segment.
fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, NoRoute> {
    let path = path
        .strip_prefix('/')
        .ok_or(NoRoute::Malformed("it does not begin with `/`"))?;
    if path.len() > 1024 {
        return Err(NoRoute::Malformed("it is longer than 1024 bytes"));
    }
    // Nearly every path is plain and needs no decoding.
    let is_plain = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\'));
    let mut segments = Vec::with_capacity(8);
    for segment in path.split('/') {
        let segment = if is_plain {
            Cow::Borrowed(segment)
        } else {
            percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| NoRoute::Malformed("it is not UTF-8"))?
        };
        if segment == "." || segment == ".." {
            return Err(NoRoute::Malformed("it contains `.` or `..`"));
        }
        if !is_plain && (segment.contains(['/', '\\']) || segment.contains(char::is_control)) {
            return Err(NoRoute::Malformed(
                "it contains an encoded slash, a backslash or a control character",
            ));
        }
        segments.push(segment);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use url::Url;

    use super::*;
    use crate::resource::{
        Location, Registries,
        dist::{ArchiveFormat, Dist},
    };

    fn upstreams() -> Upstreams {
        let url = |text| Url::parse(text).unwrap();
        let corp = ("corp".to_owned(), url("https://corp.example/index/"));
        Upstreams {
            advisories: None,
            registries: Registries::new(url("https://index.example/"), [corp]),
            dist: Dist::new(
                url("https://dist.example/"),
                url("https://dist.example/rustup/"),
                ArchiveFormat::Upstream,
            ),
        }
    }

    #[track_caller]
    fn check(path: &str, expected: Result<&str, NoRoute>) {
        let upstreams = upstreams();
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let found = route(path, query, &upstreams).map(|route| match route {
            Route::Config(registry) => format!("config of {}", registry.name()),
            Route::Resource(resource) => resource.to_string(),
            other @ (Route::Home
            | Route::Style
            | Route::PageScript
            | Route::Events
            | Route::Script
            | Route::Health
            | Route::Ready
            | Route::Status
            | Route::Metrics) => {
                format!("{other:?}")
            }
        });
        assert_eq!(found, expected.map(str::to_owned), "{path}");
    }

    #[test]
    fn every_documented_path_has_a_route() {
        check("/", Ok("Home"));
        check("/?crate=serde", Ok("Home"));
        check("/-/style.css", Ok("Style"));
        check("/-/live.js", Ok("PageScript"));
        check("/-/events", Ok("Events"));
        check("/config.json", Ok("config of crates-io"));
        check("/se/rd/serde", Ok("index entry of `serde`"));
        check("/3/l/log", Ok("index entry of `log`"));
        check("/crates/serde/1.0.0/download", Ok("crate `serde 1.0.0`"));
        check(
            &format!("/crates/serde/1.0.0/{}/download", "a".repeat(64)),
            Ok("crate `serde 1.0.0`"),
        );
        check("/registry/corp/config.json", Ok("config of corp"));
        check(
            "/registry/corp/se/rd/serde",
            Ok("index entry of `serde` in registry `corp`"),
        );
        check(
            "/dist/channel-rust-stable.toml",
            Ok("manifest `dist/channel-rust-stable.toml`"),
        );
        check(
            "/rustup/release-stable.toml",
            Ok("rustup's `release-stable.toml`"),
        );
        check(
            "/rustup/dist/x/rustup-init",
            Ok("installer `rustup/dist/x/rustup-init`"),
        );
        check("/rustup-init.sh", Ok("Script"));
        check("/rustup/rustup-init.sh", Ok("Script"));
        check("/-/health", Ok("Health"));
        check("/-/ready", Ok("Ready"));
        check("/-/status.json", Ok("Status"));
        check("/-/metrics", Ok("Metrics"));
    }

    #[test]
    fn dot_segments_and_encoded_slashes_are_refused() {
        let malformed = |reason| Err(NoRoute::Malformed(reason));
        check("/se/../../etc", malformed("it contains `.` or `..`"));
        check("/se/%2e%2E/serde", malformed("it contains `.` or `..`"));
        let slash = "it contains an encoded slash, a backslash or a control character";
        check("/se/rd%2fserde", malformed(slash));
        check("/se/rd/se%00rde", malformed(slash));
        check("/se/rd/se%5crde", malformed(slash));
        check("/se/rd/%ff", malformed("it is not UTF-8"));
        check(
            &format!("/{}", "a".repeat(2_000)),
            malformed("it is longer than 1024 bytes"),
        );
        check("/se//rd/serde", Err(NoRoute::Unknown));
        check("//se/rd/serde", Err(NoRoute::Unknown));
        check("/se/rd/CON .rs", Err(NoRoute::Unknown));
    }

    #[test]
    fn plus_and_its_encodings_mean_the_same() {
        for plus in ["+", "%2B", "%2b"] {
            check(
                &format!("/crates/wasi/0.11.1{plus}x/download"),
                Ok("crate `wasi 0.11.1+x`"),
            );
        }
        check("/crates/wasi/0.11.1%20x/download", Err(NoRoute::Unknown));
    }

    #[test]
    fn registries_do_not_share_paths() {
        check(
            "/registry/other/config.json",
            Err(NoRoute::UnknownRegistry("other".into())),
        );
        check(
            "/registry/corp/registry/corp/config.json",
            Err(NoRoute::Unknown),
        );
    }

    #[test]
    fn a_doubled_slash_before_dist_and_rustup_is_accepted() {
        check(
            "//dist/channel-rust-stable.toml",
            Ok("manifest `dist/channel-rust-stable.toml`"),
        );
        check(
            "//rustup/release-stable.toml",
            Ok("rustup's `release-stable.toml`"),
        );
        check("///dist/channel-rust-stable.toml", Err(NoRoute::Unknown));
    }

    #[test]
    fn the_git_protocol_gets_a_hint() {
        check(
            "/info/refs?service=git-upload-pack",
            Err(NoRoute::GitProtocol),
        );
        check(
            "/registry/corp/info/refs?service=git-upload-pack",
            Err(NoRoute::GitProtocol),
        );
    }
    /// Parts of paths that have a route, and of paths that look like it.
    const PARTS: [&str; 32] = [
        "se",
        "rd",
        "serde",
        "SERDE",
        "SeRde",
        "1",
        "2",
        "3",
        "a",
        "l",
        "log",
        "my",
        "-d",
        "_d",
        "my-dash",
        "my_dash",
        "registry",
        "corp",
        "crates-io",
        "dist",
        "rustup",
        "archive",
        "2026-04-16",
        "channel-rust-stable.toml",
        "channel-rust-stable.toml.sha256",
        "release-stable.toml",
        "rustc-1.95.0.tar.xz",
        "x.sha256",
        "..",
        "%2e%2e",
        "a%2fb",
        "config.json",
    ];

    fn random_path(random: &mut fastrand::Rng) -> String {
        let mut path = String::new();
        for _ in 0..random.usize(1..=6) {
            path.push('/');
            path.push_str(random.choice(PARTS).unwrap());
            if random.u8(..32) == 0 {
                path.push(random.char(..));
            }
        }
        path
    }

    /// The place in the store, and the resource that has it.
    fn place(resource: &Resource) -> Option<(String, String)> {
        match resource.location() {
            Location::Entry(key) => Some((key.to_string(), resource.to_string())),
            // The two halves share an entry.
            Location::Pair(key, _) => Some((key.to_string(), key.to_string())),
            Location::Blob(_) => None,
            Location::ListedIn(listing) => place(&listing),
        }
    }

    #[test]
    fn every_path_leads_below_the_store_and_no_two_resources_share_a_place() {
        let (upstreams, mut random) = (upstreams(), fastrand::Rng::with_seed(42));
        let mut places = HashMap::new();
        // `contrib/fuzz` searches further.
        for _ in 0..50_000 {
            let path = random_path(&mut random);
            let found = [None, Some("x=1"), Some("registry=corp")].map(|query| {
                let Ok(Route::Resource(resource)) = route(&path, query, &upstreams) else {
                    return None;
                };
                place(&resource)
            });
            assert!(found[0] == found[1] && found[1] == found[2], "{path}");
            let [Some((place, name)), _, _] = found else {
                continue;
            };
            let is_safe = |part: &str| {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
                !part.is_empty() && !part.starts_with('.') && part.chars().all(is_plain)
            };
            assert!(place.split('/').all(is_safe), "{path} leads to {place}");
            let known = places.entry(place).or_insert_with(|| name.clone());
            assert_eq!(*known, name, "{path}");
        }
        assert!(places.len() > 200, "{}", places.len());
    }
}
