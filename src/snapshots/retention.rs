//! Decides which snapshots a prune keeps, and why: a pure function of the snapshots, the policy and the time.
//!
//! It reads no store and deletes nothing. Every rule applies to each source separately. Only full, undamaged snapshots
//! that are not suspect count for the rules that keep a number of them: after rows were lost, the suspect snapshot of
//! each night must not displace one with all rows. The others have a rule of their own: they are kept while they are
//! young, while one is the newest of its source, and while one has rows that no newer kept snapshot has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};

use crate::platform::duration::format_duration;
use crate::platform::error::one_line;
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
    /// Keeps those that do not count (safety, partial, damaged, suspect) while they are younger than this.
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
    /// True if the rules passed and nothing was lost when it was taken; otherwise it is suspect.
    pub passed: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// True if it is trusted. The others are planned separately: one that somebody else has put into the store must not
    /// displace one that is trusted.
    pub is_trusted: bool,
    /// Its rows. If they are not known, a snapshot that does not count is kept, unless it is a safety snapshot.
    pub rows: Option<Rows>,
}

/// The number of rows of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The rows of all tables.
    pub total: u64,
    /// The rows of each table; empty if the names of the tables are encrypted.
    pub tables: BTreeMap<Arc<str>, u64>,
}

impl Candidate {
    /// Returns true if it counts for the rules that keep a number: it is full, not known to be damaged, and not suspect.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.kind == SnapshotKind::Full && !self.damaged && self.passed
    }

    /// Returns true if its data is not known to be damaged.
    fn is_sound(&self) -> bool {
        !self.damaged && self.kind != SnapshotKind::Damaged
    }

    /// Returns the word for a snapshot that does not count.
    fn word(&self) -> &'static str {
        match self.kind {
            _ if self.damaged => SnapshotKind::Damaged.name(),
            SnapshotKind::Full => "suspect",
            kind => kind.name(),
        }
    }

    /// Returns true if only its rows can still keep it: it does not count, is no safety snapshot, and no rule that is
    /// independent of other snapshots keeps it.
    #[must_use]
    pub fn depends_on_rows(&self, policy: &Policy, now: DateTime<Utc>) -> bool {
        !self.counts()
            && self.kind != SnapshotKind::Safety
            && self.created_at <= now
            && independent_reasons(self, policy, now).is_empty()
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
/// These are kept whatever the policy: of each source's snapshots that count, the newest and the newest drilled one; of
/// those that do not count, see [`OtherRules`]; and all snapshots dated after `now`, which never count either (a clock
/// was wrong, and they must not displace others).
///
/// The snapshots that are not trusted are planned as if they were another source's.
///
/// The caller should refuse an empty policy; here it keeps everything.
#[must_use]
pub fn plan(candidates: &[Candidate], policy: &Policy, now: DateTime<Utc>) -> Plan {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));

    let mut rules: HashMap<(&SourceName, bool), (CountingRules, OtherRules<'_>)> = HashMap::new();
    let mut plan = Plan::default();
    for candidate in newest_first {
        let mut reasons = Vec::new();
        if policy.is_empty() {
            reasons.push("no policy".to_owned());
        } else if candidate.created_at > now {
            reasons.push("dated in the future".to_owned());
        } else {
            let new = || (CountingRules::new(policy), OtherRules::default());
            let (counting, others) = rules.entry((candidate.id.source(), candidate.is_trusted)).or_insert_with(new);
            if candidate.counts() {
                counting.count(candidate, others.is_newest(), &mut reasons);
            }
            reasons.extend(independent_reasons(candidate, policy, now));
            if !candidate.counts() {
                reasons.extend(others.reason(candidate).filter(|_| reasons.is_empty()));
            }
            others.pass(candidate, !reasons.is_empty());
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
        reasons.push(format!("{}, younger than {}", candidate.word(), format_duration(policy.others_within)));
    }
    reasons
}

/// The rule for the suspect, damaged and partial snapshots of one source that are not young, applied from the newest to
/// the oldest: one is kept if it is the newest snapshot of the source, or if it has more rows in some table than every
/// newer kept snapshot, or if its tables are not known because they are encrypted. Safety snapshots are neither kept by it nor compared with, because they are kept for a time
/// only.
#[derive(Default)]
struct OtherRules<'a> {
    has_newer: bool,
    /// The most rows of each table in the newer kept snapshots.
    most: Most<'a>,
    /// The same without the damaged ones, whose rows may be unreadable.
    most_sound: Most<'a>,
}

#[derive(Default)]
struct Most<'a> {
    total: u64,
    tables: HashMap<&'a str, u64>,
}

impl<'a> OtherRules<'a> {
    /// Returns true if the next snapshot is the newest of the source.
    fn is_newest(&self) -> bool {
        !self.has_newer
    }

    /// Returns the reason to keep the next older snapshot, which does not count, or `None`.
    fn reason(&self, candidate: &Candidate) -> Option<String> {
        let word = candidate.word();
        if candidate.kind == SnapshotKind::Safety {
            return None;
        }
        if self.is_newest() {
            return Some(format!("{word}, the newest of its source"));
        }
        let Some(rows) = &candidate.rows else {
            return Some(format!("{word}, with an unknown number of rows"));
        };
        let most = if candidate.is_sound() { &self.most_sound } else { &self.most };
        if rows.tables.is_empty() && rows.total > 0 {
            // One table may have its newest rows in this snapshot, whatever the totals are.
            return Some(match rows.total > most.total {
                true => format!("{word}, has more rows than every newer one"),
                false => format!("{word}, and its tables are not known"),
            });
        }
        let more = rows.tables.iter().find(|(name, rows)| **rows > most.tables.get(&***name).copied().unwrap_or(0));
        more.map(|(name, _)| format!("{word}, has more rows in {} than every newer one", one_line(name)))
    }

    /// Notes a snapshot before the next older one is decided.
    fn pass(&mut self, candidate: &'a Candidate, is_kept: bool) {
        if candidate.kind == SnapshotKind::Safety {
            return;
        }
        self.has_newer = true;
        let Some(rows) = candidate.rows.as_ref().filter(|_| is_kept) else { return };
        self.most.add(rows);
        if candidate.is_sound() {
            self.most_sound.add(rows);
        }
    }
}

impl<'a> Most<'a> {
    fn add(&mut self, rows: &'a Rows) {
        self.total = self.total.max(rows.total);
        for (name, rows) in &rows.tables {
            let most = self.tables.entry(&**name).or_default();
            *most = (*most).max(*rows);
        }
    }
}

/// The rules that keep a number of one source's snapshots, applied from the newest to the oldest.
struct CountingRules {
    /// True once a snapshot was kept as the newest.
    newest_kept: bool,
    newest_drilled_kept: bool,
    last: u32,
    last_taken: u32,
    periods: [PeriodRule; 5],
}

impl CountingRules {
    fn new(policy: &Policy) -> Self {
        CountingRules {
            newest_kept: false,
            newest_drilled_kept: false,
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

    /// Takes the next older snapshot that counts, and adds the reasons to keep it, if any. `is_newest` is true if the
    /// source has no newer snapshot that does not count.
    fn count(&mut self, candidate: &Candidate, is_newest: bool, reasons: &mut Vec<String>) {
        if !self.newest_kept {
            self.newest_kept = true;
            reasons.push(if is_newest { "newest" } else { "newest not suspect" }.to_owned());
        }
        if candidate.drilled && !self.newest_drilled_kept {
            self.newest_drilled_kept = true;
            reasons.push("newest drilled".to_owned());
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
