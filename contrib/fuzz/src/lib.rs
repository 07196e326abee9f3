//! The code of larder that reads bytes of others, as functions of arbitrary bytes. Each checks what must hold for all
//! inputs, and panics otherwise.
//!
//! ```text
//!   seeds/TARGET/*  ──> tests/seeds.rs   each seed once, with `cargo test -p fuzz`
//!                  └──> main.rs          libFuzzer, which changes them at random, with `contrib/fuzz/run`
//! ```
//!
//! | target | reads |
//! |---|---|
//! | `request` | path, query and `Host` of a request |
//! | `h2c` | the upgrade of a request, and the first bytes of HTTP/2 |
//! | `connection` | everything that a client sends |
//! | `index_entry` | an index entry of upstream |
//! | `registry_config` | `config.json` of upstream |
//! | `lock_file` | `Cargo.lock` |
//! | `manifest` | the manifest of a toolchain release |
//! | `toolchain_file` | toolchain files, rustup's settings, names of toolchains, frontmatter of scripts |
//! | `store_entry` | an entry file in the store |
//! | `signature` | the signature of a release, and a file of keys |

mod client;
mod files;
mod upstream;

/// A function that checks what must hold for all inputs.
pub type Target = fn(&[u8]);

/// Each target with its name, which is also the name of its folder below `seeds`.
pub const TARGETS: [(&str, Target); 10] = [
    ("request", client::request),
    ("h2c", client::h2c),
    ("connection", client::connection),
    ("index_entry", upstream::index_entry),
    ("registry_config", upstream::registry_config),
    ("lock_file", files::lock_file),
    ("manifest", upstream::manifest),
    ("toolchain_file", files::toolchain_file),
    ("store_entry", files::store_entry),
    ("signature", upstream::signature),
];

/// The text of the input; `None` if it is not UTF-8.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// The input up to the first byte 0xff, which occurs in no UTF-8, and the rest after it.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|&byte| byte == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
