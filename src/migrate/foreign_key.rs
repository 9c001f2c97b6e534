//! Foreign keys between existing tables that a run fills: those that the server enforces, and those that are dropped for the
//! time of the load.

use std::collections::BTreeMap;

use super::ddl;
use super::plan::{Plan, TablePlan};
use super::state::SCHEMA;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::{Result, one_line};

/// A foreign key between two tables that the run fills.
#[derive(Clone, Debug)]
pub(super) struct ForeignKey {
    /// The number of its note; 0 if the key was not dropped.
    pub(super) number: u64,
    /// The referencing table: schema and name.
    pub(super) table: (String, String),
    /// The referenced table.
    pub(super) parent: (String, String),
    /// Its name.
    pub(super) name: String,
    /// Its definition, as `ADD CONSTRAINT` takes it.
    pub(super) definition: String,
    /// Its comment.
    pub(super) comment: Option<String>,
    /// The referencing columns.
    pub(super) columns: Vec<String>,
    /// The referenced columns.
    pub(super) referenced: Vec<String>,
    /// The operators that compare a referenced column with a referencing one, as statements write them.
    pub(super) operators: Vec<String>,
    /// True for MATCH FULL: either all or none of the columns are NULL.
    pub(super) is_full: bool,
}

/// The columns of a query on `k`, the constraint, that [`ForeignKey::read`] reads.
const COLUMNS: &str = "
    n.nspname AS schema, c.relname AS relation, pn.nspname AS parent_schema, p.relname AS parent, k.conname AS name,
    pg_catalog.pg_get_constraintdef(k.oid) AS definition, pg_catalog.obj_description(k.oid, 'pg_constraint') AS comment,
    k.confmatchtype = 'f' AS is_full,
    to_json(ARRAY(SELECT pg_catalog.format('OPERATOR(%I.%s)', m.nspname, o.oprname)
                    FROM unnest(k.conpfeqop) WITH ORDINALITY AS x(number, place)
                    JOIN pg_catalog.pg_operator o ON o.oid = x.number JOIN pg_catalog.pg_namespace m ON m.oid = o.oprnamespace
                   ORDER BY x.place)) AS operators,
    to_json(ARRAY(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY AS x(number, place)
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.number ORDER BY x.place)) AS columns,
    to_json(ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY AS x(number, place)
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = x.number ORDER BY x.place)) AS referenced";

/// The condition for constraints `k` that are foreign keys which the server enforces. A partition's copy of a key is left out.
const IS_ENFORCED: &str = "
    k.contype = 'f' AND k.conparentid = 0
    -- From version 18 on, a key may be noted only.
    AND pg_catalog.pg_get_constraintdef(k.oid) NOT LIKE '% NOT ENFORCED'
    -- Somebody has disabled its triggers.
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled <> 'O')";

/// The relations that [`COLUMNS`] needs.
const RELATIONS: &str = "
    pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace";

/// Returns the foreign keys between the existing tables of a plan, each with true if it may be dropped while rows are loaded:
/// the role may create it again, and no key that stays refers to its table. Rows that violate a dropped key are deleted, and a
/// key that stays would delete or change the rows that refer to them.
pub(super) fn between(session: &mut Session, plan: &Plan) -> Result<Vec<(ForeignKey, bool)>> {
    let names: Vec<String> =
        plan.tables.iter().map(|table| format!("pg_catalog.to_regclass({})", literal(&ddl::target(table)))).collect();
    let tables = format!("ARRAY[{}]::pg_catalog.regclass[]", names.join(", "));
    let rows = session.rows(&format!(
        "SELECT {COLUMNS}, pg_catalog.pg_has_role(c.relowner, 'USAGE')
                    AND pg_catalog.has_table_privilege(k.confrelid, 'REFERENCES')
                    -- The server could merge a key of a partitioned table with those of its partitions.
                    AND c.relkind = 'r' AND NOT c.relispartition AS may_change
           FROM {RELATIONS} WHERE {IS_ENFORCED} AND k.conrelid = ANY ({tables}) AND k.confrelid = ANY ({tables})
          ORDER BY k.oid"
    ))?;
    let mut keys: Vec<(ForeignKey, bool)> = Vec::new();
    for row in &rows {
        let key = ForeignKey::read(row, 0)?;
        // Rows are compared by the values that are loaded.
        let is_loaded = plan.tables.iter().filter(|table| key.is_of(table)).all(|table| key.is_loaded(table));
        let may_change = is_loaded && row.flag("may_change")?;
        keys.push((key, may_change));
    }
    while let Some(place) = keys.iter().position(|(key, may_change)| {
        *may_change && keys.iter().any(|(other, may_change)| !may_change && other.parent == key.table)
    }) {
        keys[place].1 = false;
    }
    Ok(keys)
}

/// Returns the enforced foreign keys of other tables that refer to this table now.
pub(super) fn referring(session: &mut Session, table: &(String, String)) -> Result<Vec<ForeignKey>> {
    let rows = session.rows(&format!(
        "SELECT {COLUMNS} FROM {RELATIONS} WHERE {IS_ENFORCED} AND k.confrelid = pg_catalog.to_regclass({}) AND c.oid <> p.oid
          ORDER BY k.oid",
        literal(&qualified(&table.0, &table.1))
    ))?;
    rows.iter().map(|row| ForeignKey::read(row, 0)).collect()
}

/// Returns the foreign keys between existing tables of the plan that are enforced during the load.
pub(super) fn enforced(session: &mut Session, plan: &Plan) -> Result<Vec<ForeignKey>> {
    Ok(between(session, plan)?.into_iter().map(|(key, _)| key).collect())
}

/// Returns the keys that were dropped and are not created again yet.
pub(super) fn dropped(session: &mut Session, plan: &str) -> Result<Vec<ForeignKey>> {
    let rows = session.rows(&format!("SELECT * FROM {SCHEMA}.keys WHERE plan = {} ORDER BY number", literal(plan)))?;
    rows.iter().map(|row| ForeignKey::read(row, row.number("number")?)).collect()
}

/// Returns the level of each table of the plan: a table is loaded after those of lower levels, which it refers to. Tables
/// that refer to each other have the same level.
pub(super) fn levels<'a>(plan: &Plan, keys: impl Iterator<Item = &'a ForeignKey>) -> Vec<usize> {
    let mut levels: BTreeMap<(String, String), usize> = BTreeMap::new();
    let name = |(schema, name): &'_ (String, String)| (schema.clone(), name.clone());
    let edges = keys.filter(|key| key.table != key.parent).map(|key| (name(&key.table), name(&key.parent)));
    let edges: Vec<_> = edges.collect();
    // Longer chains than there are tables belong to a cycle, in which no order is right.
    for _ in 0..plan.tables.len() {
        let mut is_same = true;
        for (table, parent) in &edges {
            let above = levels.get(parent).copied().unwrap_or(0) + 1;
            let level = levels.entry(table.clone()).or_default();
            if *level < above && above < plan.tables.len() {
                (*level, is_same) = (above, false);
            }
        }
        if is_same {
            break;
        }
    }
    plan.tables
        .iter()
        .map(|table| levels.get(&(table.schema.clone(), table.name.clone())).copied().unwrap_or(0))
        .collect()
}

impl ForeignKey {
    fn read(row: &Row, number: u64) -> Result<Self> {
        Ok(ForeignKey {
            number,
            table: (row.text("schema")?.to_owned(), row.text("relation")?.to_owned()),
            parent: (row.text("parent_schema")?.to_owned(), row.text("parent")?.to_owned()),
            name: row.text("name")?.to_owned(),
            definition: row.text("definition")?.to_owned(),
            comment: row.owned("comment")?,
            columns: row.list("columns")?,
            referenced: row.list("referenced")?,
            operators: row.list("operators")?,
            is_full: row.flag("is_full")?,
        })
    }

    /// Returns `NAME of SCHEMA.TABLE`, for messages.
    pub(super) fn shown(&self) -> String {
        format!("{} of {}", one_line(&self.name), one_line(&format!("{}.{}", self.table.0, self.table.1)))
    }

    /// Returns true if this is a key of the table that a table of the plan fills.
    pub(super) fn is_of(&self, table: &TablePlan) -> bool {
        (&self.table.0, &self.table.1) == (&table.schema, &table.name)
    }

    /// Returns true if a table of the plan loads all columns of the key that are its own.
    pub(super) fn is_loaded(&self, table: &TablePlan) -> bool {
        let referenced = self.referenced.iter().filter(|_| self.table == self.parent);
        self.columns.iter().chain(referenced).all(|name| table.column(name).is_some())
    }

    /// Returns the reason for rejecting a row that refers to a missing row.
    pub(super) fn reason(&self) -> String {
        let parent = format!("{}.{}", self.parent.0, self.parent.1);
        format!("the foreign key {} finds no row in {}", one_line(&self.name), one_line(&parent))
    }

    /// Returns the condition for a staged row, `s`, that refers to another staged row. Only for a key that refers to its own
    /// table.
    pub(super) fn is_staged_too(&self, mut column: impl FnMut(&str) -> Result<String>) -> Result<String> {
        let mut same = Vec::new();
        for ((own, referenced), operator) in self.columns.iter().zip(&self.referenced).zip(&self.operators) {
            same.push(format!("lifeboat_t.{} {operator} s.{}", column(referenced)?, column(own)?));
        }
        Ok(format!("EXISTS (SELECT FROM pg_temp.lifeboat_stage lifeboat_t WHERE {})", same.join(" AND ")))
    }

    /// Returns the condition for a row of the referenced table and a row of the referencing one, with these names, that the
    /// key connects.
    pub(super) fn connects(&self, parent: &str, row: &str) -> String {
        let columns = self.referenced.iter().zip(&self.operators).zip(&self.columns);
        let same = columns.map(|((referenced, operator), own)| {
            format!("{parent}.{} {operator} {row}.{}", ident(referenced), ident(own))
        });
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// Returns the quoted name of the referencing table.
    pub(super) fn relation(&self) -> String {
        qualified(&self.table.0, &self.table.1)
    }

    /// Creates the key again, and removes its note. Returns a remark if others have dropped the table or created the key. Must be
    /// called in a transaction.
    pub(super) fn create(&self, session: &mut Session) -> Result<Option<String>> {
        let (relation, name) = (self.relation(), ident(&self.name));
        let found = session.row(&format!(
            "SELECT pg_catalog.to_regclass({relation}) IS NULL OR pg_catalog.to_regclass({parent}) IS NULL AS is_gone,
                    EXISTS (SELECT FROM pg_catalog.pg_constraint
                             WHERE conrelid = pg_catalog.to_regclass({relation}) AND conname = {}) AS is_there",
            literal(&self.name),
            relation = literal(&relation),
            parent = literal(&qualified(&self.parent.0, &self.parent.1))
        ))?;
        let (is_gone, is_there) = (found.flag("is_gone")?, found.flag("is_there")?);
        if is_gone || is_there {
            session.execute(&format!("DELETE FROM {SCHEMA}.keys WHERE number = {}", self.number))?;
            let why = if is_gone { "its table is gone" } else { "another program has created it" };
            return Ok(Some(format!("the foreign key {} was not created again: {why}", self.shown())));
        }
        session.execute(&format!("ALTER TABLE {relation} ADD CONSTRAINT {name} {}", self.definition))?;
        if let Some(comment) = &self.comment {
            session.execute(&format!("COMMENT ON CONSTRAINT {name} ON {relation} IS {}", literal(comment)))?;
        }
        session.execute(&format!("DELETE FROM {SCHEMA}.keys WHERE number = {}", self.number))?;
        Ok(None)
    }

    /// Returns the condition for a row that refers to a missing row. `column` writes a column of the row.
    pub(super) fn is_violated(&self, mut column: impl FnMut(&str) -> Result<String>) -> Result<String> {
        let own = self.columns.iter().map(|name| column(name)).collect::<Result<Vec<_>>>()?;
        let same: Vec<String> = self
            .referenced
            .iter()
            .zip(&self.operators)
            .zip(&own)
            .map(|((name, operator), own)| format!("lifeboat_p.{} {operator} {own}", ident(name)))
            .collect();
        let all =
            |word: &str, glue: &str| own.iter().map(|own| format!("{own} IS {word}")).collect::<Vec<_>>().join(glue);
        let missing = format!(
            "({} AND NOT EXISTS (SELECT FROM {} lifeboat_p WHERE {}))",
            all("NOT NULL", " AND "),
            qualified(&self.parent.0, &self.parent.1),
            same.join(" AND ")
        );
        Ok(match self.is_full {
            true => format!("({missing} OR (({}) AND ({})))", all("NULL", " OR "), all("NOT NULL", " OR ")),
            false => missing,
        })
    }
}
