//! A registry that requires a token, which larder cannot send: the user is told so, and upstream is not asked over and
//! over.

use std::fs;

use fake_upstream::{Crate, FakeUpstream, Fault};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};

#[test]
fn a_registry_that_refuses_config_json_is_asked_once_and_the_user_is_told_why() {
    let (upstream, corp) = (FakeUpstream::start(), FakeUpstream::start());
    corp.publish(Crate::new("inner", "1.0.0"));
    corp.fault("", Fault::Status(401));
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("larder.toml");
    let text = format!("[registry.corp]\nindex = \"sparse+{}\"\n", corp.url());
    fs::write(&settings, text).unwrap();
    let site = site(&upstream);
    // The request of the start has no client that could be told.
    let settings = settings.display().to_string();
    let larder = site.serve(&["--config", &settings, "--keep-warm", "false"]);

    for _ in 0..20 {
        assert_eq!(larder.get("/registry/corp/config.json").status, 200);
        let path = format!("/registry/corp/crates/inner/1.0.0/{:064}/download", 1);
        let reply = larder.get(&path);
        assert_eq!(reply.status, 403, "{}", reply.text());
        assert!(
            reply
                .text()
                .contains("larder cannot serve registries that require a token"),
            "{}",
            reply.text()
        );
    }
    larder.wait_until_idle();
    assert_eq!(corp.requests_for("config.json"), 1);

    let project = Project::empty().dep_line("inner = { version = \"1\", registry = \"corp\" }");
    let index = format!(
        "registries.corp.index=\"sparse+{}registry/corp/\"",
        larder.url()
    );
    CargoHome::empty()
        .run_plain(&project, &["--config", &index, "fetch"])
        .assert_failure()
        .assert_says("larder cannot serve registries that require a token");
    let log = larder.stop();
    let said = log.matches("larder cannot send a token").count();
    assert!(
        (1..=2).contains(&said),
        "once for each refused resource: {log}"
    );
}
