//! A row of the table: samples, their median and spread, and whether what was claimed of them holds. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// One figure divided by another of the same round.
    Ratio,
    Seconds,
    /// Requests.
    Count,
    /// Instructions or system calls.
    PerHit,
    /// Of 2^20 bytes.
    Mebibytes,
}

/// Which figures are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// One figure with what was claimed of it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    /// One figure for each round.
    pub(crate) samples: Vec<f64>,
    /// What must hold from the first release on. `UNCLAIMED` if nothing is.
    pub(crate) first_claim: f64,
    /// What shall hold in the end.
    pub(crate) reach: f64,
    /// What has to be installed before this can be measured.
    pub(crate) lacks: Option<String>,
    /// What the figures were made of, one object for each round.
    pub(crate) raw: Vec<Value>,
}

/// Of a figure that is only watched.
pub(crate) const UNCLAIMED: f64 = f64::INFINITY;

impl Row {
    /// A ratio without samples, less being better.
    pub(crate) fn ratio(what: &str, first_claim: f64, reach: f64) -> Self {
        Self {
            what: what.to_owned(),
            unit: Unit::Ratio,
            better: Better::Less,
            samples: Vec::new(),
            first_claim,
            reach,
            lacks: None,
            raw: Vec::new(),
        }
    }

    /// One round's figure, and what it was made of.
    pub(crate) fn push(&mut self, sample: f64, raw: Value) {
        self.samples.push(sample);
        self.raw.push(raw);
    }

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

    /// Whether the first claim holds, or there is none, or it could not be put to the test.
    pub(crate) fn holds(&self) -> bool {
        self.lacks.is_some() || self.first_claim == UNCLAIMED || self.meets(self.first_claim)
    }

    fn meets(&self, claim: f64) -> bool {
        match self.better {
            Better::Less => self.median() <= claim,
            Better::More => self.median() >= claim,
        }
    }

    /// The figure with its spread, as a line for people.
    pub(crate) fn line(&self) -> String {
        if let Some(lacks) = &self.lacks {
            return format!("{}: not measured, {lacks}", self.what);
        }
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
            "better": format!("{:?}", self.better).to_lowercase(),
            "first_claim": self.first_claim, "reach": self.reach, "verdict": self.verdict(),
            "samples": self.samples.iter().copied().map(rounded).collect::<Vec<_>>(), "raw": self.raw,
        })
    }

    fn verdict(&self) -> String {
        if let Some(lacks) = &self.lacks {
            return format!("not measured, {lacks}");
        }
        let verdict = if self.first_claim == UNCLAIMED {
            "watched"
        } else if self.meets(self.reach) {
            "pass, reached"
        } else if self.meets(self.first_claim) {
            "pass"
        } else {
            "FAIL"
        };
        verdict.to_owned()
    }

    fn claim(&self, claim: f64) -> String {
        match self.better {
            _ if claim == UNCLAIMED => "-".to_owned(),
            Better::Less => format!("<= {}", self.figure(claim)),
            Better::More => format!(">= {}", self.figure(claim)),
        }
    }

    fn figure(&self, figure: f64) -> String {
        match self.unit {
            _ if figure.is_nan() => "-".to_owned(),
            Unit::Ratio => format!("{figure:.2}"),
            Unit::Seconds => format!("{figure:.2} s"),
            Unit::Count => format!("{figure}"),
            Unit::PerHit => format!("{figure:.1}"),
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
            row.claim(row.first_claim),
            row.claim(row.reach),
            row.verdict(),
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
            samples: samples.to_vec(),
            ..Row::ratio("cold", 1.15, 1.0)
        }
    }

    #[test]
    fn the_median_decides_and_outliers_only_show() {
        let row = row(&[9.0, 1.1, 1.2, 1.0, 0.5]);
        assert_eq!((row.median(), row.spread()), (1.1, (0.5, 9.0)));
        assert_eq!((row.holds(), row.verdict().as_str()), (true, "pass"));
    }

    #[test]
    fn where_more_is_better_a_claim_is_a_floor() {
        let row = Row {
            better: Better::More,
            reach: 1.3,
            first_claim: 1.0,
            ..row(&[1.1])
        };
        assert_eq!((row.holds(), row.verdict().as_str()), (true, "pass"));
        let worse = Row {
            samples: vec![0.9],
            ..row.clone()
        };
        assert_eq!((worse.holds(), worse.verdict().as_str()), (false, "FAIL"));
        assert!(table(&[row]).contains(">= 1.30"));
    }

    #[test]
    fn what_could_not_be_measured_is_no_failure_and_says_what_it_lacks() {
        let row = Row {
            lacks: Some("wrk is not installed".into()),
            ..row(&[])
        };
        assert!(row.holds());
        assert!(row.line().ends_with("not measured, wrk is not installed"));
    }

    #[test]
    fn what_is_only_watched_never_fails() {
        let row = Row {
            first_claim: UNCLAIMED,
            reach: UNCLAIMED,
            ..row(&[9.0])
        };
        assert_eq!((row.holds(), row.verdict().as_str()), (true, "watched"));
        let more = Row {
            better: Better::More,
            ..row
        };
        assert_eq!((more.holds(), more.verdict().as_str()), (true, "watched"));
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
