//! Toolchain manifests that must be signed (`verify-signatures`).

use std::fs;
use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fake_upstream::{FakeUpstream, Toolchain};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA512;

use crate::dist::{MINIMAL, released, serve};
use crate::fixture::site;
use testkit::http::Http;
use testkit::larder::Site;
use testkit::rustup::Rustup;

const MANIFEST: &str = "/dist/channel-rust-stable.toml";

/// A key of these tests, and what it makes.
struct Signer(KeyPair);

impl Signer {
    fn new() -> Self {
        let bytes = include_bytes!("../../fixtures/openpgp/signer.der");
        Self(KeyPair::from_der(bytes).unwrap())
    }

    /// The public key as an OpenPGP file in the folder of the site.
    fn public_file(&self, site: &Site) -> PathBuf {
        let key = PublicKeyComponents::<Vec<u8>>::from(self.0.public());
        let body = [vec![4, 0, 0, 0, 0, 1], number(&key.n), number(&key.e)].concat();
        let path = site.store().parent().unwrap().join("key.asc");
        fs::write(&path, armored("PUBLIC KEY BLOCK", &packet(6, &body))).unwrap();
        path
    }

    /// A detached signature of `file`.
    fn sign(&self, file: &[u8]) -> String {
        // Version 4, a binary document, RSA, SHA-512, and the time of signing as the one subpacket.
        let signed = [4, 0, 1, 10, 0, 6, 5, 2, 0, 0, 0, 0];
        let trailer = [&signed[..], &[4, 255, 0, 0, 0, signed.len() as u8]].concat();
        let mut made = vec![0; self.0.public().modulus_len()];
        let text = [file, &trailer].concat();
        self.0
            .sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), &text, &mut made)
            .unwrap();
        let body = [&signed[..], &[0, 0, 0, 0], &number(&made)].concat();
        armored("SIGNATURE", &packet(2, &body))
    }

    /// Signs what upstream has as the manifest of stable.
    fn release(&self, upstream: &FakeUpstream) {
        let manifest = Http::to(upstream.base_url()).get(MANIFEST).body;
        self.serve(upstream, &self.sign(&manifest));
    }

    fn serve(&self, upstream: &FakeUpstream, signature: &str) {
        upstream.serve_static(
            &format!("{MANIFEST}.asc"),
            signature.to_owned(),
            "text/plain",
        );
    }
}

fn number(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    let bits = bytes.len() * 8 - bytes[0].leading_zeros() as usize;
    [&(bits as u16).to_be_bytes()[..], bytes].concat()
}

fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_be_bytes();
    [&[0xc0 | tag, 255], &len[..], body].concat()
}

fn armored(what: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    format!("-----BEGIN PGP {what}-----\n\n{text}\n-----END PGP {what}-----\n")
}

#[test]
fn rustup_installs_a_release_that_the_key_has_signed() {
    let upstream = released();
    let signer = Signer::new();
    signer.release(&upstream);
    let site = site(&upstream);
    let key = signer.public_file(&site).display().to_string();
    let larder = serve(
        &site,
        &upstream,
        &["--verify-signatures", "1", "--signing-key", &key],
    );
    let server = larder.url().trim_end_matches('/').to_owned();
    Rustup::without_toolchain()
        .run(&MINIMAL, &server, &format!("{server}/rustup"))
        .assert_success();
    assert_eq!(upstream.requests_for(&format!("{MANIFEST}.asc")), 1);
}

#[test]
fn a_release_without_a_good_signature_is_refused_and_the_stored_one_stays() {
    let upstream = released();
    let signer = Signer::new();
    let site = site(&upstream);
    let key = signer.public_file(&site).display().to_string();
    let arguments = [
        "--max-age",
        "0s",
        "--verify-signatures",
        "1",
        "--signing-key",
        &key,
    ];
    let larder = serve(&site, &upstream, &arguments);
    let unsigned = larder.get(MANIFEST);
    assert_eq!(unsigned.status, 503);
    assert!(
        unsigned.text().contains("verify-signatures"),
        "{}",
        unsigned.text()
    );
    let other = signer.sign(b"another file");
    signer.serve(&upstream, &other);
    let wrong = larder.get(MANIFEST);
    assert_eq!(wrong.status, 503);
    assert!(
        wrong.text().contains("does not prove it"),
        "{}",
        wrong.text()
    );
    larder.stop();

    signer.release(&upstream);
    let larder = serve(&site, &upstream, &arguments);
    let first = larder.get(MANIFEST);
    assert_eq!(first.status, 200, "{}", first.text());
    larder.wait_until_idle();
    // The next release is not signed yet, or by somebody else.
    upstream.release(&Toolchain::new("stable", "1.96.0").date("2026-05-28"));
    let kept = larder.get(MANIFEST);
    assert_eq!((kept.status, kept.body == first.body), (200, true));
    larder.wait_for_log("does not prove it");
    signer.release(&upstream);
    larder.wait_until_reachable();
    let next = larder.get(MANIFEST);
    assert!(next.text().contains("1.96.0"));
}

#[test]
fn an_unusable_key_ends_the_daemon_with_its_name() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let output = site.command(&[
        "warm",
        "--verify-signatures",
        "1",
        "--signing-key",
        "/nowhere.asc",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("cannot use the signing key /nowhere.asc"),
        "{error}"
    );
}
