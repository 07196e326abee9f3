//! Names of install profiles, which select the components of a toolchain: `minimal`, `default`, `complete`.

/// The name of a profile as manifests write it; rustup accepts abbreviations (`Profile::from_str` in its
/// `src/dist/mod.rs`). `None` if there is no such profile.
pub(super) fn canonical_profile(name: &str) -> Option<&'static str> {
    match name {
        "minimal" | "m" => Some("minimal"),
        "default" | "d" | "" => Some("default"),
        "complete" | "c" => Some("complete"),
        _ => None,
    }
}
