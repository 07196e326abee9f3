//! The parts of the page that change each second: upstream's state, downloads, numbers.

use std::time::SystemTime;

use indicatif::HumanBytes;
use maud::{Markup, html};

use super::live::LivePart;
use crate::overview::{AnsweredRequests, DownloadStatus, OutageState, UpstreamOutage};

/// Downloads that the page lists.
const LISTED_DOWNLOADS: usize = 8;

/// The state of the daemon at this moment.
#[derive(Debug, Default)]
pub struct Now {
    /// True if the daemon runs with `--offline`.
    pub is_offline: bool,
    /// Upstreams that are down or slow.
    pub outages: Vec<UpstreamOutage>,
    /// How requests were answered since the daemon started.
    pub total: AnsweredRequests,
    /// Crates and archives that are arriving from upstream.
    pub downloads: Vec<DownloadStatus>,
    /// Number of fetches under way, index entries and manifests included.
    pub fetching: usize,
    /// Bytes that clients got without a download since the daemon started.
    pub saved_bytes: u64,
    /// Numbers of stored files; `None` if it cannot be counted.
    pub stored: Option<Stored>,
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

impl Now {
    /// The state of upstream, which a browser shows on the tab.
    pub fn title(&self) -> &'static str {
        match (
            self.is_offline,
            self.outages
                .iter()
                .any(|outage| outage.state == OutageState::Down),
        ) {
            (true, _) => "larder: offline",
            (false, true) => "larder: upstream is down",
            (false, false) => "larder",
        }
    }

    /// The parts in the order of the page.
    pub fn parts(&self) -> Vec<LivePart> {
        vec![
            LivePart::spoken("state", self.upstream()),
            LivePart::silent("downloads", self.downloads()),
            LivePart::silent("numbers", self.numbers()),
        ]
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
                        strong { (outage.upstream) " is " (outage.state.as_str()) "." }
                        " Since " (time(outage.since.0)) ": " (outage.cause)
                        ". larder serves what is stored, and tries again."
                    }
                }
            }
        }
    }

    fn downloads(&self) -> Markup {
        let mut downloads: Vec<_> = self.downloads.iter().collect();
        downloads
            .sort_by_key(|download| std::cmp::Reverse(download.total.max(Some(download.received))));
        let listed = downloads.len().min(LISTED_DOWNLOADS);
        let others = self.fetching.saturating_sub(listed);
        html! {
            @if self.fetching > 0 {
                section {
                    h2 { "On the way from upstream" }
                    @if listed > 0 {
                        table {
                            tbody {
                                @for download in &downloads[..listed] {
                                    tr {
                                        th scope="row" { (download.what) }
                                        td { (progress(download)) }
                                        td.count { (bytes_of(download)) }
                                    }
                                }
                            }
                        }
                    }
                    @if others > 0 {
                        p.note { @if listed > 0 { "and " } (counted(others, if listed > 0 { "other file" } else { "file" })) }
                    }
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
                (number("needed no download", &HumanBytes(self.saved_bytes).to_string()))
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
}

fn progress(download: &DownloadStatus) -> Markup {
    let label = format!("Progress of {}", download.what);
    html! {
        @match download.total {
            Some(total) => progress aria-label=(label) max=(total.max(1)) value=(download.received.min(total)) {},
            None => progress aria-label=(label) {},
        }
    }
}

fn bytes_of(download: &DownloadStatus) -> String {
    let received = HumanBytes(download.received);
    match download.total {
        Some(total) => format!("{received} of {}", HumanBytes(total)),
        None => received.to_string(),
    }
}

fn number(label: &str, value: &str) -> Markup {
    html! { div.number { strong { (value) } span { (label) } } }
}

/// `1 file`, `2 files`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

pub(super) fn time(time: SystemTime) -> Markup {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    html! { time datetime=(text) { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::Timestamp;

    fn html(now: &Now) -> String {
        now.parts().into_iter().map(|part| part.html).collect()
    }

    #[test]
    fn upstream_state_is_in_words_and_in_the_title() {
        let mut now = Now::default();
        assert!(html(&now).contains("No upstream is known to be down."));
        now.outages.push(UpstreamOutage {
            upstream: "https://index.example".to_owned(),
            state: OutageState::Down,
            since: Timestamp::from_seconds(0),
            cause: "connection refused".to_owned(),
        });
        assert_eq!(now.title(), "larder: upstream is down");
        assert!(html(&now).contains("https://index.example is down."));
        now.is_offline = true;
        assert!(html(&now).contains("asks no upstream"));
    }

    #[test]
    fn the_largest_downloads_are_listed_and_the_other_fetches_counted() {
        let mut now = Now {
            fetching: 12,
            ..Now::default()
        };
        now.downloads = (1..=10)
            .map(|n| DownloadStatus {
                what: format!("crate `c{n} 1.0.0`"),
                received: n << 10,
                total: Some(n << 20),
            })
            .collect();
        let html = html(&now);
        assert!(html.contains("<progress aria-label=\"Progress of crate `c10 1.0.0`\" max=\"10485760\" value=\"10240\">"));
        assert!(html.contains("10.00 KiB of 10.00 MiB"), "{html}");
        assert!(html.contains("crate `c3 1.0.0`") && !html.contains("crate `c2 1.0.0`"));
        assert!(html.contains("and 4 other files"), "{html}");
    }
}
