//! Tells if a version lies in the range of a requirement, pre-releases included.
//!
//! [`VersionReq::matches`] leaves a pre-release out unless the requirement names it, because a resolver must not choose
//! one by accident. For a rule about bad versions that is wrong: `<1.3` must cover `1.2.0-rc.1`. Here versions are
//! compared by their order alone (semver.org, clause 11).

use std::cmp::Ordering;

use semver::{Comparator, Op, Prerelease, Version, VersionReq};

/// Returns whether `version` lies in the range of `requirement`.
pub(super) fn contains(requirement: &VersionReq, version: &Version) -> bool {
    let comparators = &requirement.comparators;
    comparators
        .iter()
        .all(|comparator| meets(comparator, version))
}

fn meets(comparator: &Comparator, version: &Version) -> bool {
    let from = version.cmp_precedence(&lowest(comparator));
    let is_in_series = |series: Series| {
        from != Ordering::Less && version.cmp_precedence(&series.end(comparator)) == Ordering::Less
    };
    let named = Series::named_by(comparator);
    match comparator.op {
        Op::GreaterEq => from != Ordering::Less,
        Op::Less => from == Ordering::Less,
        Op::Greater => match named {
            Series::Version => from == Ordering::Greater,
            series @ (Series::Major | Series::Minor) => {
                version.cmp_precedence(&series.end(comparator)) != Ordering::Less
            }
        },
        Op::LessEq => match named {
            Series::Version => from != Ordering::Greater,
            series @ (Series::Major | Series::Minor) => {
                version.cmp_precedence(&series.end(comparator)) == Ordering::Less
            }
        },
        Op::Exact | Op::Wildcard => match named {
            Series::Version => from == Ordering::Equal,
            series @ (Series::Major | Series::Minor) => is_in_series(series),
        },
        Op::Tilde => is_in_series(match named {
            Series::Version => Series::Minor,
            series @ (Series::Major | Series::Minor) => series,
        }),
        Op::Caret => is_in_series(
            match (comparator.major, comparator.minor, comparator.patch) {
                (1.., _, _) | (0, None, _) => Series::Major,
                (0, Some(1..), _) | (0, Some(0), None) => Series::Minor,
                (0, Some(0), Some(_)) => Series::Version,
            },
        ),
        // `Op` may grow. A rule that is not understood covers too much rather than too little.
        _ => true,
    }
}

/// Versions with the same first numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Series {
    Major,
    Minor,
    Version,
}

impl Series {
    /// The series by the numbers that the comparator has.
    fn named_by(comparator: &Comparator) -> Self {
        match (comparator.minor, comparator.patch) {
            (None, _) => Self::Major,
            (Some(_), None) => Self::Minor,
            (Some(_), Some(_)) => Self::Version,
        }
    }

    /// The lowest version after the comparator's series.
    fn end(self, comparator: &Comparator) -> Version {
        let (major, minor) = (comparator.major, comparator.minor.unwrap_or(0));
        let (major, minor, patch) = match self {
            Self::Major => (major.saturating_add(1), 0, 0),
            Self::Minor => (major, minor.saturating_add(1), 0),
            Self::Version => {
                let patch = comparator.patch.unwrap_or(0);
                (major, minor, patch.saturating_add(1))
            }
        };
        let pre = Prerelease::new("0").unwrap_or_default();
        Version {
            pre,
            ..Version::new(major, minor, patch)
        }
    }
}

fn lowest(comparator: &Comparator) -> Version {
    let (minor, patch) = (comparator.minor, comparator.patch);
    Version {
        pre: comparator.pre.clone(),
        ..Version::new(comparator.major, minor.unwrap_or(0), patch.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(requirement: &str, inside: &[&str], outside: &[&str]) {
        let requirement = VersionReq::parse(requirement).unwrap();
        let contains = |version: &&&str| contains(&requirement, &Version::parse(version).unwrap());
        let wrong: Vec<_> = inside.iter().filter(|version| !contains(version)).collect();
        assert!(wrong.is_empty(), "{requirement} lacks {wrong:?}");
        let wrong: Vec<_> = outside.iter().filter(contains).collect();
        assert!(wrong.is_empty(), "{requirement} has {wrong:?}");
    }

    #[test]
    fn pre_releases_are_compared_by_order() {
        check(
            "<1.3.0",
            &["1.2.0-rc.1", "1.3.0-rc.1", "0.1.0"],
            &["1.3.0", "1.3.1-rc.1"],
        );
        check(
            ">=1.2.3",
            &["1.2.3", "1.3.0-rc.1", "1.2.3+b"],
            &["1.2.3-rc.1"],
        );
        check(">=1.0, <2.0.0-0", &["1.5.0-a"], &["2.0.0-a", "1.0.0-a"]);
    }

    #[test]
    fn every_operator_has_its_range() {
        check("=1.2.3", &["1.2.3", "1.2.3+b"], &["1.2.4", "1.2.3-a"]);
        check("=1.2", &["1.2.0", "1.2.9"], &["1.3.0", "1.3.0-a", "1.1.9"]);
        check(">1.2.3", &["1.2.4"], &["1.2.3", "1.2.3+b"]);
        check(">1.2", &["1.3.0"], &["1.2.9"]);
        check("<=1.2.3", &["1.2.3", "0.0.0"], &["1.2.4"]);
        check("<=1.2", &["1.2.9"], &["1.3.0"]);
        check("~1.2.3", &["1.2.3", "1.2.9"], &["1.2.2", "1.3.0"]);
        check("~1", &["1.9.0"], &["2.0.0", "2.0.0-a"]);
        check(
            "^1.2.3",
            &["1.2.3", "1.9.0"],
            &["1.2.2", "2.0.0", "2.0.0-a"],
        );
        check("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "0.2.2"]);
        check("^0.0.3", &["0.0.3"], &["0.0.4", "0.0.2"]);
        check("^0.0", &["0.0.9"], &["0.1.0"]);
        check("^0", &["0.9.0"], &["1.0.0"]);
        check("1.*", &["1.9.0"], &["2.0.0"]);
        check("*", &["0.0.1", "9.0.0-a"], &[]);
    }
}
