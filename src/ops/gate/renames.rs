//! Checks that renamed tables have the rows of the old ones, by their content. The numbers of rows were compared before.

use crate::engine::database::TablePair;
use crate::engine::rules::{Rename, renames};
use crate::ops::checks::Checks;
use crate::ops::inspect::Found;
use crate::ops::sources::Chosen;
use crate::ops::{Context, fetch};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Kind, Result, one_line};
use crate::snapshots::manifest::{Table, by_name};
use crate::snapshots::row_counts::RowCounts;

/// The result of comparing renamed tables with the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renamed {
    /// They have the rows, as far as this could be compared.
    WithRows,
    /// One of them does not have the rows.
    WithoutRows,
}

/// Compares the content of renamed tables with the snapshot. Adds a check for each rename whose numbers of rows are good. A
/// rename that could not be compared fails its check, but is not known to lack rows.
pub(super) fn check(before: &Found, chosen: &Chosen, context: &Context, checks: &mut Checks) -> Result<Renamed> {
    let manifest = &before.manifest;
    let rules = chosen.rules();
    if manifest.lacks_tables() || !rules.iter().any(|rule| rule.is_rename()) {
        return Ok(Renamed::WithRows);
    }
    let rows_before = RowCounts::of(&manifest.tables);
    let now = match chosen.source.open(&context.scratch).and_then(|mut live| live.tables()) {
        Ok(now) => now,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        // Another check has reported that the database cannot be read.
        Err(_) => return Ok(Renamed::WithRows),
    };
    let mut result = Renamed::WithRows;
    let renames = renames(&rows_before, &now, &rules);
    for rename in &renames {
        // An old name can be the new name of another table.
        let is_new_name = |old: &String| renames.iter().any(|rename| rename.new.contains(old));
        let is_done = rename.new.iter().all(|new| now.has_table(new))
            && rename.old.iter().all(|old| !now.has_table(old) || is_new_name(old));
        if !is_done {
            continue;
        }
        let name = format!("{}: content of {}", chosen.name()?, one_line(&rename.new.join(" and ")));
        let (ok, message) = match compare(rename, before, chosen, context) {
            Ok((true, message)) => (true, message),
            Ok((false, message)) => {
                result = Renamed::WithoutRows;
                (false, message)
            }
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => (false, error.context("the rows could not be compared").full_message_with_hint()),
        };
        checks.add(name, ok, message);
    }
    Ok(result)
}

/// Compares the content of one rename. Returns true and a description if the new tables may have the rows of the old.
fn compare(rename: &Rename, before: &Found, chosen: &Chosen, context: &Context) -> Result<(bool, String)> {
    let old = tables_named(&rename.old, &before.manifest.tables);
    let was: u64 = old.iter().filter_map(|table| table.rows).sum();
    if let ([old], [new], []) = (old.as_slice(), rename.new.as_slice(), rename.kept.as_slice()) {
        let opened = fetch::open(&before.catalog, &before.listed.id, context)?;
        let pair = TablePair { now: new.clone(), before: Some((*old).clone()), counts_missing: true };
        let compared = chosen.source.compare_rows(&opened, std::slice::from_ref(&pair), &context.for_engine())?;
        if let Some(missing) = compared.first().map(|changes| changes.missing) {
            let message = format!("{} of the {was} rows of {} are in it", was.saturating_sub(missing), old.name);
            return Ok(match rename.share.allows(was, was.saturating_sub(missing)) {
                true => (true, one_line(&message)),
                false => (false, one_line(&format!("{message}; expected at most {} missing", rename.share))),
            });
        }
    }
    let contents = chosen.source.contents(&context.for_engine())?.tables;
    let new = tables_named(&rename.new, &contents);
    let kept = tables_named(&rename.kept, &before.manifest.tables);
    let all: Vec<&Table> = old.iter().chain(&kept).chain(&new).copied().collect();
    let has_one_form = all.iter().all(|table| table.columns == all[0].columns);
    let (before_sum, now_sum) = (sum_of(old.iter().chain(&kept)), sum_of(new.iter()));
    if before_sum.is_some() && before_sum == now_sum {
        return Ok((true, "exactly the rows of the snapshot".to_owned()));
    }
    let is: u64 = new.iter().filter_map(|table| table.rows).sum();
    let was = was + kept.iter().filter_map(|table| table.rows).sum::<u64>();
    let are_other = has_one_form && is == was && before_sum.is_some() && now_sum.is_some();
    Ok(match are_other {
        true => (false, format!("{is} rows, as many as before, but not the same ones")),
        false => (true, "only the numbers of rows could be compared: the columns or the rows have changed".to_owned()),
    })
}

/// Returns the digest of the rows of several tables, or `None` if one of them has none.
fn sum_of<'a>(mut tables: impl Iterator<Item = &'a &'a Table>) -> Option<RowDigest> {
    tables.try_fold(RowDigest::default(), |mut sum, table| {
        sum.merge(table.digest?);
        Some(sum)
    })
}

fn tables_named<'a>(names: &[String], tables: &'a [Table]) -> Vec<&'a Table> {
    let tables = by_name(tables);
    names.iter().filter_map(|name| tables.get(name.as_str()).copied()).collect()
}
