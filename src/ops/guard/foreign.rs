//! Snapshots of another guard that appear while our program runs: if our database was restored or created at the start,
//! they have rows that it does not have.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::ops::guard::others::{file_mark, own_process};
use crate::ops::sources::Chosen;
use crate::ops::{Context, tags};
use crate::platform::error::{Kind, Result};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::row_counts::RowCounts;
use crate::store::StoreUrl;

/// The number of the newest snapshots that are known at the start, and of those that are inspected later.
const MOST_KNOWN: usize = 256;
const MOST_INSPECTED: usize = 64;
/// The number of snapshots of other guards that are named.
const MOST_NAMED: usize = 5;

/// The snapshots of sources whose databases were restored or created at the start.
#[derive(Default)]
pub(super) struct Foreign {
    sources: BTreeMap<SourceName, Known>,
}

#[derive(Default)]
struct Known {
    /// The snapshots that are not inspected again.
    ids: BTreeSet<SnapshotId>,
    /// The first snapshots of other guards that have appeared.
    lost: BTreeSet<SnapshotId>,
    /// The number of the others.
    more_lost: usize,
    /// The time at which the snapshots were listed.
    began: DateTime<Utc>,
    /// The stores that could not be listed then. Their older snapshots have not appeared since.
    away: Vec<StoreUrl>,
}

impl Foreign {
    /// Notes the snapshots that exist before these sources are restored.
    pub(super) fn begin<'a>(&mut self, sources: impl Iterator<Item = &'a SourceName>, context: &Context) {
        for name in sources {
            let mut known = Known { began: Utc::now(), ..Known::default() };
            for store in &context.stores {
                let listed = context.open(store).and_then(|catalog| catalog.list_newest(Some(name), None, MOST_KNOWN));
                match listed {
                    Ok((found, _)) => known.ids.extend(found.into_iter().map(|listed| listed.id)),
                    Err(_) => known.away.push(store.clone()),
                }
            }
            self.sources.insert(name.clone(), known);
        }
    }

    /// Accepts a snapshot that has appeared since [`begin`](Self::begin), if it is the one that was restored.
    pub(super) fn accept_restored(&mut self, chosen: &[Chosen], context: &Context) -> Result<()> {
        for chosen in chosen {
            let name = chosen.name()?;
            let Some(known) = self.sources.get(&name) else { continue };
            let newest = appeared(&name, known, context)?.into_iter().max_by(|a, b| a.id.cmp(&b.id));
            if let (Some(newest), Some(known)) = (newest, self.sources.get_mut(&name))
                && has_rows_of(&newest, chosen, context).unwrap_or_default()
            {
                known.ids.insert(newest.id);
            }
        }
        Ok(())
    }

    /// Adds a snapshot that this guard has taken.
    pub(super) fn add_own(&mut self, id: &SnapshotId) {
        if let Some(known) = self.sources.get_mut(id.source()) {
            known.add(id.clone());
        }
    }

    /// Looks for snapshots of other guards. Returns the reason why the next snapshot of the source must not be used as a
    /// baseline, if there is one.
    pub(super) fn find(&mut self, chosen: &Chosen, context: &Context) -> Result<Option<String>> {
        let name = chosen.name()?;
        let Some(known) = self.sources.get_mut(&name) else { return Ok(None) };
        let appeared = appeared(&name, known, context)?;
        // A guard with the same file, as on a volume that both have, has saved our rows.
        let is_ours = !appeared.is_empty() && is_shared(&name, chosen, context);
        for manifest in appeared {
            match is_ours {
                true => known.add(manifest.id),
                false => known.add_lost(manifest.id),
            }
        }
        if known.lost.is_empty() {
            return Ok(None);
        }
        let mut ids: Vec<String> = known.lost.iter().map(ToString::to_string).collect();
        ids.extend((known.more_lost > 0).then(|| format!("and {} more", known.more_lost)));
        Ok(Some(format!(
            "another guard saved {} after this program had started with an older state: its newer rows are not in this \
             database",
            ids.join(", ")
        )))
    }
}

/// Returns true if a database has as many rows as a snapshot, in each table if the tables are known.
fn has_rows_of(manifest: &Manifest, chosen: &Chosen, context: &Context) -> Result<bool> {
    let mut live = chosen.source.open(&context.scratch)?;
    match manifest.lacks_tables() {
        true => Ok(live.stored_rows()? == manifest.rows),
        false => Ok(live.tables()?.tables == RowCounts::of(&manifest.tables).tables),
    }
}

impl Known {
    /// Adds a snapshot that is not inspected again.
    fn add(&mut self, id: SnapshotId) {
        self.ids.insert(id);
        while self.ids.len() > 4 * MOST_KNOWN {
            self.ids.pop_first();
        }
    }

    /// Adds a snapshot of another guard.
    fn add_lost(&mut self, id: SnapshotId) {
        if self.lost.len() < MOST_NAMED || self.lost.contains(&id) {
            self.lost.insert(id.clone());
        } else if !self.ids.contains(&id) {
            self.more_lost += 1;
        }
        self.add(id);
    }
}

/// Returns true if another guard has the same database file.
fn is_shared(name: &SourceName, chosen: &Chosen, context: &Context) -> bool {
    let (Some(mark), own) = (chosen.source.file().and_then(file_mark), own_process()) else { return false };
    let catalogs = context.stores.iter().filter_map(|store| context.open(store).ok());
    let mut leases = catalogs.flat_map(|catalog| catalog.guard_leases(name).unwrap_or_default());
    leases.any(|found| found.lease.is_ok_and(|lease| lease.process != own && lease.file.as_ref() == Some(&mark)))
}

/// Returns the snapshots by guards that are not known.
fn appeared(name: &SourceName, known: &Known, context: &Context) -> Result<Vec<Manifest>> {
    let mut appeared: Vec<Manifest> = Vec::new();
    for store in &context.stores {
        let found = context.open(store).and_then(|catalog| {
            let (listed, _) = catalog.list_newest(Some(name), None, MOST_INSPECTED)?;
            catalog.describe(listed.into_iter().filter(|listed| !known.ids.contains(&listed.id)).collect())
        });
        let was_away = known.away.contains(store);
        let is_new = |manifest: &Manifest| !was_away || manifest.created_at >= known.began;
        match found {
            Ok(found) => {
                appeared.extend(found.into_iter().filter_map(|described| described.manifest.ok()).filter(is_new));
            }
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // The save reports a store that is away.
            Err(error) => tracing::debug!("cannot look for snapshots of other guards: {}", error.full_message()),
        }
    }
    let is_by_guard = |manifest: &Manifest| manifest.has_tag(tags::GUARD);
    appeared.retain(|manifest| manifest.kind == SnapshotKind::Full && is_by_guard(manifest));
    Ok(appeared)
}
