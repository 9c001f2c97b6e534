//! Parses times with separate code: arithmetic on days and seconds, so that loading and comparing do not share an
//! error.
//!
//! A time is microseconds since 1970 in UTC; further digits are cut off, as in loading.

use std::collections::BTreeSet;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::migrate::changes::Changes;
use crate::migrate::plan::Epoch;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// A parsed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    /// Microseconds since 1970, UTC.
    pub(super) micros: i64,
    /// The local clock time, as microseconds since 1970 as if it were UTC.
    pub(super) local: i64,
    /// True if it was written as a date alone.
    pub(super) is_date: bool,
    /// True if it does not depend on the zone, because it has an offset or is a counted number.
    pub(super) has_offset: bool,
    /// The differences between the instant and the value in the file.
    pub(super) changes: Changes,
}

/// Returns the days from 1970 to a date of the Gregorian calendar, or `None` if the date does not exist.
pub(super) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return None,
    };
    if !(1..=longest).contains(&day) || !(0..=9999).contains(&year) {
        return None;
    }
    // Years are counted from March, so that a leap day is the last day of its year.
    let shifted = if month <= 2 { year - 1 } else { year };
    let since_march = (month + 9) % 12;
    let day_of_year = (153 * since_march + 2) / 5 + day - 1;
    Some(
        365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + day_of_year
            - 719_468,
    )
}

/// Returns the offset of a zone from UTC at an instant, in seconds.
fn offset_at(zone: Tz, seconds: i64) -> Option<i64> {
    let instant = DateTime::from_timestamp(seconds, 0)?.naive_utc();
    Some(i64::from(zone.offset_from_utc_datetime(&instant).fix().local_minus_utc()))
}

/// Returns the instant of a local clock time. If it occurs twice, returns the earlier instant. If it is skipped,
/// returns the earlier of the two possible readings.
fn instant(local_seconds: i64, zone: Tz) -> Option<(i64, Changes)> {
    let before = offset_at(zone, local_seconds - DAY - 14 * 3600)?;
    let after = offset_at(zone, local_seconds + DAY + 14 * 3600)?;
    let mut offsets = vec![before, after];
    // Offsets may change more than once around a day: the offset at every hour is tried too.
    for hours in (-26..=26).step_by(1) {
        offsets.push(offset_at(zone, local_seconds + hours * 3600)?);
    }
    let is_valid = |offset: &i64| offset_at(zone, local_seconds - offset) == Some(*offset);
    let valid: BTreeSet<i64> = offsets.into_iter().filter(is_valid).collect();
    if let Some(greatest) = valid.last() {
        return Some((local_seconds - greatest, Changes { twice: valid.len() > 1, ..Changes::default() }));
    }
    let day_before = offset_at(zone, local_seconds - DAY - offset_at(zone, local_seconds - DAY)?)?;
    let day_after = offset_at(zone, local_seconds + DAY - offset_at(zone, local_seconds + DAY)?)?;
    Some((local_seconds - day_before.max(day_after), Changes { skipped: true, ..Changes::default() }))
}

/// Returns a clock time, in a zone or with an offset, as a time.
fn time(days: i64, second_of_day: i64, micros: i64, offset: Option<i64>, zone: Tz, is_date: bool) -> Option<Time> {
    let local_seconds = days * DAY + second_of_day;
    let (seconds, changes) = match offset {
        Some(offset) => (local_seconds - offset, Changes::default()),
        None => instant(local_seconds, zone)?,
    };
    let shift = offset_at(zone, seconds)?;
    let local = if offset.is_some() { seconds + shift } else { local_seconds };
    Some(Time {
        micros: seconds * SECOND + micros,
        local: local * SECOND + micros,
        is_date,
        has_offset: offset.is_some(),
        changes,
    })
}

/// Converts a number of microseconds since 1970 to a time.
fn counted(micros: i64, zone: Tz) -> Option<Time> {
    let shift = offset_at(zone, micros.div_euclid(SECOND))?;
    let local = micros.checked_add(shift * SECOND)?;
    Some(Time { micros, local, is_date: false, has_offset: true, changes: Changes::default() })
}

/// Converts a whole number of units of which a microsecond has `per_micro` to a time. Parts of a microsecond are cut.
fn counted_finely(number: i64, per_micro: i64, since: i64, zone: Tz) -> Option<Time> {
    let time = counted(number.div_euclid(per_micro).checked_add(since)?, zone)?;
    Some(Time { changes: Changes { finer: number.rem_euclid(per_micro) != 0, ..time.changes }, ..time })
}

/// Returns the instant from which numbers count, as microseconds since 1970.
fn first_instant(epoch: Epoch) -> Option<i64> {
    let year = match epoch {
        Epoch::Auto | Epoch::S | Epoch::Ms | Epoch::Us | Epoch::Ns => 1970,
        Epoch::Apple | Epoch::AppleNs => 2001,
        Epoch::Webkit | Epoch::Filetime => 1601,
        Epoch::Dotnet => 1,
    };
    Some(days(year, 1, 1)? * DAY * SECOND)
}

/// Converts a whole number to a time.
pub(super) fn of_whole(number: i64, epoch: Epoch, zone: Tz) -> Option<Time> {
    let since = first_instant(epoch)?;
    match epoch {
        Epoch::Apple => return counted(number.checked_mul(SECOND)?.checked_add(since)?, zone),
        Epoch::Webkit => return counted(number.checked_add(since)?, zone),
        Epoch::AppleNs => return counted_finely(number, 1000, since, zone),
        Epoch::Filetime | Epoch::Dotnet => return counted_finely(number, 10, since, zone),
        Epoch::S => return counted(number.checked_mul(SECOND)?, zone),
        Epoch::Ms => return counted(number.checked_mul(1000)?, zone),
        Epoch::Us => return counted(number, zone),
        Epoch::Ns => return counted_finely(number, 1000, 0, zone),
        Epoch::Auto => {}
    }
    let date = |number: i64| days(number / 10_000, number / 100 % 100, number % 100);
    if (19_000_101..=22_001_231).contains(&number)
        && let Some(days) = date(number)
    {
        return time(days, 0, 0, None, zone, true);
    }
    if (19_000_101_000_000..=22_001_231_235_959).contains(&number)
        && let Some(days) = date(number / 1_000_000)
    {
        let (hour, minute, second) = (number / 10_000 % 100, number / 100 % 100, number % 100);
        if hour < 24 && minute < 60 && second < 60 {
            return time(days, hour * 3600 + minute * 60 + second, 0, None, zone, false);
        }
    }
    match number.unsigned_abs() {
        ..100_000_000_000 => counted(number.checked_mul(SECOND)?, zone),
        100_000_000_000..100_000_000_000_000 => counted(number.checked_mul(1000)?, zone),
        100_000_000_000_000..100_000_000_000_000_000 => counted(number, zone),
        _ => counted_finely(number, 1000, 0, zone),
    }
}

/// Converts a real number to a time.
pub(super) fn of_real(number: f64, epoch: Epoch, zone: Tz) -> Option<Time> {
    if !number.is_finite() || number.abs() >= 9.2e18 {
        return None;
    }
    let micros = match epoch {
        Epoch::Auto if (2_400_000.0..=2_500_000.0).contains(&number) => ((number - 2_440_587.5) * 86_400e6).round(),
        _ if number == number.trunc() => return of_whole(number as i64, epoch, zone),
        Epoch::S | Epoch::Apple => (number * 1e6).round(),
        Epoch::Ms => (number * 1e3).round(),
        Epoch::Us | Epoch::Webkit => number.round(),
        Epoch::Ns | Epoch::AppleNs => (number / 1e3).round(),
        Epoch::Filetime | Epoch::Dotnet => (number / 10.0).round(),
        Epoch::Auto => {
            let size = number.abs();
            // Greater numbers have no fraction.
            let factor = if size < 1e11 {
                1e6
            } else if size < 1e14 {
                1e3
            } else {
                1.0
            };
            (number * factor).round()
        }
    };
    if micros.abs() > 9e18 { None } else { counted((micros as i64).checked_add(first_instant(epoch)?)?, zone) }
}

/// Parses a text as a time.
pub(super) fn of_text(text: &str, epoch: Epoch, zone: Tz) -> Option<Time> {
    let text = text.trim();
    let bare = text.strip_prefix('-').unwrap_or(text);
    let is_number = bare.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
        && bare.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number {
        return match text.parse::<i64>() {
            // Among texts of short numbers, only dates of eight digits are times.
            Ok(number) if epoch == Epoch::Auto && number.unsigned_abs() < 100_000_000 => {
                let time = of_whole(number, epoch, zone)?;
                (time.is_date && text.len() == 8).then_some(time)
            }
            Ok(number) => of_whole(number, epoch, zone),
            Err(_) => of_real(text.parse().ok()?, epoch, zone),
        };
    }
    written(text, zone).or_else(|| {
        let mail = DateTime::parse_from_rfc2822(text).ok()?;
        let offset = i64::from(mail.offset().local_minus_utc());
        let seconds = mail.timestamp();
        time((seconds + offset).div_euclid(DAY), (seconds + offset).rem_euclid(DAY), 0, Some(offset), zone, false)
    })
}

/// Parses a number of exactly `digits` digits at the beginning of a text, and returns it with the rest of the text.
fn number(text: &str, digits: usize) -> Option<(i64, &str)> {
    let (head, rest) = text.split_at_checked(digits)?;
    head.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    Some((head.parse().ok()?, rest))
}

fn written<'a>(text: &'a str, zone: Tz) -> Option<Time> {
    let (year, rest) = number(text, 4)?;
    let separator = rest.chars().next().filter(|letter| matches!(letter, '-' | '/'));
    let skip = |rest: &'a str| match separator {
        Some(letter) => rest.strip_prefix(letter),
        None => Some(rest),
    };
    let (month, rest) = number(skip(rest)?, 2)?;
    let (day, rest) = number(skip(rest)?, 2)?;
    let mut days = days(year, month, day)?;
    if rest.is_empty() {
        return time(days, 0, 0, None, zone, true);
    }
    let (hour, rest) = number(rest.strip_prefix(['T', 't', ' '])?, 2)?;
    let with_colons = rest.starts_with(':');
    let (minute, mut rest) = number(rest.strip_prefix(':').unwrap_or(rest), 2)?;
    let (mut second, mut micros, mut is_finer) = (0, 0, false);
    let next = if with_colons {
        rest.strip_prefix(':')
    } else {
        rest.starts_with(|c: char| c.is_ascii_digit()).then_some(rest)
    };
    if let Some(next) = next {
        (second, rest) = number(next, 2)?;
        if let Some(fraction) = rest.strip_prefix(['.', ',']) {
            let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if count == 0 {
                return None;
            }
            micros = format!("{:0<6}", &fraction[..count.min(6)]).parse().ok()?;
            is_finer = fraction[..count].bytes().skip(6).any(|digit| digit != b'0');
            rest = &fraction[count..];
        }
    }
    let is_leap = second == 60;
    if is_leap {
        (second, micros, is_finer) = (59, 999_999, false);
    }
    if (hour, minute, second, micros) == (24, 0, 0, 0) {
        days += 1;
    } else if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let clock = hour % 24 * 3600 + minute * 60 + second;
    let time = time(days, clock, micros, offset(rest)?, zone, false)?;
    Some(Time { changes: Changes { finer: is_finer, leap: is_leap, ..time.changes }, ..time })
}

/// Parses the offset at the end of a text, in seconds. Returns `Some(None)` if there is none, and `None` if the text is
/// not an offset.
fn offset(text: &str) -> Option<Option<i64>> {
    let text = text.trim_start_matches(' ');
    if text.is_empty() {
        return Some(None);
    }
    let sign = match text.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return ["Z", "UTC", "GMT"].iter().any(|word| word.eq_ignore_ascii_case(text)).then_some(Some(0)),
    };
    let (hours, rest) = number(&text[1..], 2)?;
    let (minutes, rest) = match rest.strip_prefix(':') {
        Some(rest) => number(rest, 2)?,
        None if rest.starts_with(|letter: char| letter.is_ascii_digit()) => number(rest, 2)?,
        None => (0, rest),
    };
    let (seconds, rest) = match rest.strip_prefix(':') {
        Some(rest) => number(rest, 2)?,
        None => (0, rest),
    };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    let name = rest.trim().split(" m=").next().unwrap_or_default();
    let is_separated = name.is_empty() || rest.starts_with([' ', '[']);
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-_/[]".contains(&byte));
    (is_separated && is_name).then_some(Some(sign * (hours * 3600 + minutes * 60 + seconds)))
}

/// Converts the server's output for a timestamp, a timestamptz in UTC or a date to microseconds of its clock since
/// 1970.
pub(super) fn of_server(text: &str) -> Option<i64> {
    let text = text.strip_suffix("+00").unwrap_or(text);
    let (date, clock) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let mut parts = date.splitn(3, '-');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let days = days(part()?, part()?, part()?)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.splitn(3, ':');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let seconds = part()? * 3600 + part()? * 60 + part()?;
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some((days * DAY + seconds) * SECOND + micros)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::rules::moment;

    #[test]
    fn both_parsers_agree() {
        let texts = [
            "2026-11-26",
            "2026/11/26",
            "20261126",
            "2026-11-26 09:30",
            "2026-11-26T09:30:00",
            "2026-11-26 09:30:00.123456",
            "2026-11-26T09:30:00.5Z",
            "2026-11-26 09:30:00+08:00",
            "2026-11-26 09:30:00 +0800 CST",
            "20261126T093000",
            "2026-11-26T09:30:00+01:00[Europe/Berlin]",
            "20261399",
            "10004567",
            "18991231",
            "-1234567",
            "1795700818",
            "1795700818123",
            "1795700818.5",
            "2461371.25",
            "Thu, 26 Nov 2026 13:46:58 +0000",
            "2026-12-31T24:00Z",
            "2026-03-29 02:30:00",
            "2026-10-25 02:30:00",
            "1987-04-12 00:30:00",
            "2011-12-30 12:00:00",
            "0900-01-01 00:00:00",
            "",
            "now",
            "2026-13-01",
            "2026-02-30",
            "2026-11-26T",
            "2026-11-26 25:00:00",
            "2026-11-26 13:46:58 PM",
            "2026",
            "99999999999999999999",
            "2026-11-26x09:00",
        ];
        for zone in [Tz::UTC, chrono_tz::Asia::Shanghai, chrono_tz::Europe::Berlin, chrono_tz::Pacific::Apia] {
            for text in texts {
                let one = of_text(text, Epoch::Auto, zone).map(|time| time.micros);
                let other = moment::text(text, zone).map(|reading| reading.moment.first.timestamp_micros());
                assert_eq!(one, other, "{text} in {zone}");
            }
        }
        for number in
            [0, -1, 20_261_126, 20_261_126_134_658, 1_795_700_818, 1_795_700_818_123, i64::MAX, i64::MIN, 20_261_399]
        {
            let one = of_whole(number, Epoch::Auto, chrono_tz::Asia::Shanghai).map(|time| time.micros);
            let reading = moment::integer(number, chrono_tz::Asia::Shanghai);
            let other = reading.map(|reading| reading.moment.first.timestamp_micros());
            assert_eq!(one, other, "{number}");
        }
    }

    #[test]
    fn real_numbers_are_rounded_to_microseconds_in_every_unit() {
        for (number, epoch) in [
            (1_795_700_818.123_457_f64, Epoch::S),
            (1_795_700_818_123.457, Epoch::Ms),
            (1_795_700_818_123_457_024.0, Epoch::Ns),
        ] {
            let expected = moment::real(number, Tz::UTC).map(|reading| reading.moment.first.timestamp_micros());
            for epoch in [Epoch::Auto, epoch] {
                assert_eq!(of_real(number, epoch, Tz::UTC).map(|time| time.micros), expected, "{number} by {epoch:?}");
            }
        }
    }

    #[test]
    fn server_output_is_parsed() {
        assert_eq!(of_server("1970-01-02 00:00:01.5+00"), Some(86_401_500_000));
        assert_eq!(of_server("1970-01-01"), Some(0));
        assert_eq!(of_server("infinity"), None);
    }
}
