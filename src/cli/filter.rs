//! The options that choose among snapshots.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
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
    /// Only snapshots taken before this time: 2026-11-21, 2026-11-21T17:05 (UTC), RFC 3339, or an age such as 24h
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

/// Parses a time. A time without a zone is in UTC; a duration is an age, counted back from now.
pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    for form in ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Ok(time.and_utc());
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(date.and_hms_opt(0, 0, 0).expect("midnight exists").and_utc());
    }
    let ago = parse_duration(text).ok().and_then(|ago| Utc::now().checked_sub_signed(ago));
    ago.ok_or_else(|| {
        Error::usage(format!("'{}' is not a valid time", one_line(text)))
            .hint("write 2026-11-21, 2026-11-21T17:05, 2026-11-21T17:05:00Z or 24h")
    })
}
