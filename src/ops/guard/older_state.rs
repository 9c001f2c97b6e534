//! Recognizes a database that is as an older snapshot was, and not as the newest one: an image has brought a copy of
//! earlier rows, for example. The numbers of rows do not show this.

use crate::ops::Context;
use crate::ops::guard::fresh::MOST_COMPARED;
use crate::ops::inspect::Found;
use crate::ops::sources::Chosen;
use crate::platform::error::{Kind, Result};
use crate::snapshots::manifest::{Manifest, SnapshotKind, Table, by_name};

/// The most older snapshots that are read.
const MOST_OLDER: usize = 16;

/// Returns the newest one of the snapshots before `newest` that has the rows of a database, if `newest` has not. A database
/// with many rows, which would have to be read, is not compared: no image has so many.
pub(super) fn find(chosen: &Chosen, rows: u64, newest: &Found, context: &Context) -> Result<Option<Manifest>> {
    if rows > MOST_COMPARED || newest.manifest.lacks_tables() {
        return Ok(None);
    }
    let now = chosen.source.contents(&context.for_engine())?.tables;
    if has_same_rows(&now, &newest.manifest) {
        return Ok(None);
    }
    let (name, created_at) = (&newest.manifest.source, newest.manifest.created_at);
    for listed in newest.catalog.list_newest(Some(name), Some(created_at), MOST_OLDER)?.0 {
        match newest.catalog.manifest(&listed.id) {
            Ok((older, _)) if older.kind == SnapshotKind::Full && has_same_rows(&now, &older) => {
                return Ok(Some(older));
            }
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // A snapshot that cannot be read is no reason to doubt the database.
            _ => {}
        }
    }
    Ok(None)
}

/// Returns true if a snapshot has the same tables with the same rows.
fn has_same_rows(now: &[Table], snapshot: &Manifest) -> bool {
    let of_user = |tables: &[Table]| tables.iter().filter(|table| table.is_of_user()).count();
    let known = by_name(&snapshot.tables);
    let is_same = |table: &Table| known.get(table.name.as_str()).is_some_and(|known| table.has_same_rows(known));
    of_user(now) == of_user(&snapshot.tables) && now.iter().filter(|table| table.is_of_user()).all(is_same)
}
