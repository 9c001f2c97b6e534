//! The check that no object was missed: every row of every catalog of objects was read as an object, is part of one, or
//! belongs to the server or to an extension.

use std::fmt::Write as _;

use crate::engine::postgres::schema::depends::Places;
use crate::engine::postgres::schema::object::{Address, catalogs};
use crate::engine::postgres::schema::{FIRST_NORMAL_OID, Reader};
use crate::platform::error::Result;

/// The catalogs of the objects that make up a schema, each with a condition on `x`.
const CATALOGS: &[(u32, &str, &str)] = &[
    (catalogs::TYPE, "pg_type", "true"),
    (catalogs::PROC, "pg_proc", "true"),
    (catalogs::CLASS, "pg_class", "true"),
    (catalogs::FOREIGN_SERVER, "pg_foreign_server", "true"),
    (catalogs::FOREIGN_DATA_WRAPPER, "pg_foreign_data_wrapper", "true"),
    (catalogs::AM, "pg_am", "true"),
    (catalogs::ATTRDEF, "pg_attrdef", "true"),
    (catalogs::CAST, "pg_cast", "true"),
    (catalogs::CONSTRAINT, "pg_constraint", "true"),
    (catalogs::CONVERSION, "pg_conversion", "true"),
    (catalogs::LANGUAGE, "pg_language", "true"),
    (catalogs::NAMESPACE, "pg_namespace", "x.nspname !~ '^pg_(temp|toast)'"),
    (catalogs::OPCLASS, "pg_opclass", "true"),
    // An operator without a function is only a name that another operator mentions.
    (catalogs::OPERATOR, "pg_operator", "x.oprcode <> 0"),
    (catalogs::OPFAMILY, "pg_opfamily", "true"),
    (catalogs::REWRITE, "pg_rewrite", "true"),
    // The copies on partitions are created with the trigger of the partitioned table.
    (catalogs::TRIGGER, "pg_trigger", "NOT x.tgisinternal AND x.tgparentid = 0"),
    (catalogs::POLICY, "pg_policy", "true"),
    (catalogs::STATISTIC_EXT, "pg_statistic_ext", "true"),
    (catalogs::COLLATION, "pg_collation", "true"),
    (catalogs::EVENT_TRIGGER, "pg_event_trigger", "true"),
    (catalogs::EXTENSION, "pg_extension", "true"),
    (catalogs::TRANSFORM, "pg_transform", "true"),
    (catalogs::TS_DICT, "pg_ts_dict", "true"),
    (catalogs::TS_PARSER, "pg_ts_parser", "true"),
    (catalogs::TS_CONFIG, "pg_ts_config", "true"),
    (catalogs::TS_TEMPLATE, "pg_ts_template", "true"),
    (catalogs::PUBLICATION, "pg_publication", "true"),
    (catalogs::PUBLICATION_REL, "pg_publication_rel", "true"),
    (catalogs::DEFAULT_ACL, "pg_default_acl", "true"),
];

/// Refuses every row of the catalogs that belongs to no known object.
pub(super) fn check(reader: &mut Reader, places: &Places) -> Result<()> {
    let mut query = String::new();
    for (catalog, relation, condition) in CATALOGS {
        if !query.is_empty() {
            query.push_str(" UNION ALL ");
        }
        let _ = write!(
            query,
            "SELECT {catalog} AS catalog, x.oid FROM pg_catalog.{relation} x \
             WHERE x.oid >= {FIRST_NORMAL_OID} AND {condition}"
        );
    }
    let mut missing: Vec<Address> = Vec::new();
    for row in reader.rows(&query)? {
        let address = Address::new(row.number("catalog")?, row.number("oid")?);
        if places.find(address).is_none() && !places.is_built_in_or_member(address) {
            missing.push(address);
        }
    }
    for address in missing {
        let row = reader.session.row(&format!(
            "SELECT i.type, i.identity, i.schema FROM pg_catalog.pg_identify_object({}, {}, 0) i",
            address.catalog, address.oid
        ))?;
        let name = format!("{} {}", row.get("type")?.unwrap_or("object"), row.get("identity")?.unwrap_or_default());
        if matches!(row.get("schema")?, Some("pg_catalog" | "information_schema")) {
            reader.notes.push(format!("{name} is in a schema of the system and was left out"));
        } else if !reader.refused.iter().chain(&reader.notes).any(|reason| reason.contains(&name)) {
            reader.refused.push(format!("{name}: lifeboat cannot determine how to create it"));
        }
    }
    Ok(())
}
