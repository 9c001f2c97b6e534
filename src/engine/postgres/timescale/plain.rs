//! What becomes of a snapshot's hypertables and aggregates where there is no TimescaleDB: ordinary tables.

use std::collections::BTreeSet;

use super::EXTENSION;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::schema::{Item, Kind};
use crate::platform::error::one_line;

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
    loop {
        let before = gone.len();
        for item in items.iter() {
            // What makes a hypertable is missed by nothing: the table is there.
            let is_missed = |need: &usize| gone.contains(need) && items[*need].kind != Kind::Hypertable;
            let is_first_form_of = |other: &&Item| {
                !other.first_form && (other.kind, &other.schema, &other.name) == (item.kind, &item.schema, &item.name)
            };
            let is_never_completed =
                || item.first_form && items.iter().filter(is_first_form_of).any(|other| gone.contains(&other.id));
            if is_timescale(item) || item.needs.iter().any(is_missed) || is_never_completed() {
                gone.insert(item.id);
            }
        }
        if gone.len() == before {
            break;
        }
    }
    let mut told = Vec::new();
    for item in items.iter_mut().filter(|item| gone.contains(&item.id)) {
        let name = match &item.schema {
            Some(schema) => qualified(schema, &item.name),
            None => item.name.clone(),
        };
        let is_told = !matches!(item.kind, Kind::Hypertable | Kind::Extension | Kind::AggregateRows);
        if is_told && !item.first_form {
            told.push(format!("{} {}", item.kind.words(), one_line(&name)));
        }
        for statements in [&mut item.create, &mut item.set_owner, &mut item.comments, &mut item.grants] {
            statements.clear();
        }
        item.identity.clear();
    }
    told
}
