//! Times for people, in the time zone of the user: of `TZ`, else of the system. Documents for programs stay in UTC.

use std::time::SystemTime;

use time::{OffsetDateTime, UtcOffset};

/// The day and the minute: `2026-11-27 09:12`.
pub(super) fn local_minute(time: SystemTime) -> String {
    let (local, zone) = local(time);
    format!("{} {}{zone}", day(local), minute(local))
}

/// The minute of a time today, `09:12`; with the day at any other time.
pub(super) fn local_minute_today(time: SystemTime, now: SystemTime) -> String {
    let ((local_time, zone), (local_now, _)) = (local(time), local(now));
    if local_time.date() == local_now.date() {
        format!("{}{zone}", minute(local_time))
    } else {
        local_minute(time)
    }
}

/// The day: `2026-11-27`.
pub(super) fn local_day(time: SystemTime) -> String {
    day(local(time).0)
}

/// The local time, and a mark behind it if the zone is not known and it is in UTC.
fn local(time: SystemTime) -> (OffsetDateTime, &'static str) {
    let time = OffsetDateTime::from(time);
    match UtcOffset::local_offset_at(time) {
        Ok(offset) => (time.to_offset(offset), ""),
        Err(_) => (time, " UTC"),
    }
}

fn day(time: OffsetDateTime) -> String {
    let month = u8::from(time.month());
    format!("{:04}-{month:02}-{:02}", time.year(), time.day())
}

fn minute(time: OffsetDateTime) -> String {
    format!("{:02}:{:02}", time.hour(), time.minute())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_of_today_has_no_day() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let text = local_minute_today(now, now);
        assert_eq!(text.len(), 5, "{text}");
        let earlier = now - Duration::from_secs(3 * 86_400);
        let text = local_minute_today(earlier, now);
        assert!(text.starts_with("2001-09-0"), "{text}");
        assert_eq!(text, local_minute(earlier));
        assert_eq!(local_day(earlier), text[..10]);
    }
}
