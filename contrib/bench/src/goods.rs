//! The things whose hits are measured: index entries, crates and a component of typical and of large size, published by an
//! upstream without delay.
//!
//! Who serves them and how fast is for the scenes.

use bytes::Bytes;
use fake_upstream::{Crate, FakeUpstream, crate_path, index_path};

/// One thing that can be downloaded.
#[derive(Clone, Debug)]
pub(crate) struct Good {
    pub(crate) what: &'static str,
    /// Where larder has it: for a crate, where its `config.json` sends cargo.
    pub(crate) path: String,
    /// Where upstream has it.
    pub(crate) upstream_path: String,
    pub(crate) body: Bytes,
}

/// An upstream with all goods. Its answers may be kept for ten minutes.
pub(crate) fn upstream() -> FakeUpstream {
    FakeUpstream::builder().max_age(Some(600)).start()
}

/// An index entry of at least this size, with as many versions as that takes.
pub(crate) fn entry(upstream: &FakeUpstream, what: &'static str, name: &str, size: usize) -> Good {
    let mut body = String::new();
    let mut patch = 0_usize;
    while body.len() < size {
        let version = format!("1.0.{patch}");
        let line = Crate::new(name, &version)
            .feature("default", &["std"])
            .feature("std", &[])
            .pubtime("2024-05-06T07:08:09Z")
            .index_line(&format!("{patch:064x}"));
        body += &line;
        body.push('\n');
        patch += 1;
    }
    upstream.set_index(name, body);
    let path = index_path(name);
    Good {
        what,
        upstream_path: format!("/index/{path}"),
        path: format!("/{path}"),
        body: upstream.index_body(name),
    }
}

/// A crate whose archive has this size and a little more.
pub(crate) fn archive(
    upstream: &FakeUpstream,
    what: &'static str,
    name: &str,
    size: usize,
) -> Good {
    // Head, manifest and end of the archive take a few thousand bytes.
    let sum = upstream.publish(Crate::new(name, "1.0.0").padding(size.saturating_sub(4_600)));
    Good {
        what,
        upstream_path: crate_path(name, "1.0.0"),
        path: format!("/crates/{name}/1.0.0/{sum}/download"),
        body: upstream.body(name, "1.0.0"),
    }
}

/// A component of a toolchain, 80 MB of noise.
pub(crate) fn component(upstream: &FakeUpstream) -> Good {
    let path = "/dist/2026-04-16/rust-std-1.95.0-x86_64-unknown-linux-gnu.tar.xz";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut body = Vec::with_capacity(80_000_000);
    while body.len() < 80_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    let body = Bytes::from(body);
    upstream.serve_static(path, body.clone(), "application/octet-stream");
    Good {
        what: "component 80 MB",
        path: path.to_owned(),
        upstream_path: path.to_owned(),
        body,
    }
}

/// Where larder shall find components.
pub(crate) fn dist_server(upstream: &FakeUpstream) -> String {
    upstream.base_url().trim_end_matches('/').to_owned()
}
