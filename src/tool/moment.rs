//! Times as people write and read them ⇄ unix seconds.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::utc;

const DAY: u64 = 24 * 60 * 60;

/// A time that somebody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In unix seconds.
    At(i64),
    After(Duration),
}

impl Moment {
    /// In unix seconds.
    pub fn seconds(self, now: i64) -> i64 {
        match self {
            Moment::At(at) => at,
            Moment::After(duration) => now.saturating_add_unsigned(duration.as_secs()),
        }
    }
}

pub fn parse(text: &str) -> Result<Moment, &'static str> {
    let text = text.trim();
    if let Ok(at) = text.parse() {
        return Ok(Moment::At(at));
    }
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Moment::At(at.unix_timestamp()));
    }
    let duration = text.parse::<humantime::Duration>();
    duration
        .map(|duration| Moment::After(duration.into()))
        .map_err(|_| "not a time; write 1d or 90m from now, 2027-01-31T18:00:00Z, or unix seconds")
}

/// The same for people, with how far it is from now.
pub fn shown(at: i64, now: i64) -> String {
    let date = utc(at);
    let far = match at.abs_diff(now) {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    };
    match at > now {
        true => format!("{date} (in {far})"),
        false => format!("{date} ({far} ago)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_748_116;

    #[test]
    fn times_are_written_in_three_ways() {
        for (text, expect) in [
            ("4102444800", Some(4_102_444_800)),
            (" 0 ", Some(0)),
            ("-1", Some(-1)),
            ("2100-01-01T00:00:00Z", Some(4_102_444_800)),
            ("2100-01-01T01:00:00.5+01:00", Some(4_102_444_800)),
            ("1d", Some(NOW + 86_400)),
            ("1h 30m", Some(NOW + 5400)),
            ("1000000000000years", None),
            ("2100-01-01", None),
            ("99999999999999999999", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok().map(|moment| moment.seconds(NOW)), expect, "{text}");
        }
        assert_eq!(Moment::After(Duration::MAX).seconds(NOW), i64::MAX);
    }

    #[test]
    fn times_are_shown_with_how_far_they_are() {
        for (at, expect) in [
            (4_102_444_800, "2100-01-01T00:00:00Z (in 26697 days)"),
            (NOW + 3661, "2026-11-27T03:56:17Z (in 1h 1m 1s)"),
            (NOW, "2026-11-27T02:55:16Z (0s ago)"),
            (0, "1970-01-01T00:00:00Z (20784 days ago)"),
            (i64::MAX, "9223372036854775807 (in 106751991146516 days)"),
        ] {
            assert_eq!(shown(at, NOW), expect);
        }
    }
}
