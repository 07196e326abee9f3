//! Prometheus's text format 0.0.4.
//!
//! ```text
//!   # HELP larder_requests_total Requests for resources, by outcome.
//!   # TYPE larder_requests_total counter
//!   larder_requests_total{outcome="hit"} 1207
//! ```
//!
//! It is written by hand, because the numbers are few and a metrics library would count a second time.

use std::fmt::{self, Write as _};

/// Content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A gauge without labels.
pub(super) fn gauge(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    preamble(out, name, "gauge", help)?;
    writeln!(out, "larder_{name} {value}")
}

/// A counter without labels.
pub(super) fn counter(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    preamble(out, name, "counter", help)?;
    writeln!(out, "larder_{name} {value}")
}

/// A metric with one sample per value of `label`.
pub(super) fn family<'a>(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    samples: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    preamble(out, name, kind, help)?;
    for (value, count) in samples {
        write!(out, "larder_{name}{{{label}=\"")?;
        for c in value.chars() {
            match c {
                '\\' | '"' => write!(out, "\\{c}")?,
                '\n' => out.write_str("\\n")?,
                c => out.write_char(c)?,
            }
        }
        writeln!(out, "\"}} {count}")?;
    }
    Ok(())
}

/// The two lines before the samples of a metric.
pub(super) fn preamble(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    kind: &str,
    help: &str,
) -> fmt::Result {
    writeln!(
        out,
        "# HELP larder_{name} {help}\n# TYPE larder_{name} {kind}"
    )
}
