//! Runs libFuzzer on the target that the variable `FUZZ_TARGET` names. See README.md.

#![no_main]
#![allow(missing_docs, reason = "the macro makes the only items")]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fuzz::Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        let found = fuzz::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no target `{name}`")).1
    });
    target(data);
});
