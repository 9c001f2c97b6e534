//! Roles that were dropped although objects still name them, as owners or in lists of privileges.
//!
//! The server prints the number of such a role: `16999=r/postgres` in a list of privileges, and `unknown (OID=16999)` as
//! an owner.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::engine::postgres::schema::object::{Kind, Object};
use crate::engine::postgres::schema::quote;

/// A condition on the name of a role: it looks like what the server prints for a role that does not exist.
pub(super) const LOOKS_GONE: &str = "rolname ~ '^([0-9]+|unknown \\(OID=[0-9]+\\))$'";

/// The roles that do not exist, and the objects that name them.
#[derive(Debug, Default)]
pub struct GoneRoles {
    /// The names of existing roles that look like those of roles that do not exist.
    existing: HashSet<String>,
    /// For each number, the objects whose privileges name it.
    in_privileges: BTreeMap<String, BTreeSet<String>>,
}

impl GoneRoles {
    /// Creates the list. `existing` are the roles whose names meet [`LOOKS_GONE`].
    #[must_use]
    pub(super) fn new(existing: impl IntoIterator<Item = String>) -> Self {
        GoneRoles { existing: existing.into_iter().collect(), in_privileges: BTreeMap::new() }
    }

    /// Returns true if the name in a list of privileges is the number of a role that does not exist.
    #[must_use]
    pub(super) fn is_gone(&self, name: &str) -> bool {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) && !self.existing.contains(name)
    }

    /// Returns true if the name of an owner is the server's text for a role that does not exist.
    #[must_use]
    pub(super) fn is_gone_owner(&self, name: &str) -> bool {
        number_of_owner(name).is_some() && !self.existing.contains(name)
    }

    /// Records that the privileges of an object name a role that does not exist.
    pub(super) fn record(&mut self, number: &str, object: &str) {
        self.in_privileges.entry(number.to_owned()).or_default().insert(object.to_owned());
    }

    /// Returns a message for each role that lists of privileges name.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.in_privileges.iter().map(|(number, objects)| {
            format!(
                "the privileges of {} name the role {number}, which does not exist: that is left out",
                some(objects)
            )
        })
    }

    /// Removes the owners that do not exist from the objects, which then belong to the role that restores them. Objects
    /// that give others the rights of their owner keep it: a restore is refused because the role is missing. Returns
    /// messages for each such role.
    pub(super) fn remove_owners(&self, objects: &mut [Object]) -> Vec<String> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for object in objects {
            let Some(owner) = object.owner.clone().filter(|owner| self.is_gone_owner(owner)) else { continue };
            let number = number_of_owner(&owner).unwrap_or_default().to_owned();
            if acts_as_owner(object) {
                // The role that restores it could be a superuser, and others would act as that.
                object.role(&owner);
                kept.entry(number).or_default().insert(shown(object));
                continue;
            }
            object.owner = None;
            object.set_owner.clear();
            object.roles.retain(|role| *role != owner);
            // An index or a policy has the owner of its table.
            if !matches!(object.kind, Kind::Index | Kind::Policy | Kind::Rule | Kind::Trigger | Kind::Constraint) {
                found.entry(number).or_default().insert(shown(object));
            }
        }
        let note = |(number, objects): (String, BTreeSet<String>)| {
            format!("the owner of {} is the role {number}, which does not exist: that is left out", some(&objects))
        };
        let kept_note = |(number, objects): (String, BTreeSet<String>)| {
            format!(
                "the owner of {} is the role {number}, which does not exist, and others act with its rights: a restore \
                 needs --no-owner",
                some(&objects)
            )
        };
        found.into_iter().map(note).chain(kept.into_iter().map(kept_note)).collect()
    }
}

/// Returns true if those who use an object act with the rights of its owner.
fn acts_as_owner(object: &Object) -> bool {
    let is_definer = || object.create.iter().any(|statement| statement.contains("SECURITY DEFINER"));
    matches!(object.kind, Kind::View | Kind::Rule)
        || matches!(object.kind, Kind::Function | Kind::Procedure) && is_definer()
}

/// Returns the first of some names, and the number of the others.
fn some(names: &BTreeSet<String>) -> String {
    let others = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
    names.first().map_or("", String::as_str).to_owned() + &others
}

/// Returns the number in the server's text for an owner that does not exist.
fn number_of_owner(name: &str) -> Option<&str> {
    let number = name.strip_prefix("unknown (OID=")?.strip_suffix(')')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

fn shown(object: &Object) -> String {
    if object.kind.is_of_database() {
        return "the database".to_owned();
    }
    match (object.identity.as_str(), &object.schema) {
        ("", None) => format!("{} {}", object.kind.words(), quote::ident(&object.name)),
        ("", Some(schema)) => format!("{} {}", object.kind.words(), quote::qualified(schema, &object.name)),
        (identity, _) => identity.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::postgres::schema::object::Address;

    #[test]
    fn a_role_that_exists_is_not_gone_although_its_name_is_a_number() {
        let roles = GoneRoles::new(["16999".to_owned(), "unknown (OID=7)".to_owned()]);
        assert!(!roles.is_gone("16999") && roles.is_gone("17000") && !roles.is_gone("a1") && !roles.is_gone(""));
        assert!(!roles.is_gone_owner("unknown (OID=7)") && roles.is_gone_owner("unknown (OID=8)"));
        assert!(!roles.is_gone_owner("unknown (OID=)") && !roles.is_gone_owner("8"));
    }

    #[test]
    fn an_owner_that_does_not_exist_is_removed() {
        let mut object = Object::new(Address::default(), Kind::Table, Some("public"), "t");
        object.identity = "TABLE public.t".to_owned();
        object.own("unknown (OID=8)");
        let mut objects = [object];
        let notes = GoneRoles::default().remove_owners(&mut objects);
        assert_eq!(notes, ["the owner of TABLE public.t is the role 8, which does not exist: that is left out"]);
        let object = &objects[0];
        assert!(object.owner.is_none() && object.set_owner.is_empty() && object.roles.is_empty());
    }
}
