//! Functions, procedures and aggregates.

use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::schemas::function_name;
use crate::engine::postgres::schema::types::indented;
use crate::engine::postgres::schema::{Address, Kind, Object, Reader, USER_SCHEMAS, grants, quote};
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// The condition for functions that are saved: functions that a range type creates are not.
const NOT_OF_RANGE_TYPE: &str = "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
                   WHERE d.classid = 1255 AND d.objid = p.oid AND d.deptype = 'i')";

/// Reads functions, window functions and procedures.
pub(super) fn functions(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT p.oid, n.nspname AS schema, p.proname AS name, p.prokind AS kind, \
         pg_catalog.pg_get_userbyid(p.proowner) AS owner, \
         pg_catalog.pg_get_function_identity_arguments(p.oid) AS arguments, \
         pg_catalog.pg_get_functiondef(p.oid) AS definition, {} \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE {USER_SCHEMAS} AND p.prokind <> 'a' AND {NOT_OF_RANGE_TYPE}",
        grants::columns('f', "p.proacl", "p.proowner")
    ))?;
    for row in rows {
        let (schema, name, arguments) = (row.text("schema")?, row.text("name")?, row.text("arguments")?);
        let (kind, word) = match row.text("kind")? {
            "p" => (Kind::Procedure, "PROCEDURE"),
            _ => (Kind::Function, "FUNCTION"),
        };
        let address = Address::new(catalogs::PROC, row.number("oid")?);
        let mut object = Object::new(address, kind, Some(schema), &format!("{name}({arguments})"));
        let signature = format!("{}({arguments})", quote::qualified(schema, name));
        object.identity = format!("{word} {signature}");
        let definition = row.text("definition")?.trim_end();
        object.create.push(definition.replacen("CREATE OR REPLACE ", "CREATE ", 1));
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, &row, word, &signature)?;
        reader.add(object);
    }
    Ok(())
}

/// Reads the aggregates.
pub(super) fn aggregates(reader: &mut Reader) -> Result<()> {
    let names = [
        ("transition", "a.aggtransfn"),
        ("final", "a.aggfinalfn"),
        ("combine", "a.aggcombinefn"),
        ("serial", "a.aggserialfn"),
        ("deserial", "a.aggdeserialfn"),
        ("moving_transition", "a.aggmtransfn"),
        ("moving_inverse", "a.aggminvtransfn"),
        ("moving_final", "a.aggmfinalfn"),
    ]
    .map(|(label, column)| format!("{} AS {label}", function_name(column)))
    .join(", ");
    let rows = reader.rows(&format!(
        "SELECT p.oid, n.nspname AS schema, p.proname AS name, pg_catalog.pg_get_userbyid(p.proowner) AS owner, \
         pg_catalog.pg_get_function_identity_arguments(p.oid) AS identity_arguments, \
         pg_catalog.pg_get_function_arguments(p.oid) AS arguments, \
         pg_catalog.oidvectortypes(p.proargtypes) AS types, p.proparallel AS parallel, a.aggkind AS kind, {names}, \
         a.aggfinalextra AS final_extra, a.aggmfinalextra AS moving_final_extra, \
         a.aggfinalmodify AS final_modify, a.aggmfinalmodify AS moving_final_modify, \
         pg_catalog.format_type(a.aggtranstype, NULL) AS state, a.aggtransspace AS space, \
         CASE WHEN a.aggmtranstype <> 0 THEN pg_catalog.format_type(a.aggmtranstype, NULL) END AS moving_state, \
         a.aggmtransspace AS moving_space, a.agginitval AS initial, a.aggminitval AS moving_initial, \
         (SELECT pg_catalog.format('OPERATOR(%I.%s)', sn.nspname, o.oprname) FROM pg_catalog.pg_operator o \
         JOIN pg_catalog.pg_namespace sn ON sn.oid = o.oprnamespace WHERE o.oid = a.aggsortop) AS sort, {} \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid WHERE {USER_SCHEMAS} AND {NOT_OF_RANGE_TYPE}",
        grants::columns('f', "p.proacl", "p.proowner")
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let star = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
        let identity_arguments = star(row.text("identity_arguments")?);
        let address = Address::new(catalogs::PROC, row.number("oid")?);
        let mut object = Object::new(address, Kind::Aggregate, Some(schema), &format!("{name}({identity_arguments})"));
        let quoted = quote::qualified(schema, name);
        object.identity = format!("AGGREGATE {quoted}({identity_arguments})");
        object.create.push(format!(
            "CREATE AGGREGATE {quoted}({}) ({})",
            star(row.text("arguments")?),
            indented(&aggregate_options(&row)?)
        ));
        object.own(row.text("owner")?);
        grants::add(
            &mut reader.gone_roles,
            &mut object,
            &row,
            "FUNCTION",
            &format!("{quoted}({})", row.text("types")?),
        )?;
        reader.add(object);
    }
    Ok(())
}

/// The options of an aggregate.
fn aggregate_options(row: &Row) -> Result<Vec<String>> {
    let mut options = vec![format!("SFUNC = {}", row.text("transition")?), format!("STYPE = {}", row.text("state")?)];
    let moving = row.get("moving_state")?.is_some();
    let mut put = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            options.push(format!("{word} = {value}"));
        }
    };
    let space = |column: &str| -> Result<Option<String>> {
        Ok(Some(row.text(column)?.to_owned()).filter(|space| space != "0"))
    };
    let literal = |column: &str| -> Result<Option<String>> { Ok(row.get(column)?.map(quote::literal)) };
    let modify = |column: &str| -> Result<Option<String>> {
        Ok(Some(
            match row.text(column)? {
                "r" => "READ_ONLY",
                "s" => "SHAREABLE",
                _ => "READ_WRITE",
            }
            .to_owned(),
        ))
    };
    put("SSPACE", space("space")?);
    put("INITCOND", literal("initial")?);
    put("FINALFUNC", row.owned("final")?);
    put("FINALFUNC_EXTRA", row.flag("final_extra")?.then(|| "true".to_owned()));
    put("FINALFUNC_MODIFY", modify("final_modify")?);
    put("COMBINEFUNC", row.owned("combine")?);
    put("SERIALFUNC", row.owned("serial")?);
    put("DESERIALFUNC", row.owned("deserial")?);
    if moving {
        put("MSFUNC", row.owned("moving_transition")?);
        put("MINVFUNC", row.owned("moving_inverse")?);
        put("MSTYPE", row.owned("moving_state")?);
        put("MSSPACE", space("moving_space")?);
        put("MINITCOND", literal("moving_initial")?);
        put("MFINALFUNC", row.owned("moving_final")?);
        put("MFINALFUNC_EXTRA", row.flag("moving_final_extra")?.then(|| "true".to_owned()));
        put("MFINALFUNC_MODIFY", modify("moving_final_modify")?);
    }
    put("SORTOP", row.owned("sort")?);
    let parallel = match row.text("parallel")? {
        "s" => Some("SAFE"),
        "r" => Some("RESTRICTED"),
        _ => None,
    };
    put("PARALLEL", parallel.map(str::to_owned));
    if row.text("kind")? == "h" {
        options.push("HYPOTHETICAL".to_owned());
    }
    Ok(options)
}
