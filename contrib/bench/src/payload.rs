//! The payloads of the hit benchmarks: index entries, crates and a component, of typical and of large size, published
//! by an upstream without delay.

use bytes::Bytes;
use fake_upstream::{Crate, FakeUpstream, crate_path, index_path};
use testkit::http::Http;

/// One file to download.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// Its name in the table.
    pub(crate) label: &'static str,
    /// Its path on larder; for a crate, the download path of larder's `config.json`.
    pub(crate) path: String,
    /// Its path on upstream.
    pub(crate) upstream_path: String,
    pub(crate) body: Bytes,
}

impl Payload {
    /// Fails unless the server answers this path with the payload.
    pub(crate) fn assert_served(&self, http: &Http, path: &str) {
        let reply = http.get(path);
        assert!(
            reply.status == 200 && reply.complete && reply.body == self.body,
            "{}: {path} was answered with {} and {} bytes of {}",
            http.address(),
            reply.status,
            reply.body.len(),
            self.body.len()
        );
    }
}

/// The upstream for all payloads. Its answers are fresh for ten minutes.
pub(crate) fn upstream() -> FakeUpstream {
    FakeUpstream::builder().max_age(Some(600)).start()
}

/// An index entry of at least `size` bytes.
pub(crate) fn entry(
    upstream: &FakeUpstream,
    label: &'static str,
    name: &str,
    size: usize,
) -> Payload {
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
    Payload {
        label,
        upstream_path: format!("/index/{path}"),
        path: format!("/{path}"),
        body: upstream.index_body(name),
    }
}

/// An index entry of 3 kB.
pub(crate) fn small_entry(upstream: &FakeUpstream) -> Payload {
    entry(upstream, "index entry 3 kB", "small", 3_000)
}

/// A crate of 11 kB.
pub(crate) fn small_crate(upstream: &FakeUpstream) -> Payload {
    archive(upstream, "crate 11 kB", "slim", 11_000)
}

/// A crate of 306 kB.
pub(crate) fn large_crate(upstream: &FakeUpstream) -> Payload {
    archive(upstream, "crate 306 kB", "stout", 306_000)
}

/// A crate whose archive has `size` bytes and a little more.
pub(crate) fn archive(
    upstream: &FakeUpstream,
    label: &'static str,
    name: &str,
    size: usize,
) -> Payload {
    // The tar header, the manifest and the end of the archive take a few thousand bytes.
    let sum = upstream.publish(Crate::new(name, "1.0.0").padding(size.saturating_sub(4_600)));
    Payload {
        label,
        upstream_path: crate_path(name, "1.0.0"),
        path: format!("/crates/{name}/1.0.0/{sum}/download"),
        body: upstream.body(name, "1.0.0"),
    }
}

/// A toolchain component: 80 MB of pseudo-random bytes.
pub(crate) fn component(upstream: &FakeUpstream) -> Payload {
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
    Payload {
        label: "component 80 MB",
        path: path.to_owned(),
        upstream_path: path.to_owned(),
        body,
    }
}

/// Fails if upstream has received a request since its requests were forgotten.
pub(crate) fn assert_only_hits(upstream: &FakeUpstream) {
    assert_eq!(
        upstream.requests_for(""),
        0,
        "upstream received requests, so these were no hits"
    );
}

/// The dist server URL for larder.
pub(crate) fn dist_server(upstream: &FakeUpstream) -> String {
    upstream.base_url().trim_end_matches('/').to_owned()
}
