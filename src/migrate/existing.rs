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
    /// True if one of them can change a new row before it is stored.
    pub fills_rows: bool,
    /// The enabled rules for new rows.
    pub rules: Vec<String>,
    /// The tables of the schema of which it is a partition or an heir.
    pub ancestors: Vec<String>,
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
    /// The sequence that counts its values, if any.
    pub sequence: Option<Sequence>,
}

/// A sequence that counts the values of a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    /// Its qualified name, quoted where that is needed.
    pub name: String,
    /// Its greatest number.
    pub greatest: i64,
    /// True if the role may take numbers from it; the server does not ask that for an identity column.
    pub may_be_used: bool,
    /// True if the role may move it.
    pub may_be_moved: bool,
}

/// An item of FROM with the oid of the sequence that counts a column `a`, a row of pg_attribute, or NULL: the sequence of an
/// identity column, or the one of a default of a whole number.
pub(crate) const SEQUENCE_OF_COLUMN: &str = "
    LATERAL (SELECT coalesce(
        pg_catalog.pg_get_serial_sequence(a.attrelid::pg_catalog.regclass::text, a.attname)::pg_catalog.regclass,
        (SELECT s.oid FROM pg_catalog.pg_attrdef d
           JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
           JOIN pg_catalog.pg_class s ON p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.oid = p.refobjid
          WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND s.relkind = 'S'
            AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%' AND a.atttypid IN (20, 21, 23) LIMIT 1)
        )::pg_catalog.oid AS sequence) q";

impl ExistingSchema {
    /// Reads a schema. It is empty if it does not exist.
    pub(crate) fn read(session: &mut Session, schema: &str) -> Result<Self> {
        let found = session.rows(&format!(
            "SELECT c.relname AS name, c.relkind::text AS kind,
                    to_json(ARRAY(SELECT t.tgname FROM pg_catalog.pg_trigger t
                                   WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
                                     AND t.tgtype & 4 <> 0 ORDER BY 1)) AS triggers,
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                               AND t.tgenabled IN ('O', 'A') AND t.tgtype & 7 = 7) AS fills_rows,
                    to_json(ARRAY(SELECT r.rulename FROM pg_catalog.pg_rewrite r
                                   WHERE r.ev_class = c.oid AND r.ev_type = '3' AND r.ev_enabled IN ('O', 'A') ORDER BY 1)) AS rules,
                    to_json(ARRAY(WITH RECURSIVE above AS (
                                      SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid
                                       UNION SELECT i.inhparent FROM above JOIN pg_catalog.pg_inherits i ON i.inhrelid = above.inhparent)
                                  SELECT p.relname FROM above JOIN pg_catalog.pg_class p ON p.oid = above.inhparent
                                   WHERE p.relkind IN ('r', 'p') AND p.relnamespace = n.oid)) AS ancestors,
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
            read.relations.push(ExistingTable {
                name,
                other_kind,
                triggers: row.list("triggers")?,
                fills_rows: row.flag("fills_rows")?,
                rules: row.list("rules")?,
                ancestors: row.list("ancestors")?,
                lacking: row.list("lacking")?,
                ..ExistingTable::default()
            });
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
                    q.sequence::pg_catalog.regclass::text AS sequence, s.seqmax AS greatest,
                    a.attidentity <> '' OR pg_catalog.has_sequence_privilege(q.sequence, 'USAGE')
                        OR pg_catalog.has_sequence_privilege(q.sequence, 'UPDATE') AS may_be_used,
                    pg_catalog.has_sequence_privilege(q.sequence, 'UPDATE')
                        AND pg_catalog.has_sequence_privilege(q.sequence, 'SELECT') AS may_be_moved
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
               CROSS JOIN {TYPE_OF_COLUMN}
               CROSS JOIN {SEQUENCE_OF_COLUMN} LEFT JOIN pg_catalog.pg_sequence s ON s.seqrelid = q.sequence
              WHERE n.nspname = {} AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY c.relname, a.attnum",
            literal(schema)
        ))?;
        for row in &rows {
            let sequence = match row.owned("sequence")? {
                None => None,
                Some(name) => Some(Sequence {
                    name,
                    greatest: row.number("greatest")?,
                    may_be_used: row.flag("may_be_used")?,
                    may_be_moved: row.flag("may_be_moved")?,
                }),
            };
            let column = ExistingColumn {
                name: row.text("name")?.to_owned(),
                target_type: row.text("type")?.to_owned(),
                not_null: row.flag("not_null")?,
                has_default: row.flag("has_default")?,
                is_generated: row.flag("is_generated")?,
                sequence,
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
    // Both databases fold only the letters of ASCII.
    let folded = wanted.to_ascii_lowercase();
    let exact = |text: &str| names.clone().find(|name| *name == text);
    exact(wanted).or_else(|| exact(&folded)).or_else(|| {
        let mut like = names.clone().filter(|name| name.eq_ignore_ascii_case(wanted));
        like.next().filter(|_| like.next().is_none())
    })
}

/// Returns the qualified name of the sequence that counts a column, or `None` if there is none.
pub(super) fn sequence_of(session: &mut Session, table: &TablePlan, column: &str) -> Result<Option<String>> {
    let rows = session.rows(&format!(
        "SELECT q.sequence::pg_catalog.regclass::text AS sequence FROM pg_catalog.pg_attribute a CROSS JOIN {SEQUENCE_OF_COLUMN}
          WHERE a.attrelid = {}::pg_catalog.regclass AND a.attname = {}",
        literal(&ddl::target(table)),
        literal(column)
    ))?;
    rows.first().map_or(Ok(None), |row| row.owned("sequence"))
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
