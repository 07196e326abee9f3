//! [`PartialTriple`]: the end of a toolchain's name, which may name parts of a host triple only.
//!
//! ```text
//!  stable-x86_64                      architecture
//!  stable-gnu                         environment
//!  stable-x86_64-pc-windows-msvc      architecture, system, environment
//! ```
//!
//! rustup completes the missing parts from the default host. It knows the parts by lists, which rustup 1.29 generates
//! from the targets of rustc (`src/dist/triple/known.rs`). A name with any other end is a name of the user's own.

use std::fmt;

/// Parts of a host triple.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartialTriple {
    arch: Option<String>,
    os: Option<String>,
    env: Option<String>,
}

impl PartialTriple {
    /// Parses parts in their order, at least one (`PartialTargetTriple::new` in `src/dist/triple.rs`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let known = |list: &'static str| list.split_whitespace();
        let arch = known(ARCHITECTURES).find_map(|arch| Some((arch, after(text, arch)?)));
        let candidates = arch.map(|(arch, rest)| (Some(arch), rest));
        for (arch, rest) in candidates.into_iter().chain([(None, text)]) {
            let systems = known(SYSTEMS).filter_map(|os| Some((Some(os), after(rest, os)?)));
            for (os, env) in systems.chain([(None, rest)]) {
                if env.is_empty() || known(ENVIRONMENTS).any(|known| known == env) {
                    let owned = |part: &str| Some(part.to_owned()).filter(|part| !part.is_empty());
                    return Some(Self {
                        arch: arch.and_then(owned),
                        os: os.and_then(owned),
                        env: owned(env),
                    })
                    .filter(|triple| *triple != Self::default());
                }
            }
        }
        None
    }

    /// The whole triple for a user whose default host is `host` (`PartialToolchainDesc::resolve` in
    /// `src/dist/mod.rs`). `None` if rustup does not know `host`, or cannot tell its architecture and system.
    pub(super) fn resolve(&self, host: &str) -> Option<String> {
        let host = Self::parse(host)?;
        let (host_arch, host_os) = (host.arch?, host.os?);
        // A system without an environment is complete: there are such systems.
        let env = match (&self.os, &self.env) {
            (Some(_), env) => env.clone(),
            (None, env) => env.clone().or(host.env),
        };
        let arch = self.arch.as_ref().unwrap_or(&host_arch);
        let os = self.os.as_ref().unwrap_or(&host_os);
        Some(match env {
            Some(env) => format!("{arch}-{os}-{env}"),
            None => format!("{arch}-{os}"),
        })
    }
}

impl fmt::Display for PartialTriple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.arch, &self.os, &self.env].into_iter().flatten();
        for (number, part) in parts.enumerate() {
            let dash = if number == 0 { "" } else { "-" };
            write!(f, "{dash}{part}")?;
        }
        Ok(())
    }
}

/// The triple of a default host as rustup reads it. `None` if its architecture or its system is not known.
pub(super) fn complete(host: &str) -> Option<String> {
    PartialTriple::default().resolve(host)
}

/// The text after `part` and the dash that follows it, if any.
fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(part)?;
    match rest.strip_prefix('-') {
        Some(rest) => (!rest.is_empty()).then_some(rest),
        None => rest.is_empty().then_some(rest),
    }
}

/// `LIST_ARCHS`.
const ARCHITECTURES: &str = "
    aarch64 aarch64_be aarch64v8r amdgcn arm arm64_32 arm64e arm64ec armeb armebv7r armv4t armv5te armv6 armv6k
    armv7 armv7a armv7k armv7r armv7s armv8r avr bpfeb bpfel csky hexagon i386 i586 i686 loongarch32 loongarch64
    m68k mips mips64 mips64el mipsel mipsisa32r6 mipsisa32r6el mipsisa64r6 mipsisa64r6el msp430 nvptx64 powerpc
    powerpc64 powerpc64le riscv32 riscv32e riscv32em riscv32emc riscv32gc riscv32i riscv32im riscv32ima riscv32imac
    riscv32imafc riscv32imc riscv64 riscv64a23 riscv64gc riscv64im riscv64imac s390x sparc sparc64 sparcv9 thumbv4t
    thumbv5te thumbv6 thumbv6m thumbv7a thumbv7em thumbv7m thumbv7neon thumbv7r thumbv8m.base thumbv8m.main thumbv8r
    wasm32 wasm32v1 wasm64 x86_64 x86_64h xtensa
";

/// `LIST_OSES`.
const SYSTEMS: &str = "
    amd-amdhsa apple-darwin apple-ios apple-tvos apple-visionos apple-watchos esp-espidf esp32-espidf esp32-none
    esp32s2-espidf esp32s2-none esp32s3-espidf esp32s3-none fortanix-unknown ibm-aix kmc-solid_asp3 linux
    lynx-lynxos178 mti-none nintendo-3ds nintendo-switch none nuttx-eabi nuttx-eabihf nvidia-cuda openwrt-linux
    pc-cygwin pc-nto pc-solaris pc-windows risc0-zkvm rtems-eabihf sony-psp sony-psx sony-vita sun-solaris
    unikraft-linux unknown-dragonfly unknown-emscripten unknown-freebsd unknown-fuchsia unknown-haiku
    unknown-helenos unknown-hermit unknown-hurd unknown-illumos unknown-l4re unknown-linux unknown-managarm
    unknown-motor unknown-netbsd unknown-none unknown-nto unknown-nuttx unknown-openbsd unknown-qurt unknown-redox
    unknown-teeos unknown-trusty unknown-uefi unknown-unknown unknown-xous uwp-windows vex-v5 wali-linux wasip1
    wasip1-threads wasip2 wasip3 win7-windows wrs-vxworks
";

/// `LIST_ENVS`.
const ENVIRONMENTS: &str = "
    android androideabi eabi eabihf elf freestanding gnu gnu_ilp32 gnuabi64 gnuabiv2 gnuabiv2hf gnuasan gnueabi
    gnueabihf gnullvm gnuspe gnux32 macabi mlibc msvc musl muslabi64 musleabi musleabihf muslspe newlibeabihf none
    ohos qnx700 qnx710 qnx710_iosock qnx800 sgx sim softfloat spe uclibc uclibceabi uclibceabihf
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::fixture::{LINUX, WINDOWS};

    #[test]
    fn parts_are_completed_by_the_default_host_as_rustup_does() {
        let musl = "aarch64-unknown-linux-musl";
        for (parts, host, expected) in [
            ("x86_64", LINUX, Some(LINUX)),
            ("x86_64", musl, Some("x86_64-unknown-linux-musl")),
            ("gnu", musl, Some("aarch64-unknown-linux-gnu")),
            ("i686-gnu", LINUX, Some("i686-unknown-linux-gnu")),
            ("msvc", WINDOWS, Some("x86_64-pc-windows-msvc")),
            ("pc-windows", LINUX, Some("x86_64-pc-windows")),
            ("x86_64-unknown-linux", LINUX, Some("x86_64-unknown-linux")),
            (
                "wasm32-wasip1-threads",
                LINUX,
                Some("wasm32-wasip1-threads"),
            ),
            ("aarch64-apple-darwin", LINUX, Some("aarch64-apple-darwin")),
            (
                "gnu",
                "aarch64-apple-darwin",
                Some("aarch64-apple-darwin-gnu"),
            ),
            // rustup cannot complete a name with a host that it does not know.
            ("gnu", "mine-unknown-linux-gnu", None),
            ("gnu", "x86_64", None),
        ] {
            let triple = PartialTriple::parse(parts).unwrap();
            assert_eq!(triple.resolve(host).as_deref(), expected, "{parts} {host}");
        }
    }

    #[test]
    fn unknown_parts_and_other_orders_are_no_triple() {
        for text in [
            "",
            "-",
            "mine",
            "x86_64-",
            "-gnu",
            "gnu-x86_64",
            "x86_64--gnu",
            "x86_64-unknown-linux-mine",
            "x86_64-unknown-linux-gnu-gnu",
            "a-b-c",
            "pc",
        ] {
            assert_eq!(PartialTriple::parse(text), None, "{text}");
        }
    }
}
