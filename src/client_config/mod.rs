//! The settings that make clients use larder, as text.
//!
//! | client | settings | function |
//! |---|---|---|
//! | cargo | `[source]` and `[registries]` tables for `config.toml` | [`cargo_settings`], [`registry_settings`] |
//! | rustup | two environment variables | [`rustup_exports`] |
//! | a command behind the intercepting proxy | environment variables | [`proxy_variables`] |
//! | `podman build`, `docker build` | a network and build arguments | [`build_options`] |
//!
//! `larder client print` prints them, and the daemon's start page shows cargo's. `larder client apply` and `undo` put
//! them into files: [`edit`] changes cargo's settings as text, [`applied`] writes files, keeps backups and restores
//! them. `base` is always the daemon's base address, ending in `/`.

pub mod applied;
pub mod edit;

use std::{collections::BTreeSet, ffi::OsString, fmt::Write as _, path::Path};

use hyper_util::client::proxy::matcher::Matcher;

/// Cargo's settings for crates.io. Cargo needs both `sparse+` and the final slash (cargo, `sources/registry/mod.rs`).
pub fn cargo_settings(base: &str) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "[source.crates-io]\nreplace-with = \"larder\"\n\n[registries.larder]\nindex = \"sparse+{base}\"\n"
    );
    text
}

/// Cargo's settings for another registry: its index is at `index`, and larder serves it as `name`.
pub fn registry_settings(base: &str, name: &str, index: &str) -> String {
    format!(
        "[source.{name}]\nregistry = \"sparse+{index}\"\nreplace-with = \"larder-{name}\"\n\n\
         [registries.larder-{name}]\nindex = \"sparse+{base}registry/{name}/\"\n"
    )
}

/// rustup's variables: it requests `dist/` below the first, and its own releases below the second (rustup,
/// `dist/mod.rs` and `cli/self_update.rs`).
pub fn rustup_variables(base: &str) -> [(&'static str, String); 2] {
    let base = base.trim_end_matches('/');
    [
        ("RUSTUP_DIST_SERVER", base.to_owned()),
        ("RUSTUP_UPDATE_ROOT", format!("{base}/rustup")),
    ]
}

/// The variables of a command that goes through larder's intercepting proxy at `proxy`, `http://HOST:PORT`. Cargo
/// trusts the root certificates in `cargo_roots`. rustup, which uses rustls or OpenSSL, trusts those in `tls_roots`.
/// Programs read the names in lower or in upper case, so both are set.
pub fn proxy_variables(
    proxy: &str,
    cargo_roots: &Path,
    tls_roots: &Path,
    no_proxy: &str,
) -> [(&'static str, OsString); 7] {
    [
        ("CARGO_HTTP_PROXY", proxy.into()),
        ("CARGO_HTTP_CAINFO", cargo_roots.into()),
        ("https_proxy", proxy.into()),
        ("HTTPS_PROXY", proxy.into()),
        ("SSL_CERT_FILE", tls_roots.into()),
        ("no_proxy", no_proxy.into()),
        ("NO_PROXY", no_proxy.into()),
    ]
}

/// Hosts that clients reach without a proxy: those that the user's `given` list has, and loopback, but none of the
/// intercepted `hosts`.
pub fn no_proxy(given: &str, hosts: &BTreeSet<String>) -> String {
    let is_intercepted = |entry: &str| {
        let matcher = Matcher::builder()
            .all("http://127.0.0.1:1")
            .no(entry)
            .build();
        let mut hosts = hosts.iter();
        hosts.any(|host| {
            let uri = format!("https://{host}/").parse();
            uri.is_ok_and(|uri| matcher.intercept(&uri).is_none())
        })
    };
    let given = given.split(',').map(str::trim);
    let entries = given.chain(["localhost", "127.0.0.1", "::1"]);
    let mut kept: Vec<&str> = Vec::new();
    for entry in entries.filter(|entry| !entry.is_empty()) {
        if !kept.contains(&entry) && !is_intercepted(entry) {
            kept.push(entry);
        }
    }
    kept.join(",")
}

/// [`rustup_variables`] as shell exports. The quotes protect the brackets of an IPv6 address, which some shells expand.
pub fn rustup_exports(base: &str) -> String {
    exports(&rustup_variables(base))
}

/// The file that `larder client apply rustup` writes, for shells to read.
pub fn rustup_file(base: &str) -> String {
    let exports = rustup_exports(base);
    format!(
        "# Written by `larder client apply rustup`; `larder client undo rustup` removes it.\n{exports}"
    )
}

/// The line for a shell's profile that reads `file` if it is there.
pub fn source_line(file: &Path) -> String {
    let file = file.display().to_string().replace('\'', "'\\''");
    format!("[ ! -f '{file}' ] || . '{file}'")
}

/// Variables as shell exports.
pub fn exports(variables: &[(&'static str, String)]) -> String {
    let quoted = |value: &str| value.replace('\'', "'\\''");
    let lines = variables.iter();
    lines
        .map(|(name, value)| format!("export {name}='{}'\n", quoted(value)))
        .collect()
}

/// The build arguments of `contrib/container/app.Containerfile`.
pub fn build_arguments(base: &str) -> Vec<(&'static str, String)> {
    let mirror = ("CARGO_MIRROR", base.to_owned());
    std::iter::once(mirror)
        .chain(rustup_variables(base))
        .collect()
}

/// Options for `podman build` and `docker build`, one per line. On the host's network, the build reaches the host's
/// loopback addresses.
pub fn build_options(base: &str) -> String {
    let mut text = "--network=host\n".to_owned();
    for (name, value) in build_arguments(base) {
        let _ = writeln!(text, "--build-arg={name}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intercepted_hosts_are_taken_from_the_list_of_hosts_without_a_proxy() {
        let check = |given: &str, hosts: &[&str], expected: &str| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            assert_eq!(no_proxy(given, &hosts), expected, "{given}");
        };
        let index = ["index.example"];
        check("", &index, "localhost,127.0.0.1,::1");
        check(
            "a.corp, 10.0.0.0/8",
            &index,
            "a.corp,10.0.0.0/8,localhost,127.0.0.1,::1",
        );
        check("example,.example,*", &index, "localhost,127.0.0.1,::1");
        check("localhost", &["127.0.0.1"], "localhost,::1");
        check("127.0.0.0/8", &["127.0.0.1"], "localhost,::1");
    }

    #[test]
    fn rustup_exports_name_both_servers() {
        assert_eq!(
            rustup_exports("http://127.0.0.1:3263/"),
            "export RUSTUP_DIST_SERVER='http://127.0.0.1:3263'\n\
             export RUSTUP_UPDATE_ROOT='http://127.0.0.1:3263/rustup'\n"
        );
    }

    #[test]
    fn build_options_have_the_network_and_all_arguments() {
        assert_eq!(
            build_options("http://127.0.0.1:3263/"),
            "--network=host\n--build-arg=CARGO_MIRROR=http://127.0.0.1:3263/\n\
             --build-arg=RUSTUP_DIST_SERVER=http://127.0.0.1:3263\n\
             --build-arg=RUSTUP_UPDATE_ROOT=http://127.0.0.1:3263/rustup\n"
        );
    }

    #[test]
    fn cargo_settings_are_those_of_the_documentation() {
        assert_eq!(
            cargo_settings("http://127.0.0.1:3263/"),
            "[source.crates-io]\nreplace-with = \"larder\"\n\n\
             [registries.larder]\nindex = \"sparse+http://127.0.0.1:3263/\"\n"
        );
        assert!(
            registry_settings("http://h/", "corp", "https://corp.example/i/")
                .contains("index = \"sparse+http://h/registry/corp/\"")
        );
    }
}
