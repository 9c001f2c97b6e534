//! Decimal numbers as texts write them, such as `-12.50e3`.

/// The greatest number of digits after the decimal point that the server stores.
pub(super) const MAX_SCALE: i64 = 16_383;

/// A decimal number.
#[derive(Clone, Copy)]
pub(crate) struct Decimal<'a> {
    /// The whole text.
    pub(super) text: &'a str,
    /// The part from the first digit that is not 0 to the last one, perhaps with the decimal point; empty for 0.
    significant: &'a str,
    /// The number of its digits.
    count: i64,
    /// The number of digits before the decimal point. May be negative, or greater than the number of digits.
    pub(super) whole_digits: i64,
    /// The number of digits after the decimal point, with zeros at the end.
    pub(super) scale: i64,
}

impl<'a> Decimal<'a> {
    /// Reads a number. Returns `None` if the text is not one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (mantissa, exponent.parse::<i32>().ok()?)
            }
            None => (unsigned, 0),
        };
        let point = mantissa.bytes().position(|byte| byte == b'.').unwrap_or(mantissa.len());
        let (whole, fraction) = (&mantissa[..point], mantissa.get(point + 1..).unwrap_or(""));
        if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let length = |text: &str| i64::try_from(text.len()).ok();
        let scale = (length(fraction)? - i64::from(exponent)).max(0);
        let is_significant = |byte: u8| (b'1'..=b'9').contains(&byte);
        let first = mantissa.bytes().position(is_significant);
        let (Some(first), Some(last)) = (first, mantissa.bytes().rposition(is_significant)) else {
            return Some(Decimal { text, significant: "", count: 0, whole_digits: 0, scale });
        };
        let significant = &mantissa[first..=last];
        // The point itself is no digit.
        let before = point as i64 - first as i64 + i64::from(first > point);
        Some(Decimal {
            text,
            significant,
            count: length(significant)? - i64::from(first < point && point < last),
            whole_digits: before + i64::from(exponent),
            scale,
        })
    }

    /// Returns true if it is 0.
    pub(super) fn is_zero(&self) -> bool {
        self.count == 0
    }

    /// Returns the number of digits without zeros at the beginning and at the end.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Returns these digits, from 0 to 9.
    pub(super) fn digits(&self) -> impl Iterator<Item = u8> {
        self.significant.bytes().filter(|byte| *byte != b'.').map(|byte| byte - b'0')
    }

    /// Returns true if `numeric(precision, scale)` holds the number exactly.
    pub(super) fn fits(&self, precision: u32, scale: i32) -> bool {
        self.is_zero()
            || (self.count - self.whole_digits <= i64::from(scale)
                && self.whole_digits <= i64::from(precision) - i64::from(scale))
    }

    /// Returns true if `numeric` without bounds holds the number exactly.
    pub(super) fn fits_unbounded(&self) -> bool {
        self.whole_digits <= 131_072 && self.scale <= MAX_SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted_from_the_decimal_point() {
        for (text, digits, whole_digits, scale) in [
            ("0", "", 0, 0),
            ("-0.00", "", 0, 2),
            ("12.50", "125", 2, 2),
            ("+.5", "5", 0, 1),
            ("5.", "5", 1, 0),
            ("00120.0", "12", 3, 1),
            ("0.0012", "12", -2, 4),
            ("1.5e3", "15", 4, 0),
            ("1.5e-3", "15", -2, 4),
            ("10.05", "1005", 2, 2),
            ("1e300", "1", 301, 0),
        ] {
            let number = Decimal::parse(text).expect(text);
            let found: String = number.digits().map(|digit| char::from(b'0' + digit)).collect();
            assert_eq!((found.as_str(), number.whole_digits, number.scale), (digits, whole_digits, scale), "{text}");
            assert_eq!(number.count(), digits.len(), "{text}");
        }
        for text in ["", ".", "-", "1e", "1e+", "1,5", "0x1", "1.2.3", "1e99999999999", "٣"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }
}
