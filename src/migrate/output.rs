//! Writes values in the two formats of COPY. The text format holds values of every type. The binary format spares the server
//! the reading of texts, which takes a third of its time, and exists here for the types that most columns have.

use std::io::Write as _;

use chrono::{Datelike as _, NaiveDateTime, Timelike as _};

use super::decimal::{Decimal, MAX_SCALE};

/// Receives one value, in the format of the implementation.
pub(crate) trait Output {
    /// Writes NULL.
    fn null(&mut self);
    /// Writes a whole number that has at most this number of bits.
    fn whole(&mut self, number: i64, bits: u8);
    /// Writes a `double precision`.
    fn double(&mut self, number: f64);
    /// Writes a `real`.
    fn single(&mut self, number: f32);
    /// Writes a `numeric` that fits, or NaN if it is `None`.
    fn numeric(&mut self, number: Option<&Decimal<'_>>);
    /// Writes a `boolean`.
    fn boolean(&mut self, is_true: bool);
    /// Writes a `timestamptz`, given in UTC, in a year of four digits. Digits beyond microseconds are cut off.
    fn instant(&mut self, time: NaiveDateTime);
    /// Writes a `timestamp`, under the same rules.
    fn local(&mut self, time: NaiveDateTime);
    /// Writes a `date`, under the same rules.
    fn date(&mut self, time: NaiveDateTime);
    /// Writes the text of a value of any type that the server reads from text.
    fn text(&mut self, text: &[u8]);
    /// Writes the text of a `jsonb`.
    fn jsonb(&mut self, text: &[u8]);
    /// Writes a `bytea`.
    fn bytes(&mut self, bytes: &[u8]);
    /// Writes a `uuid`.
    fn uuid(&mut self, uuid: [u8; 16]);
}

/// Appends a value in COPY's text format.
pub(crate) struct Text<'a>(pub &'a mut Vec<u8>);

/// Appends a value in COPY's binary format, with its length.
pub(crate) struct Binary<'a>(pub &'a mut Vec<u8>);

/// The beginning of the binary format: its signature, no flags, and no extension.
pub(super) const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The end of the binary format.
pub(super) const BINARY_END: &[u8] = &(-1i16).to_be_bytes();

/// The microseconds of a time, without those of a leap second.
fn micros(time: NaiveDateTime) -> u32 {
    (time.nanosecond() / 1000).min(999_999)
}

impl Text<'_> {
    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).expect("writing to memory cannot fail");
    }

    fn two(&mut self, number: u32) {
        self.0.extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
    }
}

impl Output for Text<'_> {
    fn null(&mut self) {
        self.0.extend_from_slice(b"\\N");
    }

    fn whole(&mut self, number: i64, _: u8) {
        self.put(format_args!("{number}"));
    }

    fn double(&mut self, number: f64) {
        match number {
            _ if number.is_nan() => self.0.extend_from_slice(b"NaN"),
            f64::INFINITY => self.0.extend_from_slice(b"Infinity"),
            f64::NEG_INFINITY => self.0.extend_from_slice(b"-Infinity"),
            _ => self.put(format_args!("{number:?}")),
        }
    }

    fn single(&mut self, number: f32) {
        if number.is_finite() {
            self.put(format_args!("{number:?}"));
        } else {
            self.double(number.into());
        }
    }

    fn numeric(&mut self, number: Option<&Decimal<'_>>) {
        self.0.extend_from_slice(number.map_or(b"NaN", |number| number.text.as_bytes()));
    }

    fn boolean(&mut self, is_true: bool) {
        self.0.push(if is_true { b't' } else { b'f' });
    }

    fn instant(&mut self, time: NaiveDateTime) {
        self.local(time);
        self.0.extend_from_slice(b"+00");
    }

    fn local(&mut self, time: NaiveDateTime) {
        self.date(time);
        for (before, part) in [(b' ', time.hour()), (b':', time.minute()), (b':', time.second())] {
            self.0.push(before);
            self.two(part);
        }
        if micros(time) > 0 {
            self.put(format_args!(".{:06}", micros(time)));
        }
    }

    fn date(&mut self, time: NaiveDateTime) {
        let year = time.year().unsigned_abs();
        self.two(year / 100);
        self.two(year % 100);
        self.0.push(b'-');
        self.two(time.month());
        self.0.push(b'-');
        self.two(time.day());
    }

    fn text(&mut self, text: &[u8]) {
        escape(text, self.0);
    }

    fn jsonb(&mut self, text: &[u8]) {
        escape(text, self.0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(b"\\\\x");
        let start = self.0.len();
        self.0.resize(start + 2 * bytes.len(), 0);
        hex::encode_to_slice(bytes, &mut self.0[start..]).expect("there are two digits for each byte");
    }

    fn uuid(&mut self, uuid: [u8; 16]) {
        let digits = hex::encode(uuid);
        let (one, two, three, four, five) =
            (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        self.put(format_args!("{one}-{two}-{three}-{four}-{five}"));
    }
}

/// Appends text escaped for COPY's text format.
pub(super) fn escape(mut text: &[u8], out: &mut Vec<u8>) {
    let is_escaped = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
    // A long value is copied once, and not again whenever the buffer grows.
    if text.len() > 1 << 20 {
        out.reserve(text.len() + text.iter().filter(|byte| is_escaped(byte)).count());
    }
    while let Some(at) = text.iter().position(is_escaped) {
        out.extend_from_slice(&text[..at]);
        out.extend_from_slice(match text[at] {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => b"\\\\",
        });
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

/// The seconds from 1970 to 2000, where the server's times begin.
const YEAR_2000: i64 = 946_684_800;

/// The seconds of a day.
const DAY: i64 = 86_400;

impl Binary<'_> {
    /// Writes a value, of which parts may be long.
    fn field(&mut self, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        // A row with a longer value is rejected before it is sent.
        self.0.extend_from_slice(&i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes());
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }
}

impl Output for Binary<'_> {
    fn null(&mut self) {
        self.0.extend_from_slice(&(-1i32).to_be_bytes());
    }

    fn whole(&mut self, number: i64, bits: u8) {
        let bytes = number.to_be_bytes();
        self.field(&[&bytes[bytes.len() - usize::from(bits / 8)..]]);
    }

    fn double(&mut self, number: f64) {
        self.field(&[&number.to_be_bytes()]);
    }

    fn single(&mut self, number: f32) {
        self.field(&[&number.to_be_bytes()]);
    }

    fn numeric(&mut self, number: Option<&Decimal<'_>>) {
        const NOT_A_NUMBER: u16 = 0xc000;
        const NEGATIVE: u16 = 0x4000;
        let Some(number) = number else {
            return self.field(&[&[0; 4], &NOT_A_NUMBER.to_be_bytes(), &[0; 2]]);
        };
        // Digits in groups of four, which begin at the decimal point.
        let weight = (number.whole_digits - 1).div_euclid(4);
        let places = usize::try_from(4 * (weight + 1) - number.whole_digits).unwrap_or(0);
        let start = self.0.len();
        self.field(&[]);
        let count = if number.is_zero() { 0 } else { (places + number.count()).div_ceil(4) };
        // Of a number that fits, digits beyond the greatest scale are 0.
        let sign = if number.text.starts_with('-') && count > 0 { NEGATIVE } else { 0 };
        for part in [count as u16, if count > 0 { weight as u16 } else { 0 }, sign, number.scale.min(MAX_SCALE) as u16]
        {
            self.0.extend_from_slice(&part.to_be_bytes());
        }
        let mut all = std::iter::repeat_n(0, places).chain(number.digits().map(u16::from));
        for _ in 0..count {
            let group = (0..4).fold(0, |group, _| 10 * group + all.next().unwrap_or(0));
            self.0.extend_from_slice(&group.to_be_bytes());
        }
        let bytes = (self.0.len() - start - 4) as i32;
        self.0[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
    }

    fn boolean(&mut self, is_true: bool) {
        self.field(&[&[u8::from(is_true)]]);
    }

    fn instant(&mut self, time: NaiveDateTime) {
        self.local(time);
    }

    fn local(&mut self, time: NaiveDateTime) {
        let seconds = time.and_utc().timestamp() - YEAR_2000;
        self.field(&[&(seconds * 1_000_000 + i64::from(micros(time))).to_be_bytes()]);
    }

    fn date(&mut self, time: NaiveDateTime) {
        let days = (time.and_utc().timestamp() - YEAR_2000).div_euclid(DAY);
        self.field(&[&(days as i32).to_be_bytes()]);
    }

    fn text(&mut self, text: &[u8]) {
        self.field(&[text]);
    }

    fn jsonb(&mut self, text: &[u8]) {
        const VERSION: &[u8] = &[1];
        self.field(&[VERSION, text]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.field(&[bytes]);
    }

    fn uuid(&mut self, uuid: [u8; 16]) {
        self.field(&[&uuid]);
    }
}
