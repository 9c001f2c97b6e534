//! What needs what, from pg_depend.

use std::collections::{HashMap, HashSet};

use crate::engine::postgres::schema::comment_target::comment_target;
use crate::engine::postgres::schema::object::{Address, Object, catalogs};
use crate::engine::postgres::schema::{Reader, quote};
use crate::platform::error::Result;

/// One row of pg_depend.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: Address,
    to: Address,
    kind: char,
}

/// Finds the object that an address is of: itself, or what it is a part of.
#[derive(Debug, Default)]
pub(super) struct Places {
    objects: HashMap<Address, usize>,
    aliases: HashMap<Address, Address>,
    members: HashSet<Address>,
    edges: Vec<Edge>,
}

impl Places {
    /// Reads pg_depend for the objects found so far.
    pub(super) fn read(reader: &mut Reader) -> Result<Self> {
        let mut places = Places {
            objects: reader.objects.iter().enumerate().map(|(index, object)| (object.address, index)).collect(),
            aliases: reader.aliases.clone(),
            members: reader.members.clone(),
            edges: Vec::new(),
        };
        let rows = reader.session.rows(
            "SELECT classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype FROM pg_catalog.pg_depend \
             WHERE deptype <> 'p' AND classid <> 0 ORDER BY 1, 2, 3, 4, 5, 6, 7",
        )?;
        for row in rows {
            let from =
                Address { catalog: row.number("classid")?, oid: row.number("objid")?, column: row.number("objsubid")? };
            let to = Address {
                catalog: row.number("refclassid")?,
                oid: row.number("refobjid")?,
                column: row.number("refobjsubid")?,
            };
            let kind = row.text("deptype")?.chars().next().unwrap_or('n');
            places.edges.push(Edge { from, to, kind });
            // A part goes with its whole: a rowtype with its table, a rule with its view, a range's functions with it.
            let whole = match kind {
                'i' | 'e' => true,
                'a' => matches!(
                    (from.catalog, to.catalog),
                    (catalogs::ATTRDEF, catalogs::CLASS)
                        | (catalogs::CONSTRAINT, catalogs::CLASS | catalogs::TYPE)
                        | (catalogs::AMOP | catalogs::AMPROC, catalogs::OPFAMILY | catalogs::OPCLASS)
                        | (catalogs::CLASS, catalogs::CLASS)
                ),
                _ => false,
            };
            if whole && from.whole() != to.whole() {
                places.aliases.entry(from.whole()).or_insert(to.whole());
            }
        }
        Ok(places)
    }

    /// The object that stands for an address, if one does.
    pub(super) fn find(&self, address: Address) -> Option<usize> {
        let mut at = address;
        // Parts of parts are never deep; a bound keeps a wrong catalog from turning this into an endless walk.
        for _ in 0..16 {
            if let Some(index) = self.objects.get(&at).or_else(|| self.objects.get(&at.whole())) {
                return Some(*index);
            }
            at = *self.aliases.get(&at).or_else(|| self.aliases.get(&at.whole()))?;
        }
        None
    }

    /// Whether an address is of something that the server or an extension brings along, or of a part of that.
    pub(super) fn comes_otherwise(&self, address: Address) -> bool {
        let mut seen = HashSet::new();
        let mut rest = vec![address.whole()];
        while let Some(at) = rest.pop() {
            if self.members.contains(&at) || at.oid < crate::engine::postgres::schema::FIRST_NORMAL_OID {
                return true;
            }
            if seen.insert(at) {
                let start = self.edges.partition_point(|edge| edge.from.whole() < at);
                let own = self.edges[start..].iter().take_while(|edge| edge.from.whole() == at);
                // An extension or the whole that something is dropped with; not what it merely uses.
                rest.extend(own.filter(|edge| matches!(edge.kind, 'a' | 'i' | 'e')).map(|edge| edge.to.whole()));
            }
        }
        false
    }

    /// Adds to every object what pg_depend says that it needs.
    pub(super) fn add_needs(&self, reader: &mut Reader) -> Result<()> {
        let addresses: Vec<Address> = reader.objects.iter().map(|object| object.address).collect();
        for edge in &self.edges {
            if edge.kind == 'x' {
                continue;
            }
            let (Some(from), Some(to)) = (self.find(edge.from), self.find(edge.to)) else { continue };
            let object = &mut reader.objects[from];
            if from != to && !object.needs_not.contains(&addresses[to]) && !object.needs.contains(&addresses[to]) {
                object.needs.push(addresses[to]);
            }
        }
        self.add_extension_ties(reader)
    }

    /// Adds `ALTER ... DEPENDS ON EXTENSION`.
    fn add_extension_ties(&self, reader: &mut Reader) -> Result<()> {
        for edge in self.edges.iter().filter(|edge| edge.kind == 'x') {
            let (Some(from), Some(to)) = (self.find(edge.from), self.find(edge.to)) else { continue };
            let name = quote::ident(&reader.objects[to].name);
            let need = reader.objects[to].address;
            let Address { catalog, oid, column } = edge.from;
            let row = reader.session.row(&format!(
                "SELECT type, identity FROM pg_catalog.pg_identify_object({catalog}, {oid}, {column})"
            ))?;
            let identity = comment_target(edge.from, row.text("type")?, row.text("identity")?);
            let object: &mut Object = &mut reader.objects[from];
            let statement = format!("ALTER {identity} DEPENDS ON EXTENSION {name}");
            if let Some(stub) = &mut object.stub {
                stub.complete.push(statement.clone());
            }
            object.create.push(statement);
            object.needs.push(need);
        }
        Ok(())
    }
}
