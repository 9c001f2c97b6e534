//! Reads times in the formats in which programs write them to databases.
//!
//! - Text: `2026-11-26`, optionally followed by `T` or a space and `13:46`, `:58`, `.123`, and `Z` or an offset; `/`
//!   instead of `-`, or neither (`20261126`, `20261126T134658`, `20261126134658`); a name in letters or `[brackets]`
//!   after the offset is ignored (Go and Java write one). RFC 2822.
//! - Numbers, and texts of numbers: seconds, milliseconds, microseconds or nanoseconds since 1970, distinguished by
//!   their size; 8 and 14 digits that are a date (a text of 8 digits that is not a date is not a time); a real number
//!   from 2,400,000 to 2,500,000 is a Julian day, as SQLite's `julianday` returns it.
//!
//! A time without an offset is local to a zone. A local time that occurs twice, because clocks are put back, lasts from
//! the earlier of the two times to the later one, and so does a local time that clocks skip. A date without a time is a
//! whole day.

use chrono::{
    DateTime, Duration, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc,
};
use chrono_tz::Tz;

use crate::engine::live::Value;

/// A point in time: an instant, a day from its beginning to its end, or a local time that may mean two instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The beginning.
    pub first: DateTime<Utc>,
    /// The end, or the later of two instants; equal to the beginning for an instant.
    pub last: DateTime<Utc>,
}

impl Moment {
    fn at(instant: DateTime<Utc>) -> Self {
        Moment { first: instant, last: instant }
    }

    fn day(date: NaiveDate, zone: Tz) -> Option<Self> {
        let (first, _) = instants(date.and_time(NaiveTime::MIN), zone)?;
        let (last, _) = instants(date.succ_opt()?.and_time(NaiveTime::MIN), zone)?;
        Some(Moment { first, last })
    }
}

/// The format of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A date alone, with separators.
    Date,
    /// A date and a time without an offset.
    Local,
    /// A date and a time with an offset.
    Offset,
    /// A date in eight digits.
    DateDigits,
    /// A date and a time in fourteen digits.
    LocalDigits,
    /// Days as in SQLite's `julianday`.
    JulianDay,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
}

/// The result of reading a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The point in time.
    pub moment: Moment,
    /// The local date and time, if that is what is written; a date has midnight.
    pub clock: Option<NaiveDateTime>,
    /// The format.
    pub form: Form,
}

impl Reading {
    /// Builds the reading of an instant, which does not depend on a zone.
    #[must_use]
    pub(crate) fn at(instant: DateTime<Utc>, form: Form) -> Self {
        Reading { moment: Moment::at(instant), clock: None, form }
    }

    fn local(naive: NaiveDateTime, zone: Tz, form: Form) -> Option<Self> {
        let (first, last) = instants(naive, zone)?;
        Some(Reading { moment: Moment { first, last }, clock: Some(naive), form })
    }

    fn day(date: NaiveDate, zone: Tz, form: Form) -> Option<Self> {
        Some(Reading { moment: Moment::day(date, zone)?, clock: Some(date.and_time(NaiveTime::MIN)), form })
    }
}

/// Reads a value as a time. Returns `None` if its format is not known.
#[must_use]
pub(crate) fn read(value: &Value, zone: Tz) -> Option<Moment> {
    let reading = match value {
        Value::Integer(number) => integer(*number, zone),
        Value::Real(number) => real(*number, zone),
        Value::Other => None,
        Value::Text(written) => text(written, zone),
    };
    reading.map(|reading| reading.moment)
}

/// Reads a text as a time.
#[must_use]
pub(crate) fn text(text: &str, zone: Tz) -> Option<Reading> {
    let text = text.trim();
    if is_number(text) {
        return match text.parse::<i64>() {
            // A short number, for example a year, a month or a code, does not count as seconds since 1970: it is a date
            // or not a time.
            Ok(number) if number.unsigned_abs() < 100_000_000 => {
                integer(number, zone).filter(|reading| text.len() == 8 && reading.form == Form::DateDigits)
            }
            Ok(number) => integer(number, zone),
            Err(_) => real(text.parse().ok()?, zone),
        };
    }
    timestamp(text, zone).or_else(|| {
        let mail = DateTime::parse_from_rfc2822(text).ok()?;
        Some(Reading::at(mail.with_timezone(&Utc), Form::Offset))
    })
}

/// Returns true if a text is a number: digits, optionally with a minus sign and points.
#[must_use]
pub(crate) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Returns the first and the last instant that a local time may mean. They differ if clocks are put back over the time,
/// so that it occurs twice, or forward, so that it does not occur: the program that wrote it may have used the offset
/// before the change or the one after it.
fn instants(naive: NaiveDateTime, zone: Tz) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (one, other) = match zone.from_local_datetime(&naive) {
        LocalResult::Single(time) => (time.to_utc(), time.to_utc()),
        LocalResult::Ambiguous(one, other) => (one.to_utc(), other.to_utc()),
        LocalResult::None => {
            let by_clock_of = |day: NaiveDateTime| {
                let offset = zone.offset_from_utc_datetime(&day).fix().local_minus_utc();
                naive.checked_sub_signed(Duration::seconds(i64::from(offset)))
            };
            let day = Duration::days(1);
            let before = by_clock_of(naive.checked_sub_signed(day)?)?;
            let after = by_clock_of(naive.checked_add_signed(day)?)?;
            (before.and_utc(), after.and_utc())
        }
    };
    Some((one.min(other), one.max(other)))
}

/// Reads a whole number as a time.
#[must_use]
pub(crate) fn integer(number: i64, zone: Tz) -> Option<Reading> {
    if (19_000_101..=22_001_231).contains(&number)
        && let Some(date) = date_of(number)
    {
        return Reading::day(date, zone, Form::DateDigits);
    }
    if (19_000_101_000_000..=22_001_231_235_959).contains(&number)
        && let Some(naive) = date_of(number / 1_000_000).and_then(|date| time_of(date, number % 1_000_000))
    {
        return Reading::local(naive, zone, Form::LocalDigits);
    }
    // Up to eleven digits of seconds reach the year 5138, and as milliseconds they would end in 1973. The same holds
    // for each further three digits.
    let (instant, form) = match number.unsigned_abs() {
        ..100_000_000_000 => (DateTime::from_timestamp(number, 0), Form::Seconds),
        100_000_000_000..100_000_000_000_000 => (DateTime::from_timestamp_millis(number), Form::Millis),
        100_000_000_000_000..100_000_000_000_000_000 => (DateTime::from_timestamp_micros(number), Form::Micros),
        _ => (Some(DateTime::from_timestamp_nanos(number)), Form::Nanos),
    };
    Some(Reading::at(instant?, form))
}

/// Reads a date in eight digits.
fn date_of(number: i64) -> Option<NaiveDate> {
    let part = |number: i64| u32::try_from(number).ok();
    NaiveDate::from_ymd_opt(i32::try_from(number / 10_000).ok()?, part(number / 100 % 100)?, part(number % 100)?)
}

/// Adds a time in six digits to a date.
fn time_of(date: NaiveDate, number: i64) -> Option<NaiveDateTime> {
    let part = |number: i64| u32::try_from(number).ok();
    date.and_hms_opt(part(number / 10_000)?, part(number / 100 % 100)?, part(number % 100)?)
}

/// Reads a number that may have a fraction as a time.
#[must_use]
pub(crate) fn real(number: f64, zone: Tz) -> Option<Reading> {
    /// Julian day of 1970-01-01T00:00Z.
    const EPOCH_DAY: f64 = 2_440_587.5;
    if !number.is_finite() || number.abs() >= 9.2e18 {
        return None;
    }
    let (micros, form) = if (2_400_000.0..=2_500_000.0).contains(&number) {
        ((number - EPOCH_DAY) * 86_400e6, Form::JulianDay)
    } else if number.fract() == 0.0 {
        return integer(number as i64, zone);
    } else {
        match number.abs() {
            size if size < 1e11 => (number * 1e6, Form::Seconds),
            size if size < 1e14 => (number * 1e3, Form::Millis),
            size if size < 1e17 => (number, Form::Micros),
            _ => (number / 1e3, Form::Nanos),
        }
    };
    Some(Reading::at(DateTime::from_timestamp_micros(micros.round() as i64)?, form))
}

/// The rest of a text that is being parsed.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn eat(&mut self, wanted: &[u8]) -> bool {
        let matches = self.peek().is_some_and(|byte| wanted.contains(&byte));
        if matches {
            self.0 = &self.0[1..];
        }
        matches
    }

    /// Reads a number of exactly `count` digits.
    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }

    /// Reads all following digits as nanoseconds. Returns `None` if there are none.
    fn fraction(&mut self) -> Option<u32> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        (count > 0).then(|| padded.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }
}

/// Reads a text that begins with a year.
fn timestamp(text: &str, zone: Tz) -> Option<Reading> {
    let mut rest = Rest(text.as_bytes());
    let year = i32::try_from(rest.digits(4)?).ok()?;
    let separator = match rest.peek() {
        Some(byte @ (b'-' | b'/')) => Some(byte),
        _ => None,
    };
    let part = |rest: &mut Rest<'_>| separator.is_none_or(|byte| rest.eat(&[byte]));
    let month = part(&mut rest).then(|| rest.digits(2))??;
    let day = part(&mut rest).then(|| rest.digits(2))??;
    let date = NaiveDate::from_ymd_opt(year, month, day)?;
    if rest.0.is_empty() {
        return Reading::day(date, zone, Form::Date);
    }
    if !rest.eat(b"Tt ") {
        return None;
    }
    let hour = rest.digits(2)?;
    let has_colons = rest.eat(b":");
    let minute = rest.digits(2)?;
    let has_seconds = if has_colons { rest.eat(b":") } else { rest.peek().is_some_and(|byte| byte.is_ascii_digit()) };
    let second = if has_seconds { rest.digits(2)? } else { 0 };
    let nanos = if has_seconds && rest.eat(b".,") { rest.fraction()? } else { 0 };
    // A leap second, and the time 24:00:00.
    let (second, nanos) = if second == 60 { (59, 999_999_999) } else { (second, nanos) };
    let naive = match (hour, minute, second, nanos) {
        (24, 0, 0, 0) => date.succ_opt()?.and_time(NaiveTime::MIN),
        _ => date.and_hms_nano_opt(hour, minute, second, nanos)?,
    };
    let offset = offset(&mut rest)?;
    match offset {
        None => Reading::local(naive, zone, Form::Local),
        Some(offset) => {
            let instant = offset.from_local_datetime(&naive).single()?.with_timezone(&Utc);
            Some(Reading::at(instant, Form::Offset))
        }
    }
}

/// Reads the offset at the end of a text. Returns `Some(None)` if nothing follows, and `None` if something else
/// follows.
fn offset(rest: &mut Rest<'_>) -> Option<Option<FixedOffset>> {
    while rest.eat(b" ") {}
    let utc = FixedOffset::east_opt(0);
    let seconds = match rest.peek() {
        None => return Some(None),
        Some(sign @ (b'+' | b'-')) => {
            rest.eat(b"+-");
            let hours = rest.digits(2)?;
            let has_minutes = rest.eat(b":") || rest.peek().is_some_and(|byte| byte.is_ascii_digit());
            let minutes = if has_minutes { rest.digits(2)? } else { 0 };
            let seconds = if rest.eat(b":") { rest.digits(2)? } else { 0 };
            if hours > 15 || minutes > 59 || seconds > 59 {
                return None;
            }
            let east = i32::try_from(hours * 3600 + minutes * 60 + seconds).ok()?;
            if sign == b'-' { -east } else { east }
        }
        Some(_) => {
            let word = std::str::from_utf8(rest.0).ok()?;
            return ["Z", "UTC", "GMT"].iter().any(|utc| utc.eq_ignore_ascii_case(word)).then_some(utc);
        }
    };
    // Go appends a zone name and its monotonic clock reading; Java appends a zone name in brackets.
    let suffix = std::str::from_utf8(rest.0).ok()?.trim();
    let name = suffix.split(" m=").next().unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_/[]".contains(&byte);
    let is_separate = name.is_empty() || rest.0.starts_with(b" ") || rest.0.starts_with(b"[");
    (is_separate && name.bytes().all(is_name)).then(|| FixedOffset::east_opt(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHANGHAI: Tz = chrono_tz::Asia::Shanghai;
    const BERLIN: Tz = chrono_tz::Europe::Berlin;
    const NEW_YORK: Tz = chrono_tz::America::New_York;

    fn text(text: &str, zone: Tz) -> Option<Moment> {
        read(&Value::Text(text.to_owned()), zone)
    }

    #[track_caller]
    fn is(moment: Option<Moment>, utc: &str) {
        let moment = moment.unwrap_or_else(|| panic!("not read, and should be {utc}"));
        assert_eq!(moment.first, moment.last);
        assert_eq!(moment.first, DateTime::parse_from_rfc3339(utc).unwrap(), "{}", moment.first);
    }

    #[track_caller]
    fn is_day(moment: Option<Moment>, first: &str, last: &str) {
        let moment = moment.unwrap_or_else(|| panic!("not read, and should begin {first}"));
        assert_eq!(moment.first, DateTime::parse_from_rfc3339(first).unwrap());
        assert_eq!(moment.last, DateTime::parse_from_rfc3339(last).unwrap());
    }

    #[test]
    fn texts_with_an_offset_do_not_depend_on_the_zone() {
        for (written, utc) in [
            ("2026-11-26T13:46:58Z", "2026-11-26T13:46:58Z"),
            ("2026-11-26t13:46:58z", "2026-11-26T13:46:58Z"),
            ("2026-11-26 13:46:58+00", "2026-11-26T13:46:58Z"),
            ("2026-11-26 13:46:58.123456+00:00", "2026-11-26T13:46:58.123456Z"),
            ("2026-11-26 13:46:58,5 +0530", "2026-11-26T08:16:58.5Z"),
            ("2026-11-26T13:46-08:00", "2026-11-26T21:46:00Z"),
            ("2026/11/26 13:46:58 UTC", "2026-11-26T13:46:58Z"),
            ("20261126T134658Z", "2026-11-26T13:46:58Z"),
            ("20261126T1346+0100", "2026-11-26T12:46:00Z"),
            ("2026-11-26 13:46:58.123456789 +0100 CET", "2026-11-26T12:46:58.123456789Z"),
            ("2026-11-26 13:46:58.1 +0000 UTC m=+0.012", "2026-11-26T13:46:58.1Z"),
            ("2026-11-26T13:46:58+01:00[Europe/Berlin]", "2026-11-26T12:46:58Z"),
            ("0900-01-01 00:00:00+00:53:28", "0899-12-31T23:06:32Z"),
            ("2026-12-31T23:59:60Z", "2026-12-31T23:59:59.999999999Z"),
            ("2026-12-31T24:00Z", "2027-01-01T00:00:00Z"),
            ("Thu, 26 Nov 2026 13:46:58 +0000", "2026-11-26T13:46:58Z"),
            ("Thu, 26 Nov 2026 13:46:58 GMT", "2026-11-26T13:46:58Z"),
            (" 2026-11-26T13:46:58Z\n", "2026-11-26T13:46:58Z"),
        ] {
            eprintln!("{written:?}");
            is(text(written, SHANGHAI), utc);
        }
    }

    #[test]
    fn texts_without_an_offset_are_local() {
        for written in [
            "2026-11-26 13:46:58",
            "2026-11-26T13:46:58.000",
            "2026/11/26 13:46:58",
            "20261126134658",
            "20261126T134658",
        ] {
            eprintln!("{written:?}");
            is(text(written, SHANGHAI), "2026-11-26T05:46:58Z");
            is(text(written, Tz::UTC), "2026-11-26T13:46:58Z");
        }
        is(text("2026-11-26 13:46", SHANGHAI), "2026-11-26T05:46:00Z");
    }

    #[test]
    fn a_date_alone_is_a_full_day_of_the_zone() {
        for written in ["2026-11-26", "2026/11/26", "20261126"] {
            is_day(text(written, SHANGHAI), "2026-11-25T16:00:00Z", "2026-11-26T16:00:00Z");
        }
        is_day(read(&Value::Integer(20_261_126), Tz::UTC), "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z");
        // A day of 25 hours.
        is_day(text("2026-10-25", BERLIN), "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    }

    #[test]
    fn the_size_of_a_number_shows_its_unit() {
        for number in [1_795_700_818, 1_795_700_818_000, 1_795_700_818_000_000, 1_795_700_818_000_000_000] {
            is(read(&Value::Integer(number), SHANGHAI), "2026-11-26T13:46:58Z");
            is(text(&number.to_string(), SHANGHAI), "2026-11-26T13:46:58Z");
        }
        is(read(&Value::Real(1_795_700_818.5), SHANGHAI), "2026-11-26T13:46:58.5Z");
        is(read(&Value::Real(1_795_700_818_500.0), SHANGHAI), "2026-11-26T13:46:58.5Z");
        is(text("1795700818.25", SHANGHAI), "2026-11-26T13:46:58.25Z");
        is(read(&Value::Integer(0), SHANGHAI), "1970-01-01T00:00:00Z");
        is(read(&Value::Integer(-86_400), SHANGHAI), "1969-12-31T00:00:00Z");
        is(read(&Value::Integer(20_261_126_134_658), Tz::UTC), "2026-11-26T13:46:58Z");
        is(read(&Value::Integer(i64::MAX), Tz::UTC), "2262-04-11T23:47:16.854775807Z");
        is(read(&Value::Integer(i64::MIN), Tz::UTC), "1677-09-21T00:12:43.145224192Z");
        // Eight digits that are not a date are seconds; as text they are a code.
        is(read(&Value::Integer(20_261_399), Tz::UTC), "1970-08-23T12:09:59Z");
        for code in ["20261399", "10004567", "18991231", "-1234567"] {
            assert_eq!(text(code, Tz::UTC), None, "{code}");
        }
    }

    #[test]
    fn a_reading_has_the_format_and_the_local_time() {
        let zone = chrono_tz::America::Sao_Paulo;
        for (reading, form, clock) in [
            (crate::engine::rules::moment::text("2018-11-04", zone), Form::Date, Some("2018-11-04 00:00:00")),
            (crate::engine::rules::moment::text("2018-11-04 00:30", zone), Form::Local, Some("2018-11-04 00:30:00")),
            (crate::engine::rules::moment::text("2018-11-04T00:30Z", zone), Form::Offset, None),
            (crate::engine::rules::moment::text("Thu, 26 Nov 2026 13:46:58 GMT", zone), Form::Offset, None),
            (crate::engine::rules::moment::text("1795700818", zone), Form::Seconds, None),
            (integer(20_181_104, zone), Form::DateDigits, Some("2018-11-04 00:00:00")),
            (real(20_181_104.0, zone), Form::DateDigits, Some("2018-11-04 00:00:00")),
            (integer(20_181_104_003_000, zone), Form::LocalDigits, Some("2018-11-04 00:30:00")),
            (real(2_460_311.75, zone), Form::JulianDay, None),
            (integer(1_795_700_818_000, zone), Form::Millis, None),
            (integer(1_795_700_818_000_000, zone), Form::Micros, None),
            (integer(1_795_700_818_000_000_000, zone), Form::Nanos, None),
            (real(1_795_700_818.5, zone), Form::Seconds, None),
        ] {
            let reading = reading.unwrap();
            assert_eq!(reading.form, form, "{reading:?}");
            assert_eq!(reading.clock.map(|clock| clock.to_string()).as_deref(), clock, "{reading:?}");
        }
    }

    #[test]
    fn julian_days_are_read() {
        is(read(&Value::Real(2_440_587.5), SHANGHAI), "1970-01-01T00:00:00Z");
        is(read(&Value::Real(2_461_371.0), SHANGHAI), "2026-11-26T12:00:00Z");
        is(text("2461371.25", SHANGHAI), "2026-11-26T18:00:00Z");
    }

    #[test]
    fn a_local_time_that_occurs_twice_lasts_from_the_earlier_to_the_later_one() {
        is_day(text("2026-10-25 02:30:00", BERLIN), "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z");
        is_day(text("2026-11-01T01:30:00", NEW_YORK), "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z");
        // With an offset the time is unambiguous, and so are the times around the hour that occurs twice.
        is(text("2026-10-25 02:30:00+01:00", BERLIN), "2026-10-25T01:30:00Z");
        is(text("2026-10-25 01:59:59", BERLIN), "2026-10-24T23:59:59Z");
        is(text("2026-10-25 03:00:00", BERLIN), "2026-10-25T02:00:00Z");
        // Half an hour occurs twice.
        let lord_howe = chrono_tz::Australia::Lord_Howe;
        is_day(text("2026-04-05 01:45", lord_howe), "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z");
    }

    #[test]
    fn a_local_time_that_clocks_skip_is_one_of_two_times() {
        is_day(text("2026-03-29 02:30:00", BERLIN), "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z");
        is_day(text("2026-03-08 02:30", NEW_YORK), "2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z");
        // A day that a zone skipped completely.
        assert!(text("2011-12-30", chrono_tz::Pacific::Apia).is_some());
    }

    #[test]
    fn other_values_are_not_read_as_times() {
        for written in [
            "",
            " ",
            "now",
            "N/A",
            "NULL",
            "infinity",
            "-infinity",
            "2026",
            "2026-11",
            "2026-1-5",
            "2026-13-01",
            "2026-02-30",
            "26.11.2026",
            "11/26/2026",
            "2026-11/26",
            "2026-11-26T",
            "2026-11-26T13",
            "2026-11-26 25:00:00",
            "2026-11-26 13:60",
            "2026-11-26 13:46:58.",
            "2026-11-26 13:46:58 PM",
            "2026-11-26 13:46:58+25:00",
            "2026-11-26 13:46:58+1",
            "2026-11-26x13:46:58",
            "0044-03-15 BC",
            "10000-01-01 00:00:00",
            "1.2.3",
            "-",
            "1e400",
            "99999999999999999999",
            "２０２６-11-26",
            "2026-11-26 13:46:58Zulu",
            "2026-11-26 13:46:58+00x",
        ] {
            assert_eq!(text(written, SHANGHAI), None, "{written:?}");
        }
        for number in [f64::NAN, f64::INFINITY, 1e30] {
            assert_eq!(read(&Value::Real(number), Tz::UTC), None, "{number}");
        }
    }
}
