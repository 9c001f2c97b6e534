//! Checks that the newest time of a column is recent enough, in any known format.

use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;

use crate::engine::live::Value;
use crate::engine::rules::moment;
use crate::engine::rules::observed::Observed;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::text;

/// The time that a value may lie in the future, because clocks differ.
const SLACK: Duration = Duration::minutes(5);

/// The number of characters that are shown of an invalid value.
const SHOWN_CHARACTERS: usize = 60;

/// The requirement on a time column.
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh {
    /// The column.
    pub column: String,
    /// The maximum age of its newest time.
    pub within: Duration,
    /// The time zone of times without an offset.
    pub zone: Tz,
}

/// A scan of a column's times, one after the other.
pub(super) struct Scan<'a> {
    fresh: &'a Fresh,
    now: DateTime<Utc>,
    newest: Option<DateTime<Utc>>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(fresh: &'a Fresh, now: DateTime<Utc>) -> Self {
        Scan { fresh, now, newest: None }
    }

    /// Adds one value.
    pub(super) fn add(&mut self, value: &Value) -> Result<()> {
        let time = read(value, self.fresh.zone, self.now)?;
        self.newest = self.newest.max(Some(time));
        Ok(())
    }

    /// Returns the newest time, and true if it is recent enough.
    pub(super) fn evaluate(&self) -> Observed {
        let now = self.now;
        let Some(newest) = self.newest else {
            return Observed { ok: false, description: "there is no time in the column".to_owned() };
        };
        let shown = newest.with_timezone(&self.fresh.zone).format("%Y-%m-%d %H:%M:%S %Z").to_string();
        if newest > now + SLACK {
            let future = text::seconds((newest - now).num_seconds() as f64);
            return Observed { ok: false, description: format!("{shown} is {future} in the future") };
        }
        let ok = now.signed_duration_since(newest) <= self.fresh.within;
        Observed { ok, description: format!("{shown}, {} ago", text::age(newest, now)) }
    }
}

/// Returns the latest time that a value may mean, but not one later than now if it may also mean an earlier one. A date
/// without a time may mean any time of that day, and a local time in the hour that clocks repeat or skip two times.
fn read(value: &Value, zone: Tz, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    if let Some(moment) = moment::read(value, zone) {
        return Ok(if moment.first <= now { moment.last.min(now) } else { moment.last });
    }
    let shown = match value {
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", one_line(&text.chars().take(SHOWN_CHARACTERS).collect::<String>())),
        Value::Other => "a value".to_owned(),
    };
    Err(Error::problem(format!("{shown} is not in a known time format"))
        .hint("known formats are 2026-11-21 17:05:01 with or without a zone, dates, and seconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect(text).to_utc()
    }

    #[test]
    fn an_invalid_time_is_shown_truncated() {
        let now = utc("2026-11-21T17:00:00Z");
        let error = read(&Value::Text("x".repeat(500)), chrono_tz::UTC, now).expect_err("no time");
        assert!(error.message.len() < 120, "{error}");
    }

    #[test]
    fn a_local_time_that_occurs_twice_is_the_later_one_that_is_not_in_the_future() {
        let zone = chrono_tz::Europe::Berlin;
        let fresh = Fresh { column: "at".to_owned(), within: Duration::minutes(10), zone };
        // Clocks are put back on 2026-10-25 at 01:00 UTC, from 03:00 to 02:00, and forward on 2026-03-29 at 01:00 UTC.
        for (text, now, expected) in [
            ("2026-10-25 02:30:00", "2026-10-25T00:32:00Z", Some("0s ago")),
            ("2026-10-25 02:30:00", "2026-10-25T01:32:00Z", Some("2m ago")),
            ("2026-10-25 02:30:00", "2026-10-25T01:41:00Z", None),
            ("2026-10-25 02:30:00", "2026-10-25T00:20:00Z", None),
            ("2026-10-25 03:01:00", "2026-10-25T02:02:00Z", Some("1m ago")),
            ("2026-03-29 02:30:00", "2026-03-29T01:35:00Z", Some("5m ago")),
            ("2026-03-29 02:30:00", "2026-03-29T01:45:00Z", None),
        ] {
            let mut scan = Scan::new(&fresh, utc(now));
            scan.add(&Value::Text(text.to_owned())).expect("a time");
            let observed = scan.evaluate();
            assert_eq!(observed.ok, expected.is_some(), "{text} at {now}: {}", observed.description);
            assert!(observed.description.contains(expected.unwrap_or("")), "{text} at {now}: {}", observed.description);
        }
    }

    #[test]
    fn old_and_future_times_fail() {
        let fresh = Fresh { column: "at".to_owned(), within: Duration::hours(24), zone: chrono_tz::UTC };
        let now = utc("2026-11-21T17:00:00Z");
        let evaluate = |texts: &[&str]| {
            let mut scan = Scan::new(&fresh, now);
            for text in texts {
                scan.add(&Value::Text((*text).to_owned())).expect("a time");
            }
            let observed = scan.evaluate();
            if observed.ok { Ok(observed.description) } else { Err(observed.description) }
        };
        assert!(evaluate(&["2026-11-20 17:00:00", "2026-01-01"]).is_ok());
        assert!(evaluate(&["2026-11-20 16:59:59"]).expect_err("old").contains("24h ago"));
        assert!(evaluate(&["2026-11-21 17:04:00"]).is_ok());
        assert!(evaluate(&["2026-11-21 17:06:00"]).expect_err("future").contains("future"));
        // If the day has begun, no time of it counts as in the future; if not, all of them do.
        assert!(evaluate(&["2026-11-21"]).expect("today").contains("0s ago"));
        assert!(evaluate(&["2026-11-22"]).expect_err("tomorrow").contains("future"));
        assert!(evaluate(&[]).expect_err("none").contains("no time"));
        // Compared as text, the first of the two is greater.
        assert!(evaluate(&["2026-11-20T01:00:00", "2026-11-21 16:00:00"]).is_ok());
    }
}
