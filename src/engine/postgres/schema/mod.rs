//! The schema of a database, read from the catalogs as SQL that creates it again.
//!
//! The goal: `pg_dump --schema-only` of a database that was created by this SQL prints the same as for the source. If
//! the server has a function that prints a definition (`pg_get_viewdef` and the like), it is used; `search_path` is
//! empty while it runs, so that it qualifies every name.
//!
//! [`object`] is one object that can be created, with its dependencies; [`order`] sorts objects into an order in which
//! they can be created; one file for each kind of object reads it; [`grants`], `comments` and `depends` are used by all
//! of them.

mod catalog_rows;
mod columns;
mod comment_target;
mod comments;
mod complete;
mod constraints;
pub mod data;
pub(super) mod database;
mod depends;
mod foreign;
mod functions;
pub mod gone_roles;
pub mod grants;
mod indexes;
pub mod newer;
pub mod object;
mod operators;
pub mod option_text;
pub mod options;
pub mod order;
mod policies;
pub(super) mod privileges;
pub(super) mod provided;
pub(super) mod psql_text;
pub mod quote;
pub(super) mod reader;
mod relation;
mod render;
mod replication;
pub(super) mod restriction;
pub(super) mod roles;
mod rules;
mod schemas;
pub mod sequences;
pub(super) mod setting_text;
mod statistics;
mod tables;
mod texts;
mod triggers;
mod types;
mod views;

use std::collections::{BTreeSet, HashMap, HashSet};

pub(super) use catalog_rows::identify;
use gone_roles::{GoneRoles, LOOKS_GONE};
pub use object::{Address, Item, Kind, Object, Section, Stub, catalogs};
pub use reader::Reader;
pub use render::{SETTINGS, render};
pub(super) use render::{not_sql, require_sql};

use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;
pub use crate::snapshots::manifest::Extension;
use crate::snapshots::manifest::RoleFacts;

/// The first oid that does not belong to an object of the system.
pub const FIRST_NORMAL_OID: u32 = 16384;

/// A condition on `n`, pg_namespace: the schemas that do not belong to the system.
pub const USER_SCHEMAS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// The whole schema of a database, in an order in which it can be created.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The objects that can be created, in order.
    pub items: Vec<Item>,
    /// The objects that the SQL cannot create, each with the reason.
    pub refused: Vec<String>,
    /// Messages about objects that are left out on purpose, and about other facts that matter when restoring.
    pub notes: Vec<String>,
    /// The roles that owners, grants and policies name.
    pub roles: BTreeSet<String>,
    /// The definitions of those roles.
    pub role_definitions: Vec<RoleFacts>,
    /// The tablespaces that objects are stored in.
    pub tablespaces: BTreeSet<String>,
    /// The extensions that `items` creates.
    pub extensions: Vec<Extension>,
}

/// Reads the schema. The caller must have begun the transaction in which everything is read. Until its end, search_path
/// is empty, and DateStyle, IntervalStyle and extra_float_digits are set as pg_dump sets them.
pub fn read(session: &mut Session) -> Result<Schema> {
    // The text of definitions depends on these settings, as the output of COPY does.
    session.execute(
        "SET LOCAL search_path = ''; SET LOCAL quote_all_identifiers = off; SET LOCAL standard_conforming_strings = on; \
         SET LOCAL DateStyle = ISO; SET LOCAL IntervalStyle = postgres; SET LOCAL extra_float_digits = 3; \
         SET LOCAL bytea_output = hex; SET LOCAL jit = off",
    )?;
    let names = names(session)?;
    if names.has_newer_keyword {
        session.execute("SET LOCAL quote_all_identifiers = on")?;
    }
    let mut reader = Reader {
        session,
        objects: Vec::new(),
        refused: Vec::new(),
        notes: Vec::new(),
        extensions: Vec::new(),
        members: HashSet::new(),
        aliases: HashMap::new(),
        gone_roles: names.gone_roles,
        timescale: None,
    };
    // Objects in temporary schemas and TOAST tables are ignored in the same way as members of extensions.
    // A row that was left over by a dropped extension makes nothing a member.
    let members = format!(
        "SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e' \
         AND refobjid IN (SELECT oid FROM pg_catalog.pg_extension) \
         UNION SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
         JOIN pg_catalog.pg_namespace n ON d.refclassid = {} AND d.refobjid = n.oid WHERE n.nspname ~ '^pg_temp_' \
         UNION SELECT {}, c.oid FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname ~ '^pg_(temp|toast)'",
        catalogs::NAMESPACE,
        catalogs::CLASS
    );
    for row in reader.rows(&members)? {
        reader.members.insert(Address::new(row.number("classid")?, row.number("objid")?));
    }
    if let Some(mut timescale) = timescale::read(reader.session)? {
        timescale::read_watermarks(reader.session, &mut timescale)?;
        timescale::definitions::exclude_internal(&mut reader, &timescale)?;
        reader.timescale = Some(timescale);
    }
    read_objects(&mut reader)?;
    if let Some(timescale) = reader.timescale.take() {
        timescale::definitions::read(&mut reader, &timescale)?;
        reader.timescale = Some(timescale);
    }
    let places = depends::Places::read(&mut reader)?;
    places.add_needs(&mut reader)?;
    comments::add(&mut reader, &places)?;
    complete::check(&mut reader, &places)?;
    reader.refused.extend(newer::unknown(reader.session)?);
    let notes = reader.gone_roles.remove_owners(&mut reader.objects);
    reader.notes.extend(notes);
    reader.notes.extend(reader.gone_roles.notes());
    reader.session.execute("SET LOCAL quote_all_identifiers = off")?;
    let roles = reader.objects.iter().flat_map(|object| object.roles.iter().cloned()).collect();
    let tablespaces = reader.objects.iter().filter_map(|object| object.tablespace.clone()).collect();
    let role_definitions = roles::read(reader.session, &roles)?;
    Ok(Schema {
        items: order::sort(reader.objects)?,
        refused: reader.refused,
        notes: reader.notes,
        roles,
        role_definitions,
        tablespaces,
        extensions: reader.extensions,
    })
}

/// Names that decide how the schema is read.
struct Names {
    /// True if an object has a name that this server prints without quotes and that a newer server reads as a keyword: a
    /// column `system_user` in a view or an index would be restored as the function of that name, or not at all.
    has_newer_keyword: bool,
    gone_roles: GoneRoles,
}

fn names(session: &mut Session) -> Result<Names> {
    let words: Vec<String> = quote::KEYWORDS.iter().map(|word| quote::literal(word)).collect();
    let row = session.row(&format!(
        "SELECT to_json(ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles WHERE {LOOKS_GONE})) AS roles, EXISTS (
             SELECT FROM unnest(ARRAY[{}]::name[]) AS word
              WHERE pg_catalog.quote_ident(word) = word::text
                AND (word IN (SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid >= {FIRST_NORMAL_OID})
                     OR word IN (SELECT relname FROM pg_catalog.pg_class WHERE oid >= {FIRST_NORMAL_OID})
                     OR word IN (SELECT typname FROM pg_catalog.pg_type WHERE oid >= {FIRST_NORMAL_OID})
                     OR word IN (SELECT proname FROM pg_catalog.pg_proc WHERE oid >= {FIRST_NORMAL_OID})
                     OR word::text IN (SELECT unnest(proargnames) FROM pg_catalog.pg_proc WHERE oid >= {FIRST_NORMAL_OID})
                     OR word IN (SELECT collname FROM pg_catalog.pg_collation WHERE oid >= {FIRST_NORMAL_OID})
                     OR word IN (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid >= {FIRST_NORMAL_OID}))) AS has",
        words.join(", ")
    ))?;
    Ok(Names { has_newer_keyword: row.flag("has")?, gone_roles: GoneRoles::new(row.list("roles")?) })
}

/// Reads every kind of object.
fn read_objects(reader: &mut Reader) -> Result<()> {
    schemas::schemas(reader)?;
    schemas::extensions(reader)?;
    schemas::languages(reader)?;
    schemas::access_methods(reader)?;
    types::types(reader)?;
    functions::functions(reader)?;
    functions::aggregates(reader)?;
    operators::operators(reader)?;
    operators::families(reader)?;
    operators::classes(reader)?;
    operators::casts(reader)?;
    operators::transforms(reader)?;
    texts::collations(reader)?;
    texts::conversions(reader)?;
    texts::text_search(reader)?;
    foreign::wrappers(reader)?;
    foreign::servers(reader)?;
    foreign::user_mappings(reader)?;
    replication::publications(reader)?;
    replication::subscriptions(reader)?;
    replication::event_triggers(reader)?;
    database::large_objects(reader)?;
    database::default_privileges(reader)?;
    privileges::system_privileges(reader)?;
    database::settings(reader)?;
    tables::read(reader)?;
    sequences::read(reader)?;
    views::read(reader)?;
    constraints::read(reader)?;
    indexes::read(reader)?;
    rules::read(reader)?;
    triggers::read(reader)?;
    policies::read(reader)?;
    statistics::read(reader)?;
    options::note_left_out(reader)
}
