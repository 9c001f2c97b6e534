//! The objects that a restore creates in an existing database, by their oids: another program may create objects of the same
//! names there. Only objects that are not dropped together with another one are recorded.

use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::schema::{FIRST_NORMAL_OID, Item, Kind, catalogs};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{self, Result};

/// Runs a statement of an item. If the session has a list of what it creates, the objects that the statement creates are
/// recorded. Their oids come with the reply to the statement, from the same transaction.
pub(super) fn execute(session: &mut Session, item: &Item, statement: &str) -> Result<()> {
    let Some(created) = session.created().filter(|_| creates(item, statement)) else {
        return session.execute(statement);
    };
    created.begin(item.id);
    let oids = match place_of(item) {
        Some(place) => session.rows(&format!("{statement}\n;{}", place.query(item))).and_then(|rows| oids(&rows)),
        None => session.execute(statement).map(|()| vec![item.oid]),
    };
    match oids {
        Ok(oids) => created.finish(item.id, &oids),
        // Without a reply, the statement may have been run or not.
        Err(error) if matches!(error.kind, error::Kind::Unreachable | error::Kind::Interrupted) => return Err(error),
        Err(error) => {
            created.finish(item.id, &[]);
            return Err(error);
        }
    }
    Ok(())
}

/// Records the objects of an item that this transaction has created, if the session has a list.
pub(super) fn record(session: &mut Session, item: &Item, statement: &str) -> Result<()> {
    let Some(created) = session.created().filter(|_| creates(item, statement)) else { return Ok(()) };
    if let Some(place) = place_of(item) {
        let oids = oids(&session.rows(&place.query(item))?)?;
        created.finish(item.id, &oids);
    }
    Ok(())
}

fn oids(rows: &[crate::engine::postgres::wire::session::Row]) -> Result<Vec<u32>> {
    rows.iter().map(|row| row.number("oid")).collect()
}

/// Returns true if a statement of an item creates an object that must be dropped by itself.
fn creates(item: &Item, statement: &str) -> bool {
    match item.kind {
        Kind::LargeObject | Kind::DefaultPrivileges => true,
        Kind::UserMapping => statement.starts_with("CREATE "),
        _ => place_of(item).is_some() && statement.starts_with("CREATE "),
    }
}

/// The place of an object in the catalogs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The oid of the catalog.
    pub(super) catalog: u32,
    table: &'static str,
    /// The columns for the name and the schema; empty if the object has none.
    name: &'static str,
    schema: &'static str,
}

/// Returns the place of the object that an item creates. Returns `None` for other items, for large objects, whose oids are
/// known, and for user mappings, whose catalog cannot be read.
pub(super) fn place_of(item: &Item) -> Option<Place> {
    use Kind::*;
    let (catalog, table, name, schema) = match item.kind {
        Schema => (catalogs::NAMESPACE, "pg_namespace", "nspname", ""),
        Language => (catalogs::LANGUAGE, "pg_language", "lanname", ""),
        Extension => (catalogs::EXTENSION, "pg_extension", "extname", ""),
        Collation => (catalogs::COLLATION, "pg_collation", "collname", "collnamespace"),
        ShellType | Type | Domain => (catalogs::TYPE, "pg_type", "typname", "typnamespace"),
        Cast => (catalogs::CAST, "pg_cast", "", ""),
        Function | Procedure | Aggregate => (catalogs::PROC, "pg_proc", "proname", "pronamespace"),
        AccessMethod => (catalogs::AM, "pg_am", "amname", ""),
        Operator => (catalogs::OPERATOR, "pg_operator", "oprname", "oprnamespace"),
        OperatorFamily => (catalogs::OPFAMILY, "pg_opfamily", "opfname", "opfnamespace"),
        OperatorClass => (catalogs::OPCLASS, "pg_opclass", "opcname", "opcnamespace"),
        Conversion => (catalogs::CONVERSION, "pg_conversion", "conname", "connamespace"),
        TextSearchParser => (catalogs::TS_PARSER, "pg_ts_parser", "prsname", "prsnamespace"),
        TextSearchTemplate => (catalogs::TS_TEMPLATE, "pg_ts_template", "tmplname", "tmplnamespace"),
        TextSearchDictionary => (catalogs::TS_DICT, "pg_ts_dict", "dictname", "dictnamespace"),
        TextSearchConfiguration => (catalogs::TS_CONFIG, "pg_ts_config", "cfgname", "cfgnamespace"),
        Transform => (catalogs::TRANSFORM, "pg_transform", "", ""),
        ForeignDataWrapper => (catalogs::FOREIGN_DATA_WRAPPER, "pg_foreign_data_wrapper", "fdwname", ""),
        ForeignServer => (catalogs::FOREIGN_SERVER, "pg_foreign_server", "srvname", ""),
        Table | ForeignTable | Sequence | View | MaterializedView | ContinuousAggregate => {
            (catalogs::CLASS, "pg_class", "relname", "relnamespace")
        }
        Statistics => (catalogs::STATISTIC_EXT, "pg_statistic_ext", "stxname", "stxnamespace"),
        Publication => (catalogs::PUBLICATION, "pg_publication", "pubname", ""),
        Subscription => (catalogs::SUBSCRIPTION, "pg_subscription", "subname", ""),
        EventTrigger => (catalogs::EVENT_TRIGGER, "pg_event_trigger", "evtname", ""),
        _ => return None,
    };
    Some(Place { catalog, table, name, schema })
}

impl Place {
    /// Returns a query for the oids of the rows of this item that the current transaction has written.
    fn query(&self, item: &Item) -> String {
        let named = self.named(item);
        // The name is unique, so that no other can exist. Only superusers may read xmin there.
        if self.catalog == catalogs::SUBSCRIPTION {
            return named;
        }
        format!("{named} AND x.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid")
    }

    /// Returns a query for the oids of the objects with the name of this item; of all objects that are not of the system or an
    /// extension if those of this kind have no names.
    pub(super) fn named(&self, item: &Item) -> String {
        let mut sql = format!("SELECT x.oid FROM pg_catalog.{} x WHERE true", self.table);
        // CREATE OPERATOR also creates the operators that it names and that do not exist, without a function.
        let or_named = if self.catalog == catalogs::OPERATOR { "x.oprcode = 0 OR " } else { "" };
        if self.catalog == catalogs::SUBSCRIPTION {
            let of_database = "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())";
            sql.push_str(&format!(" AND x.subdbid = {of_database}"));
        }
        if self.name.is_empty() {
            sql.push_str(&format!(
                " AND x.oid >= {FIRST_NORMAL_OID} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = {} AND d.objid = x.oid AND d.deptype = 'e')",
                self.catalog
            ));
        } else {
            // The name of a function is followed by its arguments, and may itself have parentheses.
            let ends = item.name.match_indices('(').map(|(end, _)| end).filter(|_| self.catalog == catalogs::PROC);
            let names: Vec<String> = ends.chain([item.name.len()]).map(|end| literal(&item.name[..end])).collect();
            sql.push_str(&format!(" AND ({or_named}x.{} IN ({}))", self.name, names.join(", ")));
        }
        if let Some(schema) = item.schema.as_ref().filter(|_| !self.schema.is_empty()) {
            let oid = format!("(SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = {})", literal(schema));
            sql.push_str(&format!(" AND ({or_named}x.{} = {oid})", self.schema));
        }
        sql
    }
}
