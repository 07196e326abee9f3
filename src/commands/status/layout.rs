//! The form of `larder status` as text: a label at the left, values beside it, wrapped to the width of a terminal.

use crate::commands::render::Screen;

/// Width of the column of labels.
const LABEL_WIDTH: usize = 10;
/// Shortest text that a line is wrapped to, in narrow terminals.
const MIN_TEXT_WIDTH: usize = 30;
/// Heights of a bar in a line of text, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Width of the bar of a download.
const PROGRESS_WIDTH: u64 = 10;

/// LabelledLines of text in the making.
#[derive(Debug)]
pub(super) struct LabelledLines {
    text: String,
    columns: Option<usize>,
    /// The label of the next line; empty after it was written.
    label: &'static str,
}

impl LabelledLines {
    /// No lines yet.
    pub(super) fn new(screen: Screen) -> Self {
        Self {
            text: String::new(),
            columns: screen.columns,
            label: "",
        }
    }

    /// A line, or several below each other if the terminal is too narrow, beside a new label.
    pub(super) fn add(&mut self, label: &'static str, value: &str) {
        self.label = label;
        self.more(value);
    }

    /// A further line beside the label.
    pub(super) fn more(&mut self, value: &str) {
        self.column("", value);
    }

    /// A further line with a first column of its own, which wrapped text does not use.
    pub(super) fn column(&mut self, first: &str, value: &str) {
        let indent = LABEL_WIDTH + first.chars().count();
        let width = self.columns.map(|columns| columns.saturating_sub(indent));
        let width = width.map_or(usize::MAX, |width| width.max(MIN_TEXT_WIDTH));
        for (at, line) in wrapped(value, width).iter().enumerate() {
            let (label, first) = if at == 0 {
                (std::mem::take(&mut self.label), first)
            } else {
                ("", "")
            };
            let used = LABEL_WIDTH + first.chars().count();
            let rest = " ".repeat(indent - used);
            // A label may fill its column.
            let label = match label.len() < LABEL_WIDTH {
                true => format!("{label:LABEL_WIDTH$}"),
                false => format!("{label} "),
            };
            self.text += &format!("{label}{first}{rest}{line}\n");
        }
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// `text` in lines of at most `width` characters, broken at spaces. A longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    // Splits before each run of spaces, so that columns inside the text keep their distance.
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest.len() - rest.trim_start_matches(' ').len();
        let end = rest[start..].find(' ').map_or(rest.len(), |at| start + at);
        let word = &rest[start..end];
        let len = rest[..end].chars().count();
        if used > 0 && used + len > width {
            lines.push(word.to_owned());
            used = word.chars().count();
        } else {
            if let Some(line) = lines.last_mut() {
                line.push_str(&rest[..end]);
            }
            used += len;
        }
        rest = &rest[end..];
    }
    lines
}

/// The numbers as a row of bars, half as many, the highest as high as a line.
pub(super) fn sparkline(numbers: &[u64]) -> String {
    let pairs: Vec<u64> = numbers.chunks(2).map(|pair| pair.iter().sum()).collect();
    let highest = pairs.iter().copied().max().unwrap_or(0).max(1);
    let bars = pairs.iter().map(|number| {
        // A single request beside thousands has a bar that differs from none.
        match number.saturating_mul(7).div_ceil(highest) {
            0 => ' ',
            height => BARS[usize::try_from(height).unwrap_or(7).min(7)],
        }
    });
    bars.collect()
}

/// The part of a download that has arrived: `[##--------]  25 %`.
pub(super) fn progress_bar(received: u64, total: u64) -> String {
    let received = received.min(total);
    let scaled = |whole: u64| {
        let part = u128::from(received) * u128::from(whole) / u128::from(total.max(1));
        u64::try_from(part).unwrap_or(whole)
    };
    let done = usize::try_from(scaled(PROGRESS_WIDTH)).unwrap_or(0);
    let width = usize::try_from(PROGRESS_WIDTH).unwrap_or(0);
    let (full, empty) = ("#".repeat(done), "-".repeat(width - done));
    format!("[{full}{empty}] {:3} %", scaled(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_wrapped_beside_their_label_and_first_column() {
        let mut lines = LabelledLines::new(Screen {
            columns: Some(42),
            ..Screen::default()
        });
        lines.add("upstream", "one two three four five six seven eight");
        lines.column(
            "a ",
            "/a/path/that/is/longer/than/all/of/the/line (1 package)",
        );
        let expected = [
            "upstream  one two three four five six",
            "          seven eight",
            "          a /a/path/that/is/longer/than/all/of/the/line",
            "            (1 package)",
            "",
        ];
        assert_eq!(lines.into_text(), expected.join("\n"));
        let mut lines = LabelledLines::new(Screen::default());
        lines.add("upstream", "one two three four five six seven eight");
        assert_eq!(lines.into_text().lines().count(), 1, "no terminal");
    }

    #[test]
    fn the_highest_number_fills_the_line_and_a_low_one_is_not_none() {
        assert_eq!(sparkline(&[0, 0, 1, 0, 500, 500]), " ▂█");
        assert_eq!(sparkline(&[0; 4]), "  ");
    }

    #[test]
    fn a_progress_bar_has_its_part_and_never_more_than_all() {
        assert_eq!(progress_bar(1, 4), "[##--------]  25 %");
        assert_eq!(progress_bar(9, 4), "[##########] 100 %");
        assert_eq!(progress_bar(0, 0), "[----------]   0 %");
    }
}
