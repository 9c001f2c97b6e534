//! Chooses the tables of a snapshot by patterns.

use std::collections::{BTreeSet, HashMap};

use super::items::{attachment_of, parent_of};
use crate::engine::postgres::copy::selection::Pattern;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::schema::{Item, Kind};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Manifest;

/// Returns the tables that were asked for, as indexes into the manifest's tables; every pattern must match at least
/// one. A partitioned table stands for its partitions.
pub(super) fn choose(manifest: &Manifest, items: &[Item], patterns: &[String]) -> Result<Vec<usize>> {
    let tables = &manifest.tables;
    if patterns.is_empty() {
        return Ok((0..tables.len()).collect());
    }
    let mut parents: HashMap<(&str, &str), Vec<&Item>> = HashMap::new();
    for item in items.iter().filter(|item| item.kind == Kind::AttachPartition) {
        let mut ancestors = Vec::new();
        let mut next = Some(item);
        while let Some(attach) = next {
            let parent = parent_of(items, attach);
            ancestors.extend(parent);
            next = parent.and_then(|parent| attachment_of(items, parent));
        }
        if let Some(table) = item.table.map(|table| &items[table]) {
            parents.insert((table.schema.as_deref().unwrap_or_default(), table.name.as_str()), ancestors);
        }
    }
    let mut chosen = BTreeSet::new();
    for text in patterns {
        let pattern = Pattern::new(text);
        let found: Vec<usize> = (0..tables.len())
            .filter(|index| {
                let table = &tables[*index];
                let Some(relation) = table.relation.as_ref() else { return false };
                let ancestors = parents.get(&(relation.schema.as_str(), relation.table.as_str()));
                let by_parent = |parent: &&Item| {
                    let schema = parent.schema.as_deref().unwrap_or_default();
                    pattern.matches(schema, &parent.name, &qualified(schema, &parent.name))
                };
                pattern.matches(&relation.schema, &relation.table, &table.name)
                    || ancestors.into_iter().flatten().any(by_parent)
            })
            .collect();
        if found.is_empty() {
            return Err(Error::usage(format!("the snapshot {} has no table {}", manifest.id, one_line(text)))
                .hint(format!("'lifeboat show {}' lists its tables", manifest.id)));
        }
        chosen.extend(found);
    }
    Ok(chosen.into_iter().collect())
}
