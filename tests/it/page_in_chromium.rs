//! The page at `/` in real Chromium: without a complaint of the browser, with the keyboard, for a screen reader, and
//! while something happens. A machine without `chromium` and `chromedriver` says so and tests nothing; `.ci/run`
//! installs both.
//!
//! The pictures `target/tmp/page-*.png` are for people.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault};
use serde_json::json;

use crate::page::warmed;
use testkit::browser::Browser;
use testkit::paths::{download, entry};
use testkit::process::wait_until;
use testkit::store::blob_path;

const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

#[expect(
    clippy::print_stderr,
    reason = "says why a machine without a browser tests nothing"
)]
fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        eprintln!("NOT TESTED: chromium or chromedriver is not installed");
    }
    browser
}

#[track_caller]
fn wait_for_text(browser: &Browser, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut shown = browser.text();
    while !shown.contains(text) {
        assert!(
            Instant::now() < deadline,
            "the page does not say `{text}`: {shown}"
        );
        thread::sleep(Duration::from_millis(100));
        shown = browser.text();
    }
}

/// Takes a picture of the whole page.
fn picture(browser: &Browser, name: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
    fs::write(path, browser.screenshot()).unwrap();
}

#[test]
fn the_page_is_complete_for_eyes_keyboard_and_screen_reader_and_the_console_stays_empty() {
    let Some(browser) = browser() else { return };
    let upstream = FakeUpstream::start();
    let (site, _project) = warmed(&upstream);
    let larder = site.serve(&["--max-size", "1GB"]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    browser.open(larder.url());
    assert_eq!(browser.title(), "larder");
    assert!(
        browser
            .text()
            .contains("In the last hour: 1 from the store, 0 fetched")
    );
    assert!(
        browser
            .script("return document.querySelectorAll('rect.hits').length;")
            .as_u64()
            >= Some(2)
    );

    let plot = browser.element("svg");
    assert_eq!(plot.role(), "image");
    assert!(
        plot.label()
            .starts_with("Requests in the last hour, in bars of 1 minute"),
        "{}",
        plot.label()
    );
    assert_eq!(browser.element("meter").label(), "Store against its limit");
    assert_eq!(browser.element("main section").label(), "State of upstream");
    picture(&browser, "light");

    // The first thing that the keyboard reaches is the search.
    browser.press(TAB);
    assert_eq!(browser.focused().label(), "Name of a crate");
    browser.press("left");
    browser.press(ENTER);
    wait_for_text(&browser, "1.1.0");
    assert_eq!(browser.element("#search ~ table tbody th").text(), "1.1.0");
    assert_eq!(
        browser.element("#search ~ table tbody td").text(),
        "crates-io"
    );

    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.devtools("Emulation.setEmulatedMedia", &dark);
    picture(&browser, "dark");
    let phone = json!({ "width": 360, "height": 800, "deviceScaleFactor": 2, "mobile": true });
    browser.devtools("Emulation.setDeviceMetricsOverride", &phone);
    let widths =
        browser.script("return [document.documentElement.scrollWidth, window.innerWidth];");
    assert!(
        widths[0].as_u64() <= widths[1].as_u64(),
        "the page is wider than the screen: {widths}"
    );
    picture(&browser, "narrow");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_download_an_outage_and_a_lost_file_appear_and_go_while_the_page_is_open() {
    let Some(browser) = browser() else { return };
    let upstream = FakeUpstream::start();
    let (site, _project) = warmed(&upstream);
    upstream.publish(Crate::new("large", "1.0.0").padding(3_000_000));
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "2s"]);
    browser.open(larder.url());
    // A page that loads itself again forgets this.
    browser.script("window.isSame = true; return true;");

    upstream.fault(
        "large/1.0.0",
        Fault::Drip {
            bytes_per_second: 600_000,
        },
    );
    thread::scope(|scope| {
        scope.spawn(|| assert!(larder.get(&download("large", "1.0.0")).complete));
        wait_for_text(&browser, "crate `large 1.0.0`");
        wait_until("the download is under way", || {
            let shown = browser.script("return document.querySelector('progress')?.value ?? 0;");
            shown.as_f64() > Some(100_000.0)
        });
        assert_eq!(
            browser.element("progress").label(),
            "Progress of crate `large 1.0.0`"
        );
        picture(&browser, "download");
    });
    wait_until("the download has left the page", || {
        !browser.text().contains("On the way")
    });
    wait_for_text(&browser, "1\nfetched from upstream");

    upstream.stop();
    wait_until("the page tells of the outage", || {
        larder.get(&entry("left"));
        browser.title() == "larder: upstream is down" && browser.text().contains(" is down.")
    });
    picture(&browser, "outage");
    upstream.restart();
    wait_until("the page tells that upstream is back", || {
        larder.get(&entry("left"));
        browser.title() == "larder" && browser.text().contains("No upstream is known to be down.")
    });

    fs::remove_file(blob_path(&site, &upstream.checksum("left", "1.1.0"))).unwrap();
    wait_for_text(&browser, "1 missing: left 1.1.0");
    assert_eq!(browser.script("return window.isSame;"), true);
    assert_eq!(browser.console(), Vec::<String>::new());

    drop(larder);
    wait_for_text(&browser, "The daemon does not answer.");
}
