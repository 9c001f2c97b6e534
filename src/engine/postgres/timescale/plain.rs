//! What becomes of a snapshot's hypertables and aggregates where there is no TimescaleDB: ordinary tables.

use std::collections::BTreeSet;

use super::EXTENSION;
use crate::engine::postgres::catalog::quote::qualified;
use crate::engine::postgres::catalog::{Item, Kind};
use crate::error::one_line;

/// Whether an item needs the extension by its nature.
#[must_use]
pub fn is_timescale(item: &Item) -> bool {
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

/// Empties the items that only a server with the extension can make, and what needs them; they keep their places, which
/// others refer to. What is left out, in words.
pub fn leave_out(items: &mut [Item]) -> Vec<String> {
    let mut gone: BTreeSet<usize> = BTreeSet::new();
    let mut told = Vec::new();
    for item in items.iter_mut() {
        let is_own = is_timescale(item);
        // A table of an aggregate's name takes its place, with all its columns, under a view say.
        let needs_it = item.needs.iter().any(|need| gone.contains(need));
        if !is_own && !needs_it {
            continue;
        }
        if !matches!(item.kind, Kind::Hypertable) {
            gone.insert(item.id);
        }
        let name = match &item.schema {
            Some(schema) => qualified(schema, &item.name),
            None => item.name.clone(),
        };
        if !matches!(item.kind, Kind::Hypertable | Kind::Extension | Kind::AggregateRows) {
            told.push(format!("{} {}", item.kind.words(), one_line(&name)));
        }
        for statements in [&mut item.create, &mut item.set_owner, &mut item.comments, &mut item.grants] {
            statements.clear();
        }
        item.identity.clear();
    }
    told
}
