//! Real cargo against the fake: resolves, fetches and builds published crates, over http and https.

use std::sync::Arc;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, entry_path, from_lock};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use testkit::cargo::{CargoHome, Project};
use testkit::http::get_h2_on;

#[test]
fn cargo_builds_crates_with_every_kind_of_dependency() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("right", "1.0.0").file("src/lib.rs", "pub fn f() -> u32 { 7 }"));
    upstream.publish(Crate::new("winthing", "1.2.3"));
    upstream.publish(Crate::new("maker", "0.1.0"));
    upstream.publish(Crate::new("extra", "3.0.0"));
    upstream.publish(
        Crate::new("left", "1.0.0")
            .renamed_dep("other-right", "right", "^1")
            .optional_dep("extra", "^3")
            .dev_dep("nowhere", "^1")
            .build_dep("maker", "^0.1")
            .target_dep("cfg(windows)", "winthing", "1")
            .feature("more", &["dep:extra"])
            .links("leftlib")
            .rust_version("1.60")
            .pubtime("2024-05-06T07:08:09Z")
            .padding(5_000)
            .file("src/lib.rs", "pub fn f() -> u32 { other_right::f() }"),
    );
    upstream.publish(Crate::new("left", "1.1.0").yanked());
    let cargo = CargoHome::empty();
    let project = Project::empty().dep_line(r#"left = { version = "1", features = ["more"] }"#);
    project.write("src/lib.rs", "pub fn f() -> u32 { left::f() }");
    cargo
        .run(&project, &["build"], &upstream.url())
        .assert_success();
    let lock = project.lock();
    assert!(lock.contains(&upstream.checksum("left", "1.0.0")), "{lock}");
    assert!(
        lock.contains("winthing") && lock.contains("extra") && !lock.contains("nowhere"),
        "{lock}"
    );
    assert_eq!(upstream.requests_for("/dl/left/1.0.0"), 1);
    // Cargo revalidates and gets 304.
    upstream.forget_requests();
    cargo
        .run(&project, &["update"], &upstream.url())
        .assert_success();
    let entry = upstream
        .requests()
        .into_iter()
        .find(|request| request.path == entry_path("left"));
    assert!(entry.unwrap().header("if-none-match").is_some());
}

#[test]
fn cargo_does_not_find_unpublished_or_yanked_crates() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let project = Project::empty().dep("left", "1");
    let cargo = CargoHome::empty();
    upstream.yank("left", "1.0.0");
    let run = cargo.run(&project, &["fetch"], &upstream.url());
    run.assert_failure().assert_says("yanked");
    upstream.unpublish("left");
    let run = cargo.run(&project, &["fetch"], &upstream.url());
    run.assert_failure()
        .assert_says("no matching package named `left` found");
    upstream.set_index("left", "not json\n");
    cargo
        .run(&project, &["fetch"], &upstream.url())
        .assert_failure();
}

#[test]
fn cargo_refuses_a_flipped_byte_and_repeats_a_cut_download() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(10_000));
    let project = Project::empty().dep("left", "1");
    upstream.fault_times("/dl/left", 1, Fault::FlipByte(5_000));
    let run = CargoHome::empty().run(&project, &["fetch"], &upstream.url());
    run.assert_failure()
        .assert_says("failed to verify the checksum");
    upstream.forget_requests();
    upstream.fault_times("/dl/left", 1, Fault::CutAfter(5_000));
    CargoHome::empty()
        .run(&project, &["fetch"], &upstream.url())
        .assert_success();
    assert_eq!(upstream.requests_for("/dl/left"), 2);
}

#[test]
fn cargo_speaks_h2_to_the_https_server_it_trusts() {
    let upstream = FakeUpstream::builder().tls().start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let project = Project::empty().dep("left", "1");
    let cargo = CargoHome::empty().trust(upstream.ca_pem());
    cargo
        .run(&project, &["fetch"], &upstream.url())
        .assert_success();
    crate::assert_all_over_http2(&upstream);
}

#[test]
fn cargo_rejects_expired_certificates_and_other_host_names() {
    for builder in [
        FakeUpstream::builder().tls_expired(),
        FakeUpstream::builder().tls_name("other.example"),
    ] {
        let upstream = builder.start();
        let project = Project::empty().dep("left", "1");
        let cargo = CargoHome::empty()
            .trust(upstream.ca_pem())
            .variable("CARGO_NET_RETRY", "0");
        cargo
            .run(&project, &["fetch"], &upstream.url())
            .assert_failure();
        assert_eq!(upstream.requests_for(""), 0);
        assert!(upstream.connections() > 0);
    }
}

#[tokio::test]
async fn faults_reset_single_streams_under_tls() {
    let upstream = FakeUpstream::builder().tls().start();
    for name in ["left", "right"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(50_000));
    }
    upstream.fault("left", Fault::CutAfter(20_000));

    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(upstream.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let authority = upstream
        .base_url()
        .strip_prefix("https://")
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    let tcp = tokio::net::TcpStream::connect(&authority).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();

    let replies = get_h2_on(
        tls,
        &authority,
        &[&crate_path("left", "1.0.0"), &crate_path("right", "1.0.0")],
    )
    .await;
    let [cut, whole] = replies.try_into().unwrap();
    let (cut, whole) = (cut.unwrap(), whole.unwrap());
    assert_eq!(
        (cut.complete, cut.body.as_slice()),
        (false, &upstream.body("left", "1.0.0")[..20_000])
    );
    assert_eq!(
        (whole.complete, whole.body.as_slice()),
        (true, &upstream.body("right", "1.0.0")[..])
    );
}

#[test]
fn cargo_accepts_the_lock_file_of_a_generated_project() {
    let upstream = FakeUpstream::start();
    let made = from_lock(include_str!("../../fixtures/small.lock"), &upstream);
    assert_eq!(made.packages.len(), 8);
    let folder = TempDir::new().unwrap();
    made.write(folder.path()).unwrap();
    let project = Project::at(folder.path());
    let cargo = CargoHome::empty();
    cargo
        .run(&project, &["build", "--locked"], &upstream.url())
        .assert_success();
    // Without the lock file cargo makes the same choice, in spite of all the older versions.
    std::fs::remove_file(folder.path().join("Cargo.lock")).unwrap();
    upstream.forget_requests();
    cargo
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    assert_eq!(project.lock(), made.lock);
    assert_eq!(upstream.requests_for("bystander"), 0);
}

#[test]
fn same_lock_file_gives_the_same_registry() {
    let text = include_str!("../../fixtures/small.lock");
    let (one, other) = (FakeUpstream::start(), FakeUpstream::start());
    let made = from_lock(text, &one);
    assert_eq!(made.lock, from_lock(text, &other).lock);
    for (name, _) in &made.packages {
        assert_eq!(one.index_body(name), other.index_body(name));
    }
}
