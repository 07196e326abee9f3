//! The parts of the page that change slowly: requests over time, trouble, projects.

use maud::{Markup, html};

use super::{history, history::Minutes, live::LivePart, plot};

/// Missing files that one project lists.
const MISSING_LISTED: usize = 5;

/// The last day, and the state of the projects.
#[derive(Debug, Default)]
pub struct Overview {
    /// How requests were answered in the last day.
    pub minutes: Minutes,
    /// Matters that need attention, a line each.
    pub trouble: Vec<String>,
    /// Warmed projects and toolchains.
    pub projects: Vec<ProjectLine>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_lists_a_few_missing_files_and_counts_the_others() {
        let overview = Overview {
            projects: vec![ProjectLine {
                owner: "/p/Cargo.lock".to_owned(),
                needed: 9,
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
