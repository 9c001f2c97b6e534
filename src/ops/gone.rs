//! Finds the columns and views that a database had in a snapshot, and no longer has under their names. A migration may
//! remove them on purpose, but the values of a column are gone with it, and the numbers of rows do not show that.

use std::collections::BTreeSet;

use crate::engine::live::{Live, Shape};
use crate::engine::rules::Rename;
use crate::platform::error::{Kind, Result, one_line};
use crate::snapshots::manifest::{Manifest, Table};

/// The number of names of one kind that are listed.
const SHOWN_NAMES: usize = 5;

/// Returns the views of a snapshot that a database still has, of those that a deploy should have dropped.
pub(crate) fn views_still_there(before: &Manifest, live: &mut dyn Live, dropped: &[&str]) -> Result<Vec<String>> {
    let views = before.sqlite.iter().flat_map(|facts| &facts.views);
    let dropped: Vec<&String> =
        views.filter(|view| dropped.iter().any(|name| name.eq_ignore_ascii_case(view))).collect();
    if dropped.is_empty() {
        return Ok(Vec::new());
    }
    let now = live.shape()?.views;
    let is_there = |view: &&String| now.iter().any(|name| name.eq_ignore_ascii_case(view));
    Ok(dropped.into_iter().filter(is_there).cloned().collect())
}

/// Describes what is gone since a snapshot, such as `gone or renamed since app-...: the column users.email`. Returns an
/// empty text if nothing is. Tables that are gone are not named, because the comparison of the rows names them, and
/// neither are the views that are `dropped` on purpose.
pub(crate) fn since(before: &Manifest, live: &mut dyn Live, renames: &[Rename], dropped: &[&str]) -> Result<String> {
    if before.tables.is_empty() {
        return Ok(String::new());
    }
    match live.shape() {
        Ok(now) => Ok(describe(before, &now, renames, dropped)),
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        Err(error) => Ok(format!("the columns were not compared with {}: {}", before.id, error.full_message())),
    }
}

fn describe(before: &Manifest, now: &Shape, renames: &[Rename], dropped: &[&str]) -> String {
    // Names in SQLite are the same in upper and lower case.
    let key = |name: &str| if before.postgres.is_some() { name.to_owned() } else { name.to_ascii_lowercase() };
    let columns_of = |names: &[String]| -> Option<BTreeSet<String>> {
        let found = names.iter().filter_map(|name| now.columns.get(name)).collect::<Vec<_>>();
        (!found.is_empty()).then(|| found.into_iter().flatten().map(|name| key(name)).collect())
    };
    let mut columns = Vec::new();
    for table in before.tables.iter().filter(|table| table.is_of_user()) {
        let Some(is) = columns_of(&new_names(table, renames)) else { continue };
        let gone = table.columns.iter().filter(|column| !is.contains(&key(&column.name)));
        columns.extend(gone.map(|column| format!("{}.{}", table.name, column.name)));
    }
    let views_now: BTreeSet<String> = now.views.iter().map(|name| key(name)).collect();
    let views = before.sqlite.iter().flat_map(|facts| &facts.views);
    let is_dropped = |name: &str| dropped.iter().any(|dropped| dropped.eq_ignore_ascii_case(name));
    let is_gone = |name: &&String| !views_now.contains(&key(name)) && !is_dropped(name);
    let views: Vec<String> = views.filter(is_gone).cloned().collect();
    let parts: Vec<String> = [list("column", &columns), list("view", &views)].into_iter().flatten().collect();
    match parts.is_empty() {
        true => String::new(),
        false => one_line(&format!("gone or renamed since {}: {}", before.id, parts.join(", and "))),
    }
}

/// Returns the names that a table may have now.
fn new_names(table: &Table, renames: &[Rename]) -> Vec<String> {
    let rename = renames.iter().find(|rename| rename.old.contains(&table.name));
    rename.map_or_else(|| vec![table.name.clone()], |rename| rename.new.clone())
}

/// Lists names of one kind, such as `the columns a.b, c.d and 2 more`. Returns `None` if there are none.
fn list(kind: &str, names: &[String]) -> Option<String> {
    let more = names.len().saturating_sub(SHOWN_NAMES);
    let (ending, shown) = (if names.len() == 1 { "" } else { "s" }, names.get(..names.len() - more)?);
    let text = match (shown, more) {
        ([], _) => return None,
        ([first @ .., last], 0) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        (shown, 0) => shown.join(", "),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    };
    Some(format!("the {kind}{ending} {text}"))
}
