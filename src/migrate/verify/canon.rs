//! Converts the values of both sides to one canonical form, so that equal values are equal bytes: values of the file by
//! the plan's rules, values of the target from the server's output.

use std::borrow::Cow;

use chrono_tz::Tz;

use super::json::{canonical, canonical_number, decimal};
use super::times::{self, Time};
use crate::engine::sqlite::values::Cell;
use crate::migrate::changes::{ChangeCounts, Changes};
use crate::migrate::convert::Kind;
use crate::migrate::ddl;
use crate::migrate::plan::{ColumnPlan, Epoch, TablePlan};
use crate::platform::error::{Error, Result, one_line};

/// A value in canonical form; `None` is NULL.
pub(super) type Canon = Option<Vec<u8>>;

/// Converts the values of a column to canonical form.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) target_type: String,
    zone: Tz,
    epoch: Epoch,
    nulls: Vec<String>,
    pub(super) refuses_null: bool,
    /// The number of values of the file that are not exactly the same in the target.
    pub(super) changes: std::cell::Cell<ChangeCounts>,
}

/// The limit up to which a real holds every whole number exactly.
const MAX_EXACT_REAL: f64 = 9_007_199_254_740_992.0;

impl Column {
    pub(super) fn new(table: &TablePlan, column: &ColumnPlan, zone: Tz) -> Result<Self> {
        Ok(Column {
            name: column.target_name().to_owned(),
            kind: Kind::parse(&column.target_type)?,
            target_type: column.target_type.clone(),
            zone: column.zone.unwrap_or(zone),
            epoch: column.epoch,
            nulls: column.nulls.clone(),
            refuses_null: ddl::refuses_null(table, column),
            changes: std::cell::Cell::default(),
        })
    }

    fn count(&self, changes: Changes) {
        if !changes.is_none() {
            let mut counts = self.changes.get();
            counts.add(changes);
            self.changes.set(counts);
        }
    }

    /// Returns a value of the file in the form that the target should have, or `None` if it cannot be converted.
    pub(super) fn of_file(&self, cell: Cell<'_>) -> Option<Canon> {
        let text = match cell {
            Cell::Text(bytes) => Some(std::str::from_utf8(bytes)),
            _ => None,
        };
        let means_null = |text: &str| self.nulls.iter().any(|null| null == text);
        if matches!(cell, Cell::Null) || matches!(text, Some(Ok(text)) if means_null(text)) {
            return (!self.refuses_null).then_some(None);
        }
        let text = match text {
            Some(Ok(text)) => Some(text),
            Some(Err(_)) if self.kind != Kind::Bytes => return None,
            _ => None,
        };
        let value = match self.kind {
            Kind::Whole(bits) => whole(cell, text, bits)?.to_string().into_bytes(),
            Kind::Double => number(cell, text)?.canonical_bits().to_vec(),
            Kind::Single => {
                let double = number(cell, text)?;
                let single = double as f32;
                (double.is_nan() || f64::from(single) == double).then(|| single_bits(single))?
            }
            Kind::Numeric(bounds) => numeric(cell, text, bounds)?.into_bytes(),
            Kind::Boolean => boolean(cell, text)?.to_vec(),
            Kind::Instant => {
                let time = self.time(cell, text)?;
                self.count(time.changes);
                micros(time.micros)?
            }
            Kind::Local => {
                let time = self.time(cell, text)?;
                self.count(Changes { twice: false, skipped: false, ..time.changes });
                micros(time.local)?
            }
            Kind::Date => {
                let time = self.time(cell, text)?;
                let is_digits = text.is_none_or(|text| text.trim().bytes().all(|byte| byte.is_ascii_digit()));
                let is_midnight = !is_digits && !time.has_offset && time.local.rem_euclid(86_400_000_000) == 0;
                (time.is_date || is_midnight).then(|| micros(time.local))??
            }
            Kind::Jsonb => {
                let canonical = canonical(&json_text(cell, text)?).ok()?;
                self.count(Changes { repeats: canonical.repeats, ..Changes::default() });
                canonical.text.into_bytes()
            }
            Kind::Json => {
                let text = json_text(cell, text)?;
                serde_json::from_str::<serde::de::IgnoredAny>(&text).ok()?;
                text.into_owned().into_bytes()
            }
            Kind::Text | Kind::Other => plain(cell, text)?.into_bytes(),
            Kind::Character => plain(cell, text)?.trim_end_matches(' ').to_owned().into_bytes(),
            Kind::Bytes => match cell {
                Cell::Blob(bytes) | Cell::Text(bytes) => bytes.to_vec(),
                _ => return None,
            },
            Kind::Uuid => uuid(cell, text)?.into_bytes(),
        };
        Some(Some(value))
    }

    fn time(&self, cell: Cell<'_>, text: Option<&str>) -> Option<Time> {
        match (cell, text) {
            (Cell::Integer(number), _) => times::of_whole(number, self.epoch, self.zone),
            (Cell::Real(number), _) => times::of_real(number, self.epoch, self.zone),
            (_, Some(text)) => times::of_text(text, self.epoch, self.zone),
            _ => None,
        }
    }

    /// Converts a value from the server's output.
    pub(super) fn of_target(&self, value: Option<String>) -> Result<Canon> {
        let Some(value) = value else { return Ok(None) };
        // A long text is not copied.
        if matches!(self.kind, Kind::Whole(_) | Kind::Boolean | Kind::Json | Kind::Text | Kind::Other) {
            return Ok(Some(value.into_bytes()));
        }
        let text = value.as_str();
        let unreadable = || {
            let start: String = text.chars().take(80).collect();
            Error::failed(format!(
                "cannot read the server's value '{}' of the column {}",
                one_line(&start),
                one_line(&self.name)
            ))
        };
        let value = match self.kind {
            Kind::Double => text.parse::<f64>().map_err(|_| unreadable())?.canonical_bits().to_vec(),
            Kind::Single => single_bits(text.parse().map_err(|_| unreadable())?),
            Kind::Numeric(_) => match text {
                "NaN" | "Infinity" | "-Infinity" => text.as_bytes().to_vec(),
                _ => canonical_number(text).ok_or_else(unreadable)?.into_bytes(),
            },
            // A time that cannot occur in a file is compared as the server prints it.
            Kind::Instant | Kind::Local | Kind::Date => match times::of_server(text) {
                Some(micros) => micros.to_string().into_bytes(),
                None => text.as_bytes().to_vec(),
            },
            Kind::Jsonb => canonical(text).map_err(|_| unreadable())?.text.into_bytes(),
            Kind::Bytes => hex::decode(text.trim_start_matches("\\x")).map_err(|_| unreadable())?,
            Kind::Uuid => text.replace('-', "").into_bytes(),
            Kind::Character => text.trim_end_matches(' ').as_bytes().to_vec(),
            Kind::Whole(_) | Kind::Boolean | Kind::Json | Kind::Text | Kind::Other => value.into_bytes(),
        };
        Ok(Some(value))
    }

    /// Formats a canonical value for messages, and for the queries that look up keys.
    pub(super) fn shown(&self, value: &Canon) -> String {
        let Some(bytes) = value else { return "NULL".to_owned() };
        let text = || String::from_utf8_lossy(bytes).into_owned();
        match self.kind {
            Kind::Double => {
                let bits = bytes.as_slice().try_into().map(u64::from_le_bytes).unwrap_or_default();
                match f64::from_bits(bits) {
                    number if number.is_nan() => "NaN".to_owned(),
                    number if number.is_infinite() => format!("{}Infinity", if number < 0.0 { "-" } else { "" }),
                    number => format!("{number:?}"),
                }
            }
            Kind::Single => {
                let bits = bytes.as_slice().try_into().map(u32::from_le_bytes).unwrap_or_default();
                format!("{:?}", f32::from_bits(bits))
            }
            Kind::Instant | Kind::Local | Kind::Date => {
                let time = text().parse().ok().and_then(chrono::DateTime::from_timestamp_micros);
                let Some(time) = time else { return text() };
                match self.kind {
                    Kind::Date => time.format("%Y-%m-%d").to_string(),
                    Kind::Local => time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
                    _ => time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
                }
            }
            Kind::Bytes => format!("\\x{}", hex::encode(bytes)),
            _ => text(),
        }
    }
}

trait Bits {
    fn canonical_bits(self) -> [u8; 8];
}

impl Bits for f64 {
    /// Returns the bits of the number; every NaN has the same bits.
    fn canonical_bits(self) -> [u8; 8] {
        (if self.is_nan() { f64::NAN } else { self }).to_bits().to_le_bytes()
    }
}

fn single_bits(number: f32) -> Vec<u8> {
    (if number.is_nan() { f32::NAN } else { number }).to_bits().to_le_bytes().to_vec()
}

/// Formats microseconds since 1970. Returns `None` outside the years 1 to 9999, which loading rejects too.
fn micros(micros: i64) -> Option<Vec<u8>> {
    let bounds = (times::days(1, 1, 1)?, times::days(9999, 12, 31)?);
    let day = micros.div_euclid(86_400_000_000);
    (bounds.0..=bounds.1).contains(&day).then(|| micros.to_string().into_bytes())
}

fn whole(cell: Cell<'_>, text: Option<&str>, bits: u8) -> Option<i64> {
    let number = match (cell, text) {
        (Cell::Integer(number), _) => number,
        (Cell::Real(number), _) if number == number.trunc() && number.abs() <= MAX_EXACT_REAL => number as i64,
        (_, Some(text)) => {
            let text = text.trim_ascii();
            let (negative, digits) = match text.as_bytes().first()? {
                b'-' => (true, &text[1..]),
                b'+' => (false, &text[1..]),
                _ => (false, text),
            };
            if digits.is_empty() {
                return None;
            }
            // Built as a negative number, because the negative range is larger by one.
            let mut number: i64 = 0;
            for byte in digits.bytes() {
                let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
                number = number.checked_mul(10)?.checked_sub(digit)?;
            }
            if negative { number } else { number.checked_neg()? }
        }
        _ => return None,
    };
    let most = 1i128 << (bits - 1);
    (-most..most).contains(&i128::from(number)).then_some(number)
}

fn number(cell: Cell<'_>, text: Option<&str>) -> Option<f64> {
    match (cell, text) {
        (Cell::Integer(number), _) => {
            let double = number as f64;
            // Compared as i128, which does not saturate here.
            (double as i128 == i128::from(number)).then_some(double)
        }
        (Cell::Real(number), _) => Some(number),
        (_, Some(text)) => {
            let text = text.trim_ascii();
            let bare = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
            if matches!(bare.as_str(), "nan" | "inf" | "infinity") {
                return text.parse().ok();
            }
            let canonical = canonical_number(text)?;
            let number: f64 = text.parse().ok()?;
            let is_lost = number.is_infinite() || (number == 0.0 && canonical != "0");
            (!is_lost).then_some(number)
        }
        _ => None,
    }
}

fn numeric(cell: Cell<'_>, text: Option<&str>, bounds: Option<(u32, i32)>) -> Option<String> {
    let written = match (cell, text) {
        (Cell::Integer(number), _) => number.to_string(),
        (Cell::Real(number), _) if number.is_finite() => format!("{number:e}"),
        (_, Some(text)) if text.trim_ascii().eq_ignore_ascii_case("nan") => return Some("NaN".to_owned()),
        (_, Some(text)) => text.trim_ascii().to_owned(),
        _ => return None,
    };
    if let Some((precision, scale)) = bounds {
        let decimal = decimal(&written)?;
        let digits = i64::try_from(decimal.digits.len()).ok()?;
        let most = i64::from(precision) - i64::from(scale);
        if digits > 0 && (digits.checked_sub(decimal.whole_digits)? > i64::from(scale) || decimal.whole_digits > most) {
            return None;
        }
    }
    canonical_number(&written)
}

fn boolean(cell: Cell<'_>, text: Option<&str>) -> Option<&'static [u8]> {
    let is_true = match (cell, text) {
        (Cell::Integer(0), _) => false,
        (Cell::Integer(1), _) => true,
        (Cell::Real(0.0), _) => false,
        (Cell::Real(1.0), _) => true,
        (_, Some(text)) => {
            let word = text.trim_ascii().to_ascii_lowercase();
            let yes = ["1", "t", "true", "y", "yes", "on"].contains(&word.as_str());
            let no = ["0", "f", "false", "n", "no", "off"].contains(&word.as_str());
            if !yes && !no {
                return None;
            }
            yes
        }
        _ => return None,
    };
    Some(if is_true { b"t" } else { b"f" })
}

fn json_text<'a>(cell: Cell<'_>, text: Option<&'a str>) -> Option<Cow<'a, str>> {
    match (cell, text) {
        (Cell::Integer(number), _) => Some(number.to_string().into()),
        (Cell::Real(number), _) if number.is_finite() => Some(format!("{number:?}").into()),
        (_, Some(text)) => Some(text.into()),
        _ => None,
    }
}

fn plain(cell: Cell<'_>, text: Option<&str>) -> Option<String> {
    match (cell, text) {
        (Cell::Integer(number), _) => Some(number.to_string()),
        (Cell::Real(number), _) => Some(format!("{number:?}")),
        (_, Some(text)) if !text.contains('\0') => Some(text.to_owned()),
        _ => None,
    }
}

fn uuid(cell: Cell<'_>, text: Option<&str>) -> Option<String> {
    if let Cell::Blob(bytes) = cell {
        return (bytes.len() == 16).then(|| hex::encode(bytes));
    }
    let text = text?.trim_ascii();
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let digits = inner.replace('-', "").to_ascii_lowercase();
    let is_grouped =
        inner.len() == 32 || (inner.len() == 36 && inner.match_indices('-').map(|(at, _)| at).eq([8, 13, 18, 23]));
    (is_grouped && digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}
