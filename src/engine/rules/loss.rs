//! Compares the tables of a database with those of a snapshot: the rows and tables that are gone, and those that may be
//! gone because the rules say so.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::rules::names::{find_table, split};
use crate::engine::rules::rule::{Condition, Rule, Verdict};
use crate::engine::rules::share::Share;
use crate::snapshots::row_counts::RowCounts;

/// The default share of rows that a table may lose.
const DEFAULT_DROP_TENTHS_OF_A_PERCENT: u64 = 100;

/// The observation of a table that does not exist any more.
const GONE: &str = "the table is gone";

impl Verdict {
    /// Returns the table that is gone and must not be, if the verdict is about one.
    pub(crate) fn gone_table(&self) -> Option<&String> {
        self.tables.first().filter(|_| !self.ok && self.observed == GONE)
    }
}

/// Tables that were renamed together: one table, the parts of one that was split, or several that became one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rename {
    /// The names of the tables in the snapshot.
    pub(crate) old: Vec<String>,
    /// The names that they should have now. A name that no table has is as the rule gives it.
    pub(crate) new: Vec<String>,
    /// The tables of the snapshot that have one of the new names, and should still have their own rows too.
    pub(crate) kept: Vec<String>,
    /// The share of the rows that may be lost.
    pub(crate) share: Share,
}

/// The rules of a comparison, by the names of the tables.
struct Plan {
    /// The tables that may be gone.
    may_drop: BTreeSet<String>,
    /// The tables that must be gone.
    must_drop: BTreeSet<String>,
    renames: Vec<Rename>,
    /// The tables that must no longer have their old name, since a rename says so.
    must_be_renamed: BTreeSet<String>,
    has_schemas: bool,
}

/// Compares the rows of tables with those of a snapshot. Returns a verdict for each table of the snapshot, or for each
/// group of renamed tables.
///
/// A missing table fails, unless a rule lets it go. Each other table may lose the share of rows that the rules allow, by
/// default 10%, but never all rows, unless a rule says 100%. New tables and more rows are fine. Of a table that shows
/// rows of another one, or whose rows could not be counted before, only the existence is compared.
#[must_use]
pub(crate) fn compare(before: &RowCounts, now: &RowCounts, rules: &[Rule]) -> Vec<Verdict> {
    let now = &in_names_of(before, now, rules);
    let (was, is) = (numbers(before), numbers(now));
    let plan = Plan::of(&was, &is, rules);
    let names: Vec<&str> = was.keys().map(String::as_str).collect();
    let renamed: BTreeSet<&String> = plan.renames.iter().flat_map(|rename| &rename.old).collect();
    let tables = was.keys().filter(|table| !renamed.contains(table));
    let one = |table: &String| {
        match is.get(table) {
            // The rows are counted with those of the tables that were renamed into this one.
            _ if plan.renames.iter().any(|rename| rename.new.contains(table)) => None,
            Some(is) if plan.must_drop.contains(table) => {
                Some(unchanged(format!("drop of {table}"), format!("the table is still there, with {is} rows")))
            }
            Some(is) => {
                let (name, was) = (format!("rows of {table}"), *before.tables.get(table)?);
                let share = allowed(table, &names, &plan, rules);
                let verdict = match uncounted(table, now) {
                    None => lost(&name, was, *is, share),
                    Some(reason) => not_counted(name, was, share, &reason),
                };
                let is_intended = own_share(table, &names, &plan, rules).is_some();
                Some(Verdict { tables: vec![table.clone()], is_intended, ..verdict })
            }
            None => Some(gone(table, before, plan.may_drop.contains(table) || plan.must_drop.contains(table))),
        }
    };
    let mut verdicts: Vec<Verdict> = tables.filter_map(one).collect();
    verdicts.extend(plan.renames.iter().map(|rename| judge_rename(rename, &was, &is, &plan)));
    verdicts
}

/// Returns the counts of a database with the names of the snapshot for its tables, where they differ only in case: to SQLite,
/// these are the same names. A rename that a rule names stays one.
fn in_names_of(before: &RowCounts, now: &RowCounts, rules: &[Rule]) -> RowCounts {
    let names = |counts: &RowCounts| -> BTreeSet<String> { numbers(counts).into_keys().collect() };
    let (was, is) = (names(before), names(now));
    if has_schemas(was.iter().chain(&is)) {
        return now.clone();
    }
    let renamed = rules.iter().filter(|rule| matches!(rule.condition, Condition::RenamedTo { .. }));
    let renamed: Vec<&str> = renamed.filter_map(|rule| rule.table.as_deref()).collect();
    let is_missing = |name: &&String| !is.contains(*name) && !renamed.iter().any(|old| old.eq_ignore_ascii_case(name));
    let missing: BTreeMap<String, &String> =
        was.iter().filter(is_missing).map(|name| (name.to_ascii_lowercase(), name)).collect();
    let name = |name: &String| match missing.get(&name.to_ascii_lowercase()).filter(|_| !was.contains(name)) {
        Some(old) => (*old).clone(),
        None => name.clone(),
    };
    RowCounts {
        tables: now.tables.iter().map(|(table, rows)| (name(table), *rows)).collect(),
        views_of: now.views_of.iter().map(|(table, content)| (name(table), content.clone())).collect(),
        uncounted: now.uncounted.iter().map(|(table, reason)| (name(table), reason.clone())).collect(),
    }
}

/// Returns the number of rows of every table: of one that shows the rows of another table, the number of those; 0 if it
/// is not known.
fn numbers(counts: &RowCounts) -> BTreeMap<String, u64> {
    let shown = counts.views_of.keys().map(|name| (name.clone(), rows_shown(name, counts).unwrap_or_default()));
    let unknown = counts.uncounted.keys().map(|name| (name.clone(), 0));
    counts.tables.clone().into_iter().chain(shown).chain(unknown).collect()
}

/// Returns the number of rows of the table whose rows a table shows, if it is one that was counted.
fn rows_shown(table: &str, counts: &RowCounts) -> Option<u64> {
    let content = counts.views_of.get(table)?.as_ref()?;
    let found = counts.tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(content));
    found.map(|(_, rows)| *rows)
}

/// Returns the reason why the rows of an existing table are not known; `None` if they are.
fn uncounted(table: &str, now: &RowCounts) -> Option<String> {
    match now.uncounted.get(table) {
        Some(reason) => Some(reason.clone()),
        None if !now.views_of.contains_key(table) || rows_shown(table, now).is_some() => None,
        None => Some("it shows rows of other tables".to_owned()),
    }
}

/// Returns the verdict on a table that exists, and whose rows were counted before and cannot be counted now. It may have
/// lost them, and may not.
fn not_counted(name: String, was: u64, share: Share, reason: &str) -> Verdict {
    Verdict {
        name,
        tables: Vec::new(),
        ok: false,
        evaluated: false,
        is_loss: false,
        is_intended: false,
        expected: format!("at most {share} lost"),
        observed: format!("the rows cannot be counted, {was} before: {reason}"),
    }
}

/// Returns the verdict on a table that does not exist any more.
fn gone(table: &str, before: &RowCounts, may_be_gone: bool) -> Verdict {
    let rows = before.tables.get(table);
    Verdict {
        name: format!("rows of {table}"),
        tables: vec![table.to_owned()],
        ok: may_be_gone,
        evaluated: true,
        // An index of the rows of another table holds none of its own.
        is_loss: !before.views_of.contains_key(table),
        is_intended: may_be_gone,
        expected: match (may_be_gone, rows, before.views_of.get(table)) {
            (true, Some(was), _) => format!("a table that may be dropped, with its {was} rows"),
            (true, None, _) => "a table that may be dropped".to_owned(),
            (false, Some(was), _) => format!("a table that had {was} rows"),
            (false, None, Some(Some(content))) => format!("an index of the rows of {content}"),
            (false, None, Some(None)) => "a table that shows rows of other tables".to_owned(),
            (false, None, None) => "a table whose rows could not be counted".to_owned(),
        },
        observed: GONE.to_owned(),
    }
}

/// Returns the renames that the rules expect of a snapshot's tables.
#[must_use]
pub(crate) fn renames(before: &RowCounts, now: &RowCounts, rules: &[Rule]) -> Vec<Rename> {
    Plan::of(&numbers(before), &numbers(now), rules).renames
}

impl Rename {
    /// Returns a description, such as `a to b`.
    pub(crate) fn description(&self) -> String {
        format!("{} to {}", self.old.join(" and "), self.new.join(" and "))
    }
}

/// Judges a rename by the numbers of rows: the new tables must have the rows of the old ones.
fn judge_rename(rename: &Rename, before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, plan: &Plan) -> Verdict {
    let name = format!("rename of {}", rename.description());
    let new: BTreeSet<&String> = plan.renames.iter().flat_map(|rename| &rename.new).collect();
    let left = rename.old.iter().find(|old| now.contains_key(*old) && !new.contains(old));
    if let Some(left) = left.filter(|left| plan.must_be_renamed.contains(*left)) {
        let observed = format!("{left} is still there, with {} rows", now.get(left).copied().unwrap_or_default());
        return unchanged(name, observed);
    }
    let rows = |tables: &[String], rows: &BTreeMap<String, u64>| {
        tables.iter().filter_map(|table| rows.get(table)).sum::<u64>()
    };
    let (was, is) = (rows(&rename.old, before) + rows(&rename.kept, before), rows(&rename.new, now));
    let mut verdict = Verdict { tables: rename.old.clone(), is_intended: true, ..lost(&name, was, is, rename.share) };
    if let Some(missing) = rename.new.iter().find(|new| !now.contains_key(*new)) {
        verdict.ok = false;
        verdict.is_loss = true;
        verdict.observed = format!("there is no table {missing}");
        verdict.expected = format!("the {was} rows of {}", rename.old.join(" and "));
    }
    verdict
}

/// Returns the verdict on an intended change that was not made. Nothing is lost by that.
fn unchanged(name: String, observed: String) -> Verdict {
    let expected = "the intended change".to_owned();
    let tables = Vec::new();
    Verdict { name, tables, ok: false, evaluated: true, is_loss: false, is_intended: false, expected, observed }
}

impl Plan {
    /// Finds the tables that the rules are about.
    fn of(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, rules: &[Rule]) -> Self {
        let has_schemas = has_schemas(before.keys().chain(now.keys()));
        let names: Vec<&str> = before.keys().map(String::as_str).collect();
        let names_now: Vec<&str> = now.keys().map(String::as_str).collect();
        let (mut may_drop, mut must_drop, mut must_be_renamed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut pairs = Vec::new();
        for rule in rules {
            let Some(table) = rule.table.as_deref().and_then(|table| find_table(table, &names, has_schemas)) else {
                continue;
            };
            match &rule.condition {
                Condition::MayDrop => drop(may_drop.insert(table.to_owned())),
                Condition::MaxRowDrop(share) if share.is_all() => drop(may_drop.insert(table.to_owned())),
                Condition::MustDrop => drop(must_drop.insert(table.to_owned())),
                // A rule of the config stays after the rename, and before it.
                Condition::RenamedTo { must, .. } if !must && now.contains_key(table) => {}
                Condition::RenamedTo { new, must } => {
                    // A table keeps its schema unless another one is named.
                    let in_schema = format!("{}.{new}", split(table).0);
                    let found = Some(in_schema).filter(|_| has_schemas);
                    let found = found.and_then(|name| find_table(&name, &names_now, true));
                    let found = found.or_else(|| find_table(new, &names_now, has_schemas));
                    pairs.push((table.to_owned(), found.unwrap_or(new).to_owned()));
                    if *must {
                        must_be_renamed.insert(table.to_owned());
                    }
                }
                _ => {}
            }
        }
        let mut renames = groups(&pairs);
        let old: BTreeSet<&String> = pairs.iter().map(|(old, _)| old).collect();
        for rename in &mut renames {
            // A table that had the new name before, and is neither renamed nor dropped itself, keeps its rows.
            let has_own_rows =
                |new: &&String| before.contains_key(*new) && !old.contains(new) && !must_drop.contains(*new);
            rename.kept = rename.new.iter().filter(has_own_rows).cloned().collect();
        }
        let mut plan = Plan { may_drop, must_drop, renames, must_be_renamed, has_schemas };
        let share = |rename: &Rename| rename.old.iter().map(|table| allowed(table, &names, &plan, rules)).min();
        let shares: Vec<Option<Share>> = plan.renames.iter().map(share).collect();
        for (rename, share) in plan.renames.iter_mut().zip(shares) {
            rename.share = share.unwrap_or_else(default_share);
        }
        plan
    }
}

/// Groups the pairs of old and new names that share a name on one of the sides.
fn groups(pairs: &[(String, String)]) -> Vec<Rename> {
    let mut groups: Vec<Rename> = Vec::new();
    for (old, new) in pairs {
        let mut merged =
            Rename { old: vec![old.clone()], new: vec![new.clone()], kept: Vec::new(), share: default_share() };
        let (touching, rest): (Vec<Rename>, Vec<Rename>) =
            groups.into_iter().partition(|group| group.old.contains(old) || group.new.contains(new));
        groups = rest;
        for group in touching {
            merged.old.extend(group.old);
            merged.new.extend(group.new);
        }
        for names in [&mut merged.old, &mut merged.new] {
            names.sort();
            names.dedup();
        }
        groups.push(merged);
    }
    groups
}

/// Returns true if the names are those of a database with schemas.
fn has_schemas<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    let first = names.next().is_some_and(|name| !split(name).0.is_empty());
    first && names.all(|name| !split(name).0.is_empty())
}

/// Compares the total numbers of rows, if only these are known. A rule on a single table cannot be evaluated then, and
/// fails, unless it only allows something.
#[must_use]
pub(crate) fn compare_totals(before: u64, now: u64, rules: &[Rule]) -> Vec<Verdict> {
    let mut verdicts = vec![lost("rows", before, now, share_of_all(rules))];
    let own = |rule: &&Rule| rule.table.is_some() && rule.is_about_loss() && rule.condition != Condition::MayDrop;
    verdicts.extend(rules.iter().filter(own).map(|rule| Verdict {
        name: rule.name(),
        tables: Vec::new(),
        ok: false,
        evaluated: false,
        is_loss: false,
        is_intended: false,
        expected: "a list of the snapshot's tables".to_owned(),
        observed: "the snapshot is encrypted, and no key here decrypts it (give one with --identity)".to_owned(),
    }));
    verdicts
}

/// Returns the share of rows that a table may lose: from a rule on the table, or else from one on all tables, or else
/// the default. A table that may be dropped may lose all rows.
fn allowed(table: &str, names: &[&str], plan: &Plan, rules: &[Rule]) -> Share {
    own_share(table, names, plan, rules).unwrap_or_else(|| share_of_all(rules))
}

/// Returns the share of rows that a rule on the table itself allows it to lose.
fn own_share(table: &str, names: &[&str], plan: &Plan, rules: &[Rule]) -> Option<Share> {
    let own = rules.iter().find_map(|rule| match &rule.condition {
        Condition::MaxRowDrop(share) => {
            let found = find_table(rule.table.as_deref()?, names, plan.has_schemas)?;
            (found == table).then_some(*share)
        }
        _ => None,
    });
    own.or_else(|| plan.may_drop.contains(table).then(|| Share::per_mille(1000)))
}

/// Returns the share of rows that every table may lose.
fn share_of_all(rules: &[Rule]) -> Share {
    let of_all = rules.iter().find_map(|rule| match &rule.condition {
        Condition::MaxRowDrop(share) if rule.table.is_none() => Some(*share),
        _ => None,
    });
    of_all.unwrap_or_else(default_share)
}

fn default_share() -> Share {
    Share::per_mille(DEFAULT_DROP_TENTHS_OF_A_PERCENT)
}

fn lost(name: &str, was: u64, is: u64, share: Share) -> Verdict {
    let emptied = was > 0 && is == 0 && !share.is_all();
    let gone = was.saturating_sub(is);
    let observed = match gone {
        0 => format!("{is} rows, {was} before"),
        gone => format!("{is} rows, {was} before: {gone} are gone"),
    };
    Verdict {
        name: name.to_owned(),
        tables: Vec::new(),
        ok: share.allows(was, is) && !emptied,
        evaluated: true,
        is_loss: gone > 0,
        is_intended: false,
        expected: format!("at most {share} lost"),
        observed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
        rows.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect()
    }

    fn drop_rule(table: Option<&str>, share: &str) -> Rule {
        Rule { table: table.map(str::to_owned), condition: Condition::MaxRowDrop(share.parse().expect(share)) }
    }

    fn rule(table: &str, condition: Condition) -> Rule {
        Rule { table: Some(table.to_owned()), condition }
    }

    fn renamed(old: &str, new: &str, must: bool) -> Rule {
        rule(old, Condition::RenamedTo { new: new.to_owned(), must })
    }

    fn failed(before: &[(&str, u64)], now: &[(&str, u64)], rules: &[Rule]) -> Vec<String> {
        let verdicts = compare(&tables(before).into(), &tables(now).into(), rules);
        verdicts.iter().filter(|verdict| !verdict.ok).map(Verdict::message).collect()
    }

    #[test]
    fn losing_more_rows_than_allowed_fails() {
        assert_eq!(failed(&[("a", 100)], &[("a", 90), ("new", 0)], &[]), Vec::<String>::new());
        assert_eq!(
            failed(&[("a", 100)], &[("a", 89)], &[]),
            ["89 rows, 100 before: 11 are gone; expected at most 10% lost"]
        );
        assert_eq!(failed(&[("a", 5)], &[], &[]), ["the table is gone; expected a table that had 5 rows"]);
        assert_eq!(failed(&[("a", 5)], &[], &[drop_rule(None, "100%")]).len(), 1, "a table is more than its rows");
        assert_eq!(failed(&[("empty", 0)], &[("empty", 0)], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_name_in_another_case_is_the_same_table_of_sqlite() {
        assert_eq!(failed(&[("users", 100)], &[("Users", 100)], &[]), Vec::<String>::new());
        assert_eq!(
            failed(&[("users", 100)], &[("Users", 5)], &[]),
            ["5 rows, 100 before: 95 are gone; expected at most 10% lost"]
        );
        assert_eq!(failed(&[("public.users", 100)], &[("public.\"Users\"", 100)], &[]).len(), 1);
    }

    #[test]
    fn an_emptied_table_passes_only_if_it_may_lose_all_rows() {
        assert_eq!(failed(&[("a", 1)], &[("a", 0)], &[drop_rule(None, "99.999%")]).len(), 1);
        assert_eq!(failed(&[("a", 1)], &[("a", 0)], &[drop_rule(Some("a"), "100%")]).len(), 0);
    }

    #[test]
    fn a_rule_on_a_table_takes_precedence_over_one_on_all_tables() {
        let rules = [drop_rule(None, "0%"), drop_rule(Some("log"), "50%"), drop_rule(Some("trades"), "20%")];
        let before = [("public.log", 10), ("public.trades", 10), ("public.rest", 10)];
        assert_eq!(failed(&before, &[("public.log", 5), ("public.trades", 8), ("public.rest", 10)], &rules).len(), 0);
        assert_eq!(failed(&before, &[("public.log", 4), ("public.trades", 7), ("public.rest", 9)], &rules).len(), 3);
    }

    #[test]
    fn a_rule_on_one_table_cannot_be_judged_from_totals() {
        assert!(compare_totals(100, 90, &[]).iter().all(|verdict| verdict.ok));
        assert!(!compare_totals(100, 89, &[])[0].ok);
        let verdicts = compare_totals(100, 100, &[drop_rule(Some("a"), "5%")]);
        assert!(verdicts[0].ok && !verdicts[1].ok && verdicts[1].message().contains("--identity"));
    }

    #[test]
    fn a_table_may_be_gone_if_a_rule_on_it_says_so() {
        let before = [("public.Old", 5), ("b", 3)];
        for condition in [Condition::MayDrop, Condition::MustDrop, Condition::MaxRowDrop("100%".parse().expect("100%"))]
        {
            assert_eq!(failed(&before, &[("b", 3)], &[rule("public.old", condition.clone())]), Vec::<String>::new());
            assert_eq!(failed(&before, &[], &[rule("public.Old", condition)]).len(), 1, "b is gone too");
        }
        assert_eq!(failed(&before, &[("public.Old", 0), ("b", 3)], &[rule("public.Old", Condition::MayDrop)]).len(), 0);
        let still = failed(&before, &[("public.Old", 5), ("b", 3)], &[rule("public.Old", Condition::MustDrop)]);
        assert_eq!(still, ["the table is still there, with 5 rows; expected the intended change"]);
    }

    #[test]
    fn a_rename_is_believed_if_the_new_table_has_the_rows() {
        let before = [("a", 100), ("rest", 1)];
        let rules = [renamed("A", "B", true)];
        assert_eq!(failed(&before, &[("b", 90), ("rest", 1)], &rules), Vec::<String>::new());
        assert_eq!(failed(&before, &[("b", 89), ("rest", 1)], &rules).len(), 1, "too few rows");
        assert_eq!(failed(&before, &[("b", 0), ("rest", 1)], &rules).len(), 1, "no rows");
        assert!(failed(&before, &[("rest", 1)], &rules)[0].starts_with("there is no table B"));
        assert!(failed(&before, &[("a", 100), ("b", 100), ("rest", 1)], &rules)[0].starts_with("a is still there"));
        // A rule of the config also holds before the rename.
        assert_eq!(failed(&before, &[("a", 100), ("rest", 1)], &[renamed("a", "b", false)]), Vec::<String>::new());
        assert_eq!(failed(&before, &[("b", 100), ("rest", 1)], &[renamed("a", "b", false)]), Vec::<String>::new());
    }

    #[test]
    fn tables_that_are_split_merged_swapped_and_replaced_keep_their_rows() {
        let split = [renamed("a", "x", true), renamed("a", "y", true)];
        assert_eq!(failed(&[("a", 100)], &[("x", 60), ("y", 40)], &split), Vec::<String>::new());
        assert_eq!(failed(&[("a", 100)], &[("x", 60), ("y", 20)], &split).len(), 1);
        let merged = [renamed("a", "c", true), renamed("b", "c", true)];
        assert_eq!(failed(&[("a", 100), ("b", 50)], &[("c", 150)], &merged), Vec::<String>::new());
        assert_eq!(failed(&[("a", 100), ("b", 50)], &[("c", 100)], &merged).len(), 1);
        // A table that had the new name keeps its own rows, unless it is dropped.
        let into = [renamed("a", "b", true)];
        assert_eq!(failed(&[("a", 100), ("b", 50)], &[("b", 150)], &into), Vec::<String>::new());
        assert_eq!(failed(&[("a", 100), ("b", 50)], &[("b", 100)], &into).len(), 1);
        let replaced = [renamed("a", "b", true), rule("b", Condition::MustDrop)];
        assert_eq!(failed(&[("a", 100), ("b", 50)], &[("b", 100)], &replaced), Vec::<String>::new());
        let swapped = [renamed("a", "b", true), renamed("b", "a", true)];
        assert_eq!(failed(&[("a", 100), ("b", 5)], &[("a", 5), ("b", 100)], &swapped), Vec::<String>::new());
        assert_eq!(failed(&[("a", 100), ("b", 5)], &[("a", 100), ("b", 5)], &swapped).len(), 1);
    }

    #[test]
    fn a_renamed_table_of_postgresql_keeps_its_schema() {
        let before = [("sales.a", 10), ("public.c", 1)];
        let rules = [renamed("sales.a", "b", true)];
        assert_eq!(failed(&before, &[("public.b", 1), ("sales.b", 10), ("public.c", 1)], &rules), Vec::<String>::new());
        let moved = [renamed("a", "archive.a", true)];
        assert_eq!(failed(&before, &[("archive.a", 10), ("public.c", 1)], &moved), Vec::<String>::new());
    }

    #[test]
    fn of_tables_without_counted_rows_only_the_existence_is_compared() {
        let counts = |rows: &[(&str, u64)], index: &str, content: Option<&str>, odd: &str| RowCounts {
            tables: tables(rows),
            views_of: [(index.to_owned(), content.map(str::to_owned))].into(),
            uncounted: [(odd.to_owned(), "no such tokenizer".to_owned())].into(),
        };
        let before = counts(&[("docs", 100), ("notes", 5)], "docs_fts", Some("docs"), "odd");
        let failed = |now: &RowCounts| -> Vec<String> {
            let verdicts = compare(&before, now, &[drop_rule(Some("docs"), "50%")]);
            verdicts
                .iter()
                .filter(|verdict| !verdict.ok)
                .map(|verdict| format!("{}: {}", verdict.name, verdict.message()))
                .collect()
        };
        assert!(failed(&counts(&[("docs", 60), ("notes", 5)], "docs_fts", Some("Docs"), "odd")).is_empty());
        assert_eq!(
            failed(&counts(&[("docs", 60), ("notes", 5)], "other", None, "more")),
            [
                "rows of docs_fts: the table is gone; expected an index of the rows of docs",
                "rows of odd: the table is gone; expected a table whose rows could not be counted"
            ]
        );
        let now = RowCounts { tables: tables(&[("docs", 60), ("docs_fts", 1), ("odd", 0)]), ..RowCounts::default() };
        assert_eq!(failed(&now), ["rows of notes: the table is gone; expected a table that had 5 rows"]);
        // The index of a table can take the place of one with its own content.
        assert_eq!(
            failed(&counts(&[("docs", 60), ("docs_fts", 1), ("odd", 0)], "notes", Some("docs"), "more")),
            Vec::<String>::new()
        );
        let verdicts = compare(&before, &counts(&[("docs", 60)], "docs_fts", None, "notes"), &[]);
        let unknown: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.evaluated).collect();
        assert!(unknown.len() == 1 && unknown[0].name == "rows of notes" && !unknown[0].is_loss, "{verdicts:?}");
        assert!(unknown[0].message().contains("no such tokenizer"), "{verdicts:?}");
    }

    #[test]
    fn what_is_gone_is_known_although_it_is_allowed() {
        let verdicts = compare(
            &tables(&[("a", 100), ("b", 1)]).into(),
            &tables(&[("a", 99)]).into(),
            &[rule("b", Condition::MayDrop)],
        );
        assert!(verdicts.iter().all(|verdict| verdict.ok && verdict.is_loss), "{verdicts:?}");
    }
}
