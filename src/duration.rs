//! Durations for people: two units at most, because nobody needs the nanoseconds of half a minute.

use std::{fmt, time::Duration};

/// Writes a duration with its two largest units: `23s 999ms`, `2days 3h`.
pub(crate) fn two_units(duration: Duration) -> impl fmt::Display {
    let text = humantime::format_duration(duration).to_string();
    let end = text.match_indices(' ').nth(1).map(|(at, _)| at);
    match end {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        let text = |nanos| two_units(Duration::from_nanos(nanos)).to_string();
        assert_eq!(text(23_999_989_264), "23s 999ms");
        assert_eq!(text(10_000_000_000), "10s");
        assert_eq!(text(1_500_000), "1ms 500us");
        assert_eq!(text(0), "0s");
        assert_eq!(text(93_784_005_006_007), "1day 2h");
    }
}
