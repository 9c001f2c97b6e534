//! Rules for a database, and how they are judged: the rules of a config, and the rows lost since a snapshot.

mod fresh;
pub(crate) mod moment;
mod observed;
mod share;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::engine::rules::observed::Observed;
use crate::engine::{Live, Newest};
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
    pub demand: Demand,
}

/// The condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// The table has at least this number of rows.
    MinRows(u64),
    /// The newest time in it is recent enough.
    Fresh(Fresh),
    /// At most this share of the rows is gone since the snapshot that is the baseline.
    MaxRowDrop(Share),
    /// The query returns one value, which is true.
    Query(String),
}

/// The result of judging a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The name of the rule.
    pub name: String,
    /// True if the rule holds.
    pub ok: bool,
    /// True if the rule could be judged. A rule that could not be judged does not pass.
    pub judged: bool,
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
    /// Returns a short name for what is judged.
    fn name(&self) -> String {
        let table = self.table.as_deref().unwrap_or("every table");
        match &self.demand {
            Demand::MinRows(_) => format!("min_rows of {table}"),
            Demand::Fresh(fresh) => format!("fresh {table}.{}", fresh.column),
            Demand::MaxRowDrop(_) => format!("max_row_drop of {table}"),
            Demand::Query(query) => format!("query {query}"),
        }
    }
}

/// Judges a rule on a live database. A rule that cannot be judged does not pass.
///
/// [`Demand::MaxRowDrop`] is judged by [`compare`] instead, and passes here.
#[must_use]
pub(crate) fn judge(rule: &Rule, live: &mut dyn Live, now: DateTime<Utc>) -> Verdict {
    let name = rule.name();
    let (expected, observed) = match &rule.demand {
        Demand::MinRows(least) => (format!("at least {least} rows"), min_rows(rule, *least, live)),
        Demand::Fresh(fresh) => (
            format!("a time in {} of the last {}", fresh.zone.name(), format_duration(fresh.within)),
            newest(rule, fresh, live, now),
        ),
        Demand::Query(query) => ("true".to_owned(), live.holds(query).map(|ok| Observed { ok, told: ok.to_string() })),
        Demand::MaxRowDrop(share) => (
            format!("at most {share} lost"),
            Ok(Observed { ok: true, told: "compared with a snapshot only".to_owned() }),
        ),
    };
    match observed {
        Ok(Observed { ok, told }) => Verdict { name, ok, judged: true, expected, observed: told },
        Err(error) => Verdict { name, ok: false, judged: false, expected, observed: error.whole_with_hint() },
    }
}

fn min_rows(rule: &Rule, least: u64, live: &mut dyn Live) -> Result<Observed, Error> {
    let table = rule.table.as_deref().unwrap_or_default();
    let rows = live.rows(table)?;
    Ok(Observed { ok: rows >= least, told: format!("{rows} rows") })
}

fn newest(rule: &Rule, fresh: &Fresh, live: &mut dyn Live, now: DateTime<Utc>) -> Result<Observed, Error> {
    let table = rule.table.as_deref().unwrap_or_default();
    let mut newest = fresh::Scan::new(fresh, now);
    match live.newest(table, &fresh.column)? {
        Newest::One(value) => newest.see(&value)?,
        // The greatest text need not be the latest time.
        Newest::Each => {
            let mut failed = None;
            live.each(table, &fresh.column, &mut |value| match newest.see(value) {
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
    Ok(newest.judge())
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
                judged: true,
                expected: format!("a table, which had {was} rows"),
                observed: "the table is gone".to_owned(),
            },
        }
    };
    before.iter().map(one).collect()
}

/// Compares if only the total numbers of rows are known. A rule on a single table cannot be judged then, and fails.
#[must_use]
pub(crate) fn compare_totals(before: u64, now: u64, rules: &[Rule]) -> Vec<Verdict> {
    let mut verdicts = vec![lost("rows", before, now, allowed(None, rules))];
    let own = |rule: &&Rule| rule.table.is_some() && matches!(rule.demand, Demand::MaxRowDrop(_));
    verdicts.extend(rules.iter().filter(own).map(|rule| Verdict {
        name: rule.name(),
        ok: false,
        judged: false,
        expected: "to see the snapshot's tables".to_owned(),
        observed: "the snapshot is encrypted, and no key here opens it (give one with --identity)".to_owned(),
    }));
    verdicts
}

/// Returns the share of rows that a table may lose: from a rule on the table, or else from one on all tables, or else
/// the default.
fn allowed(table: Option<&str>, rules: &[Rule]) -> Share {
    let of = |wanted: Option<&str>| {
        rules.iter().find_map(|rule| match &rule.demand {
            Demand::MaxRowDrop(share) if is_meant(rule.table.as_deref(), wanted) => Some(*share),
            _ => None,
        })
    };
    table
        .and_then(|table| of(Some(table)))
        .or_else(|| of(None))
        .unwrap_or(Share::per_mille(DEFAULT_DROP_TENTHS_OF_A_PERCENT))
}

/// Returns true if a rule's table is this one. A name without a schema means the schema public.
fn is_meant(named: Option<&str>, table: Option<&str>) -> bool {
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
        judged: true,
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
        Rule { table: table.map(str::to_owned), demand: Demand::MaxRowDrop(share.parse().expect(share)) }
    }

    fn failed(before: &[(&str, u64)], now: &[(&str, u64)], rules: &[Rule]) -> Vec<String> {
        let verdicts = compare(&tables(before), &tables(now), rules);
        verdicts.iter().filter(|verdict| !verdict.ok).map(Verdict::message).collect()
    }

    #[test]
    fn what_is_lost_beyond_the_tolerance_fails() {
        assert_eq!(failed(&[("a", 100)], &[("a", 90), ("new", 0)], &[]), Vec::<String>::new());
        assert_eq!(
            failed(&[("a", 100)], &[("a", 89)], &[]),
            ["89 rows, 100 before: 11 are gone; expected at most 10% lost"]
        );
        assert_eq!(failed(&[("a", 5)], &[], &[]), ["the table is gone; expected a table, which had 5 rows"]);
        assert_eq!(failed(&[("a", 5)], &[], &[drop_rule(None, "100%")]).len(), 1, "a table is more than its rows");
        assert_eq!(failed(&[("empty", 0)], &[("empty", 0)], &[]), Vec::<String>::new());
    }

    #[test]
    fn an_emptied_table_passes_only_where_all_of_it_may_go() {
        assert_eq!(failed(&[("a", 1)], &[("a", 0)], &[drop_rule(None, "99.999%")]).len(), 1);
        assert_eq!(failed(&[("a", 1)], &[("a", 0)], &[drop_rule(Some("a"), "100%")]).len(), 0);
    }

    #[test]
    fn a_rule_on_the_table_goes_before_one_on_all() {
        let rules = [drop_rule(None, "0%"), drop_rule(Some("log"), "50%"), drop_rule(Some("trades"), "20%")];
        let before = [("log", 10), ("public.trades", 10), ("rest", 10)];
        assert_eq!(failed(&before, &[("log", 5), ("public.trades", 8), ("rest", 10)], &rules).len(), 0);
        assert_eq!(failed(&before, &[("log", 4), ("public.trades", 7), ("rest", 9)], &rules).len(), 3);
    }

    #[test]
    fn of_sums_alone_a_rule_on_one_table_cannot_be_judged() {
        assert!(compare_totals(100, 90, &[]).iter().all(|verdict| verdict.ok));
        assert!(!compare_totals(100, 89, &[])[0].ok);
        let verdicts = compare_totals(100, 100, &[drop_rule(Some("a"), "5%")]);
        assert!(verdicts[0].ok && !verdicts[1].ok && verdicts[1].message().contains("--identity"));
    }
}
