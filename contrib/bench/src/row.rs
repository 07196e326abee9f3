//! A row of the table: samples, their median and spread, and whether what was claimed of them holds. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// One time divided by another of the same round.
    Ratio,
    Seconds,
    /// Requests.
    Count,
    /// Of 2^20 bytes.
    Mebibytes,
}

/// One figure, smaller being better, with what was claimed of it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    /// One figure for each round.
    pub(crate) samples: Vec<f64>,
    /// What must hold from the first release on.
    pub(crate) first_claim: f64,
    /// What shall hold in the end.
    pub(crate) reach: f64,
    /// What the figures were made of, one object for each round.
    pub(crate) raw: Vec<Value>,
}

impl Row {
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[len / 2],
            len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
        }
    }

    /// Least and most.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |sample: Option<&f64>| sample.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    /// Whether the first claim holds.
    pub(crate) fn holds(&self) -> bool {
        self.median() <= self.first_claim
    }

    /// The figure with its spread, as a line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}: {} ({})",
            self.what,
            self.figure(self.median()),
            self.range()
        )
    }

    /// Everything, for machines.
    pub(crate) fn json(&self) -> Value {
        let (least, most) = self.spread();
        json!({
            "row": self.what, "unit": format!("{:?}", self.unit).to_lowercase(), "median": rounded(self.median()),
            "least": rounded(least), "most": rounded(most),
            "first_claim": self.first_claim, "reach": self.reach, "verdict": self.verdict(),
            "samples": self.samples.iter().copied().map(rounded).collect::<Vec<_>>(), "raw": self.raw,
        })
    }

    fn verdict(&self) -> &'static str {
        match self.median() {
            median if median <= self.reach => "pass, reached",
            median if median <= self.first_claim => "pass",
            _ => "FAIL",
        }
    }

    fn figure(&self, figure: f64) -> String {
        match self.unit {
            Unit::Ratio => format!("{figure:.2}"),
            Unit::Seconds => format!("{figure:.2} s"),
            Unit::Count => format!("{figure}"),
            Unit::Mebibytes => format!("{figure:.1} MiB"),
        }
    }

    fn range(&self) -> String {
        let (least, most) = self.spread();
        format!("{} .. {}", self.figure(least), self.figure(most))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Four digits say all that a run can know, and more would bloat the record.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 10_000.0).round() / 10_000.0
}

/// All rows with a head, columns aligned.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = [
        "what",
        "median",
        "spread",
        "first claim",
        "reach",
        "verdict",
    ]
    .map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(|row| {
        [
            row.what.clone(),
            row.figure(row.median()),
            row.range(),
            format!("<= {}", row.figure(row.first_claim)),
            format!("<= {}", row.figure(row.reach)),
            row.verdict().to_owned(),
        ]
    }));
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(shown, "{cell:width$}  ");
        }
        text += shown.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(samples: &[f64]) -> Row {
        Row {
            what: "cold".into(),
            unit: Unit::Ratio,
            samples: samples.to_vec(),
            first_claim: 1.15,
            reach: 1.0,
            raw: Vec::new(),
        }
    }

    #[test]
    fn the_median_decides_and_outliers_only_show() {
        let row = row(&[9.0, 1.1, 1.2, 1.0, 0.5]);
        assert_eq!((row.median(), row.spread()), (1.1, (0.5, 9.0)));
        assert_eq!((row.holds(), row.verdict()), (true, "pass"));
    }

    #[test]
    fn an_even_number_of_samples_has_a_median_between_two() {
        assert_eq!(row(&[1.0, 2.0]).median(), 1.5);
        assert_eq!(row(&[1.0, 0.5]).verdict(), "pass, reached");
    }

    #[test]
    fn nothing_measured_is_no_pass() {
        assert!(!row(&[]).holds());
        assert_eq!(row(&[]).verdict(), "FAIL");
    }

    #[test]
    fn columns_are_aligned() {
        let text = table(&[
            row(&[1.0]),
            Row {
                what: "much longer".into(),
                ..row(&[2.0])
            },
        ]);
        let starts: Vec<_> = text.lines().skip(1).map(|line| line.find("<=")).collect();
        assert_eq!(starts[0], starts[1]);
    }
}
