//! The catalogs of objects, and whether the object that a row describes exists.
//!
//! A catalog can have rows that were left over when an object was dropped: after a crash, a failed upgrade or a change by
//! hand. No statement can create what such a row describes, and pg_dump ignores most of them.

use crate::engine::postgres::schema::object::{Address, catalogs};

/// A catalog whose rows are objects.
pub(super) struct Catalog {
    /// The oid of the catalog.
    pub(super) oid: u32,
    /// Its name.
    pub(super) name: &'static str,
    /// The columns that refer to an object without which a row has no meaning, each with the catalog of that object. The
    /// value 0 refers to nothing.
    references: &'static [(&'static str, &'static str)],
    /// The first version that has the catalog.
    since: u32,
}

const fn catalog(
    oid: u32,
    name: &'static str,
    references: &'static [(&'static str, &'static str)],
    since: u32,
) -> Catalog {
    Catalog { oid, name, references, since }
}

/// The catalogs of the objects that can have comments or are parts of a schema.
const CATALOGS: &[Catalog] = {
    use catalogs::*;
    const NS: &str = "pg_namespace";
    &[
        catalog(TYPE, "pg_type", &[("typnamespace", NS), ("typrelid", "pg_class")], 0),
        catalog(PROC, "pg_proc", &[("pronamespace", NS)], 0),
        catalog(CLASS, "pg_class", &[("relnamespace", NS)], 0),
        catalog(FOREIGN_SERVER, "pg_foreign_server", &[("srvfdw", "pg_foreign_data_wrapper")], 0),
        catalog(FOREIGN_DATA_WRAPPER, "pg_foreign_data_wrapper", &[], 0),
        catalog(AM, "pg_am", &[("amhandler", "pg_proc")], 0),
        catalog(ATTRDEF, "pg_attrdef", &[("adrelid", "pg_class")], 0),
        catalog(CAST, "pg_cast", &[("castsource", "pg_type"), ("casttarget", "pg_type"), ("castfunc", "pg_proc")], 0),
        catalog(CONSTRAINT, "pg_constraint", &[("conrelid", "pg_class"), ("contypid", "pg_type")], 0),
        catalog(CONVERSION, "pg_conversion", &[("connamespace", NS), ("conproc", "pg_proc")], 0),
        catalog(LANGUAGE, "pg_language", &[("lanplcallfoid", "pg_proc")], 0),
        catalog(NAMESPACE, "pg_namespace", &[], 0),
        catalog(
            OPCLASS,
            "pg_opclass",
            &[("opcnamespace", NS), ("opcfamily", "pg_opfamily"), ("opcintype", "pg_type")],
            0,
        ),
        catalog(OPERATOR, "pg_operator", &[("oprnamespace", NS), ("oprcode", "pg_proc")], 0),
        catalog(OPFAMILY, "pg_opfamily", &[("opfnamespace", NS), ("opfmethod", "pg_am")], 0),
        catalog(REWRITE, "pg_rewrite", &[("ev_class", "pg_class")], 0),
        catalog(TRIGGER, "pg_trigger", &[("tgrelid", "pg_class"), ("tgfoid", "pg_proc")], 0),
        catalog(POLICY, "pg_policy", &[("polrelid", "pg_class")], 0),
        catalog(STATISTIC_EXT, "pg_statistic_ext", &[("stxnamespace", NS), ("stxrelid", "pg_class")], 0),
        catalog(COLLATION, "pg_collation", &[("collnamespace", NS)], 0),
        catalog(EVENT_TRIGGER, "pg_event_trigger", &[("evtfoid", "pg_proc")], 0),
        catalog(EXTENSION, "pg_extension", &[("extnamespace", NS)], 0),
        catalog(TRANSFORM, "pg_transform", &[("trftype", "pg_type"), ("trflang", "pg_language")], 0),
        catalog(TS_DICT, "pg_ts_dict", &[("dictnamespace", NS), ("dicttemplate", "pg_ts_template")], 0),
        catalog(TS_PARSER, "pg_ts_parser", &[("prsnamespace", NS)], 0),
        catalog(TS_CONFIG, "pg_ts_config", &[("cfgnamespace", NS), ("cfgparser", "pg_ts_parser")], 0),
        catalog(TS_TEMPLATE, "pg_ts_template", &[("tmplnamespace", NS)], 0),
        catalog(PUBLICATION, "pg_publication", &[], 0),
        catalog(PUBLICATION_REL, "pg_publication_rel", &[("prpubid", "pg_publication"), ("prrelid", "pg_class")], 0),
        catalog(
            PUBLICATION_NAMESPACE,
            "pg_publication_namespace",
            &[("pnpubid", "pg_publication"), ("pnnspid", NS)],
            150_000,
        ),
        catalog(DEFAULT_ACL, "pg_default_acl", &[("defaclrole", "pg_roles"), ("defaclnamespace", NS)], 0),
        catalog(LARGE_OBJECT, "pg_largeobject_metadata", &[], 0),
        // Before version 14, only superusers may read the oids of subscriptions.
        catalog(SUBSCRIPTION, "pg_subscription", &[], 140_000),
    ]
};

/// Returns the catalogs that a server of this version has.
pub(super) fn catalogs_of(version: u32) -> impl Iterator<Item = &'static Catalog> {
    CATALOGS.iter().filter(move |catalog| version >= catalog.since)
}

/// Returns the name of a catalog, or `None` if it is not in the list.
pub(super) fn name_of(catalog: u32) -> Option<&'static str> {
    CATALOGS.iter().find(|known| known.oid == catalog).map(|known| known.name)
}

/// Returns true if a row of this catalog is only a part of what it refers to, and is dropped with that. No rows of tables
/// are lost with it.
fn is_part(catalog: u32) -> bool {
    use catalogs::*;
    let parts = [ATTRDEF, CONSTRAINT, REWRITE, TRIGGER, POLICY, CAST, TRANSFORM, EVENT_TRIGGER, DEFAULT_ACL];
    parts.contains(&catalog) || [PUBLICATION_REL, PUBLICATION_NAMESPACE].contains(&catalog)
}

/// Returns a query for a row that must not be left out although something that it needs, such as its schema, does not
/// exist. It finds the name of the object, and nothing if the row may be left out. Returns `None` if it always may.
pub(super) fn kept_name(address: Address) -> Option<String> {
    let catalog = CATALOGS.iter().find(|known| known.oid == address.catalog).filter(|known| !is_part(known.oid))?;
    let schema = catalog.references.iter().find(|(_, of)| *of == "pg_namespace").map(|(column, _)| *column);
    // The columns are named in pairs: relnamespace and relname.
    let name = schema.map_or("NULL".to_owned(), |column| format!("x.{}", column.trim_end_matches("space")));
    let mut query = format!("SELECT {name} AS name FROM pg_catalog.{} x WHERE x.oid = {}", catalog.name, address.oid);
    // The types of the rows of a table, and its extended statistics, are dropped with the table.
    if let Some(column) = schema.filter(|_| [catalogs::TYPE, catalogs::STATISTIC_EXT].contains(&catalog.oid)) {
        query.push_str(&format!(" AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace y WHERE y.oid = x.{column})"));
    }
    Some(query)
}

/// Returns an SQL condition on three expressions: the oid of a catalog, the oid of a row, and the number of a column or 0.
/// It is true if the row exists, and everything that the row needs.
pub(super) fn exists(class: &str, object: &str, column: &str, version: u32) -> String {
    let mut sql = format!("CASE {class}");
    for catalog in catalogs_of(version) {
        let mut condition = format!("x.oid = {object}");
        for (reference, of) in catalog.references {
            // Old servers crash if they are asked for a part of an object whose schema is lost.
            let in_schema = match *of {
                "pg_class" => " AND EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = y.relnamespace)",
                "pg_type" => " AND EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = y.typnamespace)",
                "pg_proc" => " AND EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = y.pronamespace)",
                _ => "",
            };
            condition.push_str(&format!(
                " AND (x.{reference} = 0 OR EXISTS (SELECT FROM pg_catalog.{of} y WHERE y.oid = x.{reference}{in_schema}))"
            ));
        }
        if catalog.oid == catalogs::TYPE {
            // An array of the rows of a table is dropped with the table.
            condition.push_str(
                " AND (x.typelem = 0 OR EXISTS (SELECT FROM pg_catalog.pg_type y WHERE y.oid = x.typelem AND (y.typrelid = 0 \
                 OR EXISTS (SELECT FROM pg_catalog.pg_class z WHERE z.oid = y.typrelid))))",
            );
        }
        if catalog.oid == catalogs::CLASS {
            condition.push_str(&format!(
                " AND ({column} = 0 OR EXISTS (SELECT FROM pg_catalog.pg_attribute y \
                 WHERE y.attrelid = x.oid AND y.attnum = {column} AND NOT y.attisdropped))"
            ));
        }
        let (oid, name) = (catalog.oid, catalog.name);
        sql.push_str(&format!(" WHEN {oid} THEN EXISTS (SELECT FROM pg_catalog.{name} x WHERE {condition})"));
    }
    // Other objects cannot have comments, except subscriptions, whose oids may be hidden.
    sql.push_str(&format!(" ELSE {class} = {} END", catalogs::SUBSCRIPTION));
    sql
}

/// Returns a subquery for the type, schema and identity of an object, as JSON: NULL if the object does not exist. The
/// server's function is not called for such an object, because old servers then fail.
pub(in crate::engine::postgres) fn identify(class: &str, object: &str, column: &str, version: u32) -> String {
    format!(
        "CASE WHEN {} THEN (SELECT to_json(i) FROM pg_catalog.pg_identify_object({class}, {object}, {column}) i) END",
        exists(class, object, column, version)
    )
}

/// Returns an SQL condition that is true if an object is in a schema that does not exist.
pub(super) fn has_lost_schemas(version: u32) -> String {
    let of_schema = |catalog: &'static Catalog| {
        let columns = catalog.references.iter().filter(|(_, of)| *of == "pg_namespace");
        columns.map(|(column, _)| {
            format!(
                "EXISTS (SELECT FROM pg_catalog.{} x WHERE x.{column} <> 0 \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = x.{column}))",
                catalog.name
            )
        })
    };
    catalogs_of(version).flat_map(of_schema).collect::<Vec<_>>().join(" OR ")
}

/// Returns an item of FROM with the columns `type`, `schema` and `identity` of the object that a row of `alias` names by
/// `classoid`, `objoid` and `objsubid`. `identity` is NULL if the object does not exist.
pub(super) fn identify_each(alias: &str, version: u32, has_lost_schemas: bool) -> String {
    let [class, object, column] = ["classoid", "objoid", "objsubid"].map(|name| format!("{alias}.{name}"));
    if version < 140_000 || has_lost_schemas {
        // Old servers fail if the object does not exist, and all crash at a part of an object in a schema that does not.
        let target = identify(&class, &object, &column, version);
        return format!(
            "(SELECT t.target ->> 'type' AS type, t.target ->> 'schema' AS schema, t.target ->> 'identity' AS identity \
             FROM (SELECT {target} AS target OFFSET 0) t)"
        );
    }
    // The server fails if there is no such catalog. No row of pg_class has the oid 0.
    let known: Vec<String> = catalogs_of(version).map(|catalog| catalog.oid.to_string()).collect();
    let known = format!("{class} IN ({})", known.join(", "));
    format!(
        "pg_catalog.pg_identify_object(CASE WHEN {known} THEN {class} ELSE {} END, CASE WHEN {known} THEN {object} ELSE 0 END, \
         CASE WHEN {known} THEN {column} ELSE 0 END)",
        catalogs::CLASS
    )
}

/// Returns words for a row of a catalog whose object does not exist: `pg_proc 16999`.
pub(super) fn shown(address: Address) -> String {
    let catalog = name_of(address.catalog).map_or_else(|| format!("catalog {}", address.catalog), str::to_owned);
    match address.column {
        0 => format!("{catalog} {}", address.oid),
        column => format!("{catalog} {}, column {column}", address.oid),
    }
}
