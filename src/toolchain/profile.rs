//! The names of rustup's profiles.

/// The profile's name in manifests (`Profile::from_str` in rustup's `src/dist/mod.rs`).
pub(super) fn canonical_profile(name: &str) -> Option<&'static str> {
    match name {
        "minimal" | "m" => Some("minimal"),
        "default" | "d" | "" => Some("default"),
        "complete" | "c" => Some("complete"),
        _ => None,
    }
}
