//! Converts JSON to a canonical form, equal for equal values: keys are sorted, the last one of duplicate keys is kept,
//! and numbers are written without insignificant digits.

/// The error for a text that the server does not accept as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidJson;

/// The greatest nesting depth of arrays and objects, the same as in loading.
const DEPTH: usize = 127;

/// Returns the canonical form of a JSON text.
pub(super) fn canonical(text: &str) -> Result<String, InvalidJson> {
    let mut parser = Parser { bytes: text.as_bytes(), at: 0 };
    let mut out = String::new();
    parser.value(&mut out, 0)?;
    parser.space();
    if parser.at == parser.bytes.len() { Ok(out) } else { Err(InvalidJson) }
}

/// A decimal number: its sign, its digits without leading and trailing zeros, and the number of digits before the
/// decimal point.
pub(super) struct Decimal {
    is_negative: bool,
    pub(super) digits: String,
    pub(super) whole_digits: i64,
}

/// Parses a decimal number; 0 has no digits.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let point = mantissa.find('.').unwrap_or(mantissa.len());
    let digits: String = mantissa.chars().filter(|letter| *letter != '.').collect();
    if digits.is_empty() || mantissa.len() > digits.len() + 1 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let whole_digits = i64::try_from(point).ok()?.checked_sub(zeros)?.checked_add(exponent)?;
    let significant = significant.trim_end_matches('0');
    let is_zero = significant.is_empty();
    Some(Decimal {
        is_negative: is_negative && !is_zero,
        digits: significant.to_owned(),
        whole_digits: if is_zero { 0 } else { whole_digits },
    })
}

/// Returns the canonical form of a decimal number.
pub(super) fn canonical_number(text: &str) -> Option<String> {
    /// A number whose first digit is further from the decimal point than this is written with an exponent.
    const PLAIN: u64 = 40;
    let Decimal { is_negative, digits, whole_digits } = decimal(text)?;
    let sign = if is_negative { "-" } else { "" };
    let count = i64::try_from(digits.len()).ok()?;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    Some(match whole_digits {
        _ if digits.is_empty() => "0".to_owned(),
        whole_digits if whole_digits.unsigned_abs() > PLAIN => format!("{sign}0.{digits}e{whole_digits}"),
        whole_digits if whole_digits <= 0 => format!("{sign}0.{}{digits}", zeros(-whole_digits)),
        whole_digits if whole_digits >= count => format!("{sign}{digits}{}", zeros(whole_digits - count)),
        whole_digits => {
            let (before, behind) = digits.split_at(usize::try_from(whole_digits).ok()?);
            format!("{sign}{before}.{behind}")
        }
    })
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_next = self.bytes.get(self.at) == Some(&wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn word(&mut self, word: &str, out: &mut String) -> Result<(), InvalidJson> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(InvalidJson);
        }
        self.at += word.len();
        out.push_str(word);
        Ok(())
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), InvalidJson> {
        self.space();
        match self.bytes.get(self.at).ok_or(InvalidJson)? {
            b'n' => self.word("null", out),
            b't' => self.word("true", out),
            b'f' => self.word("false", out),
            b'"' => {
                let text = self.string()?;
                write_string(&text, out);
                Ok(())
            }
            b'[' | b'{' if depth >= DEPTH => Err(InvalidJson),
            b'[' => self.list(out, depth),
            b'{' => self.object(out, depth),
            _ => self.number(out),
        }
    }

    fn list(&mut self, out: &mut String, depth: usize) -> Result<(), InvalidJson> {
        self.at += 1;
        out.push('[');
        self.space();
        if self.take(b']') {
            out.push(']');
            return Ok(());
        }
        loop {
            self.value(out, depth + 1)?;
            self.space();
            if self.take(b']') {
                out.push(']');
                return Ok(());
            }
            if !self.take(b',') {
                return Err(InvalidJson);
            }
            out.push(',');
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Result<(), InvalidJson> {
        self.at += 1;
        let mut entries = std::collections::BTreeMap::new();
        self.space();
        if !self.take(b'}') {
            loop {
                self.space();
                if self.bytes.get(self.at) != Some(&b'"') {
                    return Err(InvalidJson);
                }
                let key = self.string()?;
                self.space();
                if !self.take(b':') {
                    return Err(InvalidJson);
                }
                let mut value = String::new();
                self.value(&mut value, depth + 1)?;
                entries.insert(key, value);
                self.space();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(InvalidJson);
                }
            }
        }
        out.push('{');
        for (number, (key, value)) in entries.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            write_string(key, out);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        Ok(())
    }

    fn number(&mut self, out: &mut String) -> Result<(), InvalidJson> {
        let start = self.at;
        self.take(b'-');
        let count = self.digits();
        if count == 0 || (count > 1 && self.bytes[self.at - count] == b'0') {
            return Err(InvalidJson);
        }
        if self.take(b'.') && self.digits() == 0 {
            return Err(InvalidJson);
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                return Err(InvalidJson);
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).map_err(|_| InvalidJson)?;
        out.push_str(&canonical_number(text).ok_or(InvalidJson)?);
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn string(&mut self) -> Result<String, InvalidJson> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            match *self.bytes.get(self.at).ok_or(InvalidJson)? {
                b'"' => {
                    self.at += 1;
                    return String::from_utf8(out).map_err(|_| InvalidJson);
                }
                b'\\' => {
                    let escape = *self.bytes.get(self.at + 1).ok_or(InvalidJson)?;
                    self.at += 2;
                    let letter = match escape {
                        b'"' | b'\\' | b'/' => char::from(escape),
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.unicode()?,
                        _ => return Err(InvalidJson),
                    };
                    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                byte if byte < 0x20 => return Err(InvalidJson),
                byte => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn unit(&mut self) -> Result<u32, InvalidJson> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(InvalidJson)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidJson);
        }
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).map_err(|_| InvalidJson)?, 16).map_err(|_| InvalidJson)
    }

    fn unicode(&mut self) -> Result<char, InvalidJson> {
        let first = self.unit()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !(self.take(b'\\') && self.take(b'u')) {
                return Err(InvalidJson);
            }
            let second = self.unit()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(InvalidJson);
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        // PostgreSQL's text cannot contain NUL.
        char::from_u32(code).filter(|letter| *letter != '\0').ok_or(InvalidJson)
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        if letter == '"' || letter == '\\' {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equal_values_have_one_form() {
        let same =
            |one: &str, other: &str| assert_eq!(canonical(one).unwrap(), canonical(other).unwrap(), "{one} {other}");
        same(r#"{"b": 1, "a": [1.0, 2e2]}"#, r#" {"a":[1,200],"b":1.00}"#);
        same(r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#);
        same(r#""\u8305\u53f0 \ud83d\ude00""#, "\"茅台 😀\"");
        same("-0", "0.0");
        for (text, canonical) in
            [("25.500", "25.5"), ("-0.00120", "-0.0012"), ("2e3", "2000"), ("1e99", "0.1e100"), ("1.5e1", "15")]
        {
            assert_eq!(canonical_number(text).unwrap(), canonical);
        }
        assert!(canonical_number("1e9223372036854775807").is_none());
        assert!(canonical_number("1.2.3").is_none() && canonical_number("").is_none());
        for (one, other) in
            [("1", "2"), ("\"1\"", "1"), ("[1,2]", "[2,1]"), ("{}", "[]"), ("null", "\"null\""), ("-1", "1")]
        {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
        for text in
            ["", "{", "{'a':1}", "[1,]", "01", "1.", "nul", "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\"", "NaN", "1 2"]
        {
            assert!(canonical(text).is_err(), "{text}");
        }
    }
}
