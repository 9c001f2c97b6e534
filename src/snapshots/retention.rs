//! Decides which snapshots a prune keeps, and why: a pure function of the snapshots, the policy and the time.
//!
//! It reads no store and deletes nothing. Every rule applies to each source separately. Only full, undamaged snapshots
//! count for the rules that keep a number of them: yesterday's partial snapshot must not displace the last full one.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};

use crate::platform::duration::format_duration;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::SnapshotKind;

/// The retention policy. A snapshot is kept if any rule keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Keeps this many of the newest; 0 is off.
    pub last: u32,
    /// Keeps the newest of each hour (UTC), for this many of the newest hours that have one; 0 is off.
    pub hourly: u32,
    /// Keeps the newest of each day (UTC), for this many of the newest days that have one; 0 is off.
    pub daily: u32,
    /// Keeps the newest of each ISO week (UTC), for this many of the newest weeks that have one; 0 is off.
    pub weekly: u32,
    /// Keeps the newest of each month (UTC), for this many of the newest months that have one; 0 is off.
    pub monthly: u32,
    /// Keeps the newest of each year (UTC), for this many of the newest years that have one; 0 is off.
    pub yearly: u32,
    /// Keeps all that are younger than this, of any kind.
    pub within: Option<Duration>,
    /// Keeps all that have one of these tags, of any kind.
    pub tags: Vec<String>,
    /// Keeps those that do not count (safety, partial, damaged) while they are younger than this.
    pub others_within: Duration,
}

/// A policy without rules, and 30 days for snapshots that do not count.
impl Default for Policy {
    fn default() -> Self {
        Policy {
            last: 0,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            within: None,
            tags: Vec::new(),
            others_within: Duration::days(30),
        }
    }
}

impl Policy {
    /// Returns true if no rule keeps anything; `others_within` does not count as a rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly].iter().all(|count| *count == 0)
            && self.within.is_none_or(|within| within <= Duration::zero())
            && self.tags.is_empty()
    }
}

/// The facts about a snapshot that decide whether it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: SnapshotId,
    /// The time at which it was taken.
    pub created_at: DateTime<Utc>,
    /// The kind of snapshot.
    pub kind: SnapshotKind,
    /// True if its manifest or a proof says that it is damaged.
    pub damaged: bool,
    /// True if a drill has restored it.
    pub drilled: bool,
    /// True if the rules passed and nothing was lost when it was taken.
    pub passed: bool,
    /// Its tags.
    pub tags: Vec<String>,
}

impl Candidate {
    /// Returns true if it counts for the rules that keep a number: it is full and not known to be damaged.
    fn counts(&self) -> bool {
        self.kind == SnapshotKind::Full && !self.damaged
    }
}

/// The decision for each snapshot. Every candidate is in exactly one of the two lists; both are sorted newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The snapshots to keep, each with at least one short reason such as `daily 2026-11-21`.
    pub keep: Vec<(SnapshotId, Vec<String>)>,
    /// The snapshots to delete.
    pub delete: Vec<SnapshotId>,
}

/// Decides which of `candidates` are kept. Their order does not matter.
///
/// These are kept whatever the policy: of each source's full, undamaged snapshots the newest, the newest drilled one
/// and the newest one that [`passed`](Candidate::passed); and all snapshots dated after `now`, which never count
/// either (a clock was wrong, and they must not displace others).
///
/// The caller should refuse an empty policy; here it keeps everything.
#[must_use]
pub fn plan(candidates: &[Candidate], policy: &Policy, now: DateTime<Utc>) -> Plan {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));

    let mut rules: HashMap<&SourceName, CountingRules> = HashMap::new();
    let mut plan = Plan::default();
    for candidate in newest_first {
        let mut reasons = Vec::new();
        if policy.is_empty() {
            reasons.push("no policy".to_owned());
        } else if candidate.created_at > now {
            reasons.push("dated in the future".to_owned());
        } else {
            if candidate.counts() {
                let rules = rules.entry(candidate.id.source()).or_insert_with(|| CountingRules::new(policy));
                rules.count(candidate, &mut reasons);
            }
            reasons.extend(independent_reasons(candidate, policy, now));
        }
        if reasons.is_empty() {
            plan.delete.push(candidate.id.clone());
        } else {
            plan.keep.push((candidate.id.clone(), reasons));
        }
    }
    plan
}

/// Returns the reasons to keep a snapshot that do not depend on other snapshots.
fn independent_reasons(candidate: &Candidate, policy: &Policy, now: DateTime<Utc>) -> Vec<String> {
    let mut reasons = Vec::new();
    let age = now.signed_duration_since(candidate.created_at);
    if let Some(within) = policy.within.filter(|within| age < *within) {
        reasons.push(format!("within {}", format_duration(within)));
    }
    reasons.extend(policy.tags.iter().filter(|tag| candidate.tags.contains(tag)).map(|tag| format!("tag {tag}")));
    if !candidate.counts() && age < policy.others_within {
        let kind = if candidate.damaged { SnapshotKind::Damaged } else { candidate.kind };
        reasons.push(format!("{}, younger than {}", kind.name(), format_duration(policy.others_within)));
    }
    reasons
}

/// The rules that keep a number of one source's snapshots, applied from the newest to the oldest.
struct CountingRules {
    /// True once a snapshot was kept as the newest.
    newest_kept: bool,
    newest_drilled_kept: bool,
    newest_passed_kept: bool,
    last: u32,
    last_taken: u32,
    periods: [PeriodRule; 5],
}

impl CountingRules {
    fn new(policy: &Policy) -> Self {
        CountingRules {
            newest_kept: false,
            newest_drilled_kept: false,
            newest_passed_kept: false,
            last: policy.last,
            last_taken: 0,
            periods: [
                PeriodRule::new("hourly", "%Y-%m-%dT%H", policy.hourly),
                PeriodRule::new("daily", "%Y-%m-%d", policy.daily),
                PeriodRule::new("weekly", "%G-W%V", policy.weekly),
                PeriodRule::new("monthly", "%Y-%m", policy.monthly),
                PeriodRule::new("yearly", "%Y", policy.yearly),
            ],
        }
    }

    /// Takes the next older snapshot that counts, and adds the reasons to keep it, if any.
    fn count(&mut self, candidate: &Candidate, reasons: &mut Vec<String>) {
        if !self.newest_kept {
            self.newest_kept = true;
            reasons.push("newest".to_owned());
        }
        if candidate.drilled && !self.newest_drilled_kept {
            self.newest_drilled_kept = true;
            reasons.push("newest drilled".to_owned());
        }
        if candidate.passed && !self.newest_passed_kept {
            self.newest_passed_kept = true;
            if reasons.is_empty() {
                reasons.push("newest not suspect".to_owned());
            }
        }
        if self.last_taken < self.last {
            self.last_taken += 1;
            reasons.push(format!("last {}", self.last_taken));
        }
        reasons.extend(self.periods.iter_mut().filter_map(|rule| rule.count(candidate.created_at)));
    }
}

/// Keeps the newest snapshot of each hour, day, week, month or year.
struct PeriodRule {
    name: &'static str,
    /// The format of a period; two times are in the same period exactly if they format to the same text.
    format: &'static str,
    left: u32,
    period: String,
}

impl PeriodRule {
    fn new(name: &'static str, format: &'static str, periods: u32) -> Self {
        PeriodRule { name, format, left: periods, period: String::new() }
    }

    /// Takes the next older time. Returns the reason to keep it if it is the first in its period and periods are left.
    fn count(&mut self, time: DateTime<Utc>) -> Option<String> {
        if self.left == 0 {
            return None;
        }
        let period = time.format(self.format).to_string();
        if period == self.period {
            return None;
        }
        self.left -= 1;
        self.period = period;
        Some(format!("{} {}", self.name, self.period))
    }
}
