//! Decides whether a database is as good as new: an image, a migration or a seed has made it, and it holds nothing that
//! the snapshot lacks. Such a database may be replaced by the snapshot.

use std::collections::BTreeMap;

use crate::engine::database::TablePair;
use crate::engine::rules::migration_tables::is_of_migrations;
use crate::ops::inspect::Found;
use crate::ops::sources::Chosen;
use crate::ops::{Context, fetch};
use crate::platform::error::{Kind, Result};
use crate::snapshots::manifest::{Table, by_name};
use crate::snapshots::row_counts::RowCounts;

/// A table has next to no rows, compared with the snapshot, if it has at most one of this number.
const FEW: u64 = 10;

/// The most rows of a database that are compared one by one with those of a snapshot.
pub(super) const MOST_COMPARED: u64 = 10_000;
/// The most rows that the snapshot may have in these tables.
const MOST_COMPARED_WITH: u64 = 10_000_000;

/// Returns true if a database has so few of the snapshot's rows that it was probably made anew: at most a tenth of all
/// rows, and next to none in at least half of the tables that had some. The tables of tools for migrations are not
/// counted.
pub(super) fn has_few_rows(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> bool {
    let rows = |tables: &BTreeMap<String, u64>| -> u64 {
        tables.iter().filter(|(name, _)| !is_of_migrations(name)).map(|(_, rows)| rows).sum()
    };
    let filled: Vec<(&String, &u64)> =
        before.iter().filter(|(name, rows)| **rows > 0 && !is_of_migrations(name)).collect();
    let emptied = filled.iter().filter(|(name, was)| now.get(*name).copied().unwrap_or(0).saturating_mul(FEW) <= **was);
    !filled.is_empty() && emptied.count() * 2 >= filled.len() && rows(now).saturating_mul(FEW) <= rows(before)
}

/// Returns the tables of `now` that can hold rows that `before` lacks. A table holds none if it is empty, the record of
/// a tool for migrations, or equal to the table of `before`, or if it shows the rows of other tables.
pub(super) fn tables_beyond<'a>(now: &'a [Table], before: &[Table]) -> Vec<&'a Table> {
    let before = by_name(before);
    let views = RowCounts::of(now).views_of;
    let is_known = |table: &&Table| {
        let is_same = before.get(table.name.as_str()).is_some_and(|before| table.has_same_rows(before));
        table.rows == Some(0) || is_of_migrations(&table.name) || is_same || views.contains_key(&table.name)
    };
    now.iter().filter(|table| table.is_of_user()).filter(|table| !is_known(table)).collect()
}

/// Returns the names of those tables of a database that hold rows that the snapshot lacks. Few rows are compared one by
/// one; of a table that has more, or that cannot be compared, it is not known, and it is returned too.
pub(super) fn tables_with_other_rows(
    tables: &[&Table],
    found: &Found,
    chosen: &Chosen,
    context: &Context,
) -> Result<Vec<String>> {
    let known = by_name(&found.manifest.tables);
    let pair = |table: &&Table| {
        let before = known.get(table.name.as_str()).filter(|before| before.rows.is_some());
        let rows = table.rows.filter(|rows| *rows <= MOST_COMPARED)?;
        let before = Some((*before?).clone());
        Some((rows, TablePair { now: table.name.clone(), before, counts_missing: false }))
    };
    let (numbers, pairs): (Vec<u64>, Vec<TablePair>) = tables.iter().filter_map(pair).unzip();
    let rows_before = pairs.iter().filter_map(|pair| pair.before.as_ref()?.rows).sum::<u64>();
    let mut names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    if pairs.is_empty() || numbers.iter().sum::<u64>() > MOST_COMPARED || rows_before > MOST_COMPARED_WITH {
        return Ok(names);
    }
    let compared = fetch::open(&found.catalog, &found.listed.id, context)
        .and_then(|opened| chosen.source.compare_rows(&opened, &pairs, &context.for_engine()));
    match compared {
        Ok(changes) => {
            let all_known = pairs.iter().zip(changes).filter(|(_, changes)| changes.is_exact && changes.added == 0);
            let known: Vec<&str> = all_known.map(|(pair, _)| pair.now.as_str()).collect();
            names.retain(|name| !known.contains(&name.as_str()));
        }
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => tracing::warn!("{}", error.context("the rows could not be compared").full_message_with_hint()),
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(tables: &[(&str, u64)]) -> BTreeMap<String, u64> {
        tables.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect()
    }

    #[test]
    fn only_a_database_that_lost_most_tables_is_as_good_as_new() {
        let before = counts(&[("accounts", 500), ("balances", 2000), ("roles", 3), ("alembic_version", 1)]);
        for now in [
            counts(&[("alembic_version", 1)]),
            counts(&[("accounts", 0), ("balances", 0), ("roles", 3), ("alembic_version", 1)]),
            counts(&[("accounts", 1), ("balances", 0), ("roles", 3)]),
        ] {
            assert!(has_few_rows(&now, &before), "{now:?}");
        }
        for now in [
            counts(&[("accounts", 500), ("balances", 0), ("roles", 3)]),
            counts(&[("accounts", 500), ("balances", 1000), ("roles", 0)]),
            counts(&[("accounts", 0), ("balances", 0), ("orders", 400)]),
        ] {
            assert!(!has_few_rows(&now, &before), "{now:?}");
        }
        assert!(!has_few_rows(&counts(&[]), &counts(&[("alembic_version", 1)])), "nothing was lost");
    }
}
