//! The page for browsers at `/`: what it says of upstream, store, projects and crates. `page_in_chromium` looks at it
//! with a real browser.

use std::fs;

use fake_upstream::{Crate, FakeUpstream};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::wait_until;
use testkit::store::blob_path;

/// The header that Chromium sends.
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// A site with a warmed project that needs `left` and `right`.
pub(crate) fn warmed(upstream: &FakeUpstream) -> (Site, Project) {
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("left", "1.1.0"));
    upstream.publish(Crate::new("right", "1.0.0").dep("left", "^1"));
    let site = site(upstream);
    let project = Project::empty().dep_line("right = \"1\"");
    let resolved = CargoHome::empty().run(&project, &["generate-lockfile"], &upstream.url());
    resolved.assert_success();
    let warmed = site.command(&["warm", &project.folder().display().to_string()]);
    assert!(warmed.status.success(), "{warmed:?}");
    (site, project)
}

#[track_caller]
fn page(larder: &Larder<'_>, path: &str) -> String {
    let reply = larder.get_with(path, &[BROWSER]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

#[test]
fn browsers_get_a_page_under_a_strict_policy_and_programs_get_text() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get_with("/", &[BROWSER]);
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(reply.header("vary"), Some("accept"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self';"),
        "{policy}"
    );
    // The page has nothing that the policy would forbid: no script and no style within it.
    let html = reply.text();
    assert!(
        !html.contains("style=") && !html.contains("<script>"),
        "{html}"
    );
    let script = larder.get("/-/live.js");
    assert_eq!(
        script.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    let base = larder.url().trim_end_matches('/');
    assert!(html.contains(&format!("sparse+{base}/")), "{html}");

    let style = larder.get("/-/style.css");
    assert_eq!(
        style.header("content-type"),
        Some("text/css; charset=utf-8")
    );
    let text = larder.get("/");
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(text.text().contains("is running here"), "{}", text.text());
}

#[test]
fn the_page_shows_requests_stored_files_projects_and_what_they_miss() {
    let upstream = FakeUpstream::start();
    let (site, project) = warmed(&upstream);
    let sum = upstream.checksum("left", "1.1.0");
    let larder = site.serve(&["--max-size", "1GB"]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    let html = page(&larder, "/");
    assert!(
        html.contains("In the last hour: 1 from the store, 0 fetched"),
        "{html}"
    );
    assert!(
        html.contains("<strong>2</strong><span>crates and archives</span>"),
        "{html}"
    );
    assert!(html.contains("<meter"), "{html}");
    let owner = project.folder().canonicalize().unwrap().join("Cargo.lock");
    assert!(html.contains(&owner.display().to_string()), "{html}");
    assert!(html.contains(">all<"), "{html}");

    fs::remove_file(blob_path(&site, &sum)).unwrap();
    let html = page(&larder, "/");
    assert!(html.contains("1 missing: left 1.1.0"), "{html}");
}

#[test]
fn a_project_is_gone_when_its_manifest_is_gone_as_well_as_its_lock_file() {
    let upstream = FakeUpstream::start();
    let (site, project) = warmed(&upstream);
    let larder = site.serve(&[]);
    // `larder warm` also takes projects without a lock file.
    fs::remove_file(project.folder().join("Cargo.lock")).unwrap();
    assert!(!page(&larder, "/").contains("is gone"));
    fs::remove_file(project.folder().join("Cargo.toml")).unwrap();
    assert!(page(&larder, "/").contains("its file is gone"));
}

#[test]
fn a_search_lists_stored_versions_and_the_projects_that_need_them() {
    let upstream = FakeUpstream::start();
    let (site, project) = warmed(&upstream);
    let larder = site.serve(&[]);
    let html = page(&larder, "/?crate=Left");
    // The index lists 1.0.0 as well, but its crate is not stored.
    assert!(
        html.contains(">1.1.0<") && !html.contains(">1.0.0<"),
        "{html}"
    );
    let owner = project.folder().canonicalize().unwrap().join("Cargo.lock");
    assert!(
        html.contains(&format!("<div>{}</div>", owner.display())),
        "{html}"
    );
    let html = page(&larder, "/?crate=%3Cscript%3E");
    assert!(
        html.contains("No version of <code>&lt;script&gt;</code> is stored."),
        "{html}"
    );
}

#[test]
fn an_outage_appears_in_words_and_goes() {
    let upstream = FakeUpstream::start();
    let (site, _project) = warmed(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "1s"]);
    upstream.stop();
    assert_eq!(larder.get(&entry("left")).status, 200);
    wait_until("the page tells of the outage", || {
        larder.get(&entry("left"));
        let html = page(&larder, "/");
        html.contains("larder: upstream is down") && html.contains(" is down.")
    });
    upstream.restart();
    wait_until("the page tells that upstream is back", || {
        larder.get(&entry("left"));
        page(&larder, "/").contains("No upstream is known to be down.")
    });
}
