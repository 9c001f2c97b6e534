//! The rows that a restore replaces: those that the tables of the target have now, and those that they have afterwards.

use std::collections::BTreeSet;

use crate::engine::restoring::{Overwritten, RestoreReport};
use crate::engine::source::Source;
use crate::ops::Context;
use crate::platform::error::Result;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::row_counts::RowCounts;

/// The most snapshots of a source that are looked at for the duration of a restore.
const MOST_LOOKED_AT: usize = 20;

/// Returns the tables whose rows a restore replaces, as its preview names them. Counts the rows of the target.
pub(crate) fn overwritten(
    preview: &RestoreReport,
    manifest: &Manifest,
    target: &Source,
    context: &Context,
) -> Result<Vec<Overwritten>> {
    let now = target.open(&context.scratch)?.tables()?;
    let chosen: BTreeSet<&str> = preview.tables.iter().map(|table| table.name.as_str()).collect();
    let mut after = RowCounts::of(&manifest.tables);
    after.tables.retain(|name, _| chosen.contains(name.as_str()));
    // Otherwise tables that the snapshot does not have are left alone.
    let is_whole = preview.mode == "swap" || (preview.mode == "replace" && target.file().is_some());
    let names =
        after.tables.keys().chain(now.tables.keys().filter(|name| is_whole || after.tables.contains_key(*name)));
    let names: BTreeSet<&String> = names.collect();
    let rows = |name: &String| Overwritten {
        table: name.clone(),
        rows_now: now.tables.get(name).copied(),
        rows_after: after.tables.get(name).copied().filter(|_| preview.window.is_none()),
    };
    Ok(names.into_iter().map(rows).collect())
}

/// Returns the seconds that a restore takes, as the newest drill of the source measured it, in proportion to the size. Returns
/// `None` if no recent snapshot was drilled.
pub(crate) fn estimated_seconds(manifest: &Manifest, catalog: &Catalog) -> Result<Option<f64>> {
    let (listed, _) = catalog.list_newest(Some(&manifest.source), None, MOST_LOOKED_AT)?;
    for listed in listed.iter().filter(|listed| !listed.proofs.is_empty()) {
        if let Some(seconds) = catalog.proof(listed)?.restore_seconds
            && let Ok((drilled, _)) = catalog.manifest(&listed.id)
        {
            return Ok(Some(seconds * manifest.raw_bytes as f64 / drilled.raw_bytes.max(1) as f64));
        }
    }
    Ok(None)
}
