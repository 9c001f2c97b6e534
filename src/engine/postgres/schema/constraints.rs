//! Constraints that are created after the rows are loaded: keys, exclusion constraints, foreign keys, constraints that
//! are not validated, and checks that may read other tables.

use std::collections::HashMap;

use crate::engine::postgres::schema::indexes::{self, Settings};
use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::options::{self, ObjectKind};
use crate::engine::postgres::schema::relation::{self, CALLS_A_FUNCTION, TABLE_NAMES, USER_RELATIONS, letter};
use crate::engine::postgres::schema::{Reader, quote};
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// Queries the constraints.
fn query(reader: &mut Reader<'_>) -> Result<Vec<Row>> {
    reader.rows(&format!(
        "SELECT k.oid, k.conname AS name, k.contype AS type, pg_catalog.pg_get_constraintdef(k.oid) AS definition,
                k.conindid AS index, x.indisexclusion AND parent.oid IS NOT NULL AS copied, x.indisexclusion AS excludes,
                parent.oid AS parent, parent.conname AS parent_name,
                pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.relname) AS parent_table,
                {TABLE_NAMES}, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
                {} AS options, {} AS unsettable, ip.spcname AS tablespace
           FROM pg_catalog.pg_constraint k
           JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_class i ON i.oid = k.conindid AND k.contype IN ('p', 'u', 'x')
           LEFT JOIN pg_catalog.pg_am m ON m.oid = i.relam
           LEFT JOIN pg_catalog.pg_tablespace ip ON ip.oid = i.reltablespace
           LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = i.oid
           LEFT JOIN pg_catalog.pg_constraint parent ON parent.oid = k.conparentid
           LEFT JOIN pg_catalog.pg_class t ON t.oid = parent.conrelid
           LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
          WHERE (k.contype IN ('p', 'u', 'x') OR k.contype = 'f' AND k.conparentid = 0
                 OR k.contype IN ('c', 'n') AND NOT k.convalidated AND k.conislocal OR {CALLS_A_FUNCTION})
            AND {USER_RELATIONS}
          ORDER BY k.oid",
        relation::options("i.reloptions", "", &options::is_settable_by_method(ObjectKind::Index, reader.version())),
        options::unsettable_of_index("i.reloptions", reader.version()),
    ))
}

/// Reads the constraints.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let settings = indexes::settings(reader)?;
    let children = relation::children(reader)?;
    let rows = query(reader)?;
    // The foreign key of a partitioned table creates its copies on the partitions.
    let copies = reader.rows(
        "SELECT oid, conparentid AS parent FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid <> 0",
    )?;
    for row in &copies {
        let parent = Address::new(catalogs::CONSTRAINT, row.number("parent")?);
        reader.aliases.insert(Address::new(catalogs::CONSTRAINT, row.number("oid")?), parent);
    }
    let mut last_key: HashMap<u32, Address> = HashMap::new();
    for row in &rows {
        let name = row.text("name")?;
        let (quoted, table) = (quote::ident(name), row.text("table_qualified")?);
        let kind = letter(row, "table_kind")?.unwrap_or('r');
        let word = relation::word(kind);
        let definition = row.text("definition")?;
        let address = Address::new(catalogs::CONSTRAINT, row.number("oid")?);
        let (object_kind, only) = match row.text("type")? {
            // A foreign key of a partitioned table applies to all its partitions.
            "f" => (Kind::ForeignKey, kind != 'p'),
            // The constraint is created on tables that inherit, too.
            "c" | "n" => (Kind::Check, false),
            // Indexes of exclusion constraints cannot be attached: the partitioned table's constraint creates those of
            // the partitions.
            _ => (Kind::Constraint, !(kind == 'p' && row.flag("excludes")?)),
        };
        let mut object = Object::new(address, object_kind, Some(row.text("schema")?), name).at(Section::Post);
        object.identity = format!("CONSTRAINT {quoted} ON {table}");
        object.table = Some(Address::new(catalogs::CLASS, row.number("table_oid")?));
        object.owner = row.owned("owner")?;
        let index: u32 = row.number("index")?;
        let definition = match object_kind {
            Kind::Constraint => {
                reader.aliases.insert(Address::new(catalogs::CLASS, index), address);
                let definition = options::only_settable(definition, &row.list("unsettable")?);
                with_options(&definition, row.text("type")?, row.get("options")?)
            }
            _ => definition.to_owned(),
        };
        let only_this = reader.only(row.number("table_oid")?);
        let only = if only { only_this } else { "" };
        object.create = if row.flag("copied")? {
            object.needs.push(Address::new(catalogs::CONSTRAINT, row.number("parent")?));
            vec![rename(table, name, row.text("parent_table")?, row.text("parent_name")?)]
        } else {
            vec![format!("ALTER {word} {only}{table} ADD CONSTRAINT {quoted} {definition}")]
        };
        if object_kind == Kind::Constraint {
            let index_name = quote::qualified(row.text("schema")?, name);
            let settings = settings
                .get(&index)
                .map(|settings: &Settings| settings.statements(only_this, table, name, &index_name));
            object.create.extend(settings.into_iter().flatten());
            object.tablespace = row.owned("tablespace")?;
        }
        if object_kind == Kind::ForeignKey {
            // A foreign key can reference a key of a partitioned table only after all indexes of the partitions are
            // attached.
            for part in relation::descendants(&children, index) {
                object.needs.push(Address::new(catalogs::INHERITS, part));
                object.needs.extend(reader.aliases.get(&Address::new(catalogs::CLASS, part)));
            }
            // The server also creates constraints for these partitions, and chooses their names. Keeping the order of
            // creation keeps the names.
            object.needs.extend(last_key.insert(row.number("table_oid")?, address));
        }
        reader.add(object);
    }
    Ok(())
}

/// Renames the constraint that a partition got from its parent table, so that it has the same name as in the source.
fn rename(table: &str, name: &str, parent_table: &str, parent_name: &str) -> String {
    let current_name = format!(
        "SELECT k.conname FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_constraint p ON p.oid = k.conparentid \
         WHERE k.conrelid = {}::pg_catalog.regclass AND p.conrelid = {}::pg_catalog.regclass AND p.conname = {}",
        quote::literal(table),
        quote::literal(parent_table),
        quote::literal(parent_name),
    );
    let change = format!(
        "ALTER TABLE {} RENAME CONSTRAINT %I TO {}",
        quote::percent(table),
        quote::percent(&quote::ident(name))
    );
    let body = format!(
        "DECLARE made pg_catalog.name := ({current_name}); BEGIN IF made <> {} THEN \
         EXECUTE pg_catalog.format({}, made); END IF; END",
        quote::literal(name),
        quote::literal(&change),
    );
    format!("DO {}", quote::dollars(&body))
}

/// Adds the index's storage parameters to the definition of a key. The definition of an exclusion constraint has them
/// already.
fn with_options(definition: &str, kind: &str, options: Option<&str>) -> String {
    let (Some(options), true) = (options, kind != "x") else { return definition.to_owned() };
    let mut base = definition;
    let mut suffix = "";
    for end in [" DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE"] {
        if let Some(rest) = base.strip_suffix(end) {
            (base, suffix) = (rest, end);
            break;
        }
    }
    format!("{base} WITH ({options}){suffix}")
}

#[cfg(test)]
mod tests {
    use crate::engine::postgres::schema::constraints::with_options;

    #[test]
    fn storage_parameters_precede_the_deferral() {
        assert_eq!(
            with_options("UNIQUE (a) DEFERRABLE INITIALLY DEFERRED", "u", Some("fillfactor='70'")),
            "UNIQUE (a) WITH (fillfactor='70') DEFERRABLE INITIALLY DEFERRED"
        );
        assert_eq!(with_options("PRIMARY KEY (a)", "p", Some("x='1'")), "PRIMARY KEY (a) WITH (x='1')");
    }
}
