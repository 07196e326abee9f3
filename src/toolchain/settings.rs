//! [`UserSettings`]: rustup's `settings.toml`, with the user's default toolchain, profile and host.
//!
//! ```toml
//! version = "12"
//! default_toolchain = "stable-x86_64-unknown-linux-gnu"
//! profile = "minimal"
//! ```

use serde::Deserialize;

use super::channel::is_triple;

/// The user's settings for all projects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UserSettings {
    /// The toolchain of projects that name none.
    pub default_toolchain: Option<String>,
    /// The profile of installs that name none.
    pub profile: Option<String>,
    default_host_tuple: Option<String>,
    // The name of the field before rustup 1.29.
    default_host_triple: Option<String>,
}

impl UserSettings {
    /// Parses `settings.toml` of rustup's home. An unreadable file counts as empty, because rustup itself will report
    /// the mistake.
    pub fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_default()
    }

    /// The host triple of toolchains whose name has none: the user's setting, or else the machine's
    /// (docs/client-behaviour.md R-19).
    ///
    /// `arch` and `os` are spelled as in `std::env::consts`. `None` if they do not determine the triple, because of
    /// several ABIs or byte orders. Linux is taken to use glibc, which is true for every rustup that was not built
    /// for musl (`TargetTuple::from_host_or_build` in `src/dist/mod.rs`).
    pub fn host_triple(&self, arch: &str, os: &str) -> Option<String> {
        let set = self.default_host_tuple.as_ref();
        let set = set.or(self.default_host_triple.as_ref());
        if let Some(triple) = set.filter(|triple| is_triple(triple)) {
            return Some(triple.clone());
        }
        let arch = match arch {
            "x86" => "i686",
            "riscv64" => "riscv64gc",
            "x86_64" | "aarch64" | "loongarch64" | "s390x" => arch,
            _ => return None,
        };
        let rest = match os {
            "linux" => "unknown-linux-gnu",
            "macos" => "apple-darwin",
            "windows" => "pc-windows-msvc",
            "freebsd" | "netbsd" => return Some(format!("{arch}-unknown-{os}")),
            _ => return None,
        };
        Some(format!("{arch}-{rest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::fixture::LINUX;

    #[test]
    fn host_triple_comes_from_settings_before_the_machine() {
        let ours = Some(LINUX);
        for (settings, arch, os, triple) in [
            (None, "x86_64", "linux", ours),
            (
                Some("version = \"12\"\n[overrides]\n"),
                "x86_64",
                "linux",
                ours,
            ),
            (
                Some("default_host_triple = \"x86_64-unknown-linux-gnu\""),
                "aarch64",
                "macos",
                ours,
            ),
            (
                Some("default_host_tuple = \"x86_64-unknown-linux-gnu\""),
                "mips",
                "linux",
                ours,
            ),
            (
                Some("default_host_triple = \"../../x-y-z\""),
                "x86_64",
                "linux",
                ours,
            ),
            (Some("no toml"), "x86_64", "linux", ours),
            (None, "aarch64", "macos", Some("aarch64-apple-darwin")),
            (None, "x86", "windows", Some("i686-pc-windows-msvc")),
            (
                None,
                "riscv64",
                "linux",
                Some("riscv64gc-unknown-linux-gnu"),
            ),
            (None, "x86_64", "freebsd", Some("x86_64-unknown-freebsd")),
            (None, "arm", "linux", None),
            (None, "powerpc64", "linux", None),
            (None, "x86_64", "hermit", None),
        ] {
            assert_eq!(
                UserSettings::parse(settings.unwrap_or_default())
                    .host_triple(arch, os)
                    .as_deref(),
                triple,
                "{settings:?} {arch} {os}"
            );
        }
    }
}
