//! `[retention]`: the rules for keeping snapshots.

use serde::Deserialize;

use crate::config::sections::reading::is_on;
use crate::config::values::{Age, Count, Flag, Parsed};
use crate::platform::error::{Error, Result};
use crate::snapshots::retention::Policy;

/// The rules for keeping snapshots.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// The policy that says which snapshots are kept.
    pub policy: Policy,
    /// True if `snapshot` prunes after good snapshots without being asked to.
    pub after_snapshot: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRetention {
    keep_last: Option<Parsed<Count>>,
    keep_hourly: Option<Parsed<Count>>,
    keep_daily: Option<Parsed<Count>>,
    keep_weekly: Option<Parsed<Count>>,
    keep_monthly: Option<Parsed<Count>>,
    keep_yearly: Option<Parsed<Count>>,
    keep_within: Option<Parsed<Age>>,
    keep_tags: Vec<String>,
    keep_others: Option<Parsed<Age>>,
    after_snapshot: Option<Parsed<Flag>>,
}

impl RawRetention {
    pub(in crate::config) fn read(self) -> Result<Retention> {
        let default = Policy::default();
        let count = |count: Option<Parsed<Count>>| count.map_or(0, |count| count.0.0);
        let policy = Policy {
            last: count(self.keep_last),
            hourly: count(self.keep_hourly),
            daily: count(self.keep_daily),
            weekly: count(self.keep_weekly),
            monthly: count(self.keep_monthly),
            yearly: count(self.keep_yearly),
            within: self.keep_within.map(|age| age.0.0),
            tags: self.keep_tags,
            others_within: self.keep_others.map_or(default.others_within, |age| age.0.0),
        };
        let after_snapshot = is_on(self.after_snapshot, false);
        if after_snapshot && policy.is_empty() {
            return Err(Error::usage("the policy keeps nothing").hint("set keep_last, keep_daily, ..."));
        }
        Ok(Retention { policy, after_snapshot })
    }
}
