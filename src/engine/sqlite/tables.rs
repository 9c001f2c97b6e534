//! Restores selected tables of an image into an existing database: in one transaction, without touching other tables.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OptionalExtension, ffi};

use super::connection::{self, Purpose, explain, sqlite_message, with_old_strings};
use super::derived::{self, FullText};
use super::health;
use super::names::{Match, Name, match_columns, name_at, quote, readable_text};
use super::rows::{self, Rows};
use super::schema_objects;
use super::survey::{self, OnDamage, TableCheck};
use super::target::LiveTarget;
use super::trigger_indexes::{self, TriggerIndex};
use crate::engine::restoring::{LeftOut, SkippedTrigger};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::shell::quote_word;
use crate::snapshots::manifest::{OrphanRows, Table};

/// The handling of existing rows in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// A table that has rows is refused.
    Refuse,
    /// Its rows are replaced.
    Replace,
}

/// A restore of some tables of an image. The image is a file that nobody else uses.
pub(crate) struct TablesRestore<'a> {
    image: &'a Path,
    tables: &'a [&'a Table],
    /// The orphan rows that the snapshot had.
    orphans_at_snapshot: &'a [OrphanRows],
    overwrite: Overwrite,
    /// The full-text indexes that agree with their content in the image.
    agreeing: Vec<String>,
}

/// The result of a restore of some tables.
#[derive(Default)]
pub(crate) struct TablesOutcome {
    /// The comparison of each table with the snapshot.
    pub checks: Vec<TableCheck>,
    /// The indexes that were built again, or copied from the snapshot, and checked.
    pub rebuilt: Vec<String>,
    /// Indexes and triggers that could not be created, because another object has their name or something is missing.
    pub left_out: Vec<LeftOut>,
    /// Triggers whose tables may be out of date now.
    pub skipped_triggers: Vec<SkippedTrigger>,
    /// Indexes that were not renewed, with the reason and the statements.
    pub notes: Vec<String>,
}

impl<'a> TablesRestore<'a> {
    /// Reads the image, and fails if the restore would be refused. Changes nothing.
    pub(crate) fn plan(
        target: &LiveTarget,
        image: &'a Path,
        tables: &'a [&'a Table],
        orphans_at_snapshot: &'a [OrphanRows],
        overwrite: Overwrite,
    ) -> Result<Self> {
        let connection = &target.connection;
        attach(connection, image)?;
        let checked = tables.iter().try_for_each(|table| {
            let place = require_place(connection, table, overwrite)?;
            require_rowids(connection, table, &place)
        });
        detach(connection)?;
        checked?;
        let agreeing = agreeing_indexes(image, &names(tables))?;
        Ok(TablesRestore { image, tables, orphans_at_snapshot, overwrite, agreeing })
    }

    /// Carries the restore out and rolls it back, so that a reason why it fails is found before anything else is done.
    pub(crate) fn rehearse(&self, target: &LiveTarget) -> Result<()> {
        self.within_transaction(&target.connection, || self.apply(&target.connection), "ROLLBACK").map(drop)
    }

    /// Gives the named tables exactly the image's rows. A table that does not exist is created, with its indexes and
    /// triggers.
    ///
    /// Refused, with nothing changed: virtual tables and SQLite's own, tables whose columns differ from the snapshot's,
    /// and a result with orphan rows that neither the target had before nor the snapshot.
    pub(crate) fn run(&self, target: &mut LiveTarget, expect_unchanged: bool) -> Result<TablesOutcome> {
        target.let_writers_in()?;
        let target = &*target;
        let apply = || {
            if expect_unchanged {
                target.require_unchanged()?;
            }
            self.apply(&target.connection)
        };
        self.within_transaction(&target.connection, apply, "COMMIT")
    }

    /// Runs work in a transaction. On failure the transaction stays open, and closing the connection rolls it back.
    fn within_transaction<T>(&self, connection: &Connection, work: impl FnOnce() -> Result<T>, end: &str) -> Result<T> {
        let failed = |error| explain(error, "cannot restore the tables; nothing was changed");
        attach(connection, self.image)?;
        // Rows that break a CHECK constraint did so when they were saved, and must match their digests.
        connection.execute_batch("PRAGMA ignore_check_constraints = ON; BEGIN IMMEDIATE").map_err(failed)?;
        let done = work()?;
        connection.execute_batch(end).map_err(failed)?;
        detach(connection)?;
        Ok(done)
    }

    fn apply(&self, connection: &Connection) -> Result<TablesOutcome> {
        let failed = |error| explain(error, "cannot restore the tables; nothing was changed");
        let before = health::orphans(connection, None).ok();
        if before.is_none() {
            tracing::warn!(
                "the target's foreign keys cannot be checked, so references to the restored tables are not checked"
            );
        }
        let names = names(self.tables);
        let copies = trigger_indexes::list(connection, &names).map_err(failed)?;
        let mut indexes = Vec::new();
        for index in derived::full_text_indexes(connection, &names).map_err(failed)? {
            let agreed = self.agreeing.iter().any(|name| name.eq_ignore_ascii_case(&index.name))
                || index.agrees(connection).map_err(failed)?;
            indexes.push((index, agreed));
        }
        let mut outcome = TablesOutcome::default();
        let mut created = Vec::new();
        for table in self.tables {
            crate::platform::interrupt::check()?;
            if restore_table(connection, table, self.overwrite)? == Place::Free {
                created.push(*table);
            }
        }
        // A trigger may need any of the tables.
        for table in created {
            let failed = |error| cannot_restore(error, table);
            outcome.left_out.extend(schema_objects::create_all(connection, &table.name).map_err(failed)?);
        }
        for table in self.tables {
            crate::platform::interrupt::check()?;
            let found = survey::survey_table(connection, &table.name, &table.kind, OnDamage::Fail)?;
            outcome.checks.extend(survey::compare(&[(*table).clone()], &[found]));
        }
        survey::require_all(&outcome.checks)?;
        if let Some(before) = before {
            self.require_no_new_orphans(connection, before)?;
        }
        for (index, agreed) in indexes {
            renew(connection, &index, agreed, &mut outcome).map_err(failed)?;
        }
        for index in copies {
            copy(connection, &index, &mut outcome).map_err(failed)?;
        }
        let mut renewed = names.clone();
        renewed.extend(outcome.rebuilt.iter().map(String::as_str));
        for table in &names {
            let skipped = derived::skipped_triggers(connection, table, &renewed).map_err(failed)?;
            outcome.skipped_triggers.extend(skipped);
        }
        Ok(outcome)
    }

    fn require_no_new_orphans(&self, connection: &Connection, mut allowed: Vec<OrphanRows>) -> Result<()> {
        let is_restored =
            |orphan: &&OrphanRows| self.tables.iter().any(|table| table.name.eq_ignore_ascii_case(&orphan.table));
        allowed.extend(self.orphans_at_snapshot.iter().filter(is_restored).cloned());
        let now = health::orphans(connection, None)
            .map_err(|error| explain(error, "cannot restore the tables; nothing was changed"))?;
        match health::new_orphans(&allowed, &now).first() {
            None => Ok(()),
            Some(first) => Err(Error::failed(format!(
                "restoring these tables alone would break references: {first}; nothing was changed"
            ))
            .hint("also name those tables with --table, or restore the whole database")),
        }
    }
}

fn names<'a>(tables: &[&'a Table]) -> Vec<&'a str> {
    tables.iter().map(|table| table.name.as_str()).collect()
}

/// Lists the full-text indexes of an image that agree with their content, which is one of these tables or a view of one.
fn agreeing_indexes(image: &Path, tables: &[&str]) -> Result<Vec<String>> {
    // The check is an INSERT that writes nothing, so the connection must be able to write.
    let connection = connection::open(image, Purpose::Scratch)?;
    let read = || -> rusqlite::Result<Vec<String>> {
        let mut agreeing = Vec::new();
        for index in derived::full_text_indexes(&connection, tables)? {
            if index.agrees(&connection)? {
                agreeing.push(index.name);
            }
        }
        Ok(agreeing)
    };
    read().map_err(|error| explain(error, "cannot read the full-text indexes of the restored image"))
}

/// Builds a full-text index again. It is left as it is if it did not agree with its content before: then a program may
/// have chosen the rows that it holds.
fn renew(connection: &Connection, index: &FullText, agreed: bool, outcome: &mut TablesOutcome) -> rusqlite::Result<()> {
    let reason = match agreed {
        true => match index.rebuild(connection)? {
            Ok(()) => {
                outcome.rebuilt.push(index.name.clone());
                return Ok(());
            }
            Err(reason) => reason,
        },
        false => "before that, it did not agree with its table, or cannot be checked here".to_owned(),
    };
    outcome.notes.push(format!(
        "the full-text index {} was not renewed ({reason}), and may not find the restored rows; to build it from all \
         rows of its table, run: {}",
        one_line(&index.name),
        index.rebuild_statement()
    ));
    Ok(())
}

/// Copies an index that triggers keep from the image, or notes the statements that do it.
fn copy(connection: &Connection, index: &TriggerIndex, outcome: &mut TablesOutcome) -> rusqlite::Result<()> {
    match index.copy(connection)? {
        Ok(()) => outcome.rebuilt.push(index.name.clone()),
        Err(reason) => outcome.notes.push(format!(
            "the index {} was not renewed ({reason}), and may not agree with the restored rows; to give it the rows that \
             it has in the snapshot, restore the whole snapshot to a new file, and run: {}",
            one_line(&index.name),
            index.copy_statements()
        )),
    }
    Ok(())
}

/// Fails for a table that cannot be restored alone.
pub(super) fn require_ordinary(table: &Table, snapshot: &str) -> Result<()> {
    let shown = one_line(&table.name);
    let refused =
        |kind: &str| Error::usage(format!("the table {shown} is a {kind} table, and cannot be restored alone"));
    if table.name.to_lowercase().starts_with("sqlite_") {
        return Err(refused("system").hint("SQLite keeps it by itself; restore the tables that it describes"));
    }
    match table.kind.as_str() {
        "table" => {}
        "virtual" => {
            let word = quote_word(&table.name);
            return Err(refused("virtual").hint(format!(
                "'lifeboat extract {snapshot} --table {word}' writes its rows as SQL, which the sqlite3 program loads; \
                 an index of another table is renewed when that table is restored"
            )));
        }
        "shadow" => {
            return Err(
                refused("shadow").hint("it belongs to a virtual table: name that, or the table that it indexes")
            );
        }
        kind => return Err(refused(kind).hint(RESTORE_WHOLE)),
    }
    if table.digest.is_none() {
        return Err(Error::usage(format!("the table {shown} could not be read when the snapshot was taken"))
            .hint(RESTORE_WHOLE));
    }
    Ok(())
}

const RESTORE_WHOLE: &str = "restore the whole snapshot to a new path, and copy the table from there";

/// Attaches the image of a snapshot as `lifeboat_image`.
pub(super) fn attach(connection: &Connection, image: &Path) -> Result<()> {
    let uri = format!("file:{}?immutable=1", percent_encode(path_bytes(image), NON_ALPHANUMERIC));
    let attached = connection.execute("ATTACH ?1 AS lifeboat_image", [uri]);
    attached.map(drop).map_err(|error| explain(error, "cannot attach the image of the snapshot; nothing was changed"))
}

fn detach(connection: &Connection) -> Result<()> {
    connection
        .execute_batch("DETACH lifeboat_image")
        .map_err(|error| explain(error, "cannot detach the restored image"))
}

fn path_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

/// The state of a table's name in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// No table or view has this name.
    Free,
    /// A table with the same columns has this name.
    Taken,
}

/// Checks whether a table can be restored under its name, as far as that is known without the image; fails if not.
pub(super) fn require_place(connection: &Connection, table: &Table, overwrite: Overwrite) -> Result<Place> {
    let shown = one_line(&table.name);
    let failed = |error| explain(error, &format!("cannot read the table {shown}; nothing was changed"));
    let sql =
        "SELECT type, name, tbl_name FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type <> 'trigger'";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, name_at(row, 1)?, name_at(row, 2)?));
    let found = connection.query_row(sql, [Name::of(&table.name)], read).optional().map_err(failed)?;
    match found {
        None => return Ok(Place::Free),
        Some((kind, ..)) if kind == "table" => require_kind(connection, table)?,
        Some((kind, name, of)) => {
            let article = if kind == "index" { "an" } else { "a" };
            let what = if kind == "index" { format!("index of {}", one_line(&of)) } else { kind.clone() };
            let name = one_line(&readable_text(&quote(&name)));
            return Err(Error::usage(format!(
                "{shown} is a table in the snapshot, but {article} {what} in the target; nothing was changed"
            ))
            .hint(format!("first remove it with the sqlite3 program: DROP {} {name};", kind.to_uppercase())));
        }
    }
    let columns = survey::columns(connection, &table.name).map_err(failed)?;
    if match_columns(table, &columns) != Match::Same {
        return Err(Error::usage(format!(
            "the columns of the table {shown} differ from the columns in the snapshot; nothing was changed"
        ))
        .hint(RESTORE_WHOLE));
    }
    let any = [b"SELECT 1 FROM main.", &quote(&table.name)[..], b" LIMIT 1"].concat();
    let has_rows = Rows::query(connection, &any).and_then(|mut rows| rows.step()).map_err(failed)?;
    if has_rows && overwrite == Overwrite::Refuse {
        return Err(Error::usage(format!("the table {shown} has rows; nothing was changed"))
            .hint("replace them with --replace"));
    }
    Ok(Place::Taken)
}

/// Fails if only one of the table in the target and the table in the image has rowids.
fn require_rowids(connection: &Connection, table: &Table, place: &Place) -> Result<()> {
    let is_same = *place == Place::Free
        || has_rowids(connection, "main", table)? == has_rowids(connection, "lifeboat_image", table)?;
    if is_same {
        return Ok(());
    }
    let shown = one_line(&table.name);
    Err(Error::usage(format!(
        "the table {shown} is WITHOUT ROWID only in one of the snapshot and the target; nothing was changed"
    ))
    .hint(RESTORE_WHOLE))
}

/// Fails if the table of this name in the target is a virtual table, or stores the rows of one.
fn require_kind(connection: &Connection, table: &Table) -> Result<()> {
    let shown = one_line(&table.name);
    let sql = "SELECT type FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    let kind: Option<String> = connection
        .query_row(sql, [Name::of(&table.name)], |row| row.get(0))
        .optional()
        .map_err(|error| explain(error, &format!("cannot read the table {shown}; nothing was changed")))?;
    match kind.as_deref() {
        Some("table") | None => Ok(()),
        Some(kind) => Err(Error::usage(format!(
            "{shown} is an ordinary table in the snapshot, but a {kind} table in the target; nothing was changed"
        ))
        .hint(RESTORE_WHOLE)),
    }
}

/// Returns true if a column of the table in the image is another name for the rowid.
fn has_rowid_column(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) = 1 AND max(upper(type)) = 'INTEGER' \
               AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'lifeboat_image') WHERE origin = 'pk') \
               FROM pragma_table_xinfo(?1, 'lifeboat_image') WHERE pk > 0";
    connection.query_row(sql, [Name::of(&table.name)], |row| row.get(0))
}

/// Returns the error for a table that cannot be restored, with a hint.
fn cannot_restore(error: rusqlite::Error, table: &Table) -> Error {
    let text = sqlite_message(&error);
    let error = explain(error, &format!("cannot restore the table {}; nothing was changed", one_line(&table.name)));
    let is_missing = ["no such function", "unknown function", "no such collation", "no such module"];
    match error.hint {
        Some(_) => error,
        None if is_missing.iter().any(|words| text.contains(words)) => error.hint(
            "the table needs something of its own program: restore the whole snapshot to a new path, and copy the \
             table from there with that program",
        ),
        None => error.hint(RESTORE_WHOLE),
    }
}

fn has_rowids(connection: &Connection, schema: &str, table: &Table) -> Result<bool> {
    let sql = "SELECT NOT wr FROM pragma_table_list WHERE schema = ?1 AND name = ?2 COLLATE NOCASE";
    let found = connection.query_row(sql, (schema, Name::of(&table.name)), |row| row.get(0));
    found.map_err(|error| explain(error, &format!("cannot read the table {}", one_line(&table.name))))
}

/// Gives one table exactly the rows of the image; creates it if it does not exist.
fn restore_table(connection: &Connection, table: &Table, overwrite: Overwrite) -> Result<Place> {
    let failed = |error| cannot_restore(error, table);
    let name = quote(&table.name);
    let place = require_place(connection, table, overwrite)?;
    require_rowids(connection, table, &place)?;
    match place {
        Place::Free => {
            let sql = "SELECT sql FROM lifeboat_image.sqlite_schema WHERE type = 'table' AND name = ?1";
            let mut statement = connection.prepare(sql).map_err(failed)?;
            let sql = statement.query_row([Name::of(&table.name)], |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec()));
            let sql = sql.map_err(failed)?;
            with_old_strings(connection, || rows::run(connection, &sql).map_err(failed))?;
            // The name can be one that a virtual table of the target uses for its storage.
            require_kind(connection, table)?;
        }
        Place::Taken => {
            rows::run(connection, &[b"DELETE FROM main.", &name[..]].concat()).map_err(failed)?;
        }
    }
    let mut columns: Vec<Vec<u8>> =
        table.columns.iter().filter(|column| !column.generated).map(|column| quote(&column.name)).collect();
    // Rowids that are not declared are kept too: full-text indexes and programs may refer to them.
    let taken = |name: &&str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    if has_rowids(connection, "lifeboat_image", table)?
        && !has_rowid_column(connection, table).map_err(failed)?
        && let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name))
    {
        columns.insert(0, rowid.as_bytes().to_vec());
        if i32::try_from(columns.len()).unwrap_or(i32::MAX) > column_limit(connection) {
            copy_in_two_steps(connection, table, rowid, columns)?;
            restore_sequence(connection, &table.name).map_err(failed)?;
            return Ok(place);
        }
    }
    copy_rows(connection, &name, &columns).map_err(failed)?;
    restore_sequence(connection, &table.name).map_err(failed)?;
    Ok(place)
}

/// Copies these columns of all rows from the image.
fn copy_rows(connection: &Connection, name: &[u8], columns: &[Vec<u8>]) -> rusqlite::Result<()> {
    let columns = columns.join(&b", "[..]);
    let copy: [&[u8]; 9] = [
        b"INSERT INTO main.",
        name,
        b" (",
        &columns,
        b") SELECT ",
        &columns,
        b" FROM lifeboat_image.",
        name,
        b" NOT INDEXED",
    ];
    rows::run(connection, &copy.concat())
}

/// Returns the greatest number of columns that a statement may have.
fn column_limit(connection: &Connection) -> i32 {
    // SAFETY: the handle is open; a negative number changes nothing.
    unsafe { ffi::sqlite3_limit(connection.handle(), ffi::SQLITE_LIMIT_COLUMN, -1) }
}

/// Copies the rows of a table that has as many columns as a statement may have, so that the rowid is one too many: one
/// column is copied after all others.
fn copy_in_two_steps(connection: &Connection, table: &Table, rowid: &str, mut columns: Vec<Vec<u8>>) -> Result<()> {
    let failed = |error| cannot_restore(error, table);
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 AND \"notnull\" = 0 AND pk = 0 \
               ORDER BY dflt_value IS NOT NULL, cid DESC LIMIT 1";
    let last = connection.query_row(sql, [Name::of(&table.name)], |row| name_at(row, 0)).optional().map_err(failed)?;
    let Some(last) = last.map(|name| quote(&name)) else {
        let message = format!("the table {} has too many columns, and all of them are NOT NULL", one_line(&table.name));
        return Err(Error::failed(message).hint(RESTORE_WHOLE));
    };
    columns.retain(|column| *column != last);
    let name = quote(&table.name);
    copy_rows(connection, &name, &columns).map_err(failed)?;
    let update: [&[u8]; 13] = [
        b"UPDATE main.",
        &name,
        b" AS lifeboat_target SET ",
        &last,
        b" = (SELECT ",
        &last,
        b" FROM lifeboat_image.",
        &name,
        b" AS lifeboat_source WHERE lifeboat_source.",
        rowid.as_bytes(),
        b" = lifeboat_target.",
        rowid.as_bytes(),
        b")",
    ];
    rows::run(connection, &update.concat()).map_err(failed)
}

/// Moves an AUTOINCREMENT counter forward to the snapshot's value, never backwards.
fn restore_sequence(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let has = |schema: &str| {
        let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE name = 'sqlite_sequence'");
        connection.query_row(&sql, [], |_| Ok(())).optional().map(|found| found.is_some())
    };
    if !has("lifeboat_image")? || !has("main")? {
        return Ok(());
    }
    let sql = "SELECT max(seq) FROM lifeboat_image.sqlite_sequence \
               WHERE name = ?1 COLLATE NOCASE AND typeof(seq) = 'integer'";
    let Some(sequence) = connection.query_row(sql, [Name::of(table)], |row| row.get::<_, Option<i64>>(0))? else {
        return Ok(());
    };
    // In the target, the name may be written in another case.
    let update = "UPDATE main.sqlite_sequence SET seq = max(coalesce(seq, 0), ?2) WHERE name = ?1 COLLATE NOCASE";
    let insert = "INSERT INTO main.sqlite_sequence (name, seq) SELECT name, ?2 FROM main.sqlite_schema \
                  WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    if connection.execute(update, (Name::of(table), sequence))? == 0 {
        connection.execute(insert, (Name::of(table), sequence))?;
    }
    Ok(())
}
