//! The schema of a database, read from the catalogs as SQL that makes it again.
//!
//! The measure: `pg_dump --schema-only` of a database made by this SQL equals that of the source. Where the server
//! has a function that prints a definition (`pg_get_viewdef` and the like), it is used; `search_path` is empty while
//! it runs, so that every name comes out qualified.
//!
//! [`object`] is one thing that can be made, with what it needs; [`order`] puts things in an order in which they can
//! be made; one file per kind of thing reads it.

pub mod object;
pub mod order;

use std::collections::{BTreeSet, HashMap, HashSet};

pub use object::{Address, Kind, Object, Section};

use super::session::Session;
use crate::error::Result;

/// The first oid that is not of the system's own objects.
pub const FIRST_NORMAL_OID: u32 = 16384;

/// All of a database's schema, in an order in which it can be made.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// What can be made.
    pub objects: Vec<Object>,
    /// What the SQL cannot carry, each named with the reason.
    pub refused: Vec<String>,
    /// The roles that owners, grants and policies name.
    pub roles: BTreeSet<String>,
}

/// Collects the objects while the catalogs are read.
pub struct Reader<'a> {
    /// The connection, in a transaction, with an empty search_path.
    pub session: &'a mut Session,
    /// What was read so far.
    pub objects: Vec<Object>,
    /// What cannot be carried.
    pub refused: Vec<String>,
    /// Members of extensions: they come with `CREATE EXTENSION` and are no objects of their own.
    pub members: HashSet<Address>,
    /// Parts that stand for a whole in pg_depend: a rowtype for its table, a view's rule for the view.
    pub aliases: HashMap<Address, Address>,
}

/// Reads the schema. The caller has begun the transaction that everything is to be seen in.
pub fn read(session: &mut Session) -> Result<Schema> {
    session.execute("SET LOCAL search_path = ''")?;
    let reader =
        Reader { session, objects: Vec::new(), refused: Vec::new(), members: HashSet::new(), aliases: HashMap::new() };
    Ok(Schema { objects: order::sort(reader.objects)?, refused: reader.refused, roles: BTreeSet::new() })
}
