//! The settings that make clients use larder, as text: cargo's, rustup's, a container build's. Pure: writing them into the
//! user's files is not done here.

use std::fmt::Write as _;

/// The settings that make cargo use the larder at `base` (ends in `/`) for crates.io. The `sparse+` and the last slash
/// both matter (cargo, `sources/registry/mod.rs`).
pub fn cargo_settings(base: &str) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "[source.crates-io]\nreplace-with = \"larder\"\n\n[registries.larder]\nindex = \"sparse+{base}\"\n"
    );
    text
}

/// The settings for another registry, whose index is at `index`, served by the larder at `base` under `name`.
pub fn registry_settings(base: &str, name: &str, index: &str) -> String {
    format!(
        "[source.{name}]\nregistry = \"sparse+{index}\"\nreplace-with = \"larder-{name}\"\n\n\
         [registries.larder-{name}]\nindex = \"sparse+{base}registry/{name}/\"\n"
    )
}

/// The variables that make rustup use the larder at `base` (ends in `/`). Rustup asks for `dist/` below the first, and
/// for itself below the second (rustup, `dist/mod.rs` and `cli/self_update.rs`).
pub fn rustup_variables(base: &str) -> [(&'static str, String); 2] {
    let base = base.trim_end_matches('/');
    [
        ("RUSTUP_DIST_SERVER", base.to_owned()),
        ("RUSTUP_UPDATE_ROOT", format!("{base}/rustup")),
    ]
}

/// [`rustup_variables`] for a shell. The quotes are for shells that take the brackets of an IPv6 address for a pattern.
pub fn rustup_exports(base: &str) -> String {
    rustup_variables(base)
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .concat()
}

/// The build arguments of `contrib/container/app.Containerfile`, all on the larder at `base` (ends in `/`).
pub fn build_arguments(base: &str) -> Vec<(&'static str, String)> {
    let mirror = ("CARGO_MIRROR", base.to_owned());
    std::iter::once(mirror)
        .chain(rustup_variables(base))
        .collect()
}

/// What `podman build` and `docker build` take to use the larder at `base` (ends in `/`), one option a line. A build on
/// the host's network finds the host's loopback under the usual name.
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
    fn rustup_is_told_where_both_trees_begin() {
        assert_eq!(
            rustup_exports("http://127.0.0.1:3263/"),
            "export RUSTUP_DIST_SERVER='http://127.0.0.1:3263'\n\
             export RUSTUP_UPDATE_ROOT='http://127.0.0.1:3263/rustup'\n"
        );
    }

    #[test]
    fn a_build_is_given_the_network_and_all_its_arguments() {
        assert_eq!(
            build_options("http://127.0.0.1:3263/"),
            "--network=host\n--build-arg=CARGO_MIRROR=http://127.0.0.1:3263/\n\
             --build-arg=RUSTUP_DIST_SERVER=http://127.0.0.1:3263\n\
             --build-arg=RUSTUP_UPDATE_ROOT=http://127.0.0.1:3263/rustup\n"
        );
    }

    #[test]
    fn the_settings_are_the_documented_ones() {
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
