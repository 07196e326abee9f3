//! The daemon's start page as HTML. Pure: `server::home` gathers what it shows.
//!
//! The page works without JavaScript and loads nothing but its own style sheet, so that [`CONTENT_SECURITY_POLICY`] can
//! forbid everything else. It loads itself again every [`RELOAD_SECONDS`], but not while it shows a search.

mod history;
mod plot;

use std::time::SystemTime;

use indicatif::HumanBytes;
use maud::{DOCTYPE, Markup, html};

pub use history::{AnsweredRequests, History, Minutes};

use crate::client_config;

/// The things that a browser may load for the page: its style sheet, and an icon that is part of the page.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
                                           base-uri 'none'; frame-ancestors 'none'";

/// The style sheet, in light and dark.
pub const STYLE: &str = include_str!("style.css");

/// Path of the style sheet.
pub const STYLE_PATH: &str = "/-/style.css";

/// Time after which a browser loads the page again.
const RELOAD_SECONDS: u32 = 60;

/// Missing files that one project lists.
const MISSING_LISTED: usize = 5;

/// Everything that the page shows.
#[derive(Debug, Default)]
pub struct Page {
    /// Host and port by which the client reached the daemon.
    pub authority: String,
    /// True if the daemon runs with `--offline`.
    pub is_offline: bool,
    /// Upstreams that are down or slow.
    pub outages: Vec<OutageLine>,
    /// How requests were answered in the last day.
    pub minutes: Minutes,
    /// How requests were answered since the daemon started.
    pub total: AnsweredRequests,
    /// Number of fetches under way.
    pub fetching: usize,
    /// Numbers of stored files; `None` if it cannot be counted.
    pub stored: Option<Stored>,
    /// Warmed projects and toolchains.
    pub projects: Vec<ProjectLine>,
    /// Matters that need attention, a line each.
    pub trouble: Vec<String>,
    /// The search and its result.
    pub search: Option<CrateSearch>,
}

/// An upstream that is down or slow.
#[derive(Debug)]
pub struct OutageLine {
    /// The upstream.
    pub upstream: String,
    /// True if it is down, false if it is slow.
    pub is_down: bool,
    /// When the first failure was seen.
    pub since: SystemTime,
    /// The last failure.
    pub cause: String,
}

/// Numbers of stored files.
#[derive(Debug)]
pub struct Stored {
    /// Number of crates and archives.
    pub blobs: u64,
    /// Number of index entries and manifests.
    pub entries: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// The limit in bytes; `None` without one.
    pub max_bytes: Option<u64>,
}

/// A warmed project or toolchain.
#[derive(Debug)]
pub struct ProjectLine {
    /// Path of its file, or name of the toolchain.
    pub owner: String,
    /// Number of crates and archives that it needs.
    pub needed: usize,
    /// Those that are not stored.
    pub missing: Vec<String>,
    /// True if its file no longer exists.
    pub is_gone: bool,
}

/// The result of a search for a crate.
#[derive(Debug)]
pub struct CrateSearch {
    /// The name that was searched for.
    pub query: String,
    /// Stored versions, the newest first.
    pub versions: Vec<StoredVersion>,
}

/// A stored version of a crate.
#[derive(Debug)]
pub struct StoredVersion {
    /// Name of the registry in larder's settings.
    pub registry: String,
    /// The version.
    pub version: String,
    /// Size of the crate file in bytes.
    pub bytes: u64,
    /// Projects that need it.
    pub needed_by: Vec<String>,
}

impl Page {
    /// The page as an HTML document.
    pub fn html(&self) -> String {
        let base = format!("http://{}/", self.authority);
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if self.search.is_none() { meta http-equiv="refresh" content=(RELOAD_SECONDS); }
                    title { (self.title()) }
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href=(STYLE_PATH);
                }
                body {
                    header {
                        h1 { "larder" }
                        p { "version " (env!("CARGO_PKG_VERSION")) " at " code { (base) } }
                    }
                    main {
                        (self.upstream())
                        (self.numbers())
                        (self.plots())
                        (self.trouble())
                        (self.projects())
                        (self.search())
                        (settings(&base))
                    }
                    footer {
                        p {
                            "For programs: " a href="/-/status.json" { "status as JSON" } ", "
                            a href="/-/metrics" { "metrics for Prometheus" } ". This page loads itself again every "
                            (RELOAD_SECONDS) " seconds."
                        }
                    }
                }
            }
        };
        markup.into_string()
    }

    /// The state of upstream, which a browser shows on the tab.
    fn title(&self) -> &'static str {
        match (
            self.is_offline,
            self.outages.iter().any(|outage| outage.is_down),
        ) {
            (true, _) => "larder: offline",
            (false, true) => "larder: upstream is down",
            (false, false) => "larder",
        }
    }

    fn upstream(&self) -> Markup {
        let state = match (self.is_offline, self.outages.is_empty()) {
            (true, _) => "offline",
            (false, true) => "good",
            (false, false) => "bad",
        };
        html! {
            section.state.(state) aria-label="State of upstream" {
                @if self.is_offline {
                    p { strong { "Offline." } " larder serves what is stored and asks no upstream." }
                } @else if self.outages.is_empty() {
                    p { strong { "Online." } " No upstream is known to be down." }
                }
                @for outage in self.outages.iter().filter(|_| !self.is_offline) {
                    p {
                        strong { (outage.upstream) " is " (if outage.is_down { "down" } else { "slow" }) "." }
                        " Since " (time(outage.since)) ": " (outage.cause)
                        ". larder serves what is stored, and tries again."
                    }
                }
                @if self.fetching > 0 {
                    p { (counted(self.fetching, "file")) " on the way from upstream." }
                }
            }
        }
    }

    fn numbers(&self) -> Markup {
        let AnsweredRequests {
            hits,
            misses,
            stale,
            failed,
        } = self.total;
        html! {
            section.numbers aria-label="Numbers" {
                (number("answered from the store", &hits.to_string()))
                (number("fetched from upstream", &misses.to_string()))
                (number("served stale", &stale.to_string()))
                (number("failed", &failed.to_string()))
                @if let Some(stored) = &self.stored {
                    (number("crates and archives", &stored.blobs.to_string()))
                    (number("index entries and manifests", &stored.entries.to_string()))
                    (number("on disk", &HumanBytes(stored.bytes).to_string()))
                    @if let Some(max) = stored.max_bytes {
                        div.number {
                            meter min="0" max=(max) high=(max / 10 * 9) value=(stored.bytes)
                                aria-label="Store against its limit" {}
                            span { "of " (HumanBytes(max)) }
                        }
                    }
                }
            }
        }
    }

    fn plots(&self) -> Markup {
        html! {
            section aria-label="Requests over time" {
                h2 { "Requests" }
                p.legend {
                    span.hits { "from the store" } span.misses { "fetched" }
                    span.stale { "stale" } span.failed { "failed" }
                }
                div.plots {
                    (plot::bars("the last hour", &self.minutes.last_hour(), 1))
                    (plot::bars("the last day", &self.minutes.last_day(), history::MINUTES_PER_DAY_BAR))
                }
            }
        }
    }

    fn trouble(&self) -> Markup {
        html! {
            @if !self.trouble.is_empty() {
                section.trouble {
                    h2 { "Needs attention" }
                    ul { @for line in &self.trouble { li { (line) } } }
                }
            }
        }
    }

    fn projects(&self) -> Markup {
        html! {
            section {
                h2 { "Warmed projects and toolchains" }
                @if self.projects.is_empty() {
                    p { "None yet. " code { "larder warm PATH" } " fetches what the projects below PATH need." }
                } @else {
                    table {
                        thead { tr {
                            th scope="col" { "project" } th scope="col" { "files" } th scope="col" { "stored" }
                        } }
                        tbody {
                            @for project in &self.projects {
                                tr {
                                    th scope="row" { (project.owner) }
                                    td.count { (project.needed) }
                                    td { (stored_of(project)) }
                                }
                            }
                        }
                    }
                    p.note { code { "larder check" } " tells whether a project can be built offline." }
                }
            }
        }
    }

    fn search(&self) -> Markup {
        let query = self.search.as_ref().map_or("", |search| &search.query);
        html! {
            section {
                h2 id="search" { "Stored crates" }
                form action="/" method="get" role="search" {
                    label for="crate" { "Name of a crate " }
                    input #crate type="search" name="crate" value=(query) autocomplete="off" spellcheck="false";
                    " " button type="submit" { "Search" }
                }
                @if let Some(search) = &self.search {
                    @if search.versions.is_empty() {
                        p role="status" { "No version of " code { (search.query) } " is stored." }
                    } @else {
                        table {
                            thead { tr {
                                th scope="col" { "version" } th scope="col" { "registry" }
                                th scope="col" { "size" } th scope="col" { "needed by" }
                            } }
                            tbody {
                                @for found in &search.versions {
                                    tr {
                                        th scope="row" { (found.version) }
                                        td { (found.registry) }
                                        td.count { (HumanBytes(found.bytes)) }
                                        td {
                                            @if found.needed_by.is_empty() { "no warmed project" }
                                            @for owner in &found.needed_by { div { (owner) } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn number(label: &str, value: &str) -> Markup {
    html! { div.number { strong { (value) } span { (label) } } }
}

fn stored_of(project: &ProjectLine) -> Markup {
    let missing = project.missing.len();
    let more = missing.saturating_sub(MISSING_LISTED);
    html! {
        @if missing == 0 {
            span.good { "all" }
        } @else {
            span.bad { (missing) " missing: " (project.missing[..missing - more].join(", ")) }
            @if more > 0 { " and " (more) " more" }
        }
        @if project.is_gone { "; its file is gone" }
    }
}

fn settings(base: &str) -> Markup {
    let rustup: Vec<_> = client_config::rustup_variables(base)
        .iter()
        .map(|(name, value)| format!("export {name}={value}\n"))
        .collect();
    html! {
        section {
            h2 { "Use it" }
            p { "For one command, with nothing to set up: " code { "larder run -- cargo build" } }
            p { "For cargo, in " code { "~/.cargo/config.toml" } ":" }
            pre tabindex="0" aria-label="Settings for cargo" { (client_config::cargo_settings(base)) }
            p { "For rustup, in the shell:" }
            pre tabindex="0" aria-label="Variables for rustup" { (rustup.concat()) }
        }
    }
}

/// `1 file`, `2 files`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn time(time: SystemTime) -> Markup {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    html! { time datetime=(text) { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        Page {
            authority: "127.0.0.1:3263".to_owned(),
            ..Page::default()
        }
    }

    #[test]
    fn upstream_state_is_in_words_and_in_the_title() {
        assert!(page().html().contains("No upstream is known to be down."));
        let mut down = page();
        down.outages.push(OutageLine {
            upstream: "https://index.example".to_owned(),
            is_down: true,
            since: SystemTime::UNIX_EPOCH,
            cause: "connection refused".to_owned(),
        });
        let html = down.html();
        assert!(html.contains("<title>larder: upstream is down</title>"));
        assert!(html.contains("https://index.example is down."), "{html}");
        down.is_offline = true;
        assert!(down.html().contains("asks no upstream"));
    }

    #[test]
    fn names_from_outside_are_escaped() {
        let mut page = page();
        page.projects.push(ProjectLine {
            owner: "/<script>alert(1)</script>/Cargo.lock".to_owned(),
            needed: 1,
            missing: vec!["<b>".to_owned()],
            is_gone: false,
        });
        page.search = Some(CrateSearch {
            query: "\"><script>".to_owned(),
            versions: Vec::new(),
        });
        let html = page.html();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    }

    #[test]
    fn a_project_lists_a_few_missing_files_and_counts_the_others() {
        let mut page = page();
        page.projects.push(ProjectLine {
            owner: "/p/Cargo.lock".to_owned(),
            needed: 9,
            missing: (0..7).map(|n| format!("crate{n} 1.0.0")).collect(),
            is_gone: true,
        });
        let html = page.html();
        assert!(html.contains("7 missing: crate0 1.0.0"), "{html}");
        assert!(html.contains("and 2 more"));
        assert!(!html.contains("crate5"));
        assert!(html.contains("its file is gone"));
    }
}
