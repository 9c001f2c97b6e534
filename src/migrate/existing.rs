//! The tables that the target has already, as the app's own migrations or a person have made them.

use std::collections::BTreeSet;

use super::plan::TablePlan;
use super::{ddl, state};
use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::{Error, Result};

/// An item of FROM with the type of a column `a`, a row of pg_attribute, and its modifier: those under a domain, if it is of
/// one. The values of a domain are converted like those of its type.
pub(crate) const TYPE_OF_COLUMN: &str = "
    LATERAL (WITH RECURSIVE types AS (
                 SELECT t.oid, a.atttypmod AS modifier, t.typbasetype, t.typtypmod FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
                  UNION ALL SELECT t.oid, d.typtypmod, t.typbasetype, t.typtypmod
                   FROM types d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype)
             SELECT oid, modifier FROM types WHERE typbasetype = 0) b";

/// The relations of a schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExistingSchema {
    /// The names of all relations: tables, views, indexes, sequences.
    pub names: BTreeSet<String>,
    /// The tables, and the views and foreign tables, whose names a new table cannot have.
    relations: Vec<ExistingTable>,
}

/// A relation that has rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExistingTable {
    /// Its name, unquoted.
    pub name: String,
    /// The word for its kind if rows cannot be loaded into it: a view, a materialized view or a foreign table.
    pub other_kind: Option<&'static str>,
    /// The columns in their order.
    pub columns: Vec<ExistingColumn>,
    /// The columns of the primary key; empty if there is none.
    pub primary_key: Vec<String>,
    /// The names and columns of unique constraints, and of unique indexes on all rows that are no constraint.
    pub uniques: Vec<(String, Vec<String>)>,
    /// The enabled triggers of users that fire for new rows.
    pub triggers: Vec<String>,
    /// The privileges among SELECT, INSERT and DELETE that the role lacks.
    pub lacking: Vec<String>,
}

/// A column of an existing table.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExistingColumn {
    /// Its name, unquoted.
    pub name: String,
    /// Its type, as PostgreSQL writes it.
    pub target_type: String,
    /// True if NULL is refused.
    pub not_null: bool,
    /// True if a row gets a value without naming the column.
    pub has_default: bool,
    /// True if the server computes the values.
    pub is_generated: bool,
    /// True if a sequence counts its values.
    pub is_counted: bool,
    /// That sequence, if the role may not move it.
    pub fixed_sequence: Option<String>,
}

impl ExistingSchema {
    /// Reads a schema. It is empty if it does not exist.
    pub(crate) fn read(session: &mut Session, schema: &str) -> Result<Self> {
        let found = session.rows(&format!(
            "SELECT c.relname AS name, c.relkind::text AS kind,
                    to_json(ARRAY(SELECT t.tgname FROM pg_catalog.pg_trigger t
                                   WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
                                     AND t.tgtype & 4 <> 0 ORDER BY 1)) AS triggers,
                    to_json(ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS p
                                   WHERE c.relkind IN ('r', 'p') AND NOT pg_catalog.has_table_privilege(c.oid, p))) AS lacking
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = {} ORDER BY c.relname",
            literal(schema)
        ))?;
        let mut read = ExistingSchema::default();
        for row in &found {
            let name = row.text("name")?.to_owned();
            read.names.insert(name.clone());
            let other_kind = match row.text("kind")? {
                "r" | "p" => None,
                "v" => Some("a view"),
                "m" => Some("a materialized view"),
                "f" => Some("a foreign table"),
                _ => continue,
            };
            let (triggers, lacking) = (row.list("triggers")?, row.list("lacking")?);
            read.relations.push(ExistingTable { name, other_kind, triggers, lacking, ..ExistingTable::default() });
        }
        read.read_columns(session, schema)?;
        read.read_keys(session, schema)?;
        Ok(read)
    }

    fn read_columns(&mut self, session: &mut Session, schema: &str) -> Result<()> {
        let rows = session.rows(&format!(
            "SELECT c.relname AS relation, a.attname AS name, pg_catalog.format_type(b.oid, b.modifier) AS type,
                    a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS not_null,
                    a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
                    a.attgenerated <> '' AS is_generated,
                    q.sequence IS NOT NULL AS is_counted,
                    CASE WHEN NOT (pg_catalog.has_sequence_privilege(q.sequence, 'UPDATE')
                                   AND pg_catalog.has_sequence_privilege(q.sequence, 'SELECT')) THEN q.sequence END AS fixed
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
               CROSS JOIN {TYPE_OF_COLUMN}
               CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_serial_sequence(
                   pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname) AS sequence) q
              WHERE n.nspname = {} AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY c.relname, a.attnum",
            literal(schema)
        ))?;
        for row in &rows {
            let column = ExistingColumn {
                name: row.text("name")?.to_owned(),
                target_type: row.text("type")?.to_owned(),
                not_null: row.flag("not_null")?,
                has_default: row.flag("has_default")?,
                is_generated: row.flag("is_generated")?,
                is_counted: row.flag("is_counted")?,
                fixed_sequence: row.owned("fixed")?,
            };
            if let Some(table) = self.relation_of(row)? {
                table.columns.push(column);
            }
        }
        Ok(())
    }

    fn read_keys(&mut self, session: &mut Session, schema: &str) -> Result<()> {
        let rows = session.rows(&format!(
            "SELECT c.relname AS relation, x.relname AS name, i.indisprimary AS is_primary,
                    to_json(ARRAY(SELECT a.attname FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(number, place)
                                    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                                   WHERE k.place <= i.indnkeyatts ORDER BY k.place)) AS columns
               FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
               JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = {} AND c.relkind IN ('r', 'p') AND i.indisunique AND i.indpred IS NULL
                AND NOT 0 = ANY (i.indkey::smallint[]) ORDER BY c.relname, x.relname",
            literal(schema)
        ))?;
        for row in &rows {
            let (is_primary, name, columns) =
                (row.flag("is_primary")?, row.text("name")?.to_owned(), row.list("columns")?);
            let Some(table) = self.relation_of(row)? else { continue };
            if is_primary {
                table.primary_key = columns;
            } else {
                table.uniques.push((name, columns));
            }
        }
        Ok(())
    }

    fn relation_of(&mut self, row: &Row) -> Result<Option<&mut ExistingTable>> {
        let name = row.text("relation")?;
        Ok(self.relations.iter_mut().find(|table| table.name == name))
    }

    /// Returns the table that has the name of a table of a file, as it is written there, in lower case, or written in
    /// another case.
    #[must_use]
    pub(crate) fn table(&self, source: &str) -> Option<&ExistingTable> {
        let found = same_name(source, self.relations.iter().map(|table| table.name.as_str()))?;
        self.relations.iter().find(|table| table.name == found)
    }
}

impl ExistingTable {
    /// Returns the column that has the name of a column of a file, under the same rules as the table.
    #[must_use]
    pub(crate) fn column(&self, source: &str) -> Option<&ExistingColumn> {
        let found = same_name(source, self.columns.iter().map(|column| column.name.as_str()))?;
        self.columns.iter().find(|column| column.name == found)
    }
}

/// Returns the name that equals `wanted`, or that equals it in lower case, or the only one that differs in case alone.
fn same_name<'a>(wanted: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let folded = wanted.to_lowercase();
    let exact = |text: &str| names.clone().find(|name| *name == text);
    exact(wanted).or_else(|| exact(&folded)).or_else(|| {
        let mut like = names.clone().filter(|name| name.to_lowercase() == folded);
        like.next().filter(|_| like.next().is_none())
    })
}

/// Fails if an existing table cannot be filled by this plan, because it has rows or is another plan's.
pub(crate) fn require_empty(session: &mut Session, plan: &str, table: &TablePlan) -> Result<()> {
    if state::has_notes(session)? {
        state::require_no_other(session, plan, &table.schema, &table.name)?;
    }
    if session.row(&format!("SELECT EXISTS (SELECT FROM {}) AS rows", ddl::target(table)))?.flag("rows")? {
        return Err(Error::usage(format!("{} already exists and has rows", table.shown_target())).hint(
            "existing rows are never overwritten: empty the table if they are only those that the app makes itself, \
                 remove it from the plan, or give it another name or schema there",
        ));
    }
    Ok(())
}

/// Returns the schema of TimescaleDB's functions, or `None` if TimescaleDB is not installed.
pub(crate) fn timescale(session: &mut Session) -> Result<Option<String>> {
    let rows = session.rows(
        "SELECT n.nspname AS schema FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'",
    )?;
    rows.first().map(|row| row.text("schema").map(str::to_owned)).transpose()
}
