//! Tests of the retention: properties that hold for all snapshots and policies, and examples with known results.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Duration, NaiveDate, TimeZone, Timelike, Utc};
use lifeboat::snapshots::id::SnapshotId;
use lifeboat::snapshots::manifest::SnapshotKind;
use lifeboat::snapshots::retention::{Candidate, Plan, Policy, Rows, plan};
use proptest::prelude::*;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 21, 17, 5, 1).unwrap()
}

fn snapshot(source: &str, created_at: DateTime<Utc>, random: u16) -> Candidate {
    Candidate {
        id: SnapshotId::new(&source.parse().unwrap(), created_at, random),
        created_at,
        kind: SnapshotKind::Full,
        damaged: false,
        drilled: false,
        passed: true,
        tags: Vec::new(),
        rows: Some(Rows::default()),
        is_trusted: true,
    }
}

/// Rows of an unencrypted snapshot.
fn rows<'a>(tables: impl IntoIterator<Item = (&'a str, u64)>) -> Option<Rows> {
    let tables: BTreeMap<_, _> = tables.into_iter().map(|(name, rows)| (name.into(), rows)).collect();
    Some(Rows { total: tables.values().sum(), tables })
}

/// Rows of an encrypted snapshot.
fn encrypted_rows(total: u64) -> Option<Rows> {
    Some(Rows { total, tables: BTreeMap::new() })
}

/// A snapshot of `app` that is `hours` old.
fn aged(hours: i64) -> Candidate {
    snapshot("app", now() - Duration::hours(hours), 0)
}

fn reasons(plan: &Plan, candidate: &Candidate) -> Option<String> {
    plan.keep.iter().find(|(id, _)| *id == candidate.id).map(|(_, reasons)| reasons.join("; "))
}

fn kept_ids(plan: &Plan) -> BTreeSet<SnapshotId> {
    plan.keep.iter().map(|(id, _)| id.clone()).collect()
}

fn kept(candidates: &[Candidate], plan: &Plan) -> Vec<Candidate> {
    let ids = kept_ids(plan);
    candidates.iter().filter(|candidate| ids.contains(&candidate.id)).cloned().collect()
}

// Random snapshots and policies.

fn any_candidate() -> impl Strategy<Value = Candidate> {
    // Most ages are close to now and to each other, so that snapshots share periods. Some are years away.
    let minutes_old = prop_oneof![5 => -90..3_000_i64, 4 => 0..100_000_i64, 2 => -5_000..3_000_000_i64];
    let kind = prop_oneof![
        6 => Just(SnapshotKind::Full),
        1 => Just(SnapshotKind::Partial),
        1 => Just(SnapshotKind::Safety),
        1 => Just(SnapshotKind::Damaged),
    ];
    let tags = proptest::collection::vec(prop_oneof![Just("a".to_owned()), Just("b".to_owned())], 0..2);
    let flags = (proptest::bool::weighted(0.15), proptest::bool::weighted(0.2), proptest::bool::weighted(0.7));
    let rows = prop_oneof![
        1 => Just(None),
        2 => (0..4_u64).prop_map(encrypted_rows),
        8 => (0..4_u64, 0..4_u64).prop_map(|(a, b)| rows([("a", a), ("b", b)])),
        2 => (0..4_u64).prop_map(|c| rows([("c", c)])),
    ];
    (prop_oneof![Just("app"), Just("other"), Just("app-2")], minutes_old, kind, flags, tags, rows).prop_map(
        |(source, minutes, kind, (damaged, drilled, passed), tags, rows)| {
            let candidate = snapshot(source, now() - Duration::minutes(minutes), 0);
            Candidate { kind, damaged, drilled, passed, tags, rows, ..candidate }
        },
    )
}

/// Snapshots with different ids, as in a store. Some are of the same instant.
fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    proptest::collection::vec((any_candidate(), proptest::bool::weighted(0.2)), 0..40).prop_map(|drawn| {
        let mut candidates: Vec<Candidate> = Vec::new();
        for (number, (mut candidate, same_instant)) in drawn.into_iter().enumerate() {
            if let Some(before) = candidates.last().filter(|_| same_instant) {
                candidate.created_at = before.created_at;
            }
            let random = u16::try_from(number).unwrap();
            candidate.id = SnapshotId::new(candidate.id.source(), candidate.created_at, random);
            candidates.push(candidate);
        }
        candidates
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let count = || prop_oneof![2 => Just(0_u32), 3 => 1..6_u32, 1 => Just(u32::MAX)];
    let within = prop_oneof![2 => Just(None), 1 => (0..4_000_000_i64).prop_map(|s| Some(Duration::seconds(s)))];
    let tags = prop_oneof![3 => Just(vec![]), 1 => Just(vec!["a".to_owned()]), 1 => Just(vec!["b".to_owned(), "a".to_owned()])];
    let counts = (count(), count(), count(), count(), count(), count());
    (counts, within, tags, 0..5_000_000_i64).prop_map(
        |((last, hourly, daily, weekly, monthly, yearly), within, tags, others)| {
            let others_within = Duration::seconds(others);
            Policy { last, hourly, daily, weekly, monthly, yearly, within, tags, others_within }
        },
    )
}

/// A second policy that asks for at least as much in every field.
fn larger(policy: &Policy, more: &Policy) -> Policy {
    let mut tags = policy.tags.clone();
    tags.extend(more.tags.iter().cloned());
    Policy {
        last: policy.last.saturating_add(more.last),
        hourly: policy.hourly.saturating_add(more.hourly),
        daily: policy.daily.saturating_add(more.daily),
        weekly: policy.weekly.saturating_add(more.weekly),
        monthly: policy.monthly.saturating_add(more.monthly),
        yearly: policy.yearly.saturating_add(more.yearly),
        within: policy.within.max(more.within),
        tags,
        others_within: policy.others_within.max(more.others_within),
    }
}

// An independent model of the same rules. It decides for each snapshot by a comparison with all others.

/// Returns true if the rules that count snapshots consider this one.
fn counts(candidate: &Candidate) -> bool {
    candidate.kind == SnapshotKind::Full && !candidate.damaged && candidate.passed && candidate.created_at <= now()
}

/// Returns true if the data of a snapshot is not known to be damaged.
fn is_sound(candidate: &Candidate) -> bool {
    !candidate.damaged && candidate.kind != SnapshotKind::Damaged
}

/// Returns the snapshots of the same source that are newer, not dated in the future, and no safety snapshots.
fn newer_than<'a>(candidate: &Candidate, all: &'a [Candidate]) -> Vec<&'a Candidate> {
    let is_newer = |other: &&Candidate| {
        other.id.source() == candidate.id.source()
            && other.created_at <= now()
            && other.kind != SnapshotKind::Safety
            && (other.created_at, &other.id) > (candidate.created_at, &candidate.id)
    };
    all.iter().filter(is_newer).collect()
}

/// Returns true if for every table of `rows` one of `others` has as many rows or more.
fn are_in(rows: &Rows, others: &[&Candidate]) -> bool {
    let known = || others.iter().filter_map(|other| other.rows.as_ref());
    if rows.tables.is_empty() {
        // One table may have its newest rows here, whatever the totals are.
        return rows.total == 0;
    }
    let is_in = |(name, rows): (&std::sync::Arc<str>, &u64)| {
        *rows == 0 || known().any(|other| other.tables.get(name).is_some_and(|there| there >= rows))
    };
    rows.tables.iter().all(is_in)
}

/// Returns true if a snapshot that does not count, and is not young, is kept nevertheless. `kept` are the newer
/// snapshots that are kept.
fn is_last_of_its_rows(candidate: &Candidate, all: &[Candidate], kept: &BTreeSet<SnapshotId>) -> bool {
    if candidate.kind == SnapshotKind::Safety {
        return false;
    }
    let newer = newer_than(candidate, all);
    let Some(rows) = candidate.rows.as_ref().filter(|_| !newer.is_empty()) else { return true };
    let trusted: Vec<&Candidate> = newer
        .into_iter()
        .filter(|other| kept.contains(&other.id) && (is_sound(other) || !is_sound(candidate)))
        .collect();
    !are_in(rows, &trusted)
}

/// Returns the ids of the snapshots that are kept.
fn model(all: &[Candidate], policy: &Policy) -> BTreeSet<SnapshotId> {
    let mut newest_first: Vec<&Candidate> = all.iter().collect();
    newest_first.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    let mut kept = BTreeSet::new();
    for candidate in newest_first {
        if model_keeps(candidate, all, policy) || (!counts(candidate) && is_last_of_its_rows(candidate, all, &kept)) {
            kept.insert(candidate.id.clone());
        }
    }
    kept
}

/// Returns the number of periods, other than that of `candidate`, in which `others` has newer snapshots, and true if
/// there is a newer one in the period of `candidate`.
fn newer_periods<P: Ord>(
    candidate: &Candidate,
    others: &[&Candidate],
    period: impl Fn(DateTime<Utc>) -> P,
) -> (usize, bool) {
    let newer = others.iter().filter(|other| (other.created_at, &other.id) > (candidate.created_at, &candidate.id));
    let mut periods: BTreeSet<P> = newer.map(|other| period(other.created_at)).collect();
    let is_superseded = periods.remove(&period(candidate.created_at));
    (periods.len(), is_superseded)
}

/// Returns true if a rule other than that of the rows keeps a snapshot.
fn model_keeps(candidate: &Candidate, all: &[Candidate], policy: &Policy) -> bool {
    if policy.is_empty() || candidate.created_at > now() {
        return true;
    }
    if policy.within.is_some_and(|within| candidate.created_at > now() - within)
        || policy.tags.iter().any(|tag| candidate.tags.contains(tag))
    {
        return true;
    }
    if !counts(candidate) {
        return candidate.created_at > now() - policy.others_within;
    }
    let peers: Vec<&Candidate> = all.iter().filter(|c| counts(c) && c.id.source() == candidate.id.source()).collect();
    let drilled: Vec<&Candidate> = peers.iter().copied().filter(|c| c.drilled).collect();
    // True if no newer snapshot is in the same period, and the period is one of the newest `count`.
    let among = |count: u32, (newer, is_superseded): (usize, bool)| !is_superseded && (newer as u64) < u64::from(count);
    let instant = |time: DateTime<Utc>| time.timestamp_nanos_opt();
    let rank = peers.iter().filter(|c| (c.created_at, &c.id) > (candidate.created_at, &candidate.id)).count();
    let days = |time: DateTime<Utc>| time.num_days_from_ce();
    rank == 0
        || (rank as u64) < u64::from(policy.last)
        || (candidate.drilled && among(1, newer_periods(candidate, &drilled, instant)))
        || among(policy.hourly, newer_periods(candidate, &peers, |time| (days(time), time.hour())))
        || among(policy.daily, newer_periods(candidate, &peers, days))
        // Day 1 is 0001-01-01, a Monday, so an ISO week is seven days from there.
        || among(policy.weekly, newer_periods(candidate, &peers, |time| (days(time) - 1).div_euclid(7)))
        || among(policy.monthly, newer_periods(candidate, &peers, |time| (time.year(), time.month())))
        || among(policy.yearly, newer_periods(candidate, &peers, |time| time.year()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn plan_agrees_with_the_independent_model(candidates in any_candidates(), policy in any_policy()) {
        let kept = kept_ids(&plan(&candidates, &policy, now()));
        let expected = model(&candidates, &policy);
        for candidate in &candidates {
            prop_assert_eq!(kept.contains(&candidate.id), expected.contains(&candidate.id), "{:?}", candidate);
        }
    }

    #[test]
    fn snapshots_that_do_not_count_displace_no_good_one(candidates in any_candidates(), policy in any_policy()) {
        let kept = kept_ids(&plan(&candidates, &policy, now()));
        let good: Vec<Candidate> = candidates.into_iter().filter(counts).collect();
        let expected = kept_ids(&plan(&good, &policy, now()));
        prop_assert!(good.iter().all(|candidate| kept.contains(&candidate.id) == expected.contains(&candidate.id)));
    }

    #[test]
    fn rows_of_a_deleted_snapshot_that_does_not_count_are_in_newer_ones(
        candidates in any_candidates(),
        policy in any_policy(),
    ) {
        let kept = kept_ids(&plan(&candidates, &policy, now()));
        let others = candidates.iter().filter(|c| !counts(c) && c.kind != SnapshotKind::Safety);
        for deleted in others.filter(|c| !kept.contains(&c.id)) {
            let mut newer = newer_than(deleted, &candidates);
            newer.retain(|other| kept.contains(&other.id) && (is_sound(other) || !is_sound(deleted)));
            prop_assert!(are_in(deleted.rows.as_ref().unwrap(), &newer), "{:?}", deleted);
        }
    }

    #[test]
    fn every_snapshot_is_either_kept_for_a_reason_or_deleted(candidates in any_candidates(), policy in any_policy()) {
        let plan = plan(&candidates, &policy, now());
        let mut planned: Vec<&SnapshotId> = plan.keep.iter().map(|(id, _)| id).chain(&plan.delete).collect();
        let mut given: Vec<&SnapshotId> = candidates.iter().map(|candidate| &candidate.id).collect();
        planned.sort();
        given.sort();
        prop_assert_eq!(planned, given);
        prop_assert!(plan.keep.iter().all(|(_, reasons)| !reasons.is_empty()));
    }

    #[test]
    fn both_lists_are_newest_first(candidates in any_candidates(), policy in any_policy()) {
        let plan = plan(&candidates, &policy, now());
        let times: BTreeMap<&SnapshotId, DateTime<Utc>> = candidates.iter().map(|c| (&c.id, c.created_at)).collect();
        let kept: Vec<_> = plan.keep.iter().map(|(id, _)| times[id]).collect();
        let deleted: Vec<_> = plan.delete.iter().map(|id| times[id]).collect();
        prop_assert!(kept.is_sorted_by(|a, b| a >= b) && deleted.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn planning_again_deletes_nothing(candidates in any_candidates(), policy in any_policy()) {
        let first = plan(&candidates, &policy, now());
        let again = plan(&kept(&candidates, &first), &policy, now());
        prop_assert_eq!(&again.delete, &[]);
        prop_assert_eq!(again.keep, first.keep);
    }

    #[test]
    fn larger_policy_never_keeps_less(candidates in any_candidates(), policy in any_policy(), more in any_policy()) {
        prop_assume!(!policy.is_empty());
        let fewer = kept_ids(&plan(&candidates, &policy, now()));
        let all = kept_ids(&plan(&candidates, &larger(&policy, &more), now()));
        for candidate in candidates.iter().filter(|c| fewer.contains(&c.id) && !all.contains(&c.id)) {
            // The larger policy keeps a newer snapshot that has its rows.
            prop_assert!(!counts(candidate) && !is_last_of_its_rows(candidate, &candidates, &all), "{:?}", candidate);
        }
    }

    #[test]
    fn newest_good_and_newest_drilled_are_never_deleted(candidates in any_candidates(), policy in any_policy()) {
        let kept = kept_ids(&plan(&candidates, &policy, now()));
        for source in ["app", "other", "app-2"] {
            let good = || candidates.iter().filter(|c| counts(c) && c.id.source().as_str() == source);
            let keeps_newest = |time: Option<DateTime<Utc>>, drilled: bool| {
                good().any(|c| Some(c.created_at) == time && (c.drilled || !drilled) && kept.contains(&c.id))
            };
            let newest_good = good().map(|c| c.created_at).max();
            prop_assert!(newest_good.is_none() || keeps_newest(newest_good, false));
            let newest_drilled = good().filter(|c| c.drilled).map(|c| c.created_at).max();
            prop_assert!(newest_drilled.is_none() || keeps_newest(newest_drilled, true));
        }
    }

    #[test]
    fn future_snapshots_are_kept_and_change_nothing_else(candidates in any_candidates(), policy in any_policy()) {
        let kept = kept_ids(&plan(&candidates, &policy, now()));
        let (future, past): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|c| c.created_at > now());
        let mut expected = kept_ids(&plan(&past, &policy, now()));
        expected.extend(future.into_iter().map(|candidate| candidate.id));
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn each_source_is_planned_independently(candidates in any_candidates(), policy in any_policy()) {
        let together = plan(&candidates, &policy, now());
        let mut separately = BTreeMap::new();
        for source in ["app", "other", "app-2"] {
            let own: Vec<_> = candidates.iter().filter(|c| c.id.source().as_str() == source).cloned().collect();
            separately.extend(plan(&own, &policy, now()).keep);
        }
        prop_assert_eq!(together.keep.into_iter().collect::<BTreeMap<_, _>>(), separately);
    }

    #[test]
    fn order_of_the_input_does_not_matter(
        (candidates, shuffled) in any_candidates().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
        policy in any_policy(),
    ) {
        prop_assert_eq!(plan(&candidates, &policy, now()), plan(&shuffled, &policy, now()));
    }
}

/// Takes a snapshot at 03:00 on each of `days` days from 2025-01-01 on, and prunes after each.
fn prune_daily(days: i64, policy: &Policy) -> Vec<Candidate> {
    let start = Utc.with_ymd_and_hms(2025, 1, 1, 3, 0, 0).unwrap();
    let mut snapshots: Vec<Candidate> = Vec::new();
    for day in 0..days {
        let today = start + Duration::days(day);
        snapshots.push(snapshot("app", today, 0));
        snapshots = kept(&snapshots, &plan(&snapshots, policy, today + Duration::minutes(5)));
    }
    snapshots
}

fn dates(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(|candidate| candidate.created_at.date_naive().to_string()).collect()
}

#[test]
fn four_hundred_daily_prunes_keep_the_snapshots_of_the_policy() {
    let policy = Policy { daily: 7, weekly: 4, monthly: 12, ..Policy::default() };
    let snapshots = prune_daily(400, &policy);
    // The last snapshots of eleven months and of the current one, of three weeks, and of seven days.
    let expected = [
        "2025-03-31",
        "2025-04-30",
        "2025-05-31",
        "2025-06-30",
        "2025-07-31",
        "2025-08-31",
        "2025-09-30",
        "2025-10-31",
        "2025-11-30",
        "2025-12-31",
        "2026-01-18",
        "2026-01-25",
        "2026-01-29",
        "2026-01-30",
        "2026-01-31",
        "2026-02-01",
        "2026-02-02",
        "2026-02-03",
        "2026-02-04",
    ];
    assert_eq!(dates(&snapshots), expected);
}

#[test]
fn daily_prunes_keep_the_same_snapshots_as_one_prune_at_the_end() {
    let policy = Policy { last: 3, daily: 5, weekly: 6, monthly: 4, yearly: 2, ..Policy::default() };
    let start = Utc.with_ymd_and_hms(2025, 1, 1, 3, 0, 0).unwrap();
    let all: Vec<Candidate> = (0..400).map(|day| snapshot("app", start + Duration::days(day), 0)).collect();
    let at_once = kept(&all, &plan(&all, &policy, start + Duration::days(399) + Duration::minutes(5)));
    assert_eq!(dates(&prune_daily(400, &policy)), dates(&at_once));
}

#[test]
fn plan_names_the_reasons_for_each_kept_snapshot() {
    let policy = Policy {
        last: 2,
        hourly: 1,
        daily: 2,
        weekly: 2,
        monthly: 1,
        yearly: 1,
        within: Some(Duration::days(7)),
        tags: vec!["release".to_owned()],
        ..Policy::default()
    };
    let newest = aged(1);
    let second = aged(25);
    let third = Candidate { drilled: true, tags: vec!["release".to_owned()], ..aged(24 * 6) };
    let safety = Candidate { kind: SnapshotKind::Safety, ..aged(24 * 8) };
    let spoiled = Candidate { kind: SnapshotKind::Safety, damaged: true, ..aged(24 * 9) };
    let partial = Candidate { kind: SnapshotKind::Partial, ..aged(24 * 31) };
    let old = aged(24 * 32);
    let suspect = Candidate { passed: false, rows: rows([("t", 7)]), ..aged(24 * 33) };
    let future = snapshot("app", now() + Duration::seconds(1), 0);
    let all = [&newest, &second, &third, &safety, &spoiled, &partial, &old, &suspect, &future].map(Clone::clone);
    let plan = plan(&all, &policy, now());
    let expected = [
        (&future, "dated in the future"),
        (
            &newest,
            "newest; last 1; hourly 2026-11-21T16; daily 2026-11-21; weekly 2026-W47; monthly 2026-11; yearly 2026; within 7d",
        ),
        (&second, "last 2; daily 2026-11-20; within 7d"),
        (&third, "newest drilled; weekly 2026-W46; within 7d; tag release"),
        (&safety, "safety, younger than 30d"),
        (&spoiled, "damaged, younger than 30d"),
        (&suspect, "suspect, has more rows in t than every newer one"),
    ];
    for (candidate, words) in expected {
        assert_eq!(reasons(&plan, candidate).as_deref(), Some(words));
    }
    assert_eq!(plan.delete, [partial.id, old.id]);
}

#[test]
fn damaged_partial_and_suspect_snapshots_do_not_displace_a_good_one() {
    let good = aged(100);
    let damaged = Candidate { damaged: true, ..aged(1) };
    let forensic = Candidate { kind: SnapshotKind::Damaged, ..aged(2) };
    let partial = Candidate { kind: SnapshotKind::Partial, drilled: true, ..aged(3) };
    let suspect = Candidate { passed: false, ..aged(4) };
    let policy = Policy { last: 1, others_within: Duration::zero(), ..Policy::default() };
    let plan = plan(&[good.clone(), damaged.clone(), forensic, partial, suspect], &policy, now());
    assert_eq!(reasons(&plan, &good).as_deref(), Some("newest not suspect; last 1"));
    assert_eq!(reasons(&plan, &damaged).as_deref(), Some("damaged, the newest of its source"));
    assert_eq!(plan.delete.len(), 3);
}

#[test]
fn suspect_snapshots_are_dropped_when_newer_ones_have_their_rows() {
    let suspect = |hours, rows| Candidate { passed: false, rows, ..aged(hours) };
    let policy = Policy { last: 1, others_within: Duration::zero(), ..Policy::default() };
    let good = Candidate { rows: rows([("a", 100), ("b", 9)]), ..aged(1) };
    for (older, kept) in [
        (suspect(2, rows([("a", 100), ("b", 9)])), None),
        (suspect(2, rows([("a", 1), ("b", 10)])), Some("suspect, has more rows in b than every newer one")),
        (suspect(2, rows([("gone", 1)])), Some("suspect, has more rows in gone than every newer one")),
        (suspect(2, rows([("gone", 0)])), None),
        (suspect(2, encrypted_rows(0)), None),
        (suspect(2, encrypted_rows(1)), Some("suspect, and its tables are not known")),
        (suspect(2, encrypted_rows(109)), Some("suspect, and its tables are not known")),
        (suspect(2, encrypted_rows(110)), Some("suspect, has more rows than every newer one")),
        (suspect(2, None), Some("suspect, with an unknown number of rows")),
    ] {
        let plan = plan(&[good.clone(), older.clone()], &policy, now());
        assert_eq!(reasons(&plan, &older).as_deref(), kept, "{older:?}");
    }
    // A damaged or a safety snapshot that has the rows is no replacement for them.
    let rows_of = || rows([("a", 200)]);
    for newer in [
        Candidate { damaged: true, rows: rows_of(), ..aged(2) },
        Candidate { kind: SnapshotKind::Safety, tags: vec!["x".to_owned()], rows: rows_of(), ..aged(2) },
    ] {
        let policy = Policy { tags: vec!["x".to_owned()], ..policy.clone() };
        let older = suspect(3, rows_of());
        let plan = plan(&[good.clone(), newer, older.clone()], &policy, now());
        assert!(reasons(&plan, &older).is_some(), "{plan:?}");
    }
}

#[test]
fn thirty_suspect_nights_leave_all_good_snapshots_of_the_policy() {
    let policy = Policy { last: 3, daily: 7, ..Policy::default() };
    let mut snapshots: Vec<Candidate> = (0..10)
        .map(|day| Candidate { rows: rows([("t", 1000)]), ..snapshot("app", now() + Duration::days(day), 0) })
        .collect();
    snapshots = kept(&snapshots, &plan(&snapshots, &policy, now() + Duration::days(10)));
    let good = dates(&snapshots);
    assert_eq!(good.len(), 7);
    for night in 10..100 {
        let tonight = now() + Duration::days(night);
        snapshots.push(Candidate { passed: false, rows: rows([("t", 900)]), ..snapshot("app", tonight, 0) });
        snapshots = kept(&snapshots, &plan(&snapshots, &policy, tonight + Duration::minutes(5)));
        assert_eq!(dates(&snapshots)[..7], good);
    }
    assert_eq!(snapshots.len(), 7 + 30);
}

#[test]
fn a_snapshot_exactly_as_old_as_a_limit_is_not_younger_than_it() {
    let partial = |hours| Candidate { kind: SnapshotKind::Partial, ..aged(hours) };
    let policy = Policy { within: Some(Duration::hours(24)), others_within: Duration::hours(48), ..Policy::default() };
    let second = Duration::seconds(1);
    for (old, kept) in [(aged(24), false), (partial(48), false), (aged(23), true), (partial(47), true)] {
        assert_eq!(reasons(&plan(&[aged(1), old.clone()], &policy, now()), &old).is_some(), kept, "{}", old.id);
        if !kept {
            assert!(reasons(&plan(&[aged(1), old.clone()], &policy, now() - second), &old).is_some(), "{}", old.id);
        }
    }
}

#[test]
fn a_damaged_snapshot_does_not_count_as_the_newest_drilled() {
    let damaged = Candidate { drilled: true, damaged: true, ..aged(24 * 40) };
    let drilled = Candidate { drilled: true, ..aged(24 * 50) };
    let policy = Policy { last: 1, ..Policy::default() };
    let plan = plan(&[aged(1), damaged.clone(), drilled.clone()], &policy, now());
    assert_eq!(reasons(&plan, &drilled).as_deref(), Some("newest drilled"));
    assert_eq!(plan.delete, [damaged.id]);
}

#[test]
fn weeks_are_iso_weeks_across_the_new_year() {
    let at = |y, m, d| {
        let noon = NaiveDate::from_ymd_opt(y, m, d).unwrap().and_hms_opt(12, 0, 0).unwrap();
        snapshot("app", noon.and_utc(), 0)
    };
    // 2024-12-30 (a Monday) to 2025-01-05 is one week, 2025-W01.
    let all = [at(2024, 12, 29), at(2024, 12, 30), at(2024, 12, 31), at(2025, 1, 1), at(2025, 1, 5), at(2025, 1, 6)];
    let plan = plan(&all, &Policy { weekly: 3, ..Policy::default() }, now());
    assert_eq!(dates(&kept(&all, &plan)), ["2024-12-29", "2025-01-05", "2025-01-06"]);
    assert_eq!(reasons(&plan, &all[4]).as_deref(), Some("weekly 2025-W01"));
}

#[test]
fn a_policy_without_rules_is_empty_and_keeps_every_snapshot() {
    let empty = Policy { others_within: Duration::days(1), ..Policy::default() };
    assert!(empty.is_empty() && Policy::default().is_empty());
    assert!(Policy { within: Some(Duration::zero()), ..Policy::default() }.is_empty());
    for policy in [
        Policy { yearly: 1, ..Policy::default() },
        Policy { within: Some(Duration::seconds(1)), ..Policy::default() },
        Policy { tags: vec!["x".to_owned()], ..Policy::default() },
    ] {
        assert!(!policy.is_empty());
    }
    let all = [aged(1), Candidate { damaged: true, ..aged(9_999) }, aged(99_999)];
    let plan = plan(&all, &empty, now());
    assert_eq!((plan.keep.len(), plan.delete.len()), (3, 0));
}

#[test]
fn snapshots_that_are_not_trusted_displace_no_others_and_follow_the_policy_among_themselves() {
    let of_others = |hours: i64| Candidate { is_trusted: false, ..aged(hours) };
    let all = [of_others(1), of_others(2), aged(3), aged(4), of_others(5)];
    let plan = plan(&all, &Policy { last: 1, ..Policy::default() }, now());
    assert_eq!(kept(&all, &plan), [all[0].clone(), all[2].clone()]);
}

#[test]
fn the_plan_for_no_snapshots_is_empty() {
    assert_eq!(plan(&[], &Policy { last: 1, ..Policy::default() }, now()), Plan::default());
}
