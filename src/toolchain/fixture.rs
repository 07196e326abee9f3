//! A small release manifest and the triples in it, for the tests of this module.

pub(super) const MANIFEST: &str = include_str!("../../fixtures/channel-rust-stable.toml");

pub(super) const LINUX: &str = "x86_64-unknown-linux-gnu";

pub(super) const WINDOWS: &str = "x86_64-pc-windows-gnu";

pub(super) const WASM: &str = "wasm32-unknown-unknown";

pub(super) const THUMB: &str = "thumbv8m.base-none-eabi";

pub(super) fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}
