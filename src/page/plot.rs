//! Stacked bars as SVG. Classes of the style sheet colour them, since a strict policy forbids inline styles.

use maud::{Markup, html};

use crate::overview::AnsweredRequests;

const WIDTH: usize = 600;
const HEIGHT: u64 = 120;

/// A plot of `bars` of `minutes` each, the newest last, with its numbers in words for people who cannot see it.
pub(super) fn bars(what: &str, bars: &[AnsweredRequests], minutes: usize) -> Markup {
    let highest = bars.iter().map(|bar| bar.sum()).max().unwrap_or(0);
    let sum = bars
        .iter()
        .copied()
        .fold(AnsweredRequests::default(), AnsweredRequests::plus);
    let summary = format!(
        "{} from the store, {} fetched, {} stale, {} failed",
        sum.hits, sum.misses, sum.stale, sum.failed
    );
    let width = WIDTH / bars.len().max(1);
    let minutes = format!("{minutes} minute{}", if minutes == 1 { "" } else { "s" });
    let label = format!("Requests in {what}, in bars of {minutes}: {summary}");
    html! {
        figure {
            figcaption { "In " (what) ": " (summary) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(label) preserveAspectRatio="none" {
                line.axis x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
                @for (index, bar) in bars.iter().enumerate() {
                    @for (class, from, to) in stack(*bar, highest) {
                        rect.(class) x=(index * width + 1) width=(width.saturating_sub(2))
                            y=(HEIGHT - to) height=(to - from) {}
                    }
                }
            }
            @if highest > 0 { p.scale { "highest bar: " (highest) (if highest == 1 { " request in " } else { " requests in " }) (minutes) } }
        }
    }
}

/// The parts of a bar that are not empty: class, lower and upper end. The highest bar fills the height.
fn stack(bar: AnsweredRequests, highest: u64) -> Vec<(&'static str, u64, u64)> {
    let parts = [
        ("hits", bar.hits),
        ("misses", bar.misses),
        ("stale", bar.stale),
        ("failed", bar.failed),
    ];
    let mut below = 0;
    let mut stacked = Vec::new();
    for (class, count) in parts {
        let from = scaled(below, highest);
        below += count;
        // One failure beside thousands of hits must be seen.
        let to = scaled(below, highest).max((from + u64::from(count > 0) * 2).min(HEIGHT));
        if count > 0 && to > from {
            stacked.push((class, from, to));
        }
    }
    stacked
}

fn scaled(count: u64, highest: u64) -> u64 {
    (count.saturating_mul(HEIGHT))
        .checked_div(highest)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_on_each_other_and_the_highest_bar_fills_the_height() {
        let bar = AnsweredRequests {
            hits: 30,
            misses: 10,
            stale: 0,
            failed: 20,
        };
        let expected = [("hits", 0, 60), ("misses", 60, 80), ("failed", 80, 120)];
        assert_eq!(stack(bar, 60), expected);
        assert_eq!(stack(AnsweredRequests::default(), 0), []);
    }

    #[test]
    fn few_requests_of_a_kind_are_visible() {
        let bar = AnsweredRequests {
            hits: 100_000,
            misses: 1,
            stale: 0,
            failed: 0,
        };
        assert_eq!(stack(bar, 1_000_000)[1], ("misses", 12, 14));
    }
}
