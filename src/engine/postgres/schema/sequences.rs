//! Sequences: their options, the column that each belongs to, and their current values.

use std::collections::BTreeSet;

use crate::engine::postgres::schema::object::{Address, Kind, Object, catalogs};
use crate::engine::postgres::schema::relation::{self, NAMES, USER_RELATIONS, letter};
use crate::engine::postgres::schema::{Reader, grants, quote};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::Result;
use crate::snapshots::manifest::SequenceValue;

/// Reads all sequences, including those of identity columns, which `ADD GENERATED` creates.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT {NAMES}, c.relpersistence AS persistence, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                s.seqcycle, pg_catalog.format_type(s.seqtypid, NULL) AS type, {},
                d.deptype AS ownership, t.oid AS table, a.attname AS column, a.attidentity AS identity,
                t.relpersistence AS table_persistence, t.relkind AS table_kind,
                pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.relname) AS table_qualified
           FROM pg_catalog.pg_sequence s
           JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_depend d ON d.classid = 1259 AND d.objid = c.oid AND d.objsubid = 0
                AND d.refclassid = 1259 AND d.refobjsubid <> 0 AND d.deptype IN ('a', 'i')
           LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
           LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
           LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
          WHERE {USER_RELATIONS}
          ORDER BY c.oid",
        grants::columns('s', "c.relacl", "c.relowner"),
    ))?;
    for row in &rows {
        let address = Address::new(catalogs::CLASS, row.number("oid")?);
        let qualified = row.text("qualified")?;
        let mut object = Object::new(address, Kind::Sequence, Some(row.text("schema")?), row.text("name")?);
        object.identity = format!("SEQUENCE {qualified}");
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, row, "SEQUENCE", qualified)?;
        let table = match row.get("table")? {
            Some(_) => Some(Address::new(catalogs::CLASS, row.number("table")?)),
            None => None,
        };
        object.table = table;
        if row.get("ownership")? == Some("i") {
            identity(reader, row, &mut object)?;
            reader.add(object);
            continue;
        }
        let unlogged = if row.text("persistence")? == "u" { "UNLOGGED " } else { "" };
        object.create = vec![format!(
            "CREATE {unlogged}SEQUENCE {qualified}\n    AS {}{}",
            row.text("type")?,
            sequence_options(row)?
        )];
        // The table needs the sequence for a default, so the ownership is set after both are created.
        object.needs_not.extend(table);
        let owner = object.owner.clone();
        reader.add(object);
        if let Some(table) = table {
            let mut object = Object::new(
                relation::ownership_at(address.oid),
                Kind::SequenceOwner,
                Some(row.text("schema")?),
                row.text("name")?,
            );
            object.create = vec![format!(
                "ALTER SEQUENCE {qualified} OWNED BY {}.{}",
                row.text("table_qualified")?,
                quote::ident(row.text("column")?)
            )];
            object.owner = owner;
            object.needs = vec![address, table];
            object.table = Some(table);
            reader.add(object);
        }
    }
    Ok(())
}

/// Writes the statements for the sequence of an identity column.
fn identity(reader: &mut Reader<'_>, row: &Row, object: &mut Object) -> Result<()> {
    let qualified = row.text("qualified")?;
    let word = if letter(row, "identity")? == Some('a') { "ALWAYS" } else { "BY DEFAULT" };
    object.create = vec![format!(
        "ALTER {} {} ALTER COLUMN {} ADD GENERATED {word} AS IDENTITY (\n    SEQUENCE NAME {qualified}{}\n)",
        relation::word(letter(row, "table_kind")?.unwrap_or('r')),
        row.text("table_qualified")?,
        quote::ident(row.text("column")?),
        sequence_options(row)?
    )];
    // Before version 15, all sequences were logged, and no syntax existed to change that.
    let (own, of_table) = (row.text("persistence")?, row.text("table_persistence")?);
    if reader.version() >= 150_000 && own != of_table {
        let word = if own == "u" { "UNLOGGED" } else { "LOGGED" };
        object.create.push(format!("ALTER SEQUENCE {qualified} SET {word}"));
    }
    // It belongs to the owner of the table from the start and cannot have another owner.
    object.set_owner = Vec::new();
    object.needs.extend(object.table);
    Ok(())
}

/// Returns the options, each on a separate line.
fn sequence_options(row: &Row) -> Result<String> {
    let mut options = vec![
        format!("START WITH {}", row.text("seqstart")?),
        format!("INCREMENT BY {}", row.text("seqincrement")?),
        format!("MINVALUE {}", row.text("seqmin")?),
        format!("MAXVALUE {}", row.text("seqmax")?),
        format!("CACHE {}", row.text("seqcache")?),
    ];
    if row.flag("seqcycle")? {
        options.push("CYCLE".to_owned());
    }
    Ok(options.iter().map(|option| format!("\n    {option}")).collect())
}

/// Returns the statements that set sequences to their saved values.
#[must_use]
pub fn render(values: &[SequenceValue]) -> String {
    values.iter().map(|value| format!("{};\n", statement(value))).collect()
}

/// Returns the statement that sets a sequence to its saved value.
#[must_use]
pub fn statement(value: &SequenceValue) -> String {
    let name = quote::literal(&quote::qualified(&value.schema, &value.name));
    format!("SELECT pg_catalog.setval({name}, {}, {})", value.last_value, value.is_called)
}

/// Reads the values of all sequences, by schema and name: those of users, and those that an extension declares as
/// configuration. Sequences change outside of transactions, so the transaction's snapshot does not apply to them.
///
/// Sequences that the role may not read are added to `refused`; on a standby, unlogged sequences are added too. An
/// unlogged sequence that belongs to a table is not added, because the table itself is reported.
///
/// Those in the schemas `without` are left out.
pub fn values(
    session: &mut Session,
    refused: &mut Vec<String>,
    without: &BTreeSet<String>,
) -> Result<Vec<SequenceValue>> {
    let mut rows = session.rows(&format!(
        "SELECT n.nspname AS schema, c.relname AS name,
                pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS qualified,
                pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                    AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT') AS readable,
                c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery() AS is_lost,
                s.seqincrement AS increment,
                (SELECT pg_catalog.json_build_array(tn.nspname, t.relname)
                   FROM pg_catalog.pg_depend d
                   JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
                   JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
                  LIMIT 1) AS owner
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
          WHERE c.relkind = 'S'
            AND ({USER_RELATIONS} OR c.oid IN (SELECT unnest(extconfig) FROM pg_catalog.pg_extension))
            -- TimescaleDB numbers its internal objects with these. A restore creates those objects again.
            AND n.nspname !~ '^_timescaledb_'
          ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
    ))?;
    rows.retain(|row| !row.text("schema").is_ok_and(|schema| without.contains(schema)));
    let mut readable = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.flag("is_lost")? {
            if row.get("owner")?.is_none() {
                let name = row.text("qualified")?;
                refused.push(format!("sequence {name}: it is unlogged, and has no value on a standby"));
            }
        } else if row.flag("readable")? {
            readable.push(row);
        } else {
            refused.push(format!("sequence {}: the role may not read it", row.text("qualified")?));
        }
    }
    let mut values = Vec::with_capacity(rows.len());
    // The values are read in portions, because one statement for thousands of sequences would lock and plan all of
    // them at once.
    for portion in readable.chunks(100) {
        let mut selects = Vec::with_capacity(portion.len());
        for (place, row) in portion.iter().enumerate() {
            selects.push(format!("SELECT {place} AS place, last_value, is_called FROM {}", row.text("qualified")?));
        }
        let read = session.rows(&format!("{} ORDER BY place", selects.join(" UNION ALL ")))?;
        for (row, value) in portion.iter().zip(&read) {
            values.push(SequenceValue {
                schema: row.text("schema")?.to_owned(),
                name: row.text("name")?.to_owned(),
                last_value: value.number("last_value")?,
                is_called: value.flag("is_called")?,
                increment: row.number("increment")?,
                table: match row.list("owner")?.as_slice() {
                    [schema, table] => Some(quote::qualified(schema, table)),
                    _ => None,
                },
            });
        }
    }
    Ok(values)
}
