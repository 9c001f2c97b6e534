//! An exact share in percent.

use std::fmt;
use std::str::FromStr;

use crate::platform::error::{Error, Result, one_line};

/// A share from 0% to 100%, in thousandths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

/// The share of 100%.
const HUNDRED_PERCENT: u32 = 100_000;

impl Share {
    /// Builds a share from thousandths, limited to 100%.
    pub(super) fn per_mille(count: u64) -> Self {
        Share(u32::try_from(count).unwrap_or(HUNDRED_PERCENT).saturating_mul(100).min(HUNDRED_PERCENT))
    }

    /// Returns true if the share is 100%.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.0 == HUNDRED_PERCENT
    }

    /// Returns true if `now` is less than `before` by at most this share of `before`.
    #[must_use]
    pub fn allows(self, before: u64, now: u64) -> bool {
        let gone = u128::from(before.saturating_sub(now));
        gone * u128::from(HUNDRED_PERCENT) <= u128::from(before) * u128::from(self.0)
    }
}

impl FromStr for Share {
    type Err = Error;

    /// Parses `10%`, `0.5%`, `100%`: up to three digits after the point.
    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let number = text.trim().strip_suffix('%')?.trim_end();
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(part) || part.len() > 3 {
                return None;
            }
            let part = format!("{part:0<3}").parse::<u32>().ok()?;
            let share = whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(part)?;
            Some(Share(share)).filter(|share| share.0 <= HUNDRED_PERCENT)
        };
        read().ok_or_else(|| {
            Error::usage(format!("'{}' is not a percentage", one_line(text)))
                .hint("write it in percent, from 0% to 100%: 10% or 0.5%")
        })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        if part == 0 {
            return write!(f, "{whole}%");
        }
        write!(f, "{whole}.{}%", format!("{part:03}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().expect(text)
    }

    #[test]
    fn shares_are_read_and_written() {
        for (text, written) in
            [("10%", "10%"), ("0.5%", "0.5%"), ("100 %", "100%"), ("0%", "0%"), ("33.125%", "33.125%")]
        {
            assert_eq!(share(text).to_string(), written);
        }
        for text in ["", "10", "%", "101%", "100.001%", "-1%", "1.2345%", ".5%", "1.%", "1e1%", "\u{661}%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_limit_itself_is_allowed_and_nothing_overflows() {
        assert!(share("10%").allows(200, 180) && !share("10%").allows(200, 179));
        assert!(share("0%").allows(5, 5) && share("0%").allows(5, 6) && !share("0%").allows(5, 4));
        assert!(share("100%").allows(u64::MAX, 0) && !share("99.999%").allows(u64::MAX, 0));
        assert!(share("10%").allows(0, 0));
        assert_eq!(Share::per_mille(100), share("10%"));
    }
}
