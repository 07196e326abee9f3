//! [`Diagnostics`]: what upstream says about its own failure, for the user and for upstream's operators.
//!
//! A failing response often carries a reason ("rate limit exceeded") and an id under which its operators find the
//! request. Cargo would print both, so larder passes them on. They are foreign text: one line of bounded length,
//! without control characters, and in quotes.

use std::{fmt, time::Duration};

use reqwest::{Response, header};

/// Bytes of a body that are read.
const MAX_TEXT_BYTES: usize = 4096;
/// Characters of the text, and of a header's value, that are passed on.
const MAX_LINE_CHARS: usize = 200;
/// Time limit for the body. The status alone is a sufficient answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Headers that identify a request at common servers and networks.
const REQUEST_IDS: [&str; 5] = [
    "x-request-id",
    "x-amz-request-id",
    "x-amz-cf-id",
    "cf-ray",
    "x-served-by",
];

/// Upstream's words about a failed request. `Display` continues a sentence that names the failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// First line of a text body.
    text: Option<String>,
    /// Names and values.
    headers: Vec<(&'static str, String)>,
}

impl Diagnostics {
    /// Reads the diagnostics of a failed response; `None` if it has none.
    pub(super) async fn read(mut response: Response) -> Option<Self> {
        let value = |name: &str| response.headers().get(name)?.to_str().ok();
        let headers = REQUEST_IDS
            .into_iter()
            .filter_map(|name| Some((name, first_line(value(name)?)?)))
            .collect();
        let is_text = value(header::CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.starts_with("text/plain") || kind.contains("json"));
        let text = if is_text {
            let body = tokio::time::timeout(BODY_TIMEOUT, read_body(&mut response)).await;
            body.ok().and_then(|body| first_line(&body))
        } else {
            None
        };
        let diagnostics = Self { text, headers };
        (diagnostics != Self::default()).then_some(diagnostics)
    }
}

/// The beginning of the body as text. A transfer that breaks off ends it.
async fn read_body(response: &mut Response) -> String {
    let mut body = Vec::new();
    while body.len() < MAX_TEXT_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_TEXT_BYTES);
    String::from_utf8_lossy(&body).into_owned()
}

/// The first line that has text, bounded and without control characters.
fn first_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let line = line.chars().filter(|char| !char.is_control());
    Some(line.take(MAX_LINE_CHARS).collect())
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            write!(f, " and says \"{text}\"")?;
        }
        for (name, value) in &self.headers {
            write!(f, " (its {name}: {value})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_bounded_line_without_control_characters() {
        assert_eq!(
            first_line("\n  rate\u{1b}[31m limit \nmore"),
            Some("rate[31m limit".to_owned())
        );
        assert_eq!(first_line(" \n"), None);
        let long = first_line(&"x".repeat(MAX_LINE_CHARS + 1)).unwrap();
        assert_eq!(long.len(), MAX_LINE_CHARS);
    }
}
