//! Whether a dependency that a crate has only on some platforms is one for this machine, as far as that is certain. Pure: reads
//! the `target` of a dependency in an index line, which is `cfg(..)` or a triple (cargo, `Platform` in `cargo-platform`).

use std::env::consts;

use cargo_metadata::cargo_platform::{Cfg, CfgExpr, Platform};

/// The longest condition that is read, in bytes. No crate comes near it.
const LONGEST: usize = 1024;

/// What is known of this machine, and so most likely of clients on it.
#[derive(Clone, Copy, Debug)]
struct Machine {
    os: &'static str,
    family: &'static str,
    arch: &'static str,
}

const HERE: Machine = Machine {
    os: consts::OS,
    family: consts::FAMILY,
    arch: consts::ARCH,
};

/// Whether the condition certainly holds for what is compiled on this machine for itself. Which C library clients use
/// (larder is often linked to another one), what their compiler has switched on, and triples in full are never certain.
pub(super) fn holds_here(condition: &str) -> bool {
    HERE.judge(condition) == Some(true)
}

impl Machine {
    /// `None` if it cannot be told.
    fn judge(self, condition: &str) -> Option<bool> {
        // The parser goes as deep as brackets do.
        if condition.len() > LONGEST {
            return None;
        }
        match condition.parse().ok()? {
            Platform::Name(_) => None,
            Platform::Cfg(condition) => self.holds(&condition),
        }
    }

    fn holds(self, condition: &CfgExpr) -> Option<bool> {
        match condition {
            CfgExpr::Not(inner) => self.holds(inner).map(|holds| !holds),
            CfgExpr::All(all) => self.unless(false, all),
            CfgExpr::Any(any) => self.unless(true, any),
            CfgExpr::Value(Cfg::Name(name)) => match name.as_str() {
                family @ ("unix" | "windows") => Some(self.family == family),
                "debug_assertions" | "panic" | "overflow_checks" => None,
                // Switches of single crates, which are off unless somebody sets them for the whole build.
                _ => Some(false),
            },
            CfgExpr::Value(Cfg::KeyPair(key, value)) => self.has(key.as_str(), value),
            CfgExpr::True => Some(true),
            CfgExpr::False => Some(false),
        }
    }

    /// `decisive` if one of them is that, else the contrary if all are.
    fn unless(self, decisive: bool, all: &[CfgExpr]) -> Option<bool> {
        let mut is_certain = true;
        for one in all {
            match self.holds(one) {
                Some(holds) if holds == decisive => return Some(decisive),
                Some(_) => {}
                None => is_certain = false,
            }
        }
        is_certain.then_some(!decisive)
    }

    fn has(self, key: &str, value: &str) -> Option<bool> {
        match key {
            "target_os" => Some(self.os == value),
            "target_arch" => Some(self.arch == value),
            "target_family" => Some(self.family == value),
            "target_env" if value == "msvc" && self.os != "windows" => Some(false),
            "target_env" if value == "sgx" => Some(false),
            "target_vendor" if self.os == "linux" => Some(value == "unknown"),
            "target_vendor" if self.os == "macos" => Some(value == "apple"),
            "target_pointer_width" => Some(value == usize::BITS.to_string()),
            "target_endian" => Some((value == "little") == cfg!(target_endian = "little")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(condition: &str, linux: Option<bool>, mac: Option<bool>) {
        let machine = |os, arch| Machine {
            os,
            family: "unix",
            arch,
        };
        let found = [machine("linux", "x86_64"), machine("macos", "aarch64")]
            .map(|machine| machine.judge(condition));
        assert_eq!(found, [linux, mac], "{condition}");
    }

    #[test]
    fn what_is_certain_is_told_and_the_rest_is_not() {
        let (yes, no) = (Some(true), Some(false));
        check("cfg(unix)", yes, yes);
        check("cfg(windows)", no, no);
        check("cfg(not(windows))", yes, yes);
        check("cfg( target_os = \"linux\" )", yes, no);
        check(
            r#"cfg(any(target_os = "macos", target_os = "ios"))"#,
            no,
            yes,
        );
        check(
            r#"cfg(all(unix, not(any(target_os = "macos", target_os = "android",)), target_arch = "x86_64"))"#,
            yes,
            no,
        );
        check(r#"cfg(not(target_env = "msvc"))"#, yes, yes);
        check(r#"cfg(target_vendor = "apple")"#, no, yes);
        check(
            r#"cfg(all(target_arch = "x86_64", target_env = "gnu", not(windows_raw_dylib)))"#,
            None,
            no,
        );
        check(
            r#"cfg(any(target_env = "musl", target_os = "linux"))"#,
            yes,
            None,
        );
        check(r#"cfg(target_env = "gnu")"#, None, None);
        check(
            r#"cfg(all(target_family = "wasm", target_os = "unknown"))"#,
            no,
            no,
        );
        check("cfg(tokio_unstable)", no, no);
        check("cfg(not(loom))", yes, yes);
        check("cfg(debug_assertions)", None, None);
        check("cfg(all())", yes, yes);
        check("cfg(any())", no, no);
        check("x86_64-unknown-linux-gnu", None, None);
    }

    #[test]
    fn what_is_no_condition_is_not_certain() {
        for odd in [
            "",
            "cfg",
            "cfg(",
            "cfg()",
            "cfg(unix",
            "cfg(unix))",
            "cfg(unix unix)",
            "cfg(all(unix)",
            "cfg(all(unix;unix))",
            "cfg(all(,,))",
            "cfg(some(unix))",
            "cfg(\"unix\")",
            "cfg(target_os = linux)",
            "cfg(target_os = \"linux)",
            "cfg(\u{1f980})",
        ] {
            check(odd, None, None);
        }
        let deep = format!("cfg({}unix{})", "not(".repeat(5000), ")".repeat(5000));
        check(&deep, None, None);
    }
}
