//! Compares a snapshot that was just written, and is not published yet, with the newest ones of its source: where nothing
//! has changed, another copy would only push older snapshots out of the retention.
//!
//! The new snapshot's own content is compared, so writes during the save cannot be missed.

use chrono::Utc;

use crate::ops::destination::Destination;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch};
use crate::platform::error::{Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::list::Described;
use crate::snapshots::manifest::{Manifest, PostgresFacts, SnapshotKind, SqliteFacts, Table};
use crate::snapshots::proofs::ProofLevel;

/// Returns the id of the newest snapshot if the newest one in every store is whole, trusted and has the content of
/// `manifest`. `previous` is the newest snapshot of any store, as far as it is known already.
pub(super) fn newest_equal(
    manifest: &Manifest,
    previous: Option<&Manifest>,
    destination: &Destination<'_>,
    context: &Context,
) -> Result<Option<SnapshotId>> {
    // The most frequent case needs no request.
    match previous {
        None => return Ok(None),
        Some(previous) if !previous.lacks_tables() && !has_same_content(previous, manifest) => return Ok(None),
        Some(_) => {}
    }
    let mut newest: Option<SnapshotId> = None;
    for catalog in &destination.catalogs {
        match equal_in(catalog, manifest, context) {
            Ok(Some(id)) => newest = newest.max(Some(id)),
            Ok(None) => return Ok(None),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // Another copy is better than none.
            Err(error) => {
                tracing::info!("the newest snapshot cannot be compared: {}", error.full_message());
                return Ok(None);
            }
        }
    }
    Ok(newest)
}

/// Returns true if this snapshot is the newest of its source in every store, whole and trusted.
pub(crate) fn is_newest_everywhere(id: &SnapshotId, context: &Context) -> Result<bool> {
    for store in context.all_stores()? {
        let newest = context.open(store)?.newest_in_history(id.source())?;
        let Some(newest) = newest.filter(|newest| newest.listed.id == *id) else { return Ok(false) };
        let Ok(manifest) = &newest.manifest else { return Ok(false) };
        let is_good = is_whole(&newest) && manifest.kind == SnapshotKind::Full && !manifest.has_tag(SUSPECT);
        if !is_good || is_too_old(manifest, context)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the id of the newest snapshot of one store if it makes a new one needless.
fn equal_in(catalog: &Catalog, manifest: &Manifest, context: &Context) -> Result<Option<SnapshotId>> {
    let Some(newest) = catalog.newest_in_history(&manifest.source)? else { return Ok(None) };
    let is_whole = is_whole(&newest);
    let Ok(outside) = &newest.manifest else { return Ok(None) };
    let is_suspect = |manifest: &Manifest| manifest.has_tag(SUSPECT);
    // A suspect one holds the same rows as the next suspect one, but never replaces a good one.
    if !is_whole || outside.kind != SnapshotKind::Full || is_suspect(outside) != is_suspect(manifest) {
        return Ok(None);
    }
    if is_too_old(outside, context)? {
        return Ok(None);
    }
    // A description leaves parts of the manifest out.
    let newest = fetch::manifest(catalog, &outside.id, context)?;
    Ok(has_same_content(&newest, manifest).then_some(newest.id))
}

/// Returns true if the archive is there, and no test has found damage.
fn is_whole(described: &Described) -> bool {
    described.listed.archive.is_some() && described.proof.level != ProofLevel::Damaged
}

/// Returns true if a check of the backups would soon miss a newer snapshot.
fn is_too_old(newest: &Manifest, context: &Context) -> Result<bool> {
    let Some(config) = &context.config else { return Ok(false) };
    let age = Utc::now() - newest.created_at;
    Ok(config.backups()?.max_age.is_some_and(|max_age| age > max_age / 2))
}

/// Returns true if two snapshots restore to the same database: the same rows, schema and settings. A table without a
/// digest, and a snapshot whose tables are not known, is never the same.
fn has_same_content(a: &Manifest, b: &Manifest) -> bool {
    let is_comparable = |table: &Table| table.rows.is_some() && table.digest.is_some();
    let is_same_place = a.engine == b.engine && a.origin == b.origin && a.encrypted == b.encrypted;
    let has_same_schema = a.schema_digest().is_some() && a.schema_digest() == b.schema_digest();
    let has_same_facts = a.sqlite.as_ref().map(lasting_sqlite) == b.sqlite.as_ref().map(lasting_sqlite)
        && a.postgres.as_ref().map(lasting_postgres) == b.postgres.as_ref().map(lasting_postgres);
    let has_same_tables =
        a.tables.len() == b.tables.len() && a.tables.iter().zip(&b.tables).all(|(a, b)| is_comparable(a) && a == b);
    // A new missing period must be recorded, although nothing else is new.
    let has_same_periods = a.missing_periods == b.missing_periods;
    is_same_place && has_same_schema && has_same_facts && has_same_tables && has_same_periods
}

/// Returns the facts without those that describe the save and not the database: the layout of the pages, times, and the
/// file, which is a new one after a restore.
fn lasting_sqlite(facts: &SqliteFacts) -> SqliteFacts {
    let mut facts =
        SqliteFacts { pages: 0, locked_seconds: 0.0, wal_growth_bytes: 0, file_birth: None, ..facts.clone() };
    if let Some(health) = &mut facts.health {
        health.unchecked.clear();
    }
    facts
}

/// Returns the facts without those that describe the save and not the database: the connection, and the size on disk.
fn lasting_postgres(facts: &PostgresFacts) -> PostgresFacts {
    let mut facts = PostgresFacts { reached_by: String::new(), role: String::new(), ..facts.clone() };
    facts.database.bytes = 0;
    facts
}
