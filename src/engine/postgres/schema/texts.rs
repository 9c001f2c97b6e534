//! Objects for human languages: collations, conversions and text search.

use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::schemas::function_name;
use crate::engine::postgres::schema::types::indented;
use crate::engine::postgres::schema::{Address, Kind, Object, Reader, USER_SCHEMAS, quote};
use crate::engine::postgres::wire::majors::VERSION_16;
use crate::platform::error::Result;

/// Reads the collations.
pub(super) fn collations(reader: &mut Reader) -> Result<()> {
    let locale = match reader.version() {
        170_000.. => "c.colllocale",
        150_000.. => "c.colliculocale",
        _ => "NULL",
    };
    let rules = reader.since(VERSION_16, "c.collicurules", "NULL");
    let rows = reader.rows(&format!(
        "SELECT c.oid, n.nspname AS schema, c.collname AS name, pg_catalog.pg_get_userbyid(c.collowner) AS owner, \
         c.collprovider AS provider, c.collisdeterministic AS deterministic, c.collcollate AS collate, \
         c.collctype AS ctype, {locale} AS locale, {rules} AS rules \
         FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
         WHERE {USER_SCHEMAS}"
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::COLLATION, row.number("oid")?);
        let mut object = Object::new(address, Kind::Collation, Some(schema), name);
        let quoted = quote::qualified(schema, name);
        object.identity = format!("COLLATION {quoted}");
        let provider = match row.text("provider")? {
            "c" => "libc",
            "i" => "icu",
            "b" => "builtin",
            "d" => "default",
            other => {
                reader.refused.push(format!("the collation {quoted}: unknown provider '{other}'"));
                continue;
            }
        };
        let mut options = vec![format!("provider = {provider}")];
        if !row.flag("deterministic")? {
            options.push("deterministic = false".to_owned());
        }
        match (row.get("locale")?, row.get("collate")?, row.get("ctype")?) {
            (Some(locale), ..) => options.push(format!("locale = {}", quote::literal(locale))),
            (None, Some(collate), Some(ctype)) if collate == ctype => {
                options.push(format!("locale = {}", quote::literal(collate)));
            }
            (None, collate, ctype) => {
                for (word, value) in [("lc_collate", collate), ("lc_ctype", ctype)] {
                    options.extend(value.map(|value| format!("{word} = {}", quote::literal(value))));
                }
            }
        }
        if let Some(rules) = row.get("rules")? {
            options.push(format!("rules = {}", quote::literal(rules)));
        }
        object.create.push(format!("CREATE COLLATION {quoted} ({})", options.join(", ")));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

/// Reads the conversions between encodings.
pub(super) fn conversions(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT c.oid, n.nspname AS schema, c.conname AS name, pg_catalog.pg_get_userbyid(c.conowner) AS owner, \
         c.condefault AS default, pg_catalog.pg_encoding_to_char(c.conforencoding) AS from_encoding, \
         pg_catalog.pg_encoding_to_char(c.contoencoding) AS to_encoding, {} AS function \
         FROM pg_catalog.pg_conversion c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace \
         WHERE {USER_SCHEMAS}",
        function_name("c.conproc")
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::CONVERSION, row.number("oid")?);
        let mut object = Object::new(address, Kind::Conversion, Some(schema), name);
        let quoted = quote::qualified(schema, name);
        object.identity = format!("CONVERSION {quoted}");
        object.create.push(format!(
            "CREATE {}CONVERSION {quoted} FOR {} TO {} FROM {}",
            if row.flag("default")? { "DEFAULT " } else { "" },
            quote::literal(row.text("from_encoding")?),
            quote::literal(row.text("to_encoding")?),
            row.text("function")?
        ));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

/// Reads the text search parsers, templates, dictionaries and configurations.
pub(super) fn text_search(reader: &mut Reader) -> Result<()> {
    by_functions(
        reader,
        (Kind::TextSearchParser, catalogs::TS_PARSER, "pg_ts_parser", "prs"),
        &[
            ("START", "prsstart"),
            ("GETTOKEN", "prstoken"),
            ("END", "prsend"),
            ("HEADLINE", "prsheadline"),
            ("LEXTYPES", "prslextype"),
        ],
    )?;
    by_functions(
        reader,
        (Kind::TextSearchTemplate, catalogs::TS_TEMPLATE, "pg_ts_template", "tmpl"),
        &[("INIT", "tmplinit"), ("LEXIZE", "tmpllexize")],
    )?;
    dictionaries(reader)?;
    configurations(reader)
}

/// Reads objects that consist of a name and a few functions.
fn by_functions(
    reader: &mut Reader,
    (kind, catalog, relation, prefix): (Kind, u32, &str, &str),
    functions: &[(&str, &str)],
) -> Result<()> {
    let columns: String = functions
        .iter()
        .map(|(_, column)| format!(", {} AS {column}", function_name(&format!("x.{column}"))))
        .collect();
    let rows = reader.rows(&format!(
        "SELECT x.oid, n.nspname AS schema, x.{prefix}name AS name{columns} \
         FROM pg_catalog.{relation} x JOIN pg_catalog.pg_namespace n ON n.oid = x.{prefix}namespace \
         WHERE {USER_SCHEMAS}"
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let mut object = Object::new(Address::new(catalog, row.number("oid")?), kind, Some(schema), name);
        object.identity = format!("{} {}", kind.words().to_uppercase(), quote::qualified(schema, name));
        let mut options = Vec::new();
        for (word, column) in functions {
            options.extend(row.get(column)?.map(|function| format!("{word} = {function}")));
        }
        object.create.push(format!("CREATE {} ({})", object.identity, indented(&options)));
        reader.add(object);
    }
    Ok(())
}

fn dictionaries(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT d.oid, n.nspname AS schema, d.dictname AS name, pg_catalog.pg_get_userbyid(d.dictowner) AS owner, \
         pg_catalog.format('%I.%I', tn.nspname, t.tmplname) AS template, d.dictinitoption AS options \
         FROM pg_catalog.pg_ts_dict d JOIN pg_catalog.pg_namespace n ON n.oid = d.dictnamespace \
         JOIN pg_catalog.pg_ts_template t ON t.oid = d.dicttemplate \
         JOIN pg_catalog.pg_namespace tn ON tn.oid = t.tmplnamespace WHERE {USER_SCHEMAS}"
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::TS_DICT, row.number("oid")?);
        let mut object = Object::new(address, Kind::TextSearchDictionary, Some(schema), name);
        object.identity = format!("TEXT SEARCH DICTIONARY {}", quote::qualified(schema, name));
        let mut options = vec![format!("TEMPLATE = {}", row.text("template")?)];
        options.extend(row.owned("options")?.filter(|options| !options.is_empty()));
        object.create.push(format!("CREATE {} ({})", object.identity, indented(&options)));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

fn configurations(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT c.oid, n.nspname AS schema, c.cfgname AS name, pg_catalog.pg_get_userbyid(c.cfgowner) AS owner, \
         c.cfgparser AS parser_oid, pg_catalog.format('%I.%I', pn.nspname, p.prsname) AS parser \
         FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace \
         JOIN pg_catalog.pg_ts_parser p ON p.oid = c.cfgparser \
         JOIN pg_catalog.pg_namespace pn ON pn.oid = p.prsnamespace WHERE {USER_SCHEMAS}"
    ))?;
    for row in rows {
        let (schema, name) = (row.text("schema")?, row.text("name")?);
        let address = Address::new(catalogs::TS_CONFIG, row.number("oid")?);
        if reader.is_member(address) {
            continue;
        }
        let mut object = Object::new(address, Kind::TextSearchConfiguration, Some(schema), name);
        object.identity = format!("TEXT SEARCH CONFIGURATION {}", quote::qualified(schema, name));
        object.create.push(format!("CREATE {} (PARSER = {})", object.identity, row.text("parser")?));
        let mappings = reader.rows(&format!(
            "SELECT t.alias AS token, pg_catalog.string_agg(CASE WHEN d.oid IS NOT NULL THEN \
             pg_catalog.format('%I.%I', n.nspname, d.dictname) END, ', ' ORDER BY m.mapseqno) AS dictionaries, \
             pg_catalog.bool_or(d.oid IS NULL) AS lacks_one \
             FROM pg_catalog.pg_ts_config_map m \
             JOIN pg_catalog.ts_token_type({}::oid) t ON t.tokid = m.maptokentype \
             LEFT JOIN pg_catalog.pg_ts_dict d ON d.oid = m.mapdict \
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.dictnamespace \
             WHERE m.mapcfg = {} GROUP BY m.maptokentype, t.alias ORDER BY m.maptokentype",
            row.text("parser_oid")?,
            address.oid
        ))?;
        for mapping in mappings {
            if mapping.flag("lacks_one")? {
                let (name, token) = (quote::qualified(schema, name), mapping.text("token")?);
                reader.notes.push(format!(
                    "the text search configuration {name} names a dictionary for {token} that does not exist: that is left out"
                ));
            }
            let Some(dictionaries) = mapping.get("dictionaries")? else { continue };
            object.create.push(format!(
                "ALTER {} ADD MAPPING FOR {} WITH {}",
                object.identity,
                quote::ident(mapping.text("token")?),
                dictionaries
            ));
        }
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}
