//! The schema of a database, read from the catalogs as SQL that makes it again.
//!
//! The measure: `pg_dump --schema-only` of a database made by this SQL equals that of the source. Where the server
//! has a function that prints a definition (`pg_get_viewdef` and the like), it is used; `search_path` is empty while
//! it runs, so that every name comes out qualified.
//!
//! [`object`] is one thing that can be made, with what it needs; [`order`] puts things in an order in which they can
//! be made; one file per kind of thing reads it; [`grants`], `comments` and `depends` serve them all.

mod columns;
mod comment_target;
mod comments;
mod complete;
mod constraints;
pub mod data;
mod database;
mod depends;
mod foreign;
mod functions;
pub mod grants;
mod indexes;
pub mod object;
mod operators;
pub mod option_text;
pub mod options;
pub mod order;
mod policies;
pub mod quote;
mod relation;
mod render;
mod replication;
mod rules;
mod schemas;
pub mod sequences;
mod statistics;
mod tables;
mod texts;
mod triggers;
mod types;
mod views;

use std::collections::{BTreeSet, HashMap, HashSet};

pub use object::{Address, Item, Kind, Object, Section, Stub, catalogs};
pub use render::{SETTINGS, render};

use crate::engine::postgres::timescale::{self, Timescale};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::Result;
pub use crate::snapshots::manifest::Extension;

/// The first oid that is not of the system's own objects.
pub const FIRST_NORMAL_OID: u32 = 16384;

/// A condition on `n`, pg_namespace: the schemas whose contents are not the system's.
pub const USER_SCHEMAS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// All of a database's schema, in an order in which it can be made.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// What can be made, in order.
    pub items: Vec<Item>,
    /// What the SQL cannot carry, each named with the reason.
    pub refused: Vec<String>,
    /// What is left out on purpose, or what whoever restores should know.
    pub notes: Vec<String>,
    /// The roles that owners, grants and policies name.
    pub roles: BTreeSet<String>,
    /// The extensions that `items` makes.
    pub extensions: Vec<Extension>,
}

/// Collects the objects while the catalogs are read.
pub struct Reader<'a> {
    /// The connection, in a transaction, with an empty search_path.
    pub session: &'a mut Session,
    /// What was read so far.
    pub objects: Vec<Object>,
    /// What cannot be carried.
    pub refused: Vec<String>,
    /// What is left out on purpose.
    pub notes: Vec<String>,
    /// The extensions.
    pub extensions: Vec<Extension>,
    /// Members of extensions: they come with `CREATE EXTENSION` and are no objects of their own. Temporary things
    /// are here too.
    pub members: HashSet<Address>,
    /// Parts that stand for a whole in pg_depend beyond what pg_depend itself tells (internal dependencies, and
    /// defaults and constraints of a table or domain that are no objects of their own).
    pub aliases: HashMap<Address, Address>,
    /// What TimescaleDB has here, where the database has it.
    pub timescale: Option<Timescale>,
}

impl Reader<'_> {
    /// The server's version as a number: 150004 for 15.4.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.session.version()
    }

    /// Runs one query.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.session.rows(sql)
    }

    /// Whether an extension brings this along.
    #[must_use]
    pub fn is_member(&self, address: Address) -> bool {
        self.members.contains(&address.whole())
    }

    /// Takes an object, but for one that an extension brings along.
    pub fn add(&mut self, object: Object) {
        if !self.is_member(object.address) {
            self.objects.push(object);
        }
    }

    /// `ONLY ` for statements that go for one table alone; nothing for a hypertable, of which its chunks are not told apart.
    #[must_use]
    pub fn only(&self, table: u32) -> &'static str {
        let is_hypertable = |timescale: &Timescale| timescale.hypertables.contains_key(&table);
        if self.timescale.as_ref().is_some_and(is_hypertable) { "" } else { "ONLY " }
    }

    /// `column` where the server has it, from version `since` (150000) on, and `otherwise` where it has not.
    #[must_use]
    pub fn since<'t>(&self, since: u32, column: &'t str, otherwise: &'t str) -> &'t str {
        if self.version() >= since { column } else { otherwise }
    }
}

/// Reads the schema. The caller has begun the transaction that everything is to be seen in; to its end, search_path
/// is empty, and DateStyle, IntervalStyle and extra_float_digits are as pg_dump has them.
pub fn read(session: &mut Session) -> Result<Schema> {
    // What a definition looks like depends on these, as what COPY prints does.
    session.execute(
        "SET LOCAL search_path = ''; SET LOCAL quote_all_identifiers = off; SET LOCAL standard_conforming_strings = on; \
         SET LOCAL DateStyle = ISO; SET LOCAL IntervalStyle = postgres; SET LOCAL extra_float_digits = 3; \
         SET LOCAL bytea_output = hex",
    )?;
    if has_newer_words(session)? {
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
        timescale: None,
    };
    // What sessions hold in temporary schemas is passed over in the same way, and so is the store behind long values.
    let members = format!(
        "SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e' \
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
        timescale::reach(reader.session, &mut timescale)?;
        timescale::definitions::pass_over(&mut reader, &timescale)?;
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
    reader.session.execute("SET LOCAL quote_all_identifiers = off")?;
    let roles = reader.objects.iter().flat_map(|object| object.roles.iter().cloned()).collect();
    Ok(Schema {
        items: order::sort(reader.objects)?,
        refused: reader.refused,
        notes: reader.notes,
        roles,
        extensions: reader.extensions,
    })
}

/// Whether something has a name that this server writes without quotes and that a newer one reads as a keyword: a
/// column `system_user` in a view or an index would come back as the function of that name, or not at all.
fn has_newer_words(session: &mut Session) -> Result<bool> {
    let words: Vec<String> = quote::KEYWORDS.iter().map(|word| quote::literal(word)).collect();
    let row = session.row(&format!(
        "SELECT EXISTS (
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
    row.flag("has")
}

/// Reads every kind of thing.
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
    database::system_privileges(reader)?;
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
