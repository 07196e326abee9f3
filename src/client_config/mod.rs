//! The settings that make clients use larder, as text.
//!
//! | client | settings | function |
//! |---|---|---|
//! | cargo | `[source]` and `[registries]` tables for `config.toml` | [`cargo_settings`], [`registry_settings`] |
//! | rustup | two environment variables | [`rustup_exports`] |
//! | `podman build`, `docker build` | a network and build arguments | [`build_options`] |
//!
//! `larder client print` prints them, and the daemon's start page shows cargo's. Pure: no function here reads or
//! writes a file. `base` is always the daemon's base address, ending in `/`.

use std::fmt::Write as _;

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

/// [`rustup_variables`] as shell exports. The quotes protect the brackets of an IPv6 address, which some shells expand.
pub fn rustup_exports(base: &str) -> String {
    rustup_variables(base)
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .concat()
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
