//! Converts one value to the text that COPY reads for a column of the target, or gives the reason why it cannot.
//!
//! A value is converted exactly or rejected. Nothing is rounded, cut or guessed, with one exception: digits of a time
//! beyond microseconds are cut, because the target does not store them.
//!
//! | target type | accepted values |
//! | --- | --- |
//! | smallint, integer, bigint | whole numbers in range, also written as reals or texts |
//! | double precision, real | numbers that the type holds exactly; texts of numbers, NaN and Infinity |
//! | numeric | numbers and texts of numbers; with a precision, only numbers that it holds exactly |
//! | boolean | 0, 1, and the words that PostgreSQL accepts |
//! | timestamptz, timestamp, date | the forms of [`crate::engine::rules::moment`]; numbers in the column's unit |
//! | jsonb, json | texts that are JSON, numbers |
//! | text and varchar | UTF-8 without NUL, if it is not longer than the column; numbers as they are written |
//! | character | the same; spaces at the end do not count |
//! | bytea | blobs, and the bytes of texts |
//! | uuid | texts, blobs of 16 bytes |
//! | others | texts and numbers; [`super::notation`] tells whether the server holds them exactly |

use chrono::{DateTime, Datelike, LocalResult, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde::de::IgnoredAny;

use super::changes::Changes;
use super::decimal::Decimal;
use super::json::repeats_key;
use super::output::{Output, Text};
use super::plan::{ColumnPlan, Epoch};
use crate::engine::rules::moment::{self, Form, Reading};
use crate::engine::sqlite::values::Cell;
use crate::platform::error::{Error, Result, one_line};

/// The class of a target type. It decides how values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole number of the given number of bits.
    Whole(u8),
    /// An 8-byte IEEE 754 number.
    Double,
    /// A 4-byte IEEE 754 number.
    Single,
    /// A decimal number, with its precision and scale if they are bounded.
    Numeric(Option<(u32, i32)>),
    /// True or false.
    Boolean,
    /// An instant.
    Instant,
    /// A date and time without a zone.
    Local,
    /// A date.
    Date,
    /// JSON in parsed form (`jsonb`).
    Jsonb,
    /// JSON as text (`json`).
    Json,
    /// Text.
    Text,
    /// Text that is padded with spaces (`char(n)`): those at its end do not count.
    Character,
    /// Bytes.
    Bytes,
    /// A UUID.
    Uuid,
    /// Any other type. Only the server can check its values.
    Other,
}

impl Kind {
    /// Parses a type's name as people write it.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let name = name.trim().to_ascii_lowercase();
        if name.ends_with(']') {
            // An array, whose elements may have a length or a precision.
            return Ok(Kind::Other);
        }
        let (word, modifier) = match name.split_once('(') {
            Some((word, rest)) => (word.trim(), Some(rest)),
            None => (name.as_str(), None),
        };
        let numbers = || -> Option<Vec<i32>> {
            let inner = modifier.unwrap_or_default().split(')').next().unwrap_or_default();
            inner.split(',').map(|number| number.trim().parse().ok()).collect()
        };
        Ok(match (word, modifier.is_some()) {
            ("smallint" | "int2", false) => Kind::Whole(16),
            ("integer" | "int" | "int4", false) => Kind::Whole(32),
            ("bigint" | "int8", false) => Kind::Whole(64),
            ("double precision" | "float8" | "float", false) => Kind::Double,
            ("real" | "float4", false) => Kind::Single,
            ("numeric" | "decimal", false) => Kind::Numeric(None),
            ("numeric" | "decimal", true) => match numbers().as_deref() {
                // From version 15 on, a negative scale rounds to tens, hundreds and so on.
                Some([precision]) if *precision > 0 => Kind::Numeric(Some((precision.unsigned_abs(), 0))),
                Some([precision, scale]) if *precision > 0 => Kind::Numeric(Some((precision.unsigned_abs(), *scale))),
                _ => return Err(Error::usage(format!("the type {} is not valid", one_line(&name)))),
            },
            ("boolean" | "bool", false) => Kind::Boolean,
            ("timestamptz" | "timestamp with time zone", false) => Kind::Instant,
            ("timestamp" | "timestamp without time zone", false) => Kind::Local,
            ("timestamptz", true) => Kind::Instant,
            ("timestamp", true) if name.ends_with("with time zone") => Kind::Instant,
            ("timestamp", true) => Kind::Local,
            ("date", false) => Kind::Date,
            ("jsonb", false) => Kind::Jsonb,
            ("json", false) => Kind::Json,
            ("text", false) | ("varchar" | "character varying", _) => Kind::Text,
            ("char" | "character" | "bpchar", _) => Kind::Character,
            ("bytea", false) => Kind::Bytes,
            ("uuid", false) => Kind::Uuid,
            _ => Kind::Other,
        })
    }

    /// Returns the limits that the name of a type sets.
    pub(crate) fn limits(self, name: &str) -> Limits {
        let number = name.split_once('(').and_then(|(_, rest)| rest.split(')').next()?.trim().parse::<usize>().ok());
        match self {
            _ if self.is_time() => {
                Limits { digits: number.filter(|digits| *digits < MICROSECOND_DIGITS), ..Limits::default() }
            }
            Kind::Text => Limits { characters: number, ..Limits::default() },
            // `character` alone is `character(1)`, and `bpchar` alone has no limit.
            Kind::Character if !name.trim().eq_ignore_ascii_case("bpchar") => {
                Limits { characters: number.or(Some(1)), ..Limits::default() }
            }
            _ => Limits::default(),
        }
    }

    /// Returns true if its values are times, so that numbers in it count a unit of time.
    #[must_use]
    pub(crate) fn is_time(self) -> bool {
        matches!(self, Kind::Instant | Kind::Local | Kind::Date)
    }
}

/// The limits of a type with a length or a precision.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// The number of digits of a second that it keeps, if these are fewer than those of microseconds.
    digits: Option<usize>,
    /// The number of characters that it holds.
    characters: Option<usize>,
}

/// The reason why a value cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub &'static str);

/// Converts the values of one column.
#[derive(Clone, Debug)]
pub(crate) struct Converter {
    kind: Kind,
    zone: Tz,
    epoch: Epoch,
    nulls: Vec<String>,
    not_null: bool,
    limits: Limits,
}

/// The number of digits of a second that PostgreSQL keeps.
const MICROSECOND_DIGITS: usize = 6;

impl Converter {
    /// Prepares a converter for a column. NULL is refused if `not_null` is set or the plan refuses it.
    pub(crate) fn new(column: &ColumnPlan, zone: Tz, not_null: bool) -> Result<Self> {
        let kind = Kind::parse(&column.target_type)
            .map_err(|error| error.context(format!("the column {} is not valid", one_line(&column.source))))?;
        Ok(Converter {
            kind,
            limits: kind.limits(&column.target_type),
            zone: column.zone.unwrap_or(zone),
            epoch: column.epoch,
            nulls: column.nulls.clone(),
            not_null: not_null || column.not_null || column.identity,
        })
    }

    /// Prepares a converter for a type alone: without NULL texts and with [`Epoch::Auto`].
    #[must_use]
    pub(crate) fn of(kind: Kind, zone: Tz) -> Self {
        Converter { kind, zone, epoch: Epoch::Auto, nulls: Vec::new(), not_null: false, limits: Limits::default() }
    }

    /// Returns the same converter for a type with these limits.
    #[must_use]
    pub(super) fn within(self, limits: Limits) -> Self {
        Converter { limits, ..self }
    }

    /// Prepares a converter for a type alone, which reads numbers as times in the given unit.
    #[must_use]
    pub(super) fn in_unit(kind: Kind, epoch: Epoch, zone: Tz) -> Self {
        Converter { epoch, ..Converter::of(kind, zone) }
    }

    /// Returns the class of the type.
    #[must_use]
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns true if values of the type can be written in COPY's binary format.
    #[must_use]
    pub(super) fn has_binary_form(&self) -> bool {
        self.kind != Kind::Other
    }

    /// Appends a value in COPY's text format, as [`write_to`](Self::write_to) does.
    pub(crate) fn write(&self, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<Changes, Reason> {
        self.write_to(cell, &mut Text(out))
    }

    /// Writes a value. If it fails, nothing or a part of it is written, which the caller must remove. Returns the ways in
    /// which the value is not exactly the same in the target.
    pub(crate) fn write_to(&self, cell: Cell<'_>, out: &mut impl Output) -> Result<Changes, Reason> {
        let is_null = match cell {
            Cell::Null => true,
            Cell::Text(text) => self.nulls.iter().any(|null| null.as_bytes() == text),
            _ => false,
        };
        if is_null {
            if self.not_null {
                return Err(Reason("NULL is not allowed"));
            }
            out.null();
            return Ok(Changes::default());
        }
        let written = match self.kind {
            Kind::Instant => return self.write_instant(cell, out).map(|(_, changes)| changes),
            Kind::Local => return self.local(cell, out),
            Kind::Jsonb => return json(cell, true, out),
            Kind::Json => return json(cell, false, out),
            Kind::Whole(bits) => whole(cell, bits, out),
            Kind::Double => double(cell, out),
            Kind::Single => single(cell, out),
            Kind::Numeric(bounds) => numeric(cell, bounds, out),
            Kind::Boolean => boolean(cell, out),
            Kind::Date => self.date(cell, out),
            Kind::Text | Kind::Character | Kind::Other => self.text(cell, out),
            Kind::Bytes => bytes(cell, out),
            Kind::Uuid => uuid(cell, out),
        };
        written.map(|()| Changes::default())
    }

    /// Writes an instant as [`write_to`](Self::write_to) does, and returns the form in which the file holds it too.
    pub(super) fn write_instant(&self, cell: Cell<'_>, out: &mut impl Output) -> Result<(Form, Changes), Reason> {
        let reading = self.reading(cell)?;
        out.instant(self.kept(reading.moment.first.naive_utc())?);
        let (twice, skipped) = match reading.clock {
            // A time that is not ambiguous has one instant. A date always has two: its beginning and its end.
            Some(clock) if reading.moment.first != reading.moment.last => match self.zone.from_local_datetime(&clock) {
                LocalResult::Single(_) => (false, false),
                LocalResult::Ambiguous(..) => (true, false),
                LocalResult::None => (false, true),
            },
            _ => (false, false),
        };
        Ok((reading.form, Changes { twice, skipped, ..self.changes(cell, &reading) }))
    }

    /// Returns a time that the type keeps, except for digits beyond microseconds.
    fn kept(&self, time: NaiveDateTime) -> Result<NaiveDateTime, Reason> {
        if !(1..=9999).contains(&time.year()) {
            return Err(Reason("it is a time outside the years 1 to 9999"));
        }
        // The server would round it.
        let rounds =
            |digits| !(time.nanosecond() / 1000).is_multiple_of(10_u32.pow((MICROSECOND_DIGITS - digits) as u32));
        if self.limits.digits.is_some_and(rounds) {
            return Err(Reason("it has more digits than the column keeps"));
        }
        Ok(time)
    }

    /// Returns the ways in which a time changes that do not depend on the zone.
    fn changes(&self, cell: Cell<'_>, reading: &Reading) -> Changes {
        /// The end of a second, as which a leap second is read.
        const END: u32 = 999_999_999;
        let finer = self.is_finer(cell, reading);
        let is_text = matches!(reading.form, Form::Local | Form::Offset);
        let leap = is_text && !finer && reading.moment.first.timestamp_subsec_nanos() == END;
        Changes { finer, leap, ..Changes::default() }
    }

    /// Returns true if a time has digits beyond microseconds, which are not written.
    fn is_finer(&self, cell: Cell<'_>, reading: &Reading) -> bool {
        match (cell, reading.form) {
            (Cell::Text(text), Form::Local | Form::Offset) => {
                let clock = text.trim_ascii().get(11..).unwrap_or_default();
                let fraction = clock.iter().skip_while(|byte| !b".,".contains(byte)).skip(1);
                fraction.take_while(|byte| byte.is_ascii_digit()).skip(6).any(|digit| *digit != b'0')
            }
            (_, Form::Nanos) => !reading.moment.first.timestamp_subsec_nanos().is_multiple_of(1000),
            _ => false,
        }
    }

    /// Writes a time without a zone, as it is written in the file. A conversion by way of UTC would shift times in the
    /// hour that daylight saving time skips.
    fn local(&self, cell: Cell<'_>, out: &mut impl Output) -> Result<Changes, Reason> {
        let reading = self.reading(cell)?;
        let in_zone = || self.zone.from_utc_datetime(&reading.moment.first.naive_utc()).naive_local();
        out.local(self.kept(reading.clock.unwrap_or_else(in_zone))?);
        Ok(self.changes(cell, &reading))
    }

    /// Writes a date. A value with a time of day is refused, because the time would be lost. A value with an offset or
    /// a counted number is refused too, because its day depends on the zone.
    fn date(&self, cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
        let reading = self.reading(cell)?;
        let date = match (reading.form, reading.clock) {
            (Form::Date | Form::DateDigits, Some(clock)) => clock,
            (Form::Local, Some(clock)) if clock.time() == NaiveTime::MIN => clock,
            _ => return Err(Reason("it is a time, not a date")),
        };
        out.date(self.kept(date)?);
        Ok(())
    }

    fn text(&self, cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
        let written;
        let text = match cell {
            Cell::Integer(number) => {
                written = number.to_string();
                written.as_bytes()
            }
            Cell::Real(number) => {
                written = format!("{number:?}");
                written.as_bytes()
            }
            Cell::Text(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
                if memchr::memchr(0, bytes).is_some() {
                    return Err(Reason("it is text with a NUL character"));
                }
                bytes
            }
            Cell::Blob(_) => return Err(Reason("it is a BLOB, not text")),
            Cell::Null => {
                out.null();
                return Ok(());
            }
        };
        // The server would cut off spaces beyond the length. At the end of a padded text, they do not count.
        let counted = if self.kind == Kind::Character { without_padding(text) } else { text };
        if self.limits.characters.is_some_and(|most| is_longer(counted, most)) {
            return Err(Reason("it has more characters than the column holds"));
        }
        out.text(text);
        Ok(())
    }

    fn reading(&self, cell: Cell<'_>) -> Result<Reading, Reason> {
        let not_a_time = Reason("it is not a time");
        match cell {
            Cell::Integer(number) => self.counted(number).ok_or(not_a_time),
            Cell::Real(number) => self.counted_real(number).ok_or(not_a_time),
            Cell::Text(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| not_a_time)?.trim();
                if self.epoch != Epoch::Auto && moment::is_number(text) {
                    let whole = text.parse().ok().and_then(|number| self.counted(number));
                    return whole
                        .or_else(|| text.parse().ok().and_then(|number| self.counted_real(number)))
                        .ok_or(not_a_time);
                }
                moment::text(text, self.zone).ok_or(not_a_time)
            }
            _ => Err(not_a_time),
        }
    }

    /// Converts a number in the column's unit to a time.
    fn counted(&self, number: i64) -> Option<Reading> {
        let (instant, form) = match self.epoch {
            Epoch::Auto => return moment::integer(number, self.zone),
            Epoch::S => (DateTime::from_timestamp(number, 0), Form::Seconds),
            Epoch::Ms => (DateTime::from_timestamp_millis(number), Form::Millis),
            Epoch::Us => (DateTime::from_timestamp_micros(number), Form::Micros),
            Epoch::Ns => (Some(DateTime::from_timestamp_nanos(number)), Form::Nanos),
            Epoch::Apple => (after(number, SECOND, YEAR_2001), Form::Seconds),
            Epoch::AppleNs => (after(number, 1, YEAR_2001), Form::Nanos),
            Epoch::Webkit => (after(number, 1000, YEAR_1601), Form::Micros),
            Epoch::Filetime => (after(number, 100, YEAR_1601), Form::Nanos),
            Epoch::Dotnet => (after(number, 100, YEAR_1), Form::Nanos),
        };
        Some(Reading::at(instant?, form))
    }

    fn counted_real(&self, number: f64) -> Option<Reading> {
        let (micros, form, since) = match self.epoch {
            Epoch::Auto => return moment::real(number, self.zone),
            // A whole number means the same time whether it is stored as an integer or as a real.
            _ if number.fract() == 0.0 && number.abs() < 9.2e18 => return self.counted(number as i64),
            Epoch::S => (number * 1e6, Form::Seconds, 0),
            Epoch::Ms => (number * 1e3, Form::Millis, 0),
            Epoch::Us => (number, Form::Micros, 0),
            Epoch::Ns => (number / 1e3, Form::Nanos, 0),
            Epoch::Apple => (number * 1e6, Form::Seconds, YEAR_2001),
            Epoch::AppleNs => (number / 1e3, Form::Nanos, YEAR_2001),
            Epoch::Webkit => (number, Form::Micros, YEAR_1601),
            Epoch::Filetime => (number / 10.0, Form::Nanos, YEAR_1601),
            Epoch::Dotnet => (number / 10.0, Form::Nanos, YEAR_1),
        };
        if !micros.is_finite() || micros.abs() > 9e18 {
            return None;
        }
        let micros = (micros.round() as i64).checked_add(since.checked_mul(1_000_000)?)?;
        Some(Reading::at(DateTime::from_timestamp_micros(micros)?, form))
    }
}

/// The seconds from 1970 to the beginnings of other calendars of programs.
const YEAR_2001: i64 = 978_307_200;
const YEAR_1601: i64 = -11_644_473_600;
const YEAR_1: i64 = -62_135_596_800;

/// The number of nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// Returns the instant that lies a number of units of `nanos` nanoseconds after `since`, in seconds since 1970.
fn after(number: i64, nanos: i128, since: i64) -> Option<DateTime<Utc>> {
    let nanos = i128::from(number) * nanos;
    let seconds = i64::try_from(nanos.div_euclid(SECOND)).ok()?.checked_add(since)?;
    DateTime::from_timestamp(seconds, u32::try_from(nanos.rem_euclid(SECOND)).ok()?)
}

fn whole(cell: Cell<'_>, bits: u8, out: &mut impl Output) -> Result<(), Reason> {
    const NOT_A_NUMBER: Reason = Reason("it is not a whole number");
    let number = match cell {
        Cell::Integer(number) => number,
        // Beyond 2^53 reals are too far apart to know which whole number was meant.
        Cell::Real(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => number as i64,
        Cell::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| NOT_A_NUMBER)?.trim_ascii();
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NOT_A_NUMBER);
            }
            text.parse().map_err(|_| Reason("it is out of range"))?
        }
        _ => return Err(NOT_A_NUMBER),
    };
    let fits = match bits {
        16 => i16::try_from(number).is_ok(),
        32 => i32::try_from(number).is_ok(),
        _ => true,
    };
    if !fits {
        return Err(Reason("it is out of range"));
    }
    out.whole(number, bits);
    Ok(())
}

const NOT_A_NUMBER: Reason = Reason("it is not a number");
const INEXACT: Reason = Reason("it would lose digits");

/// Returns a cell's number as a double that holds it exactly. The number of a text is rounded to the nearest double.
fn as_double(cell: Cell<'_>) -> Result<f64, Reason> {
    match cell {
        Cell::Integer(number) => {
            let double = number as f64;
            // `i64::MAX` rounds up to 2^63, and the cast back only saturates to it.
            let is_exact = double < 9_223_372_036_854_775_808.0 && double as i64 == number;
            is_exact.then_some(double).ok_or(INEXACT)
        }
        Cell::Real(number) => Ok(number),
        Cell::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| NOT_A_NUMBER)?.trim_ascii();
            let bare = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
            if !matches!(bare.as_str(), "nan" | "inf" | "infinity") && Decimal::parse(text).is_none() {
                return Err(NOT_A_NUMBER);
            }
            let number: f64 = text.parse().map_err(|_| NOT_A_NUMBER)?;
            let is_word = bare.starts_with(['n', 'i']);
            let is_underflow = number == 0.0 && Decimal::parse(text).is_some_and(|number| !number.is_zero());
            if (number.is_infinite() && !is_word) || is_underflow {
                return Err(Reason("it is out of range"));
            }
            Ok(number)
        }
        _ => Err(NOT_A_NUMBER),
    }
}

fn double(cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
    out.double(as_double(cell)?);
    Ok(())
}

fn single(cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
    let number = as_double(cell)?;
    let narrow = number as f32;
    if f64::from(narrow) != number && !number.is_nan() {
        return Err(INEXACT);
    }
    out.single(narrow);
    Ok(())
}

fn numeric(cell: Cell<'_>, bounds: Option<(u32, i32)>, out: &mut impl Output) -> Result<(), Reason> {
    let written;
    let text = match cell {
        Cell::Integer(number) => {
            written = number.to_string();
            &written
        }
        Cell::Real(number) if number.is_finite() => {
            written = format!("{number:?}");
            &written
        }
        Cell::Text(text) => std::str::from_utf8(text).map_err(|_| NOT_A_NUMBER)?.trim_ascii(),
        _ => return Err(NOT_A_NUMBER),
    };
    if text.eq_ignore_ascii_case("nan") {
        out.numeric(None);
        return Ok(());
    }
    let number = Decimal::parse(text).ok_or(NOT_A_NUMBER)?;
    if !bounds.map_or(number.fits_unbounded(), |(precision, scale)| number.fits(precision, scale)) {
        return Err(INEXACT);
    }
    out.numeric(Some(&number));
    Ok(())
}

fn boolean(cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
    const NOT_BOOLEAN: Reason = Reason("it is neither true nor false");
    let is_true = match cell {
        Cell::Integer(number @ (0 | 1)) => number == 1,
        Cell::Real(number) if number == 0.0 || number == 1.0 => number == 1.0,
        Cell::Text(text) if text.len() <= 16 => {
            let word = text.trim_ascii().to_ascii_lowercase();
            match word.as_slice() {
                b"true" | b"t" | b"yes" | b"y" | b"on" | b"1" => true,
                b"false" | b"f" | b"no" | b"n" | b"off" | b"0" => false,
                _ => return Err(NOT_BOOLEAN),
            }
        }
        _ => return Err(NOT_BOOLEAN),
    };
    out.boolean(is_true);
    Ok(())
}

fn json(cell: Cell<'_>, is_binary: bool, out: &mut impl Output) -> Result<Changes, Reason> {
    let mut changes = Changes::default();
    let written;
    let text = match cell {
        Cell::Integer(number) => {
            written = number.to_string();
            written.as_bytes()
        }
        Cell::Real(number) if number.is_finite() => {
            written = format!("{number:?}");
            written.as_bytes()
        }
        Cell::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
            if serde_json::from_str::<IgnoredAny>(text).is_err() {
                return Err(Reason("it is not valid JSON"));
            }
            if is_binary {
                require_characters(bytes)?;
                changes.repeats = repeats_key(text);
            }
            bytes
        }
        _ => return Err(Reason("it is not valid JSON")),
    };
    if is_binary {
        out.jsonb(text)
    } else {
        out.text(text)
    }
    Ok(changes)
}

/// Fails if the JSON contains an escape that PostgreSQL's text cannot hold: NUL, or an unpaired surrogate.
fn require_characters(json: &[u8]) -> Result<(), Reason> {
    const UNSUPPORTED: Reason =
        Reason("it is JSON with a character that PostgreSQL cannot store (\\u0000, or an unpaired surrogate)");
    let code = |at: usize| -> Option<u32> {
        let digits = json.get(at..at + 6).filter(|text| text.starts_with(b"\\u"))?;
        u32::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &json[at..]) {
        at += next;
        match code(at) {
            // Another escape: skip both of its characters.
            None => at += 2,
            Some(0 | 0xdc00..=0xdfff) => return Err(UNSUPPORTED),
            Some(0xd800..=0xdbff) => match code(at + 6) {
                Some(0xdc00..=0xdfff) => at += 12,
                _ => return Err(UNSUPPORTED),
            },
            Some(_) => at += 6,
        }
    }
    Ok(())
}

const NOT_UTF8: Reason = Reason("it is text that is not UTF-8");

/// Returns true if a text has more characters than this.
fn is_longer(text: &[u8], characters: usize) -> bool {
    let is_first_of_character = |byte: &&u8| **byte & 0xc0 != 0x80;
    text.len() > characters && text.iter().filter(is_first_of_character).count() > characters
}

/// Returns a text without the spaces at its end.
fn without_padding(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &text[..end]
}

fn bytes(cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
    let (Cell::Blob(bytes) | Cell::Text(bytes)) = cell else { return Err(Reason("it is not a BLOB")) };
    out.bytes(bytes);
    Ok(())
}

fn uuid(cell: Cell<'_>, out: &mut impl Output) -> Result<(), Reason> {
    const NOT_A_UUID: Reason = Reason("it is not a UUID");
    let mut uuid = [0; 16];
    match cell {
        Cell::Blob(bytes) if bytes.len() == 16 => uuid.copy_from_slice(bytes),
        Cell::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| NOT_A_UUID)?.trim_ascii();
            let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
            let groups: Vec<usize> = inner.split('-').map(str::len).collect();
            if !matches!(groups[..], [32] | [8, 4, 4, 4, 12]) {
                return Err(NOT_A_UUID);
            }
            hex::decode_to_slice(inner.replace('-', ""), &mut uuid).map_err(|_| NOT_A_UUID)?;
        }
        _ => return Err(NOT_A_UUID),
    }
    out.uuid(uuid);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHANGHAI: Tz = chrono_tz::Asia::Shanghai;

    fn convert(kind: &str, cell: Cell<'_>) -> Result<String, &'static str> {
        let mut out = Vec::new();
        let parsed = Kind::parse(kind).unwrap();
        let converter = Converter::of(parsed, SHANGHAI).within(parsed.limits(kind));
        converter.write(cell, &mut out).map_err(|reason| reason.0)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[track_caller]
    fn becomes(kind: &str, cell: Cell<'_>, wanted: &str) {
        assert_eq!(convert(kind, cell), Ok(wanted.to_owned()), "{cell:?} as {kind}");
    }

    #[track_caller]
    fn refused(kind: &str, cell: Cell<'_>) {
        assert!(convert(kind, cell).is_err(), "{cell:?} as {kind}: {:?}", convert(kind, cell));
    }

    fn t(text: &str) -> Cell<'_> {
        Cell::Text(text.as_bytes())
    }

    #[test]
    fn numbers_keep_every_digit_or_are_refused() {
        becomes("bigint", Cell::Integer(i64::MAX), "9223372036854775807");
        becomes("bigint", Cell::Real(3.0), "3");
        becomes("bigint", t(" -12 "), "-12");
        becomes("smallint", Cell::Integer(32_767), "32767");
        for cell in [Cell::Real(3.5), t("3.0"), t(""), t("None"), t("9223372036854775808"), Cell::Blob(b"1")] {
            refused("bigint", cell);
        }
        refused("smallint", Cell::Integer(32_768));
        becomes("double precision", Cell::Real(0.1), "0.1");
        becomes("double precision", Cell::Real(1e300), "1e300");
        becomes("double precision", Cell::Integer(1 << 53), "9007199254740992.0");
        becomes("double precision", t("NaN"), "NaN");
        becomes("double precision", t("-inf"), "-Infinity");
        becomes("double precision", Cell::Real(f64::INFINITY), "Infinity");
        for cell in [Cell::Integer((1 << 53) + 1), Cell::Integer(i64::MAX), t("1e999"), t("1e-999"), t("x"), t("0x1")] {
            refused("double precision", cell);
        }
        becomes("real", Cell::Real(0.5), "0.5");
        refused("real", Cell::Real(0.1));
        becomes("numeric", Cell::Real(0.1), "0.1");
        becomes("numeric", t("123456789012345678901234567890.123"), "123456789012345678901234567890.123");
        becomes("numeric(18, 4)", Cell::Real(12.25), "12.25");
        becomes("numeric(18,4)", t("1.50000"), "1.50000");
        becomes("numeric(5,2)", t("999.99"), "999.99");
        becomes("numeric(5,-2)", Cell::Integer(12_300), "12300");
        assert!(Kind::parse("numeric(x)").is_err() && Kind::parse("numeric(1,2,3)").is_err());
        for (kind, cell) in [
            ("numeric(18,4)", Cell::Real(0.300_000_000_000_000_04)),
            ("numeric(5,2)", t("1000")),
            ("numeric(5,2)", t("0.001")),
            ("numeric(5,-2)", Cell::Integer(12_345)),
            ("numeric(5, -2)", t("12300.5")),
            ("numeric", Cell::Real(f64::INFINITY)),
            ("numeric", t("1,5")),
        ] {
            refused(kind, cell);
        }
    }

    #[test]
    fn boolean_accepts_several_words() {
        for cell in [Cell::Integer(1), Cell::Real(1.0), t("true"), t("1"), t(" TRUE "), t("yes")] {
            becomes("boolean", cell, "t");
        }
        becomes("bool", t("0"), "f");
        for cell in [Cell::Integer(2), t(""), t("None"), t("maybe"), Cell::Blob(b"1")] {
            refused("boolean", cell);
        }
    }

    #[test]
    fn times_become_utc() {
        becomes("timestamptz", t("2026-11-26 09:30:00"), "2026-11-26 01:30:00+00");
        becomes("timestamptz", t("2026-11-26T09:30:00.123456+08:00"), "2026-11-26 01:30:00.123456+00");
        becomes("timestamptz", t("2026-11-26T09:30:00.123456789Z"), "2026-11-26 09:30:00.123456+00");
        becomes("timestamptz", t("2026-11-26"), "2026-11-25 16:00:00+00");
        becomes("timestamptz", Cell::Integer(1_795_700_818), "2026-11-26 13:46:58+00");
        becomes("timestamptz", Cell::Integer(1_795_700_818_123), "2026-11-26 13:46:58.123000+00");
        becomes("timestamp", t("2026-11-26 09:30:00"), "2026-11-26 09:30:00");
        becomes("date", t("2026-11-26"), "2026-11-26");
        becomes("date", t("20261126"), "2026-11-26");
        becomes("date", t("2026-11-26 00:00:00"), "2026-11-26");
        for cell in [t("2026-11-26 09:30:00"), Cell::Integer(1_795_700_818), t("2026-11-26T00:00:00Z"), t("x")] {
            refused("date", cell);
        }
        let mut out = Vec::new();
        let seconds = Converter { epoch: Epoch::S, ..Converter::of(Kind::Instant, SHANGHAI) };
        seconds.write(Cell::Integer(20_261_126), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "1970-08-23 12:05:26+00");
        becomes("timestamptz(3)", t("2026-11-26 09:30:00.125"), "2026-11-26 01:30:00.125000+00");
        refused("timestamptz(3)", t("2026-11-26 09:30:00.1251"));
        becomes("timestamp(0) without time zone", t("2026-11-26 09:30:00"), "2026-11-26 09:30:00");
        refused("timestamp(0) without time zone", t("2026-11-26 09:30:00.5"));
    }

    #[test]
    fn local_times_in_a_skipped_hour_are_kept() {
        let convert = |kind, zone, cell: Cell<'_>| {
            let mut out = Vec::new();
            Converter::of(kind, zone).write(cell, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let sao_paulo = chrono_tz::America::Sao_Paulo;
        for cell in [t("2018-11-04"), t("2018-11-04 00:00:00"), t("20181104"), Cell::Integer(20_181_104)] {
            assert_eq!(convert(Kind::Date, sao_paulo, cell), "2018-11-04", "{cell:?}");
        }
        let berlin = chrono_tz::Europe::Berlin;
        assert_eq!(convert(Kind::Local, berlin, t("2026-03-29 02:30:00")), "2026-03-29 02:30:00");
        assert_eq!(convert(Kind::Local, berlin, t("2026-03-29 02:30:00Z")), "2026-03-29 04:30:00");
        assert_eq!(convert(Kind::Instant, berlin, t("2026-03-29 02:30:00")), "2026-03-29 00:30:00+00");
    }

    #[test]
    fn explicit_unit_reads_numbers_like_automatic_unit() {
        for (number, epoch) in [
            (1_795_700_818.123_457_f64, Epoch::S),
            (1_795_700_818.0, Epoch::S),
            (1_795_700_818_123.457, Epoch::Ms),
            (1_795_700_818_123_457.0, Epoch::Us),
            (1_795_700_818_123_457_024.0, Epoch::Ns),
        ] {
            let (mut automatic, mut explicit) = (Vec::new(), Vec::new());
            let auto = Converter::of(Kind::Instant, SHANGHAI);
            auto.write(Cell::Real(number), &mut automatic).unwrap();
            Converter { epoch, ..auto }.write(Cell::Real(number), &mut explicit).unwrap();
            assert_eq!(automatic, explicit, "{number}");
        }
    }

    #[test]
    fn json_that_the_server_refuses_is_refused() {
        becomes("jsonb", t("{\"a\":\"b\\nc\"}"), "{\"a\":\"b\\\\nc\"}");
        becomes("jsonb", t("\"\\ud83d\\ude00 \\\\u0000\""), "\"\\\\ud83d\\\\ude00 \\\\\\\\u0000\"");
        becomes("json", t("\"\\u0000\""), "\"\\\\u0000\"");
        for text in ["{'a': 1}", "", "None", "NaN", "{\"a\":1", "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\"", "[1,]"] {
            refused("jsonb", t(text));
        }
    }

    #[test]
    fn text_is_kept_as_it_is() {
        becomes("text", t("贵州茅台\t\\N\r\n"), "贵州茅台\\t\\\\N\\r\\n");
        becomes("text", t("000001"), "000001");
        becomes("text", t(""), "");
        becomes("text", Cell::Integer(7), "7");
        for cell in [Cell::Blob(b"a"), Cell::Text(b"a\0b"), Cell::Text(b"\xff")] {
            refused("text", cell);
        }
        becomes("bytea", Cell::Blob(b"\x00\xff"), "\\\\x00ff");
        becomes("uuid", t("{550e8400-e29b-41d4-a716-446655440000}"), "550e8400-e29b-41d4-a716-446655440000");
    }

    #[test]
    fn null_texts_become_null_or_are_refused() {
        let mut column =
            Converter { nulls: vec![String::new(), "None".to_owned()], ..Converter::of(Kind::Whole(64), SHANGHAI) };
        let mut out = Vec::new();
        column.write(t(""), &mut out).unwrap();
        column.write(t("None"), &mut out).unwrap();
        column.write(Cell::Null, &mut out).unwrap();
        assert_eq!(out, b"\\N\\N\\N");
        assert!(column.write(t("none"), &mut out).is_err());
        column.not_null = true;
        assert!(column.write(t(""), &mut out).is_err());
    }
}
