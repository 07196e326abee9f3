//! The daemon's start page as HTML. Pure: `server::home` gathers what it shows.
//!
//! ```text
//!   Page ── Now        upstream's state, downloads, numbers    sent again each second if changed
//!       ├── Overview   requests, trouble, projects             sent again every few seconds if changed
//!       └── search, settings                                   as they were loaded
//! ```
//!
//! The page works without JavaScript: it then loads itself again every [`RELOAD_SECONDS`]. With it, [`SCRIPT`] replaces
//! the parts that changed, which arrive as server-sent events. Nothing foreign is loaded, and
//! [`CONTENT_SECURITY_POLICY`] forbids everything else.

mod live;
mod now;
mod overview;
mod plot;

use indicatif::HumanBytes;
use maud::{DOCTYPE, Markup, html};

pub use live::{LivePart, event};
pub use now::{Now, Stored};
pub use overview::Overview;

use crate::{client_config, overview::StoredVersion};

/// The things that a browser may load for the page: its style sheet, its script and its events, and an icon that is
/// part of the page.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                                           connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; \
                                           frame-ancestors 'none'";

/// The style sheet, in light and dark.
pub const STYLE: &str = include_str!("style.css");

/// Path of the style sheet.
pub const STYLE_PATH: &str = "/-/style.css";

/// The script that replaces parts of the page.
pub const SCRIPT: &str = include_str!("live.js");

/// Path of the script.
pub const SCRIPT_PATH: &str = "/-/live.js";

/// Path of the events, which the script names as well.
pub const EVENTS_PATH: &str = "/-/events";

/// Time after which a browser without JavaScript loads the page again.
const RELOAD_SECONDS: u32 = 60;

/// Everything that the page shows.
#[derive(Debug, Default)]
pub struct Page {
    /// Address by which the client reached the daemon, ending in `/`.
    pub base: String,
    /// The state of the daemon at this moment.
    pub now: Now,
    /// The last day, and the state of the projects.
    pub overview: Overview,
    /// The search and its result.
    pub search: Option<CrateSearch>,
}

/// The result of a search for a crate.
#[derive(Debug)]
pub struct CrateSearch {
    /// The name that was searched for.
    pub query: String,
    /// Stored versions, the newest first.
    pub versions: Vec<StoredVersion>,
}

impl Page {
    /// The page as an HTML document.
    pub fn html(&self) -> String {
        let base = &self.base;
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if self.search.is_none() {
                        noscript { meta http-equiv="refresh" content=(RELOAD_SECONDS); }
                    }
                    title { (self.now.title()) }
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href=(STYLE_PATH);
                    script src=(SCRIPT_PATH) defer {}
                }
                body {
                    header {
                        h1 { "larder" }
                        p { "version " (env!("CARGO_PKG_VERSION")) " at " code { (base) } }
                    }
                    main {
                        p #lost role="alert" hidden { "The daemon does not answer. The page shows its last state." }
                        @for part in self.now.parts().iter().chain(&self.overview.parts()) { (part.element()) }
                        (self.search())
                        (settings(base))
                    }
                    footer {
                        p {
                            "For programs: " a href="/-/status.json" { "status as JSON" } ", "
                            a href="/-/metrics" { "metrics for Prometheus" } "."
                        }
                    }
                }
            }
        };
        markup.into_string()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{overview::ProjectState, store::Owner};

    #[test]
    fn names_from_outside_are_escaped() {
        let mut page = Page::default();
        page.overview.projects.push(ProjectState {
            owner: Owner::File("/<script>alert(1)</script>/Cargo.lock".into()),
            packages: 1,
            components: 0,
            missing: vec!["<b>".to_owned()],
            is_gone: false,
        });
        page.search = Some(CrateSearch {
            query: "\"><script>".to_owned(),
            versions: Vec::new(),
        });
        let html = page.html();
        assert_eq!(html.matches("<script").count(), 1, "{html}");
        assert!(
            html.contains("<script src=\"/-/live.js\" defer>") && !html.contains("<b>"),
            "{html}"
        );
    }
}
