//! Turns a snapshot's hypertables and aggregates into ordinary tables, for a server without TimescaleDB.

use std::collections::BTreeSet;

use super::EXTENSION;
use crate::engine::postgres::schema::object::{Item, Kind};
use crate::engine::postgres::schema::quote::qualified;
use crate::platform::error::one_line;

/// Returns true if an item itself requires the extension.
#[must_use]
pub(crate) fn is_timescale(item: &Item) -> bool {
    matches!(
        item.kind,
        Kind::Hypertable
            | Kind::ContinuousAggregate
            | Kind::AggregateIndex
            | Kind::CompressionSettings
            | Kind::AggregateRows
            | Kind::CompressedChunks
            | Kind::Job
    ) || item.kind == Kind::Extension && item.name == EXTENSION
}

/// Empties the items that only a server with the extension can create, and the items that depend on them. They keep
/// their positions, which other items refer to. Returns the names of the objects that are left out, for messages.
pub(crate) fn leave_out(items: &mut [Item]) -> Vec<String> {
    let mut left_out: BTreeSet<usize> = BTreeSet::new();
    loop {
        let before = left_out.len();
        for item in items.iter() {
            // No item needs the conversion to a hypertable: the table exists without it.
            let is_left_out = |need: &usize| left_out.contains(need) && items[*need].kind != Kind::Hypertable;
            let is_first_form_of = |other: &&Item| {
                !other.first_form && (other.kind, &other.schema, &other.name) == (item.kind, &item.schema, &item.name)
            };
            let is_never_completed =
                || item.first_form && items.iter().filter(is_first_form_of).any(|other| left_out.contains(&other.id));
            if is_timescale(item) || item.needs.iter().any(is_left_out) || is_never_completed() {
                left_out.insert(item.id);
            }
        }
        if left_out.len() == before {
            break;
        }
    }
    let mut names = Vec::new();
    for item in items.iter_mut().filter(|item| left_out.contains(&item.id)) {
        let name = match &item.schema {
            Some(schema) => qualified(schema, &item.name),
            None => item.name.clone(),
        };
        let is_named = !matches!(item.kind, Kind::Hypertable | Kind::Extension | Kind::AggregateRows);
        if is_named && !item.first_form {
            names.push(format!("{} {}", item.kind.words(), one_line(&name)));
        }
        for statements in [&mut item.create, &mut item.set_owner, &mut item.comments, &mut item.grants] {
            statements.clear();
        }
        item.identity.clear();
    }
    names
}
