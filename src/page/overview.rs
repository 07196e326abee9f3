//! The parts of the page that change slowly: requests over time, trouble, projects.

use maud::{Markup, html};

use super::{live::LivePart, now::time, plot};
use crate::overview::{MINUTES_PER_DAY_BAR, Minutes, ProjectState, Trouble};

/// Missing files that one project lists.
const MISSING_LISTED: usize = 5;

/// The last day, and the state of the projects.
#[derive(Debug, Default)]
pub struct Overview {
    /// How requests were answered in the last day.
    pub minutes: Minutes,
    /// Matters that need attention.
    pub trouble: Vec<Trouble>,
    /// Warmed projects and toolchains.
    pub projects: Vec<ProjectState>,
}

impl Overview {
    /// The parts in the order of the page.
    pub fn parts(&self) -> Vec<LivePart> {
        vec![
            LivePart::silent("requests", self.plots()),
            LivePart::spoken("trouble", self.trouble()),
            LivePart::silent("projects", self.projects()),
        ]
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
                    (plot::bars("the last day", &self.minutes.last_day(), MINUTES_PER_DAY_BAR))
                }
            }
        }
    }

    fn trouble(&self) -> Markup {
        html! {
            @if !self.trouble.is_empty() {
                section.trouble {
                    h2 { "Needs attention" }
                    ul {
                        @for trouble in &self.trouble {
                            li {
                                (with_code(&trouble.text))
                                @if let Some(since) = trouble.since { " (since " (time(since)) ")" }
                            }
                        }
                    }
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
                                    td.count { (project.packages + project.components) }
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
}

fn stored_of(project: &ProjectState) -> Markup {
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

/// A text with the words between backticks as code.
fn with_code(text: &str) -> Markup {
    let parts: Vec<_> = text.split('`').collect();
    html! {
        @if parts.len() % 2 == 0 {
            // A lone backtick marks nothing.
            (text)
        } @else {
            @for (index, part) in parts.into_iter().enumerate() {
                @if index % 2 == 1 { code { (part) } } @else { (part) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Owner;

    #[test]
    fn commands_in_a_trouble_are_code() {
        let trouble = |text: &str| {
            let trouble = Trouble {
                text: text.to_owned(),
                since: None,
            };
            let overview = Overview {
                trouble: vec![trouble],
                ..Overview::default()
            };
            overview.trouble().into_string()
        };
        let html = trouble("<a> is not ready; `larder warm` says why");
        let expected = "&lt;a&gt; is not ready; <code>larder warm</code> says why";
        assert!(html.contains(expected), "{html}");
        let html = trouble("`a` and one ` more");
        assert!(html.contains("`a` and one ` more"), "{html}");
    }

    #[test]
    fn a_project_lists_a_few_missing_files_and_counts_the_others() {
        let overview = Overview {
            projects: vec![ProjectState {
                owner: Owner::File("/p/Cargo.lock".into()),
                packages: 9,
                components: 0,
                missing: (0..7).map(|n| format!("crate{n} 1.0.0")).collect(),
                is_gone: true,
            }],
            ..Overview::default()
        };
        let html = overview.projects().into_string();
        assert!(html.contains("7 missing: crate0 1.0.0"), "{html}");
        assert!(html.contains("and 2 more"));
        assert!(!html.contains("crate5"));
        assert!(html.contains("its file is gone"));
    }
}
