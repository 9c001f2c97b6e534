//! Rules for a database, and how they are evaluated: the rules of a config, and the rows lost since a snapshot.

mod fresh;
pub(crate) mod moment;
mod observed;
mod share;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::engine::live::{Live, Newest};
use crate::engine::rules::observed::Observed;
use crate::platform::duration::format_duration;
use crate::platform::error::{Error, one_line};

pub(crate) use crate::engine::rules::fresh::Fresh;
pub(crate) use crate::engine::rules::share::Share;

/// The default share of rows that a table may lose.
const DEFAULT_DROP_TENTHS_OF_A_PERCENT: u64 = 100;

/// A condition that must be true.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The table of the rule; `None` for all tables, or for a query.
    pub table: Option<String>,
    /// The condition.
    pub condition: Condition,
}

/// The condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The table has at least this number of rows.
    MinRows(u64),
    /// The newest time in it is recent enough.
    Fresh(Fresh),
    /// At most this share of the rows is gone since the snapshot that is the baseline.
    MaxRowDrop(Share),
    /// The query returns one value, which is true.
    Query(String),
}

/// The result of evaluating a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The name of the rule.
    pub name: String,
    /// True if the rule holds.
    pub ok: bool,
    /// True if the rule could be evaluated. A rule that could not be evaluated does not pass.
    pub evaluated: bool,
    /// The expected state.
    pub expected: String,
    /// The observed state.
    pub observed: String,
}

impl Verdict {
    /// Returns the observed and the expected state on one line.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        one_line(&format!("{}; expected {}", self.observed, self.expected))
    }
}

impl Rule {
    /// Returns a short name of the rule.
    fn name(&self) -> String {
        let table = self.table.as_deref().unwrap_or("every table");
        match &self.condition {
            Condition::MinRows(_) => format!("min_rows of {table}"),
            Condition::Fresh(fresh) => format!("fresh {table}.{}", fresh.column),
            Condition::MaxRowDrop(_) => format!("max_row_drop of {table}"),
            Condition::Query(query) => format!("query {query}"),
        }
    }
}

/// Evaluates a rule on a live database. A rule that cannot be evaluated does not pass.
///
/// [`Condition::MaxRowDrop`] is evaluated by [`compare`] instead, and passes here.
#[must_use]
pub(crate) fn evaluate(rule: &Rule, live: &mut dyn Live, now: DateTime<Utc>) -> Verdict {
    let name = rule.name();
    let (expected, observed) = match &rule.condition {
        Condition::MinRows(least) => (format!("at least {least} rows"), min_rows(rule, *least, live)),
        Condition::Fresh(fresh) => (
            format!("a time ({}) within the last {}", fresh.zone.name(), format_duration(fresh.within)),
            newest(rule, fresh, live, now),
        ),
        Condition::Query(query) => {
            ("true".to_owned(), live.holds(query).map(|ok| Observed { ok, description: ok.to_string() }))
        }
        Condition::MaxRowDrop(share) => (
            format!("at most {share} lost"),
            Ok(Observed { ok: true, description: "only compared with a snapshot".to_owned() }),
        ),
    };
    match observed {
        Ok(Observed { ok, description }) => Verdict { name, ok, evaluated: true, expected, observed: description },
        Err(error) => Verdict { name, ok: false, evaluated: false, expected, observed: error.full_message_with_hint() },
    }
}

fn min_rows(rule: &Rule, least: u64, live: &mut dyn Live) -> Result<Observed, Error> {
    let table = rule.table.as_deref().unwrap_or_default();
    let rows = live.rows(table)?;
    Ok(Observed { ok: rows >= least, description: format!("{rows} rows") })
}

fn newest(rule: &Rule, fresh: &Fresh, live: &mut dyn Live, now: DateTime<Utc>) -> Result<Observed, Error> {
    let table = rule.table.as_deref().unwrap_or_default();
    let mut newest = fresh::Scan::new(fresh, now);
    match live.newest(table, &fresh.column)? {
        Newest::One(value) => newest.add(&value)?,
        // The greatest text is not always the latest time.
        Newest::Each => {
            let mut failed = None;
            live.each(table, &fresh.column, &mut |value| match newest.add(value) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Newest::None => {}
    }
    Ok(newest.evaluate())
}

/// Compares the rows of tables with those of a snapshot. Returns a verdict for each table of the snapshot.
///
/// A missing table fails. Each other table may lose the share of rows that the rules allow, by default 10%, but never
/// all rows, unless a rule says 100%. New tables and more rows are fine.
#[must_use]
pub(crate) fn compare(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, rules: &[Rule]) -> Vec<Verdict> {
    let one = |(table, was): (&String, &u64)| {
        let share = allowed(Some(table), rules);
        match now.get(table) {
            Some(is) => lost(&format!("rows of {table}"), *was, *is, share),
            None => Verdict {
                name: format!("rows of {table}"),
                ok: false,
                evaluated: true,
                expected: format!("a table that had {was} rows"),
                observed: "the table is gone".to_owned(),
            },
        }
    };
    before.iter().map(one).collect()
}

/// Compares the total numbers of rows, if only these are known. A rule on a single table cannot be evaluated then, and
/// fails.
#[must_use]
pub(crate) fn compare_totals(before: u64, now: u64, rules: &[Rule]) -> Vec<Verdict> {
    let mut verdicts = vec![lost("rows", before, now, allowed(None, rules))];
    let own = |rule: &&Rule| rule.table.is_some() && matches!(rule.condition, Condition::MaxRowDrop(_));
    verdicts.extend(rules.iter().filter(own).map(|rule| Verdict {
        name: rule.name(),
        ok: false,
        evaluated: false,
        expected: "a list of the snapshot's tables".to_owned(),
        observed: "the snapshot is encrypted, and no key here decrypts it (give one with --identity)".to_owned(),
    }));
    verdicts
}

/// Returns the share of rows that a table may lose: from a rule on the table, or else from one on all tables, or else
/// the default.
fn allowed(table: Option<&str>, rules: &[Rule]) -> Share {
    let of = |wanted: Option<&str>| {
        rules.iter().find_map(|rule| match &rule.condition {
            Condition::MaxRowDrop(share) if applies_to(rule.table.as_deref(), wanted) => Some(*share),
            _ => None,
        })
    };
    table
        .and_then(|table| of(Some(table)))
        .or_else(|| of(None))
        .unwrap_or(Share::per_mille(DEFAULT_DROP_TENTHS_OF_A_PERCENT))
}

/// Returns true if a rule on `named` applies to `table`. A name without a schema means the schema public.
fn applies_to(named: Option<&str>, table: Option<&str>) -> bool {
    match (named, table) {
        (None, None) => true,
        (Some(named), Some(table)) => named == table || table.strip_prefix("public.") == Some(named),
        _ => false,
    }
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
        ok: share.allows(was, is) && !emptied,
        evaluated: true,
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

    fn failed(before: &[(&str, u64)], now: &[(&str, u64)], rules: &[Rule]) -> Vec<String> {
        let verdicts = compare(&tables(before), &tables(now), rules);
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
    fn an_emptied_table_passes_only_if_it_may_lose_all_rows() {
        assert_eq!(failed(&[("a", 1)], &[("a", 0)], &[drop_rule(None, "99.999%")]).len(), 1);
        assert_eq!(failed(&[("a", 1)], &[("a", 0)], &[drop_rule(Some("a"), "100%")]).len(), 0);
    }

    #[test]
    fn a_rule_on_a_table_takes_precedence_over_one_on_all_tables() {
        let rules = [drop_rule(None, "0%"), drop_rule(Some("log"), "50%"), drop_rule(Some("trades"), "20%")];
        let before = [("log", 10), ("public.trades", 10), ("rest", 10)];
        assert_eq!(failed(&before, &[("log", 5), ("public.trades", 8), ("rest", 10)], &rules).len(), 0);
        assert_eq!(failed(&before, &[("log", 4), ("public.trades", 7), ("rest", 9)], &rules).len(), 3);
    }

    #[test]
    fn a_rule_on_one_table_cannot_be_judged_from_totals() {
        assert!(compare_totals(100, 90, &[]).iter().all(|verdict| verdict.ok));
        assert!(!compare_totals(100, 89, &[])[0].ok);
        let verdicts = compare_totals(100, 100, &[drop_rule(Some("a"), "5%")]);
        assert!(verdicts[0].ok && !verdicts[1].ok && verdicts[1].message().contains("--identity"));
    }
}
