//! Converts JSON to a canonical form, equal for equal values: keys are sorted, the last one of duplicate keys is kept,
//! and numbers are written without insignificant digits.

/// The error for a text that the server does not accept as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidJson;

/// The canonical form of a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canonical {
    pub(super) text: String,
    /// True if an object has a key more than once; the last value is kept.
    pub(super) repeats: bool,
}

/// Returns the canonical form of a JSON text. Nesting may be of any depth.
pub(super) fn canonical(text: &str) -> Result<Canonical, InvalidJson> {
    let mut parser = Parser { bytes: text.as_bytes(), at: 0, out: String::with_capacity(text.len()), repeats: false };
    let mut open: Vec<Open> = Vec::new();
    loop {
        // One value, or the beginning of an array or object.
        if parser.value(&mut open)? {
            continue;
        }
        // The ends of arrays and objects, and the next key.
        while parser.after_value(&mut open)? {}
        if open.is_empty() {
            break;
        }
    }
    parser.space();
    if parser.at != parser.bytes.len() {
        return Err(InvalidJson);
    }
    Ok(Canonical { text: parser.out, repeats: parser.repeats })
}

/// An array or object that is being read.
enum Open {
    Array,
    Object(Object),
}

struct Object {
    /// The position in the output of the first entry.
    start: usize,
    /// The entries so far: the ranges in the output of the key with its quotes, and of the value.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    /// The position of the colon.
    colon: usize,
    end: usize,
}

impl Object {
    /// Sorts the entries in the output as `jsonb` does, by the lengths of the keys and then by their bytes, and removes
    /// all but the last of the entries with the same key. Returns true if there were such entries.
    fn sort(&mut self, out: &mut String) -> bool {
        let key = |entry: &Entry| (entry.colon - entry.start, &out.as_bytes()[entry.start..entry.colon]);
        if self.entries.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])) {
            return false;
        }
        // Equal keys stay in their order.
        self.entries.sort_by(|one, other| key(one).cmp(&key(other)));
        let (mut sorted, mut repeats) = (String::with_capacity(out.len() - self.start), false);
        for (number, entry) in self.entries.iter().enumerate() {
            if self.entries.get(number + 1).is_some_and(|next| key(next) == key(entry)) {
                repeats = true;
                continue;
            }
            if !sorted.is_empty() {
                sorted.push(',');
            }
            sorted.push_str(&out[entry.start..entry.end]);
        }
        out.truncate(self.start);
        out.push_str(&sorted);
        repeats
    }
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
    out: String,
    repeats: bool,
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

    fn word(&mut self, word: &str) -> Result<(), InvalidJson> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(InvalidJson);
        }
        self.at += word.len();
        self.out.push_str(word);
        Ok(())
    }

    /// Reads a value. Returns true if an array or object was opened, and its first value is next.
    fn value(&mut self, open: &mut Vec<Open>) -> Result<bool, InvalidJson> {
        self.space();
        match self.bytes.get(self.at).ok_or(InvalidJson)? {
            b'n' => self.word("null")?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'"' => self.string()?,
            b'[' => {
                self.at += 1;
                self.space();
                self.out.push('[');
                if !self.take(b']') {
                    open.push(Open::Array);
                    return Ok(true);
                }
                self.out.push(']');
            }
            b'{' => {
                self.at += 1;
                self.space();
                self.out.push('{');
                if !self.take(b'}') {
                    let mut object = Object { start: self.out.len(), entries: Vec::new() };
                    self.key(&mut object)?;
                    open.push(Open::Object(object));
                    return Ok(true);
                }
                self.out.push('}');
            }
            _ => self.number()?,
        }
        Ok(false)
    }

    /// Reads the comma after a value, with the next key, or one closing bracket. Returns true if a bracket was closed,
    /// so that its own array or object goes on.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Result<bool, InvalidJson> {
        let Some(innermost) = open.last_mut() else { return Ok(false) };
        self.space();
        match innermost {
            Open::Array => {
                if self.take(b',') {
                    self.out.push(',');
                    return Ok(false);
                }
                if !self.take(b']') {
                    return Err(InvalidJson);
                }
                self.out.push(']');
            }
            Open::Object(object) => {
                if let Some(entry) = object.entries.last_mut() {
                    entry.end = self.out.len();
                }
                if self.take(b',') {
                    self.out.push(',');
                    self.space();
                    self.key(object)?;
                    return Ok(false);
                }
                if !self.take(b'}') {
                    return Err(InvalidJson);
                }
                self.repeats |= object.sort(&mut self.out);
                self.out.push('}');
            }
        }
        open.pop();
        Ok(true)
    }

    /// Reads a key of an object and the colon after it.
    fn key(&mut self, object: &mut Object) -> Result<(), InvalidJson> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(InvalidJson);
        }
        let start = self.out.len();
        self.string()?;
        self.space();
        if !self.take(b':') {
            return Err(InvalidJson);
        }
        let colon = self.out.len();
        self.out.push(':');
        object.entries.push(Entry { start, colon, end: colon });
        Ok(())
    }

    fn number(&mut self) -> Result<(), InvalidJson> {
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
        let number = canonical_number(text).ok_or(InvalidJson)?;
        self.out.push_str(&number);
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Reads a string, and writes it with its quotes and with as few escapes as possible.
    fn string(&mut self) -> Result<(), InvalidJson> {
        self.at += 1;
        self.out.push('"');
        loop {
            let rest = self.bytes.get(self.at..).ok_or(InvalidJson)?;
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)).ok_or(InvalidJson)?;
            self.out.push_str(std::str::from_utf8(&rest[..plain]).map_err(|_| InvalidJson)?);
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    self.out.push('"');
                    return Ok(());
                }
                b'\\' => {
                    let letter = self.escape()?;
                    if letter == '"' || letter == '\\' {
                        self.out.push('\\');
                    }
                    self.out.push(letter);
                }
                _ => return Err(InvalidJson),
            }
        }
    }

    fn escape(&mut self) -> Result<char, InvalidJson> {
        let escape = *self.bytes.get(self.at + 1).ok_or(InvalidJson)?;
        self.at += 2;
        Ok(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return Err(InvalidJson),
        })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equal_values_have_one_form() {
        let same = |one: &str, other: &str| {
            assert_eq!(canonical(one).unwrap().text, canonical(other).unwrap().text, "{one} {other}")
        };
        same(r#"{"b": 1, "a": [1.0, 2e2]}"#, r#" {"a":[1,200],"b":1.00}"#);
        same(r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#);
        same(r#""\u8305\u53f0 \ud83d\ude00""#, "\"茅台 😀\"");
        same("-0", "0.0");
        for (text, canonical) in
            [("25.500", "25.5"), ("-0.00120", "-0.0012"), ("2e3", "2000"), ("1e99", "0.1e100"), ("1.5e1", "15")]
        {
            assert_eq!(canonical_number(text).unwrap(), canonical);
        }
        assert!(canonical(r#"[{"a": 1, "b": {"\u0061": 1, "a": 2}}]"#).unwrap().repeats);
        assert!(!canonical(r#"{"b": {"a": 1}, "a": [{"a": 1}, {"a": 1}]}"#).unwrap().repeats);
        let nested = canonical(r#"{"long": {"z": 1, "y": [{}, {"q": 0, "p": ""}]}, "b": [], "long": [2]}"#).unwrap();
        assert_eq!(nested.text, r#"{"b":[],"long":[2]}"#);
        let deep = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
        assert_eq!(canonical(&deep).unwrap().text, deep);
        assert!(canonical(&deep[..deep.len() - 1]).is_err());
        assert!(canonical_number("1e9223372036854775807").is_none());
        assert!(canonical_number("1.2.3").is_none() && canonical_number("").is_none());
        for (one, other) in
            [("1", "2"), ("\"1\"", "1"), ("[1,2]", "[2,1]"), ("{}", "[]"), ("null", "\"null\""), ("-1", "1")]
        {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
        for text in [
            "",
            "{",
            "{'a':1}",
            "[1,]",
            "01",
            "1.",
            "nul",
            "{\"a\" 1}",
            "{\"a\":1,}",
            "[1 2]",
            "]",
            "{\"a\":1]",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "NaN",
            "1 2",
        ] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }
}
