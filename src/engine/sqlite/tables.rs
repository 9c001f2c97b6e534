//! Restores selected tables of an image into an existing database: in one transaction, without touching other tables.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OptionalExtension};

use super::connection::{self, Purpose, explain, sqlite_message, with_old_strings};
use super::derived::{self, FullText};
use super::health;
use super::names::{Match, Name, match_columns, quote};
use super::rows::{self, Rows};
use super::schema_objects;
use super::survey::{self, OnDamage, TableCheck};
use super::target::LiveTarget;
use crate::engine::restoring::{LeftOut, SkippedTrigger};
use crate::platform::error::{Error, Result, one_line};
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
    /// The full-text indexes that were built again and checked.
    pub rebuilt: Vec<String>,
    /// Indexes and triggers that could not be created, because another object has their name or something is missing.
    pub left_out: Vec<LeftOut>,
    /// Triggers whose tables may be out of date now.
    pub skipped_triggers: Vec<SkippedTrigger>,
    /// Full-text indexes that were not built again, with the reason and the statement.
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
        tables.iter().try_for_each(|table| require_ordinary(table))?;
        let connection = &target.connection;
        attach(connection, image)?;
        let checked = tables.iter().try_for_each(|table| require_target(connection, table, overwrite).map(drop));
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
        let mut indexes = Vec::new();
        for index in derived::full_text_indexes(connection, &names).map_err(failed)? {
            let agreed = self.agreeing.iter().any(|name| name.eq_ignore_ascii_case(&index.name))
                || index.agrees(connection).map_err(failed)?;
            indexes.push((index, agreed));
        }
        let mut outcome = TablesOutcome::default();
        for table in self.tables {
            crate::platform::interrupt::check()?;
            restore_table(connection, table, self.overwrite, &mut outcome.left_out)?;
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
        let mut renewed = names.clone();
        renewed.extend(outcome.rebuilt.iter().map(String::as_str));
        for table in &names {
            let skipped = derived::skipped_triggers(connection, table, &renewed).map_err(failed)?;
            outcome.skipped_triggers.extend(skipped);
        }
        Ok(outcome)
    }

    fn require_no_new_orphans(&self, connection: &Connection, mut allowed: Vec<OrphanRows>) -> Result<()> {
        let is_restored = |orphan: &&OrphanRows| self.tables.iter().any(|table| table.name == orphan.table);
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

/// Fails for a table that cannot be restored alone.
fn require_ordinary(table: &Table) -> Result<()> {
    let shown = one_line(&table.name);
    if table.kind != "table" || table.name.starts_with("sqlite_") {
        let kind = if table.kind == "table" { "system" } else { &table.kind };
        return Err(Error::usage(format!("the table {shown} is a {kind} table, and cannot be restored alone"))
            .hint(RESTORE_WHOLE));
    }
    if table.digest.is_none() {
        return Err(Error::usage(format!("the table {shown} could not be read when the snapshot was taken"))
            .hint(RESTORE_WHOLE));
    }
    Ok(())
}

const RESTORE_WHOLE: &str = "restore the whole snapshot to a new path, and copy the table from there";

fn attach(connection: &Connection, image: &Path) -> Result<()> {
    let uri = format!("file:{}?immutable=1", percent_encode(path_bytes(image), NON_ALPHANUMERIC));
    let attached = connection.execute("ATTACH ?1 AS lifeboat_image", [uri]);
    attached.map(drop).map_err(|error| explain(error, "cannot attach the restored image; nothing was changed"))
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
enum Place {
    /// No table or view has this name.
    Free,
    /// A table with the same columns has this name.
    Taken,
}

/// Checks whether a table can be restored under its name; fails if not.
fn require_target(connection: &Connection, table: &Table, overwrite: Overwrite) -> Result<Place> {
    let shown = one_line(&table.name);
    let failed = |error| explain(error, &format!("cannot read the table {shown}; nothing was changed"));
    let sql = "SELECT type FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type <> 'trigger'";
    let found: Option<String> =
        connection.query_row(sql, [Name::of(&table.name)], |row| row.get(0)).optional().map_err(failed)?;
    match found.as_deref() {
        None => return Ok(Place::Free),
        Some("table") => require_kind(connection, table)?,
        Some(other) => {
            return Err(Error::usage(format!(
                "{shown} is a table in the snapshot, but a {other} in the target; nothing was changed"
            ))
            .hint(RESTORE_WHOLE));
        }
    }
    let columns = survey::columns(connection, &table.name).map_err(failed)?;
    if match_columns(table, &columns) != Match::Same
        || has_rowids(connection, "main", table)? != has_rowids(connection, "lifeboat_image", table)?
    {
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

fn restore_table(
    connection: &Connection,
    table: &Table,
    overwrite: Overwrite,
    left_out: &mut Vec<LeftOut>,
) -> Result<()> {
    let failed = |error| cannot_restore(error, table);
    let name = quote(&table.name);
    let place = require_target(connection, table, overwrite)?;
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
    }
    let columns = columns.join(&b", "[..]);
    let copy = [
        b"INSERT INTO main.",
        &name[..],
        b" (",
        &columns,
        b") SELECT ",
        &columns,
        b" FROM lifeboat_image.",
        &name,
        b" NOT INDEXED",
    ];
    rows::run(connection, &copy.concat()).map_err(failed)?;
    restore_sequence(connection, &table.name).map_err(failed)?;
    if matches!(place, Place::Free) {
        left_out.extend(schema_objects::create_all(connection, &table.name).map_err(failed)?);
    }
    Ok(())
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
    let sql = "SELECT seq FROM lifeboat_image.sqlite_sequence WHERE name = ?1";
    let Some(sequence) = connection.query_row(sql, [Name::of(table)], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(());
    };
    let changed = connection
        .execute("UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", (Name::of(table), sequence))?;
    if changed == 0 {
        connection
            .execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)", (Name::of(table), sequence))?;
    }
    Ok(())
}
