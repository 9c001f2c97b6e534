//! Types: enumerations, composites, domains, ranges, base types and shells.

use std::collections::HashMap;

use crate::engine::postgres::schema::object::{Stub, catalogs};
use crate::engine::postgres::schema::schemas::function_name;
use crate::engine::postgres::schema::{Address, Kind, Object, Reader, Section, USER_SCHEMAS, grants, quote};
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// Queries the types, with all properties that `CREATE TYPE` sets.
fn query(reader: &mut Reader) -> Result<Vec<Row>> {
    let subscript = reader.since(140_000, "t.typsubscript", "0").to_owned();
    let multirange = reader.since(
        140_000,
        "(SELECT pg_catalog.format('%I.%I', mn.nspname, mt.typname) FROM pg_catalog.pg_type mt \
         JOIN pg_catalog.pg_namespace mn ON mn.oid = mt.typnamespace WHERE mt.oid = r.rngmultitypid)",
        "NULL",
    );
    reader.rows(&format!(
        "SELECT t.oid, n.nspname AS schema, t.typname AS name, t.typtype AS type, t.typisdefined AS defined, \
         pg_catalog.pg_get_userbyid(t.typowner) AS owner, t.typrelid AS relation, \
         t.typlen AS length, {} AS input, {} AS output, {} AS receive, {} AS send, {} AS typmod_in, \
         {} AS typmod_out, {} AS analyze, {} AS subscript, \
         t.typcollation <> 0 AS collatable, t.typdefault AS text_default, \
         pg_catalog.pg_get_expr(t.typdefaultbin, 0) AS default, \
         CASE WHEN t.typelem <> 0 THEN pg_catalog.format_type(t.typelem, NULL) END AS element, \
         t.typcategory AS category, t.typispreferred AS preferred, t.typdelim AS delimiter, t.typalign AS align, \
         t.typstorage AS storage, t.typbyval AS by_value, t.typnotnull AS not_null, \
         CASE WHEN t.typbasetype <> 0 THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END AS base, \
         CASE WHEN t.typtype = 'd' AND t.typcollation <> (SELECT b.typcollation FROM pg_catalog.pg_type b \
         WHERE b.oid = t.typbasetype) THEN {} END AS collation, \
         pg_catalog.format_type(r.rngsubtype, NULL) AS range_subtype, \
         (SELECT pg_catalog.format('%I.%I', cn.nspname, o.opcname) FROM pg_catalog.pg_opclass o \
         JOIN pg_catalog.pg_namespace cn ON cn.oid = o.opcnamespace \
         WHERE o.oid = r.rngsubopc AND NOT o.opcdefault) AS range_class, \
         CASE WHEN r.rngcollation <> (SELECT s.typcollation FROM pg_catalog.pg_type s WHERE s.oid = r.rngsubtype) \
         THEN {} END AS range_collation, \
         {} AS range_canonical, {} AS range_difference, {multirange} AS multirange, {} \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid \
         WHERE {USER_SCHEMAS} AND t.typtype <> 'm' \
         AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) \
         AND (t.typelem = 0 OR EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.oid = t.typelem)) \
         AND (t.typrelid = 0 OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c \
         WHERE c.oid = t.typrelid AND c.relkind = 'c'))",
        function_name("t.typinput"),
        function_name("t.typoutput"),
        function_name("t.typreceive"),
        function_name("t.typsend"),
        function_name("t.typmodin"),
        function_name("t.typmodout"),
        function_name("t.typanalyze"),
        function_name(&subscript),
        collation_name("t.typcollation"),
        collation_name("r.rngcollation"),
        function_name("r.rngcanonical"),
        function_name("r.rngsubdiff"),
        grants::columns('T', "t.typacl", "t.typowner"),
    ))
}

/// Reads the types, except those that are created together with other objects: row types, array types, multiranges.
pub(super) fn types(reader: &mut Reader) -> Result<()> {
    let rows = query(reader)?;
    let labels = labels(reader)?;
    let columns = columns(reader)?;
    let mut constraints = constraints(reader)?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::TYPE, row.number("oid")?);
        if reader.is_member(address) {
            continue;
        }
        let quoted = quote::qualified(schema, name);
        let mut object = Object::new(address, Kind::Type, Some(schema), name);
        object.identity = format!("TYPE {quoted}");
        if !row.flag("defined")? {
            object.kind = Kind::ShellType;
            object.create.push(format!("CREATE TYPE {quoted}"));
            object.own(row.text("owner")?);
            reader.add(object);
            continue;
        }
        let shell = Some(Stub { create: vec![format!("CREATE TYPE {quoted}")], ..Stub::default() });
        match row.text("type")? {
            "e" => {
                let labels = labels.get(&address.oid).map(Vec::as_slice).unwrap_or_default();
                object.create.push(format!("CREATE TYPE {quoted} AS ENUM ({})", indented(labels)));
            }
            "c" => {
                let columns = columns.get(&row.number("relation")?).map(Vec::as_slice).unwrap_or_default();
                object.create.push(format!("CREATE TYPE {quoted} AS ({})", indented(columns)));
            }
            "r" => {
                object.create.push(format!("CREATE TYPE {quoted} AS RANGE ({})", indented(&range_options(&row)?)));
                object.stub = shell;
            }
            "b" => {
                object.create.push(format!("CREATE TYPE {quoted} ({})", indented(&base_options(&row)?)));
                object.stub = shell;
            }
            "d" => domain(reader, &mut object, &row, &quoted, constraints.remove(&address.oid).unwrap_or_default())?,
            other => {
                reader.refused.push(format!("the type {quoted}: unknown kind of type '{other}'"));
                continue;
            }
        }
        if let Some(stub) = object.stub.as_mut().filter(|stub| stub.complete.is_empty()) {
            stub.complete.clone_from(&object.create);
        }
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, &row, "TYPE", &quoted)?;
        if let Some(stub) = &mut object.stub {
            stub.needs = object.needs.clone();
        }
        reader.add(object);
    }
    Ok(())
}

/// Returns the items of a list, each on a separate line.
pub(super) fn indented(items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!("\n    {}\n", items.join(",\n    ")) }
}

/// Returns an expression for the qualified and quoted name of a collation.
fn collation_name(oid: &str) -> String {
    format!(
        "(SELECT pg_catalog.format('%I.%I', ln.nspname, l.collname) FROM pg_catalog.pg_collation l \
         JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace WHERE l.oid = {oid})"
    )
}

/// Reads the labels of the enumerations, by type.
fn labels(reader: &mut Reader) -> Result<HashMap<u32, Vec<String>>> {
    let mut labels: HashMap<u32, Vec<String>> = HashMap::new();
    let query = "SELECT enumtypid AS type, enumlabel AS label FROM pg_catalog.pg_enum ORDER BY 1, enumsortorder";
    for row in reader.rows(query)? {
        labels.entry(row.number("type")?).or_default().push(quote::literal(row.text("label")?));
    }
    Ok(labels)
}

/// Reads the columns of the composite types, by relation.
fn columns(reader: &mut Reader) -> Result<HashMap<u32, Vec<String>>> {
    let mut columns: HashMap<u32, Vec<String>> = HashMap::new();
    let query = format!(
        "SELECT a.attrelid AS relation, pg_catalog.quote_ident(a.attname) AS name, \
         pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, \
         CASE WHEN a.attcollation <> (SELECT t.typcollation FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid) \
         THEN {} END AS collation \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         WHERE c.relkind = 'c' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum",
        collation_name("a.attcollation")
    );
    for row in reader.rows(&query)? {
        let mut column = format!("{} {}", row.text("name")?, row.text("type")?);
        if let Some(collation) = row.get("collation")? {
            column.push_str(&format!(" COLLATE {collation}"));
        }
        columns.entry(row.number("relation")?).or_default().push(column);
    }
    Ok(columns)
}

/// A constraint of a domain.
struct DomainConstraint {
    oid: u32,
    name: String,
    kind: String,
    definition: String,
    validated: bool,
}

/// Reads the constraints of the domains, by domain.
fn constraints(reader: &mut Reader) -> Result<HashMap<u32, Vec<DomainConstraint>>> {
    let mut constraints: HashMap<u32, Vec<DomainConstraint>> = HashMap::new();
    let query = "SELECT k.contypid AS type, k.oid, k.conname AS name, k.contype AS kind, k.convalidated AS validated, \
                 pg_catalog.pg_get_constraintdef(k.oid) AS definition FROM pg_catalog.pg_constraint k \
                 JOIN pg_catalog.pg_type t ON t.oid = k.contypid ORDER BY 1, k.conname";
    for row in reader.rows(query)? {
        constraints.entry(row.number("type")?).or_default().push(DomainConstraint {
            oid: row.number("oid")?,
            name: row.text("name")?.to_owned(),
            kind: row.text("kind")?.to_owned(),
            definition: row.text("definition")?.to_owned(),
            validated: row.flag("validated")?,
        });
    }
    Ok(constraints)
}

/// Writes a domain with its constraints. Constraints that are not validated become separate objects.
fn domain(
    reader: &mut Reader,
    object: &mut Object,
    row: &Row,
    quoted: &str,
    constraints: Vec<DomainConstraint>,
) -> Result<()> {
    object.kind = Kind::Domain;
    object.identity = format!("DOMAIN {quoted}");
    let mut create = format!("CREATE DOMAIN {quoted} AS {}", row.text("base")?);
    if let Some(collation) = row.get("collation")? {
        create.push_str(&format!(" COLLATE {collation}"));
    }
    if let Some(value) = row.get("default")? {
        create.push_str(&format!(" DEFAULT {value}"));
    } else if let Some(text) = row.get("text_default")? {
        create.push_str(&format!(" DEFAULT {}", quote::literal(text)));
    }
    if row.flag("not_null")? {
        if let Some(named) = constraints.iter().find(|constraint| constraint.kind == "n") {
            create.push_str(&format!(" CONSTRAINT {}", quote::ident(&named.name)));
        }
        create.push_str(" NOT NULL");
    }
    let mut stub = Stub { create: vec![create.clone()], ..Stub::default() };
    for constraint in constraints.iter().filter(|constraint| constraint.kind == "c") {
        let clause = format!("CONSTRAINT {} {}", quote::ident(&constraint.name), constraint.definition);
        if constraint.validated {
            create.push_str(&format!("\n    {clause}"));
            stub.complete.push(format!("ALTER DOMAIN {quoted} ADD {clause}"));
            continue;
        }
        let address = Address::new(catalogs::CONSTRAINT, constraint.oid);
        let mut check = Object::new(address, Kind::Check, object.schema.as_deref(), &constraint.name).at(Section::Post);
        check.identity = format!("CONSTRAINT {} ON DOMAIN {quoted}", quote::ident(&constraint.name));
        check.create.push(format!("ALTER DOMAIN {quoted} ADD {clause}"));
        check.needs.push(object.address);
        reader.add(check);
    }
    object.create.push(create);
    if !stub.complete.is_empty() {
        object.stub = Some(stub);
    }
    Ok(())
}

/// Returns the options of a range type.
fn range_options(row: &Row) -> Result<Vec<String>> {
    let mut options = vec![format!("subtype = {}", row.text("range_subtype")?)];
    for (word, column) in [
        ("subtype_opclass", "range_class"),
        ("collation", "range_collation"),
        ("canonical", "range_canonical"),
        ("subtype_diff", "range_difference"),
        ("multirange_type_name", "multirange"),
    ] {
        if let Some(value) = row.get(column)? {
            options.push(format!("{word} = {value}"));
        }
    }
    Ok(options)
}

/// Returns the options of a base type.
fn base_options(row: &Row) -> Result<Vec<String>> {
    let length: i32 = row.number("length")?;
    let mut options = vec![match length {
        -1 => "INTERNALLENGTH = variable".to_owned(),
        // Only cstring has -2, and CREATE TYPE does not accept it.
        fixed => format!("INTERNALLENGTH = {fixed}"),
    }];
    for (word, column) in [
        ("INPUT", "input"),
        ("OUTPUT", "output"),
        ("RECEIVE", "receive"),
        ("SEND", "send"),
        ("TYPMOD_IN", "typmod_in"),
        ("TYPMOD_OUT", "typmod_out"),
        ("ANALYZE", "analyze"),
        ("SUBSCRIPT", "subscript"),
        ("ELEMENT", "element"),
    ] {
        if let Some(value) = row.get(column)? {
            options.push(format!("{word} = {value}"));
        }
    }
    if row.flag("collatable")? {
        options.push("COLLATABLE = true".to_owned());
    }
    if let Some(value) = row.get("default")? {
        options.push(format!("DEFAULT = {value}"));
    } else if let Some(text) = row.get("text_default")? {
        options.push(format!("DEFAULT = {}", quote::literal(text)));
    }
    if row.text("category")? != "U" {
        options.push(format!("CATEGORY = {}", quote::literal(row.text("category")?)));
    }
    if row.flag("preferred")? {
        options.push("PREFERRED = true".to_owned());
    }
    if row.text("delimiter")? != "," {
        options.push(format!("DELIMITER = {}", quote::literal(row.text("delimiter")?)));
    }
    let align = match row.text("align")? {
        "c" => "char",
        "s" => "int2",
        "d" => "double",
        _ => "int4",
    };
    options.push(format!("ALIGNMENT = {align}"));
    let storage = match row.text("storage")? {
        "e" => "external",
        "x" => "extended",
        "m" => "main",
        _ => "plain",
    };
    options.push(format!("STORAGE = {storage}"));
    if row.flag("by_value")? {
        options.push("PASSEDBYVALUE".to_owned());
    }
    Ok(options)
}
