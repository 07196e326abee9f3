//! Metrics, alerts and the dashboard fit together; `/-/ready` and `/-/status.json` are as documented.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use testkit::larder::Larder;
use testkit::paths::{download, entry};
use testkit::process::wait_until;

use crate::{
    advisories::{database, serve_database},
    fixture::site,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/monitoring")
}

/// The metrics of a daemon that has all of them.
fn all_metrics(check: impl FnOnce(&Larder<'_>, &str)) {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let database = serve_database(&upstream, &database());
    let site = site(&upstream);
    let log = site.store().with_extension("log").display().to_string();
    let larder = site.serve(&[
        "--max-size",
        "1GB",
        "--access-log",
        &log,
        "--advisory-db",
        &database,
    ]);
    // The first count for the metrics has them, and the next one comes a minute later.
    larder.wait_for_log("the advisory database was read");
    for path in [entry("left"), download("left", "1.0.0"), entry("absent")] {
        larder.get(&path);
    }
    larder.wait_until_idle();
    upstream.stop();
    larder.get(&entry("missing"));
    wait_until("the store is counted", || {
        let text = larder.get("/-/metrics").text();
        text.contains("\nlarder_store_bytes ") && text.contains("\nlarder_advised_packages{")
    });
    let text = larder.get("/-/metrics").text();
    check(&larder, &text);
}

/// Runs promtool with this input. Says so and returns if it is not installed.
#[allow(
    clippy::print_stderr,
    reason = "the reader must know that nothing was checked"
)]
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(folder());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("promtool is not installed: {arguments:?} is not checked");
        return;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn promtool_accepts_metrics_and_alerts() {
    all_metrics(|_, text| promtool(&["check", "metrics"], text));
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
}

/// The names in `text` that begin with `larder_`.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let words = words.filter(|word| word.starts_with("larder_"));
    words.map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    all_metrics(|_, text| {
        let known = names(text);
        let mut found = 0;
        for file in ["alerts.yml", "alerts_test.yml", "dashboard.json"] {
            for name in names(&fs::read_to_string(folder().join(file)).unwrap()) {
                assert!(known.contains(&name), "{file} names `{name}`");
                found += 1;
            }
        }
        assert!(found > 20, "{found}");
        let dashboard = fs::read_to_string(folder().join("dashboard.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() > 5);
    });
}

/// The names of all fields, except below maps whose keys are counters.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                let is_map = ["requests", "limited", "sent_bytes", "received_bytes"];
                if !is_map.contains(&name.as_str()) {
                    fields(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_field_of_the_status_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let documented = fs::read_to_string(path).unwrap();
    all_metrics(|larder, _| {
        let mut found = BTreeSet::new();
        fields(&larder.status(), &mut found);
        let is_missing = |name: &&String| {
            let quoted = [format!("`{name}`"), format!("\"{name}\"")];
            !quoted.iter().any(|name| documented.contains(name))
        };
        let missing: Vec<_> = found.iter().filter(is_missing).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(found.len() > 30, "{found:?}");
    });
}

#[test]
fn ready_is_true_in_an_outage_and_false_for_a_store_that_is_not_readable() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get("/-/ready").status, 200);
    larder.get(&entry("left"));
    larder.wait_until_idle();
    upstream.stop();
    larder.get(&entry("missing"));
    assert_eq!(larder.status()["outages"][0]["state"], "down");
    assert_eq!(
        larder.get("/-/ready").status,
        200,
        "it serves what is stored"
    );
    let entries = site.store().join("v1/entries");
    let away = site.store().join("v1/away");
    fs::rename(&entries, &away).unwrap();
    assert_eq!(
        larder.get("/-/ready").status,
        200,
        "an empty store can be read"
    );
    fs::write(&entries, "no folder").unwrap();
    let reply = larder.get("/-/ready");
    assert_eq!(reply.status, 503);
    assert!(
        reply.text().starts_with("the store cannot be used: "),
        "{}",
        reply.text()
    );
    assert_eq!(larder.get("/-/health").status, 200, "the process is well");
    fs::remove_file(&entries).unwrap();
    fs::rename(&away, &entries).unwrap();
    fs::set_permissions(&entries, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(larder.get("/-/ready").status, 200);
}
