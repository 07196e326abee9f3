//! [`LivePart`]: an element of the page that a script replaces, and its event.

use maud::{Markup, PreEscaped, html};

/// A part of the page that changes while a browser shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePart {
    /// Identifier of its element, and name of its event.
    pub id: &'static str,
    /// The content of the element.
    pub html: String,
    /// True if a screen reader reads a change aloud.
    is_spoken: bool,
}

impl LivePart {
    pub(super) fn spoken(id: &'static str, content: Markup) -> Self {
        Self {
            id,
            html: content.into_string(),
            is_spoken: true,
        }
    }

    pub(super) fn silent(id: &'static str, content: Markup) -> Self {
        Self {
            is_spoken: false,
            ..Self::spoken(id, content)
        }
    }

    pub(super) fn element(&self) -> Markup {
        let spoken = self.is_spoken.then_some("polite");
        html! { div id=(self.id) data-live aria-live=[spoken] { (PreEscaped(&self.html)) } }
    }
}

/// A server-sent event with the name `name` and the text `data`.
pub fn event(name: &str, data: &str) -> String {
    let mut event = format!("event: {name}\n");
    for line in data.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_event_has_its_field() {
        assert_eq!(
            event("numbers", "<p>a\r\nb"),
            "event: numbers\ndata: <p>a\ndata: \ndata: b\n\n"
        );
    }
}
