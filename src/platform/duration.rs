//! Durations as people write them: `90s`, `15m`, `24h`, `7d`, `2w`, `3mo`, `1y`.

use chrono::Duration;

use crate::platform::error::{Error, Result, one_line};

/// The units and their seconds. A month is always 30 days and a year 365 days, independent of the calendar.
const UNITS: [(&str, i64); 7] =
    [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 7 * 86_400), ("mo", 30 * 86_400), ("y", 365 * 86_400)];

/// The longest duration: subtracting it from the current date still gives a valid date.
const MAX_YEARS: i64 = 10_000;

/// Parses a duration: a whole number and a unit (`s m h d w mo y`), with nothing between or around them.
///
/// It is never negative and at most 10,000 years, so that subtracting it from now cannot overflow.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    let refuse = |reason: &str| {
        Error::usage(format!("'{}' {reason}", one_line(text)))
            .hint("write a whole number and a unit: 90s, 15m, 24h, 7d, 2w, 3mo (30 days each) or 1y (365 days)")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let Some((_, unit_seconds)) = unit.filter(|_| !number.is_empty()) else {
        return Err(refuse("is not a length of time"));
    };
    // Only too many digits can fail to parse here.
    let seconds = number.parse::<i64>().ok().and_then(|number| number.checked_mul(*unit_seconds));
    match seconds.filter(|seconds| *seconds <= MAX_YEARS * 365 * 86_400).and_then(Duration::try_seconds) {
        Some(duration) => Ok(duration),
        None => Err(refuse(&format!("is longer than {MAX_YEARS} years"))),
    }
}

/// Formats a duration in the largest of the units `d h m s` that divides it, as [`parse_duration`] reads it. Fractions
/// of a second are cut off.
#[must_use]
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.num_seconds();
    let dividing = UNITS[..4].iter().rev().find(|(_, unit_seconds)| seconds != 0 && seconds % unit_seconds == 0);
    let (unit, unit_seconds) = dividing.unwrap_or(&UNITS[0]);
    format!("{}{unit}", seconds / unit_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::error::Kind;

    #[test]
    fn lengths_of_time_are_read() {
        let expected = [
            ("0s", 0),
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("7d", 604_800),
            ("007d", 604_800),
            ("2w", 1_209_600),
            ("3mo", 7_776_000),
            ("1y", 31_536_000),
            ("10000y", 315_360_000_000),
        ];
        for (text, seconds) in expected {
            assert_eq!(parse_duration(text).expect(text), Duration::seconds(seconds), "{text}");
        }
    }

    #[test]
    fn invalid_durations_are_refused() {
        let texts =
            ["", "7", "d", "-7d", "+7d", " 7d", "7d ", "7 d", "7D", "1.5h", "1h30m", "7dd", "\u{663}d", "1e3s", "7\nd"];
        for text in texts {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(error.kind, Kind::Usage, "{text}");
            assert!(error.message.contains("is not a length of time"), "{error}");
            assert!(error.hint.is_some_and(|hint| hint.contains("24h")), "{text}");
        }
    }

    #[test]
    fn overlong_lengths_are_refused_and_the_longest_is_safe_to_subtract() {
        for text in ["10001y", "9223372036854775807s", "9223372036854775807y", "99999999999999999999999999s"] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.message.contains("longer than 10000 years"), "{error}");
        }
        let longest = parse_duration("10000y").expect("just allowed");
        assert!(chrono::Utc::now().checked_sub_signed(longest).is_some());
    }

    #[test]
    fn formatted_durations_are_read_back() {
        for (text, written) in
            [("0s", "0s"), ("90s", "90s"), ("120s", "2m"), ("36h", "36h"), ("48h", "2d"), ("1y", "365d")]
        {
            let duration = parse_duration(text).expect(text);
            assert_eq!(format_duration(duration), written);
            assert_eq!(parse_duration(written).expect(written), duration);
        }
    }
}
