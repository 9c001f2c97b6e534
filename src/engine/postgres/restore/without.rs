//! The objects and properties that a restore leaves out because the user says so.

use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::restoring::Without;

/// Empties the items, or the parts of items, that are left out. They stay in the list, because other items refer to their
/// places. Returns a note for each option.
pub(super) fn leave_out(items: &mut [Item], without: Without) -> Vec<String> {
    for item in items.iter_mut() {
        let is_setting = |name: &str| item.kind == Kind::DatabaseSetting && item.name == name;
        let is_acl = matches!(item.kind, Kind::DefaultPrivileges | Kind::SystemPrivileges) || is_setting("privileges");
        let is_comment = is_setting("comment");
        let is_publication = matches!(item.kind, Kind::Publication | Kind::PublicationTable);
        if without.acl {
            item.grants.clear();
        }
        if without.comments {
            item.comments.retain(|statement| !statement.starts_with("COMMENT ON "));
        }
        if without.acl && is_acl
            || without.comments && is_comment
            || without.publications && is_publication
            || without.subscriptions && item.kind == Kind::Subscription
        {
            for statements in [&mut item.create, &mut item.set_owner, &mut item.comments, &mut item.grants] {
                statements.clear();
            }
            item.roles.clear();
        }
    }
    let options = [
        (without.acl, "no privileges were restored (--no-acl)"),
        (without.comments, "no comments were restored (--no-comments)"),
        (without.publications, "no publications were restored (--no-publications)"),
        (without.subscriptions, "no subscriptions were restored (--no-subscriptions)"),
    ];
    options.into_iter().filter(|(is_given, _)| *is_given).map(|(_, note)| note.to_owned()).collect()
}

/// Returns the roles without privileges that a restore needs: owners, and those that policies, user mappings and settings
/// name.
pub(super) fn roles_without_acl(items: &[Item]) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for item in items {
        let owner = item.owner.iter().filter(|_| !item.set_owner.is_empty());
        let named = matches!(item.kind, Kind::Policy | Kind::UserMapping | Kind::DatabaseSetting);
        let named = item.roles.iter().filter(|_| named);
        roles.extend(owner.chain(named).cloned());
    }
    roles.sort();
    roles.dedup();
    roles
}
