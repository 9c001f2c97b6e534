//! `[guard]`: the settings of the entry point of a container.

use std::str::FromStr;

use chrono::Duration;
use serde::Deserialize;

use crate::config::sections::reading::is_on;
use crate::config::values::{Age, Flag, OverlapWord, Parsed};
use crate::platform::error::{Error, Result};

/// The settings of `guard`.
#[derive(Clone, Debug)]
pub struct Guard {
    /// True if the config has this section.
    pub is_configured: bool,
    /// The time that the platform allows from the signal to stop to the end of everything.
    pub grace: Duration,
    /// The part of the grace that is reserved for the last snapshot.
    pub reserve: Option<Duration>,
    /// True if a database that is missing or empty is restored.
    pub restore_if_missing: bool,
    /// True if a last snapshot is taken.
    pub snapshot_at_end: bool,
    /// The action if the snapshot to restore is perhaps not the newest state, or if rows are missing.
    pub on_doubt: OnDoubt,
    /// The maximum time that stores may delay the start if the database is there.
    pub store_wait: Duration,
    /// The interval between snapshots while CMD runs; `None` takes none.
    pub every: Option<Duration>,
    /// The maximum time to wait for the last snapshot of another guard.
    pub handover: Duration,
    /// The decision after that time.
    pub on_overlap: OnOverlap,
}

/// The action of `guard` if a restore could lose newer rows, or if the database has lost rows or fails a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDoubt {
    /// The program is not started.
    #[default]
    Refuse,
    /// A database that must be restored gets the newest snapshot that can be restored, even if a newer one exists.
    RestoreOlder,
    /// The program is started with the database as it is.
    Start,
}

impl OnDoubt {
    /// The names in the config and on the command line.
    const ALL: [(&str, OnDoubt); 3] =
        [("refuse", OnDoubt::Refuse), ("restore-older", OnDoubt::RestoreOlder), ("start", OnDoubt::Start)];
}

impl FromStr for OnDoubt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = OnDoubt::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, action)| *action).ok_or_else(|| {
            let names = OnDoubt::ALL.map(|(name, _)| name).join(", ");
            Error::usage(format!("unknown value '{text}': must be one of {names}"))
        })
    }
}

/// The decision of a guard without a database, if another guard of the same source is still running and has not taken
/// its last snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverlap {
    /// CMD is not started.
    Refuse,
    /// CMD is started with the newest snapshot. What the other program still writes is not in its database.
    Start,
}

impl Default for Guard {
    fn default() -> Self {
        Guard {
            is_configured: false,
            // The time that `docker stop` allows.
            grace: Duration::seconds(10),
            reserve: None,
            restore_if_missing: true,
            snapshot_at_end: true,
            on_doubt: OnDoubt::default(),
            store_wait: Duration::seconds(5),
            every: None,
            // Longer than a lease is valid: the lease of a guard that was killed ends the wait.
            handover: Duration::minutes(3),
            on_overlap: OnOverlap::Refuse,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawGuard {
    grace: Option<Parsed<Age>>,
    reserve: Option<Parsed<Age>>,
    restore_if_missing: Option<Parsed<Flag>>,
    snapshot_at_end: Option<Parsed<Flag>>,
    on_doubt: Option<Parsed<OnDoubt>>,
    store_wait: Option<Parsed<Age>>,
    every: Option<Parsed<Age>>,
    handover: Option<Parsed<Age>>,
    on_overlap: Option<Parsed<OverlapWord>>,
}

impl RawGuard {
    pub(in crate::config) fn read(self) -> Result<Guard> {
        let default = Guard::default();
        let is_configured = self.grace.is_some()
            || self.reserve.is_some()
            || self.restore_if_missing.is_some()
            || self.snapshot_at_end.is_some()
            || self.every.is_some()
            || self.handover.is_some()
            || self.on_overlap.is_some()
            || self.on_doubt.is_some()
            || self.store_wait.is_some();
        let grace = self.grace.map_or(default.grace, |age| age.0.0);
        let reserve = self.reserve.map(|age| age.0.0);
        if reserve.is_some_and(|reserve| reserve >= grace) {
            return Err(Error::usage("the reserve for the last snapshot must be shorter than the grace")
                .hint("grace is the time that the platform allows from SIGTERM to SIGKILL"));
        }
        // Zero turns the snapshots off, as in an environment without them.
        let every = self.every.map(|age| age.0.0).filter(|every| !every.is_zero());
        let on_overlap = match self.on_overlap.as_ref().map(|word| word.0.0.as_str()) {
            Some("start") => OnOverlap::Start,
            _ => default.on_overlap,
        };
        Ok(Guard {
            is_configured,
            grace,
            reserve,
            every,
            handover: self.handover.map_or(default.handover, |age| age.0.0),
            on_overlap,
            restore_if_missing: is_on(self.restore_if_missing, true),
            snapshot_at_end: is_on(self.snapshot_at_end, true),
            on_doubt: self.on_doubt.map_or(default.on_doubt, |action| action.0),
            store_wait: self.store_wait.map_or(default.store_wait, |age| age.0.0),
        })
    }
}
