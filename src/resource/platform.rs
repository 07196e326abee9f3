//! Whether a dependency that a crate has only on some platforms is one for this machine, as far as that is certain. Pure: reads
//! the `target` of a dependency in an index line, which is `cfg(..)` or a triple (cargo, `cargo-platform/src/lib.rs`).

use std::env::consts;

/// How deep conditions may be nested. No crate comes near it.
const DEEPEST: usize = 32;

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
        let inner = condition.trim().strip_prefix("cfg(")?.strip_suffix(')')?;
        let mut rest = inner;
        let verdict = self.expression(&mut rest, 0);
        rest.trim().is_empty().then_some(verdict)?
    }

    /// Reads one expression from the start of `rest`. What cannot be read is left there.
    fn expression(self, rest: &mut &str, depth: usize) -> Option<bool> {
        let word = word(rest);
        if let Some(inner) = rest.trim_start().strip_prefix('(')
            && depth < DEEPEST
        {
            *rest = inner;
            let mut all = Vec::new();
            loop {
                if let Some(after) = rest.trim_start().strip_prefix(')') {
                    *rest = after;
                    break;
                }
                let before = rest.len();
                all.push(self.expression(rest, depth + 1));
                *rest = rest.trim_start();
                *rest = rest.strip_prefix(',').unwrap_or(rest);
                if rest.len() == before {
                    return None;
                }
            }
            return match word {
                "all" if all.contains(&Some(false)) => Some(false),
                "all" => all.iter().all(|one| *one == Some(true)).then_some(true),
                "any" if all.contains(&Some(true)) => Some(true),
                "any" => all.iter().all(|one| *one == Some(false)).then_some(false),
                "not" => all.first().copied().flatten().map(|inner| !inner),
                _ => None,
            };
        }
        if let Some(value) = rest.trim_start().strip_prefix('=') {
            let (value, after) = value.trim_start().strip_prefix('"')?.split_once('"')?;
            *rest = after;
            return self.has(word, value);
        }
        match word {
            "unix" | "windows" => Some(self.family == word),
            "" | "debug_assertions" | "panic" | "overflow_checks" => None,
            // Switches of single crates, which are off unless somebody sets them for the whole build.
            _ => Some(false),
        }
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
            "target_pointer_width" => Some(match usize::BITS {
                32 => value == "32",
                _ => value == "64",
            }),
            "target_endian" => Some((value == "little") == cfg!(target_endian = "little")),
            _ => None,
        }
    }
}

/// Takes a name from the start of `rest`.
fn word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
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
