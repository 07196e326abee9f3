//! A row of the table: its samples, their median and spread, and the verdict on the claims. Pure.
//!
//! A row may have two claims. `first_claim` must hold since the first release, and the exit code depends on it. `reach`
//! is a goal: the verdict says whether it was reached.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A figure divided by another of the same round.
    Ratio,
    Seconds,
    /// Requests.
    Count,
    /// Instructions or system calls.
    PerHit,
    /// 2^20 bytes.
    Mebibytes,
}

/// The direction of improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// One figure, its samples and its claims.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    /// One sample per round.
    pub(crate) samples: Vec<f64>,
    /// The bound that must hold. [`UNCLAIMED`] if there is none.
    pub(crate) first_claim: f64,
    /// The goal.
    pub(crate) reach: f64,
    /// The reason why the row was not measured: a program that is not installed.
    pub(crate) missing: Option<String>,
    /// The measurements behind the samples, one object per round.
    pub(crate) raw: Vec<Value>,
}

/// The claim of a row that is only observed.
pub(crate) const UNCLAIMED: f64 = f64::INFINITY;

impl Row {
    /// A ratio without samples; less is better.
    pub(crate) fn ratio(what: &str, first_claim: f64, reach: f64) -> Self {
        Self {
            what: what.to_owned(),
            unit: Unit::Ratio,
            better: Better::Less,
            samples: Vec::new(),
            first_claim,
            reach,
            missing: None,
            raw: Vec::new(),
        }
    }

    /// Two ratios of hits, named by `label`: the rate, with its claims, and the processor time of a hit, which is only
    /// observed. Other work on the machine lowers the rates of both sides, but adds little to the processor time.
    pub(crate) fn rate_and_cost(
        figure: &str,
        label: impl Fn(&str) -> String,
        first_claim: f64,
        reach: f64,
        missing: Option<&String>,
    ) -> [Self; 2] {
        let rate = Self {
            better: Better::More,
            missing: missing.cloned(),
            ..Self::ratio(&label(figure), first_claim, reach)
        };
        let cost = Self {
            missing: missing.cloned(),
            ..Self::ratio(&label("processor time per hit"), UNCLAIMED, UNCLAIMED)
        };
        [rate, cost]
    }

    /// Adds the sample of one round and the measurements behind it.
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

    /// The least and the greatest sample.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |sample: Option<&f64>| sample.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    /// True if the first claim holds, or does not exist, or the row was not measured.
    pub(crate) fn holds(&self) -> bool {
        self.missing.is_some() || self.first_claim == UNCLAIMED || self.meets(self.first_claim)
    }

    fn meets(&self, claim: f64) -> bool {
        match self.better {
            Better::Less => self.median() <= claim,
            Better::More => self.median() >= claim,
        }
    }

    /// The median with its spread, as text.
    pub(crate) fn line(&self) -> String {
        if let Some(missing) = &self.missing {
            return format!("{}: not measured, {missing}", self.what);
        }
        format!(
            "{}: {} ({})",
            self.what,
            self.figure(self.median()),
            self.range()
        )
    }

    /// All data of the row.
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
        if let Some(missing) = &self.missing {
            return format!("not measured, {missing}");
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

/// Rounds to four decimals. More digits carry no information and would bloat the record.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 10_000.0).round() / 10_000.0
}

/// All rows with a heading, in aligned columns.
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
    fn verdict_uses_the_median_and_the_spread_shows_outliers() {
        let row = row(&[9.0, 1.1, 1.2, 1.0, 0.5]);
        assert_eq!((row.median(), row.spread()), (1.1, (0.5, 9.0)));
        assert_eq!((row.holds(), row.verdict().as_str()), (true, "pass"));
    }

    #[test]
    fn claim_is_a_lower_bound_where_more_is_better() {
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
    fn row_with_a_missing_program_passes_and_names_the_program() {
        let row = Row {
            missing: Some("wrk is not installed".into()),
            ..row(&[])
        };
        assert!(row.holds());
        assert!(row.line().ends_with("not measured, wrk is not installed"));
    }

    #[test]
    fn row_without_claims_always_passes() {
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
    fn median_of_an_even_number_of_samples_is_between_the_middle_two() {
        assert_eq!(row(&[1.0, 2.0]).median(), 1.5);
        assert_eq!(row(&[1.0, 0.5]).verdict(), "pass, reached");
    }

    #[test]
    fn row_without_samples_fails() {
        assert!(!row(&[]).holds());
        assert_eq!(row(&[]).verdict(), "FAIL");
    }

    #[test]
    fn table_columns_are_aligned() {
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
