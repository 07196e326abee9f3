//! Which thing a path asks for. Pure; what happens with it is for others.

use std::{borrow::Cow, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::resource::{CrateFile, IndexEntry, Registry, Resource, Upstreams, dist};

/// What a path asks for.
#[derive(Clone, Debug)]
pub enum Route {
    /// A word to whoever opens the address in a browser.
    Home,
    /// `config.json` of a registry, generated.
    Config(Arc<Registry>),
    /// rustup's script, edited.
    Script,
    /// Something the cache holds or can fetch.
    Resource(Resource),
    /// Is the process alive.
    Health,
    /// Can it serve.
    Ready,
    /// Its numbers.
    Status,
    /// Its numbers for Prometheus.
    Metrics,
}

/// Why a path asks for nothing. `Display` is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// It cannot be a path of ours, whoever sends it.
    #[error("refused the path: {0}")]
    Malformed(&'static str),
    /// Cargo speaks the git protocol, since its settings lack a word.
    #[error("this is a sparse registry: write `sparse+` before its address in cargo's settings")]
    GitProtocol,
    /// The settings name no such registry.
    #[error("no registry `{0}` is configured here")]
    UnknownRegistry(String),
    /// There is no such path here.
    #[error("nothing is served at this path")]
    Unknown,
}

/// Reads a path, percent-encoding included.
///
/// # Errors
/// [`NoRoute`].
pub fn route(path: &str, query: Option<&str>, upstreams: &Upstreams) -> Result<Route, NoRoute> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match segments.as_slice() {
        [""] => Ok(Route::Home),
        ["-", "health"] => Ok(Route::Health),
        ["-", "ready"] => Ok(Route::Ready),
        ["-", "status.json"] => Ok(Route::Status),
        ["-", "metrics"] => Ok(Route::Metrics),
        [.., "info", "refs"] if query.is_some_and(|query| query.contains("service=git-")) => {
            Err(NoRoute::GitProtocol)
        }
        ["rustup-init.sh"] => Ok(Route::Script),
        // A last slash in `RUSTUP_DIST_SERVER` is doubled (rustup, `config.rs`, `dist_root_server`).
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

/// Splits a path and undoes its encoding; what could climb out of a folder or hide a slash is refused.
fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, NoRoute> {
    let path = path
        .strip_prefix('/')
        .ok_or(NoRoute::Malformed("it does not begin with `/`"))?;
    if path.len() > 1024 {
        return Err(NoRoute::Malformed("it is longer than 1024 bytes"));
    }
    // Nearly every path: there is nothing to undo.
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
    use url::Url;

    use super::*;
    use crate::resource::{
        Registries,
        dist::{ArchiveFormat, Dist},
    };

    #[track_caller]
    fn check(path: &str, expected: Result<&str, NoRoute>) {
        let corp = (
            "corp".to_owned(),
            Url::parse("https://corp.example/index/").unwrap(),
        );
        let url = |text| Url::parse(text).unwrap();
        let upstreams = Upstreams {
            registries: Registries::new(url("https://index.example/"), [corp]),
            dist: Dist::new(
                url("https://dist.example/"),
                url("https://dist.example/rustup/"),
                ArchiveFormat::Upstream,
            ),
        };
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let found = route(path, query, &upstreams).map(|route| match route {
            Route::Config(registry) => format!("config of {}", registry.name()),
            Route::Resource(resource) => resource.to_string(),
            other @ (Route::Home
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
    fn every_address_of_the_product_leads_somewhere() {
        check("/", Ok("Home"));
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
        check("/-/health", Ok("Health"));
        check("/-/ready", Ok("Ready"));
        check("/-/status.json", Ok("Status"));
        check("/-/metrics", Ok("Metrics"));
    }

    #[test]
    fn t23_paths_that_climb_or_hide_a_slash_are_refused() {
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
    fn t29_a_plus_is_a_plus_however_it_is_written() {
        for plus in ["+", "%2B", "%2b"] {
            check(
                &format!("/crates/wasi/0.11.1{plus}x/download"),
                Ok("crate `wasi 0.11.1+x`"),
            );
        }
        check("/crates/wasi/0.11.1%20x/download", Err(NoRoute::Unknown));
    }

    #[test]
    fn t32_a_registry_below_a_prefix_and_the_one_at_the_root_do_not_mix() {
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
    fn t47_a_doubled_slash_before_the_trees_is_one() {
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
    fn t35_the_git_protocol_is_told_what_is_missing() {
        check(
            "/info/refs?service=git-upload-pack",
            Err(NoRoute::GitProtocol),
        );
        check(
            "/registry/corp/info/refs?service=git-upload-pack",
            Err(NoRoute::GitProtocol),
        );
    }
}
