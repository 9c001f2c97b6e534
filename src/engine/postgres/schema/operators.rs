//! Operators, their families and classes, casts and transforms.

use std::collections::HashMap;

use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::schemas::function_name;
use crate::engine::postgres::schema::types::indented;
use crate::engine::postgres::schema::{Address, FIRST_NORMAL_OID, Kind, Object, Reader, USER_SCHEMAS, quote};
use crate::platform::error::Result;

/// Returns an expression for the name of an operator, as a definition writes it.
fn operator_name(oid: &str) -> String {
    format!(
        "(SELECT pg_catalog.format('OPERATOR(%I.%s)', xn.nspname, x.oprname) FROM pg_catalog.pg_operator x \
         JOIN pg_catalog.pg_namespace xn ON xn.oid = x.oprnamespace WHERE x.oid = {oid})"
    )
}

/// Reads the operators. An operator that another one names before it is created is a shell until then.
pub(super) fn operators(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT o.oid, n.nspname AS schema, o.oprname AS name, pg_catalog.pg_get_userbyid(o.oprowner) AS owner, \
         {} AS function, \
         CASE WHEN o.oprleft <> 0 THEN pg_catalog.format_type(o.oprleft, NULL) END AS left, \
         CASE WHEN o.oprright <> 0 THEN pg_catalog.format_type(o.oprright, NULL) END AS right, \
         {} AS commutator, {} AS negator, o.oprcanmerge AS merges, o.oprcanhash AS hashes, \
         {} AS restrict, {} AS join \
         FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
         WHERE {USER_SCHEMAS} AND o.oprcode <> 0",
        function_name("o.oprcode"),
        operator_name("o.oprcom"),
        operator_name("o.oprnegate"),
        function_name("o.oprrest"),
        function_name("o.oprjoin"),
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::OPERATOR, row.number("oid")?);
        // The name does not include the operand types: pg_dump sorts operators of the same name by their order of
        // creation.
        let mut object = Object::new(address, Kind::Operator, Some(schema), name);
        let quoted = format!("{}.{name}", quote::ident(schema));
        let side = |column: &str| -> Result<String> { Ok(row.get(column)?.unwrap_or("NONE").to_owned()) };
        object.identity = format!("OPERATOR {quoted} ({}, {})", side("left")?, side("right")?);
        let mut options = vec![format!("FUNCTION = {}", row.text("function")?)];
        for (word, column) in [
            ("LEFTARG", "left"),
            ("RIGHTARG", "right"),
            ("COMMUTATOR", "commutator"),
            ("NEGATOR", "negator"),
            ("RESTRICT", "restrict"),
            ("JOIN", "join"),
        ] {
            if let Some(value) = row.get(column)? {
                options.push(format!("{word} = {value}"));
            }
        }
        if row.flag("merges")? {
            options.push("MERGES".to_owned());
        }
        if row.flag("hashes")? {
            options.push("HASHES".to_owned());
        }
        object.create.push(format!("CREATE OPERATOR {quoted} ({})", indented(&options)));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

/// Reads the operators and functions that belong to each operator family or class, by its oid, as clauses.
fn family_members(reader: &mut Reader, catalog: u32) -> Result<HashMap<u32, Vec<String>>> {
    let mut members: HashMap<u32, Vec<String>> = HashMap::new();
    let operators = reader.rows(&format!(
        "SELECT d.refobjid AS whole, a.amopstrategy AS number, a.amopopr::pg_catalog.regoperator AS operator, \
         (SELECT pg_catalog.format('%I.%I', fn.nspname, f.opfname) FROM pg_catalog.pg_opfamily f \
         JOIN pg_catalog.pg_namespace fn ON fn.oid = f.opfnamespace WHERE f.oid = a.amopsortfamily) AS sort \
         FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_depend d ON d.classid = {} AND d.objid = a.oid \
         WHERE d.refclassid = {catalog} AND d.refobjid >= {FIRST_NORMAL_OID} \
         ORDER BY 1, a.amopstrategy, pg_catalog.format_type(a.amoplefttype, NULL), \
         pg_catalog.format_type(a.amoprighttype, NULL), a.oid",
        catalogs::AMOP
    ))?;
    for row in operators {
        let mut clause = format!("OPERATOR {} {}", row.text("number")?, row.text("operator")?);
        if let Some(sort) = row.get("sort")? {
            clause.push_str(&format!(" FOR ORDER BY {sort}"));
        }
        members.entry(row.number("whole")?).or_default().push(clause);
    }
    let functions = reader.rows(&format!(
        "SELECT d.refobjid AS whole, a.amprocnum AS number, a.amproc::oid::pg_catalog.regprocedure AS function, \
         pg_catalog.format_type(a.amproclefttype, NULL) AS left, \
         pg_catalog.format_type(a.amprocrighttype, NULL) AS right \
         FROM pg_catalog.pg_amproc a JOIN pg_catalog.pg_depend d ON d.classid = {} AND d.objid = a.oid \
         WHERE d.refclassid = {catalog} AND d.refobjid >= {FIRST_NORMAL_OID} ORDER BY 1, a.amprocnum, 4, 5",
        catalogs::AMPROC
    ))?;
    for row in functions {
        members.entry(row.number("whole")?).or_default().push(format!(
            "FUNCTION {} ({}, {}) {}",
            row.text("number")?,
            row.text("left")?,
            row.text("right")?,
            row.text("function")?
        ));
    }
    Ok(members)
}

/// Reads the operator families, with the members that belong to none of their operator classes.
pub(super) fn families(reader: &mut Reader) -> Result<()> {
    let mut members = family_members(reader, catalogs::OPFAMILY)?;
    let rows = reader.rows(&format!(
        "SELECT f.oid, n.nspname AS schema, f.opfname AS name, pg_catalog.pg_get_userbyid(f.opfowner) AS owner, \
         pg_catalog.quote_ident(m.amname) AS method \
         FROM pg_catalog.pg_opfamily f JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace \
         JOIN pg_catalog.pg_am m ON m.oid = f.opfmethod WHERE {USER_SCHEMAS}"
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::OPFAMILY, row.number("oid")?);
        let mut object = Object::new(address, Kind::OperatorFamily, Some(schema), name);
        let signature = format!("{} USING {}", quote::qualified(schema, name), row.text("method")?);
        object.identity = format!("OPERATOR FAMILY {signature}");
        object.create.push(format!("CREATE OPERATOR FAMILY {signature}"));
        if let Some(members) = members.remove(&address.oid) {
            object.create.push(format!("ALTER OPERATOR FAMILY {signature} ADD\n    {}", members.join(",\n    ")));
        }
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

/// Reads the operator classes.
pub(super) fn classes(reader: &mut Reader) -> Result<()> {
    let mut members = family_members(reader, catalogs::OPCLASS)?;
    let rows = reader.rows(&format!(
        "SELECT c.oid, n.nspname AS schema, c.opcname AS name, pg_catalog.pg_get_userbyid(c.opcowner) AS owner, \
         pg_catalog.quote_ident(m.amname) AS method, c.opcdefault AS default, \
         pg_catalog.format_type(c.opcintype, NULL) AS type, \
         CASE WHEN c.opckeytype <> 0 THEN pg_catalog.format_type(c.opckeytype, NULL) END AS storage, \
         pg_catalog.format('%I.%I', fn.nspname, f.opfname) AS family \
         FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace \
         JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod JOIN pg_catalog.pg_opfamily f ON f.oid = c.opcfamily \
         JOIN pg_catalog.pg_namespace fn ON fn.oid = f.opfnamespace WHERE {USER_SCHEMAS}"
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::OPCLASS, row.number("oid")?);
        let mut object = Object::new(address, Kind::OperatorClass, Some(schema), name);
        let signature = format!("{} USING {}", quote::qualified(schema, name), row.text("method")?);
        object.identity = format!("OPERATOR CLASS {signature}");
        let mut clauses: Vec<String> =
            row.get("storage")?.map(|storage| format!("STORAGE {storage}")).into_iter().collect();
        clauses.extend(members.remove(&address.oid).unwrap_or_default());
        if clauses.is_empty() {
            // The grammar requires at least one clause. This one has no effect.
            clauses.push(format!("STORAGE {}", row.text("type")?));
        }
        object.create.push(format!(
            "CREATE OPERATOR CLASS {}{} FOR TYPE {} USING {} FAMILY {} AS\n    {}",
            quote::qualified(schema, name),
            if row.flag("default")? { " DEFAULT" } else { "" },
            row.text("type")?,
            row.text("method")?,
            row.text("family")?,
            clauses.join(",\n    ")
        ));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

/// Reads the casts, except those that range types create.
pub(super) fn casts(reader: &mut Reader) -> Result<()> {
    let own = reader.since(
        140_000,
        "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_range r \
         WHERE r.rngtypid = c.castsource AND r.rngmultitypid = c.casttarget)",
        "true",
    );
    let rows = reader.rows(&format!(
        "SELECT c.oid, pg_catalog.format_type(c.castsource, NULL) AS source, \
         pg_catalog.format_type(c.casttarget, NULL) AS target, c.castmethod AS method, c.castcontext AS context, \
         CASE WHEN c.castfunc <> 0 THEN c.castfunc::pg_catalog.regprocedure END AS function \
         FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type s ON s.oid = c.castsource \
         JOIN pg_catalog.pg_type t ON t.oid = c.casttarget LEFT JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc \
         WHERE c.oid >= {FIRST_NORMAL_OID} AND {own} AND (c.castfunc = 0 OR p.oid IS NOT NULL)"
    ))?;
    for row in rows {
        let signature = format!("({} AS {})", row.text("source")?, row.text("target")?);
        let address = Address::new(catalogs::CAST, row.number("oid")?);
        let mut object = Object::new(address, Kind::Cast, None, &signature);
        object.identity = format!("CAST {signature}");
        let how = match (row.text("method")?, row.get("function")?) {
            ("f", Some(function)) => format!("WITH FUNCTION {function}"),
            ("i", _) => "WITH INOUT".to_owned(),
            _ => "WITHOUT FUNCTION".to_owned(),
        };
        let context = match row.text("context")? {
            "a" => " AS ASSIGNMENT",
            "i" => " AS IMPLICIT",
            _ => "",
        };
        object.create.push(format!("CREATE CAST {signature} {how}{context}"));
        reader.add(object);
    }
    Ok(())
}

/// Reads the transforms.
pub(super) fn transforms(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT t.oid, pg_catalog.format_type(t.trftype, NULL) AS type, l.lanname AS language, \
         CASE WHEN t.trffromsql <> 0 THEN t.trffromsql::oid::pg_catalog.regprocedure END AS from_sql, \
         CASE WHEN t.trftosql <> 0 THEN t.trftosql::oid::pg_catalog.regprocedure END AS to_sql \
         FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang \
         WHERE t.oid >= {FIRST_NORMAL_OID}"
    ))?;
    for row in rows {
        let (of, language) = (row.text("type")?, row.text("language")?);
        let address = Address::new(catalogs::TRANSFORM, row.number("oid")?);
        let mut object = Object::new(address, Kind::Transform, None, &format!("{of} {language}"));
        object.identity = format!("TRANSFORM FOR {of} LANGUAGE {}", quote::ident(language));
        let mut sides = Vec::new();
        for (word, column) in [("FROM", "from_sql"), ("TO", "to_sql")] {
            if let Some(function) = row.get(column)? {
                sides.push(format!("{word} SQL WITH FUNCTION {function}"));
            }
        }
        object.create.push(format!("CREATE {} ({})", object.identity, sides.join(", ")));
        reader.add(object);
    }
    Ok(())
}
