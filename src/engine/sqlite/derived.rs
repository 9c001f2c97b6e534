//! Data that a database derives from the rows of its tables: full-text indexes of other tables, and what triggers
//! write. Triggers are off on the connections of this program, so a restore of some tables has to renew the first and to
//! name the second.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::connection::{is_circumstance, sqlite_message};
use super::names::{Name, name_at, quote};
use super::rows;
use super::tokens::{Token, tokens};
use crate::engine::restoring::SkippedTrigger;
use crate::platform::error::one_line;

/// A full-text index of the rows of a table or view that stores them elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FullText {
    /// The name of the virtual table.
    pub name: String,
    is_fts5: bool,
}

/// Lists the full-text indexes of `main` whose content is one of these tables, or a view of one.
pub(super) fn full_text_indexes(connection: &Connection, tables: &[&str]) -> rusqlite::Result<Vec<FullText>> {
    let mut found = Vec::new();
    for (name, sql) in statements(connection, "table", None)? {
        if let Some((index, content)) = full_text(&name, &tokens(&sql))
            && reads_from(connection, &content, tables)?
        {
            found.push(index);
        }
    }
    Ok(found)
}

/// Returns name and SQL of all objects of a type in `main`, or of those of one table.
fn statements(connection: &Connection, kind: &str, table: Option<&str>) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let sql = "SELECT name, sql, tbl_name FROM main.sqlite_schema WHERE type = ?1 AND sql IS NOT NULL ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([kind], |row| {
        let sql = row.get_ref(1)?.as_bytes().unwrap_or_default().to_vec();
        Ok((name_at(row, 0)?, sql, name_at(row, 2)?))
    })?;
    let is_wanted = |of: &str| table.is_none_or(|table| table.eq_ignore_ascii_case(of));
    rows.filter_map(|row| match row {
        Ok((name, sql, of)) => is_wanted(&of).then_some(Ok((name, sql))),
        Err(error) => Some(Err(error)),
    })
    .collect()
}

/// The place where a table keeps its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredRows {
    /// In the table itself.
    InTable,
    /// In a full-text index, with rowids of its own.
    InFullTextIndex,
    /// In another table, or nowhere: a full-text index with the option `content`.
    Elsewhere,
}

/// Returns the place of the rows of the table that a statement creates.
pub(super) fn stored_rows(statement: &[u8]) -> StoredRows {
    let tokens = tokens(statement);
    match (module(&tokens), content(&tokens)) {
        (_, Some(_)) => StoredRows::Elsewhere,
        (Some((name, _)), None) if ["fts3", "fts4", "fts5"].iter().any(|fts| name.eq_ignore_ascii_case(fts)) => {
            StoredRows::InFullTextIndex
        }
        _ => StoredRows::InTable,
    }
}

/// Returns true if a statement creates an R-tree.
pub(super) fn is_rtree(statement: &[u8]) -> bool {
    let tokens = tokens(statement);
    let names = ["rtree", "rtree_i32"];
    module(&tokens).is_some_and(|(module, _)| names.iter().any(|name| module.eq_ignore_ascii_case(name)))
}

/// Reads the statement of a virtual table. Returns the index and the name of its content, if it is a full-text index
/// with content elsewhere.
fn full_text(name: &str, statement: &[Token]) -> Option<(FullText, String)> {
    let (module, _) = module(statement)?;
    let content = content(statement).filter(|content| !content.is_empty())?;
    Some((FullText { name: name.to_owned(), is_fts5: module.eq_ignore_ascii_case("fts5") }, content))
}

/// Returns the full-text indexes of `main` that show rows of another table or view, with its name.
pub(super) fn external_contents(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let found = statements(connection, "table", None)?.into_iter();
    Ok(found.filter_map(|(name, sql)| full_text(&name, &tokens(&sql)).map(|(_, content)| (name, content))).collect())
}

/// Returns the full-text indexes of `main` without an entry whose content, another table or view, has rows. Each is
/// returned with the name of its content. A search in such an index finds nothing.
pub(super) fn emptied_indexes(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let has_rows = |table: &str| -> Option<bool> {
        let sql = [b"SELECT 1 FROM main.", &quote(table)[..], b" LIMIT 1"].concat();
        rows::Rows::query(connection, &sql).and_then(|mut rows| rows.step()).ok()
    };
    let is_emptied = |index: &str, content: &str| {
        // One entry for each row. An index can be without these, but then it has segments.
        let entries = ["_docsize", "_idx", "_segdir"].iter().find_map(|ending| has_rows(&format!("{index}{ending}")));
        entries == Some(false) && has_rows(content) == Some(true)
    };
    let found = external_contents(connection)?.into_iter();
    Ok(found.filter(|(index, content)| is_emptied(index, content)).collect())
}

/// Returns true if a table of `main` is a full-text index that stores no content: its option `content` is empty.
pub(super) fn is_without_content(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1")?;
    let mut rows = statement.query([Name::of(table)])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    Ok(content(&tokens(row.get_ref(0)?.as_bytes().unwrap_or_default())).is_some_and(|content| content.is_empty()))
}

/// Returns the module of a virtual table, and its arguments.
fn module(statement: &[Token]) -> Option<(&str, &[Token])> {
    if !(statement.first()?.is("create") && statement.get(1)?.is("virtual")) {
        return None;
    }
    let at = statement.iter().position(|token| token.is("using"))? + 1;
    Some((statement.get(at)?.name()?, &statement[at + 1..]))
}

/// Returns the option `content` of a full-text index; empty if it stores no rows.
fn content(statement: &[Token]) -> Option<String> {
    let (module, arguments) = module(statement)?;
    if !["fts4", "fts5"].iter().any(|fts| module.eq_ignore_ascii_case(fts)) {
        return None;
    }
    arguments.windows(4).find_map(|window| match window {
        [Token::Symbol(b'(' | b','), key, Token::Symbol(b'='), value] if key.is("content") => {
            Some(value.name().unwrap_or_default().to_owned())
        }
        _ => None,
    })
}

/// Returns true if `content` is one of the tables, or a view whose rows come from one.
fn reads_from(connection: &Connection, content: &str, tables: &[&str]) -> rusqlite::Result<bool> {
    let is_one = |name: &str| tables.iter().any(|table| table.eq_ignore_ascii_case(name));
    let views = statements(connection, "view", None)?;
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![content.to_owned()]);
    while let Some(name) = waiting.pop() {
        if is_one(&name) {
            return Ok(true);
        }
        let view = views.iter().find(|(view, _)| view.eq_ignore_ascii_case(&name));
        if let Some((_, sql)) = view.filter(|_| seen.insert(name.to_lowercase())) {
            waiting.extend(tokens(sql).iter().filter_map(Token::name).map(str::to_owned));
        }
    }
    Ok(false)
}

impl FullText {
    /// Returns true if the index holds exactly the words of its content, as SQLite's own check finds. Returns false
    /// also if that cannot be checked here.
    pub(super) fn agrees(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let name = quote(&self.name);
        let check = match self.is_fts5 {
            // With 1, the index is compared with content elsewhere too.
            true => [b"INSERT INTO main.", &name[..], b"(", &name, b", rank) VALUES ('integrity-check', 1)"].concat(),
            false => [b"INSERT INTO main.", &name[..], b"(", &name, b") VALUES ('integrity-check')"].concat(),
        };
        match rows::run(connection, &check) {
            Ok(()) => Ok(true),
            Err(error) if is_circumstance(&error) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Builds the index again from its content, and checks it. Returns the reason if that is not possible here; then
    /// the index is as before.
    pub(super) fn rebuild(&self, connection: &Connection) -> rusqlite::Result<Result<(), String>> {
        let savepoint = |words: &[u8]| rows::run(connection, words);
        savepoint(b"SAVEPOINT lifeboat_rebuild")?;
        let name = quote(&self.name);
        let rebuild = [b"INSERT INTO main.", &name[..], b"(", &name, b") VALUES ('rebuild')"].concat();
        let done = match rows::run(connection, &rebuild) {
            Ok(()) if self.agrees(connection)? => Ok(()),
            Ok(()) => Err("it differs from its content after that".to_owned()),
            Err(error) if is_circumstance(&error) => return Err(error),
            Err(error) => Err(one_line(&sqlite_message(&error))),
        };
        if done.is_err() {
            savepoint(b"ROLLBACK TO lifeboat_rebuild")?;
        }
        savepoint(b"RELEASE lifeboat_rebuild")?;
        Ok(done)
    }

    /// Returns the statement that builds the index again.
    pub(super) fn rebuild_statement(&self) -> String {
        let name = super::names::readable_text(&quote(&self.name));
        format!("INSERT INTO {name}({name}) VALUES ('rebuild');")
    }
}

/// Lists the triggers of a table of `main` that write to other tables than those in `restored`, with the tables that
/// exist.
pub(super) fn skipped_triggers(
    connection: &Connection,
    table: &str,
    restored: &[&str],
) -> rusqlite::Result<Vec<SkippedTrigger>> {
    let is_restored = |name: &str| restored.iter().any(|other| other.eq_ignore_ascii_case(name));
    let mut found = Vec::new();
    for (name, sql) in statements(connection, "trigger", Some(table))? {
        let mut writes: Vec<String> = written_by(&tokens(&sql)).into_iter().filter(|name| !is_restored(name)).collect();
        let mut exists = connection
            .prepare("SELECT 1 FROM main.sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE")?;
        let existing: Vec<bool> =
            writes.iter().map(|name| exists.exists([Name::of(name)])).collect::<rusqlite::Result<_>>()?;
        let mut existing = existing.into_iter();
        writes.retain(|_| existing.next().unwrap_or_default());
        if !writes.is_empty() {
            found.push(SkippedTrigger { name, table: table.to_owned(), writes });
        }
    }
    Ok(found)
}

/// Returns the names of the tables that the statements of a trigger write, each once.
pub(super) fn written_by(trigger: &[Token]) -> Vec<String> {
    let start = trigger.iter().position(|token| token.is("begin")).map_or(trigger.len(), |at| at + 1);
    let mut names: Vec<String> = Vec::new();
    for (at, token) in trigger.iter().enumerate().skip(start) {
        let word = |offset: usize| trigger.get(at + offset);
        let is_statement = at == start || matches!(trigger.get(at - 1), Some(Token::Symbol(b';')));
        let place = if token.is("into") || (token.is("from") && trigger.get(at - 1).is_some_and(|t| t.is("delete"))) {
            1
        } else if token.is("update") && is_statement {
            // UPDATE OR IGNORE t
            if word(1).is_some_and(|token| token.is("or")) { 3 } else { 1 }
        } else {
            continue;
        };
        // A name can be qualified by its schema.
        let place = if matches!(word(place + 1), Some(Token::Symbol(b'.'))) { place + 2 } else { place };
        if let Some(name) = word(place).and_then(Token::name)
            && !names.iter().any(|other| other.eq_ignore_ascii_case(name))
        {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sql: &str) -> Vec<String> {
        written_by(&tokens(sql.as_bytes()))
    }

    #[test]
    fn the_tables_that_a_trigger_writes_are_found() {
        let sql = "CREATE TRIGGER \"begin\" AFTER UPDATE OF a ON t WHEN new.a IN (SELECT b FROM u) BEGIN \
                   INSERT INTO docs_fts(docs_fts, rowid) VALUES ('delete', old.id); \
                   insert or replace into [log 1] select 'insert into no' from x; REPLACE INTO main.r VALUES (1); \
                   UPDATE OR IGNORE counts SET n = n + 1; UPDATE \"t\" SET a = 1; DELETE FROM `gone` WHERE 1; \
                   INSERT INTO v VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2; SELECT raise(abort, 'x'); END";
        assert_eq!(written(sql), ["docs_fts", "log 1", "r", "counts", "t", "gone", "v"]);
        assert_eq!(written("CREATE TRIGGER x BEFORE DELETE ON t BEGIN UPDATE u SET a = 1; END"), ["u"]);
        assert_eq!(written("CREATE TRIGGER x DELETE ON t BEGIN SELECT raise(fail, ''); END"), [""; 0]);
    }

    #[test]
    fn only_indexes_with_content_elsewhere_are_rebuilt() {
        let content = |sql: &str| full_text("x", &tokens(sql.as_bytes())).map(|(_, content)| content);
        for sql in [
            "CREATE VIRTUAL TABLE x USING fts5(a, b UNINDEXED, content='docs', content_rowid='id')",
            "create virtual table if not exists main.x using FTS5(a, content = \"docs\")",
            "CREATE VIRTUAL TABLE x USING fts4(content=docs, a)",
            "CREATE VIRTUAL TABLE x USING fts5(content=[docs],a,tokenize='porter unicode61')",
        ] {
            assert_eq!(content(sql).as_deref(), Some("docs"), "{sql}");
        }
        for sql in [
            "CREATE VIRTUAL TABLE x USING fts5(a, content)",
            "CREATE VIRTUAL TABLE x USING fts5(a, content='')",
            "CREATE VIRTUAL TABLE x USING fts5(a, tokenize = \"content = docs\")",
            "CREATE VIRTUAL TABLE x USING rtree(id, content='docs')",
            "CREATE TABLE x(a, content='docs')",
        ] {
            assert_eq!(content(sql), None, "{sql}");
        }
        assert_eq!(stored_rows(b"CREATE VIRTUAL TABLE x USING fts5(a, content='')"), StoredRows::Elsewhere);
        assert_eq!(stored_rows(b"CREATE VIRTUAL TABLE x USING fts4(a, content=)"), StoredRows::Elsewhere);
        assert_eq!(stored_rows(b"CREATE VIRTUAL TABLE x USING fts3(a)"), StoredRows::InFullTextIndex);
        assert_eq!(stored_rows(b"CREATE TABLE x(a, content='')"), StoredRows::InTable);
    }
}
