//! Collects the objects of a schema while the catalogs are read.

use std::collections::{HashMap, HashSet};

use crate::engine::postgres::schema::gone_roles::GoneRoles;
use crate::engine::postgres::schema::object::{Address, Object};
use crate::engine::postgres::timescale::Timescale;
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::Result;
use crate::snapshots::manifest::Extension;

/// Collects the objects while the catalogs are read.
pub struct Reader<'a> {
    /// The connection, in a transaction, with an empty search_path.
    pub session: &'a mut Session,
    /// The objects that were read so far.
    pub objects: Vec<Object>,
    /// The objects that the SQL cannot create, each with the reason.
    pub refused: Vec<String>,
    /// Messages about objects that are left out on purpose.
    pub notes: Vec<String>,
    /// The extensions.
    pub extensions: Vec<Extension>,
    /// The members of extensions: `CREATE EXTENSION` creates them, so they are not read as objects. Temporary objects
    /// are in this set too.
    pub members: HashSet<Address>,
    /// Parts, and the object that each belongs to, in addition to those that pg_depend records. (pg_depend records
    /// internal dependencies, and the defaults and constraints of a table or domain that are not separate objects.)
    pub aliases: HashMap<Address, Address>,
    /// The roles that objects name although they do not exist.
    pub gone_roles: GoneRoles,
    /// The hypertables, aggregates and other objects of TimescaleDB, if the database has the extension.
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

    /// Returns true if the object is a member of an extension.
    #[must_use]
    pub fn is_member(&self, address: Address) -> bool {
        self.members.contains(&address.without_column())
    }

    /// Adds an object, unless it is a member of an extension.
    pub fn add(&mut self, object: Object) {
        if !self.is_member(object.address) {
            self.objects.push(object);
        }
    }

    /// Returns `ONLY ` for statements that apply to one table alone. Returns an empty string for a hypertable, because
    /// its chunks are not treated as separate tables.
    #[must_use]
    pub fn only(&self, table: u32) -> &'static str {
        let is_hypertable = |timescale: &Timescale| timescale.hypertables.contains_key(&table);
        if self.timescale.as_ref().is_some_and(is_hypertable) { "" } else { "ONLY " }
    }

    /// Returns `column` if the server has it, that is, from version `since` (for example 150000) on, or else
    /// `otherwise`.
    #[must_use]
    pub fn since<'t>(&self, since: u32, column: &'t str, otherwise: &'t str) -> &'t str {
        if self.version() >= since { column } else { otherwise }
    }
}
