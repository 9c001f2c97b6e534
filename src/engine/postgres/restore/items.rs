//! The steps of a saved schema, and how those of tables and their partitions belong together.

use crate::engine::postgres::layout;
use crate::engine::postgres::schema::options::remove_internal_options;
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::restoring::SavedSnapshot;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::json;

/// Reads the steps that create the schema of a snapshot. Each step needs only earlier ones.
///
/// Archives of earlier versions may set options that the source's server set for its own use. These are removed.
pub(in crate::engine::postgres) fn read_items(snapshot: &dyn SavedSnapshot) -> Result<Vec<Item>> {
    let bytes = snapshot.read(layout::OBJECTS, layout::MAX_OBJECTS_BYTES)?;
    let mut items: Vec<Item> = json::parse(&bytes, layout::MAX_OBJECTS_COMMAS)
        .map_err(|error| Error::problem("cannot parse the list of schema objects").because(error))?;
    let is_in_order = items.iter().enumerate().all(|(place, item)| {
        item.id == place
            && item.needs.iter().all(|need| *need < place)
            && item.table.is_none_or(|table| table < items.len())
    });
    if !is_in_order {
        return Err(Error::problem("the list of schema objects is out of order"));
    }
    items.iter_mut().for_each(remove_internal_options);
    Ok(items)
}

/// Empties the items that cannot be created without a role that is missing, and warns about them. They stay in the
/// list, because other items refer to their indexes.
pub(super) fn leave_out_items_of_missing_roles(items: &mut [Item], missing: &[String]) {
    for item in items.iter_mut().filter(|item| matches!(item.kind, Kind::Policy | Kind::UserMapping)) {
        let Some(role) = item.roles.iter().find(|role| missing.contains(role)) else { continue };
        tracing::warn!(
            "left out: the {} {}, because the role {} does not exist",
            item.kind.words(),
            one_line(if item.identity.is_empty() { &item.name } else { &item.identity }),
            one_line(role)
        );
        item.create.clear();
        item.comments.clear();
    }
}

/// Returns the schema and name of an item that has both.
pub(super) fn names_of(item: &Item) -> (&str, &str) {
    (item.schema.as_deref().unwrap_or_default(), &item.name)
}

/// Returns the partitioned table that an item attaches a partition to.
pub(super) fn parent_of<'a>(items: &'a [Item], attach: &Item) -> Option<&'a Item> {
    let others = attach.needs.iter().filter(|need| Some(**need) != attach.table).map(|need| &items[*need]);
    others.into_iter().find(|item| item.kind == Kind::Table)
}

/// Returns the item that attaches a table to the table that it is a partition of.
pub(super) fn attachment_of<'a>(items: &'a [Item], table: &Item) -> Option<&'a Item> {
    items.iter().find(|item| item.kind == Kind::AttachPartition && item.table == Some(table.id))
}
