//! The options that choose among snapshots.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use clap::Args;

use crate::ops::tags::SUSPECT;
use crate::ops::watch::Asked;
use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::search::SnapshotFilter;

/// The filters for the snapshots that a subcommand considers.
#[derive(Args, Clone, Debug)]
pub(super) struct FilterArgs {
    /// Only snapshots of this source
    #[arg(long, value_name = "NAME")]
    source: Option<SourceName>,
    /// Only snapshots with this tag (repeatable: only snapshots with all of these tags)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only snapshots taken before this time: 2026-11-21 or 2026-11-21T17:05 in the zone of this machine (TZ), a time with an
    /// offset such as 2026-11-21T17:05Z, or an age such as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<DateTime<Utc>>,
}

impl FilterArgs {
    /// Returns the sources of the snapshots that are named. `snapshot` is an id, the start of one, or 'latest'; `None`
    /// means all snapshots that match.
    pub(super) fn asked(&self, snapshot: Option<&str>) -> Asked {
        let of_id = || Some(snapshot?.parse::<SnapshotId>().ok()?.source().to_string());
        match self.source.as_ref().map(ToString::to_string).or_else(of_id) {
            Some(source) => Asked::Named(vec![source]),
            None if snapshot.is_none() => Asked::All,
            None => Asked::Unknown,
        }
    }
}

impl From<FilterArgs> for SnapshotFilter {
    fn from(args: FilterArgs) -> Self {
        // A suspect snapshot is never 'latest', unless it is asked for.
        let without = (!args.tag.iter().any(|tag| tag == SUSPECT)).then(|| SUSPECT.to_owned());
        SnapshotFilter { source: args.source, tags: args.tag, without, before: args.before }
    }
}

/// Parses a time. A time without an offset is one in the zone of this machine, as `list` shows it; a duration is an age,
/// counted back from now.
pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>> {
    for form in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"] {
        if let Ok(time) = DateTime::parse_from_str(text, form) {
            return Ok(time.to_utc());
        }
    }
    let forms = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let clock = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
    if let Some(clock) = clock.or_else(date) {
        return crate::platform::text::local_instant(clock).ok_or_else(|| {
            Error::usage(format!("'{}' never occurs in the zone of this machine", one_line(text)))
                .hint("clocks are put forward at that time: write another one, or one with an offset")
        });
    }
    let ago = parse_duration(text).ok().and_then(|ago| Utc::now().checked_sub_signed(ago));
    ago.ok_or_else(|| {
        Error::usage(format!("'{}' is not a valid time", one_line(text)))
            .hint("write 2026-11-21, 2026-11-21T17:05, 2026-11-21T17:05+08:00 or 24h")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_offset_may_be_written_in_every_form() {
        for text in [
            "2026-11-21T17:05:00Z",
            "2026-11-21T17:05Z",
            "2026-11-21 17:05Z",
            "2026-11-21T17:05:00.000Z",
            "2026-11-22T01:05+08:00",
            "2026-11-22 01:05:00+08:00",
            "2026-11-22T01:05+08",
            "2026-11-22T01:05+0800",
        ] {
            assert_eq!(parse_time(text).unwrap().to_rfc3339(), "2026-11-21T17:05:00+00:00", "{text}");
        }
        for text in ["2026-11-21T17", "2026-13-01", "17:05", "tomorrow", ""] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
