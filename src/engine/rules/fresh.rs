//! Whether the newest time of a column is young enough, whatever form its times have.

use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;

use crate::engine::Value;
use crate::engine::rules::moment;
use crate::engine::rules::observed::Observed;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::text;

/// How far in the future a time may lie: clocks differ.
const SLACK: Duration = Duration::minutes(5);

/// How much of a value that makes no sense is shown.
const SHOWN_CHARACTERS: usize = 60;

/// What a time column must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh {
    /// The column.
    pub column: String,
    /// How old its newest time may be.
    pub within: Duration,
    /// Where times without a zone were read from a clock.
    pub zone: Tz,
}

/// A look at the times of a column, one after the other.
pub(super) struct Scan<'a> {
    fresh: &'a Fresh,
    now: DateTime<Utc>,
    newest: Option<DateTime<Utc>>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(fresh: &'a Fresh, now: DateTime<Utc>) -> Self {
        Scan { fresh, now, newest: None }
    }

    /// Takes one more value.
    pub(super) fn see(&mut self, value: &Value) -> Result<()> {
        let time = read(value, self.fresh.zone, self.now)?;
        self.newest = self.newest.max(Some(time));
        Ok(())
    }

    /// What the newest of them is, and whether it is young enough.
    pub(super) fn judge(&self) -> Observed {
        let now = self.now;
        let Some(newest) = self.newest else {
            return Observed { ok: false, told: "there is no time at all".to_owned() };
        };
        let told = newest.with_timezone(&self.fresh.zone).format("%Y-%m-%d %H:%M:%S %Z").to_string();
        if newest > now + SLACK {
            let ahead = text::seconds((newest - now).num_seconds() as f64);
            return Observed { ok: false, told: format!("{told} is {ahead} in the future") };
        }
        let ok = now.signed_duration_since(newest) <= self.fresh.within;
        Observed { ok, told: format!("{told}, {} ago", text::age(newest, now)) }
    }
}

/// The latest that a value may mean: a date without a time may be any of its day's, but of today none that is yet to come.
fn read(value: &Value, zone: Tz, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    if let Some(moment) = moment::read(value, zone) {
        return Ok(if moment.first <= now { moment.last.min(now) } else { moment.last });
    }
    let told = match value {
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", one_line(&text.chars().take(SHOWN_CHARACTERS).collect::<String>())),
        Value::Other => "a value".to_owned(),
    };
    Err(Error::problem(format!("{told} is in no known form of time"))
        .hint("known are 2026-11-21 17:05:01 with or without a zone, dates, and seconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect(text).to_utc()
    }

    #[test]
    fn what_is_no_time_is_told_and_cut_short() {
        let now = utc("2026-11-21T17:00:00Z");
        let error = read(&Value::Text("x".repeat(500)), chrono_tz::UTC, now).expect_err("no time");
        assert!(error.message.len() < 120, "{error}");
    }

    #[test]
    fn old_and_future_times_fail() {
        let fresh = Fresh { column: "at".to_owned(), within: Duration::hours(24), zone: chrono_tz::UTC };
        let now = utc("2026-11-21T17:00:00Z");
        let judge = |texts: &[&str]| {
            let mut scan = Scan::new(&fresh, now);
            for text in texts {
                scan.see(&Value::Text((*text).to_owned())).expect("a time");
            }
            let observed = scan.judge();
            if observed.ok { Ok(observed.told) } else { Err(observed.told) }
        };
        assert!(judge(&["2026-11-20 17:00:00", "2026-01-01"]).is_ok());
        assert!(judge(&["2026-11-20 16:59:59"]).expect_err("old").contains("24h ago"));
        assert!(judge(&["2026-11-21 17:04:00"]).is_ok());
        assert!(judge(&["2026-11-21 17:06:00"]).expect_err("future").contains("future"));
        // Of a day that has begun no time is in the future; of one that has not, all are.
        assert!(judge(&["2026-11-21"]).expect("today").contains("0s ago"));
        assert!(judge(&["2026-11-22"]).expect_err("tomorrow").contains("future"));
        assert!(judge(&[]).expect_err("none").contains("no time"));
        // As texts the first of the two is the greater.
        assert!(judge(&["2026-11-20T01:00:00", "2026-11-21 16:00:00"]).is_ok());
    }
}
