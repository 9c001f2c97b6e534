//! The dependencies between objects, from pg_depend.

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

/// Finds the object that an address belongs to: the object itself, or the one that it is a part of.
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
            // A part belongs to another object: a row type to its table, a rule to its view, the functions of a range
            // type to the type.
            let is_part = match kind {
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
            if is_part && from.without_column() != to.without_column() {
                places.aliases.entry(from.without_column()).or_insert(to.without_column());
            }
        }
        Ok(places)
    }

    /// Returns the index of the object that an address belongs to, if there is one.
    pub(super) fn find(&self, address: Address) -> Option<usize> {
        let mut at = address;
        // Parts are never nested deeply. The limit prevents an endless loop if the catalog is corrupt.
        for _ in 0..16 {
            let row = at.without_column();
            if let Some(index) = self.objects.get(&at).or_else(|| self.objects.get(&row)) {
                return Some(*index);
            }
            at = *self.aliases.get(&at).or_else(|| self.aliases.get(&row))?;
        }
        None
    }

    /// Returns true if an address belongs to an object of the server or of an extension, or to a part of one.
    pub(super) fn is_built_in_or_member(&self, address: Address) -> bool {
        let mut visited = HashSet::new();
        let mut rest = vec![address.without_column()];
        while let Some(at) = rest.pop() {
            if self.members.contains(&at) || at.oid < crate::engine::postgres::schema::FIRST_NORMAL_OID {
                return true;
            }
            if visited.insert(at) {
                let start = self.edges.partition_point(|edge| edge.from.without_column() < at);
                let edges = self.edges[start..].iter().take_while(|edge| edge.from.without_column() == at);
                // Only dependencies on an extension, or on an object that this one is dropped with, are followed.
                // Dependencies on objects that it only uses are not.
                let followed = edges.filter(|edge| matches!(edge.kind, 'a' | 'i' | 'e'));
                rest.extend(followed.map(|edge| edge.to.without_column()));
            }
        }
        false
    }

    /// Adds to every object the dependencies that pg_depend records.
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
        self.add_extension_dependencies(reader)
    }

    /// Adds `ALTER ... DEPENDS ON EXTENSION`.
    fn add_extension_dependencies(&self, reader: &mut Reader) -> Result<()> {
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
