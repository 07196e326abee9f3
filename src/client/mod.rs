//! The user's client settings, as text. Pure: writing them into the user's files is not done here.

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

#[cfg(test)]
mod tests {
    use super::*;

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
