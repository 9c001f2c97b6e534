//! Takes one snapshot: chooses its id, writes its content, compares it with earlier snapshots, and publishes it.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::archive::{Compression, FORMAT, README_PATH};
use crate::engine::rules::{self, Rule};
use crate::engine::saving::{self, Identity, SavedContent, Saving};
use crate::ops::Context;
use crate::ops::destination::Destination;
use crate::ops::inspect::compare_with;
use crate::ops::save::baseline::Baseline;
use crate::ops::save::draft::{Draft, Saved};
use crate::platform::entries::EntryWriter;
use crate::platform::error::{Result, one_line};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, MissingPeriod, Origin, SnapshotKind, Table};
use crate::snapshots::row_counts::{RowCounts, stored_rows};

/// A snapshot to be taken.
pub(crate) struct SnapshotPlan<'a> {
    /// The source's name in the stores.
    pub(crate) name: SourceName,
    /// The host and path, or the server and database, that the snapshot is taken from.
    pub(crate) origin: Origin,
    /// The name of the database engine, as it is written in manifests.
    pub(crate) engine: String,
    /// The kind of the snapshot if it is complete and undamaged.
    pub(crate) kind: SnapshotKind,
    /// The tags of the command line and of the config.
    pub(crate) tags: Vec<String>,
    /// The compression of the archive.
    pub(crate) compression: Compression,
    /// Save an empty database.
    pub(crate) allow_empty: bool,
    /// The newest earlier snapshot of the source, if any.
    pub(crate) previous: Option<Manifest>,
    /// The newest earlier state of the source, if it is known although no earlier snapshot can be read.
    pub(crate) lost: Option<Manifest>,
    /// The rules for the source.
    pub(crate) rules: Vec<Rule>,
    /// The periods whose rows the database may lack.
    pub(crate) missing_periods: Vec<MissingPeriod>,
    /// The baseline that the snapshot is compared with, if any.
    pub(crate) baseline: Option<&'a Baseline>,
}

impl SnapshotPlan<'_> {
    /// Takes the snapshot and publishes it. If it fails, no store has a new snapshot.
    pub(crate) fn run(
        &self,
        saving: &mut dyn Saving,
        destination: &Destination<'_>,
        context: &Context,
    ) -> Result<Saved> {
        let (draft, manifest) = self.write(saving, destination, context)?;
        draft.publish(manifest)
    }

    /// Writes the archive of the snapshot. No store has the snapshot until the draft is published.
    pub(super) fn write<'d>(
        &self,
        saving: &mut dyn Saving,
        destination: &'d Destination<'_>,
        context: &Context,
    ) -> Result<(Draft<'d>, Manifest)> {
        let clock = Instant::now();
        let started = saving.started();
        let mut draft = Draft::start(destination, &self.name, started, self.compression, saving.max_bytes(), context)?;
        let archive = draft.name();
        let Draft { id, archive: out, .. } = &mut draft;
        let identity = Identity { id, origin: &self.origin, archive: &archive };
        out.append(README_PATH, saving.readme(identity).as_bytes())?;
        let content = saving.write(identity, out, &*context.progress)?;
        if content.has_all_tables {
            let before = self.previous.as_ref().or(self.lost.as_ref());
            if !self.allow_empty && !content.is_damaged {
                require_rows(&content.tables, before, &self.rules)?;
            }
            if let Some(before) = before {
                warn_about_losses(&content.tables, before, &self.rules);
            }
        }
        let baseline = self.baseline.filter(|_| content.has_all_tables);
        let tag = baseline.and_then(|baseline| baseline.tag(&content.tables));
        let suspect_since = baseline.filter(|_| tag.is_some()).map(Baseline::compared);
        let (compared_with, compared_tables) = suspect_since.unwrap_or_default();
        let losses_since = baseline.filter(|_| tag.is_none()).map(Baseline::losses_since).unwrap_or_default();
        let kind = match self.kind {
            SnapshotKind::Full if content.is_damaged => SnapshotKind::Damaged,
            SnapshotKind::Full if content.is_partial => SnapshotKind::Partial,
            kind => kind,
        };
        let SavedContent { tables, rows, raw_bytes, server_version, sqlite, postgres, .. } = content;
        let manifest = Manifest {
            format: FORMAT,
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
            id: draft.id.clone(),
            source: self.name.clone(),
            origin: self.origin.clone(),
            moved_from: self.previous.as_ref().map(|previous| previous.moves_to(&self.origin)).unwrap_or_default(),
            previous: destination.predecessor.clone(),
            kind,
            engine: self.engine.clone(),
            created_at: started,
            tags: self.tags.iter().cloned().chain(tag).collect(),
            archive,
            archive_bytes: None,
            raw_bytes,
            sha256: None,
            index_sha256: None,
            codec: self.compression.codec().name().to_owned(),
            encrypted: draft.is_encrypted(),
            server_version,
            rows,
            tables,
            seconds: clock.elapsed().as_secs_f64(),
            sqlite,
            postgres,
            compared_with,
            compared_tables,
            losses_since,
            missing_periods: self.missing_periods.clone(),
        };
        Ok((draft, manifest))
    }
}

/// Fails if the database is empty, so that an empty snapshot never silently becomes the newest good backup.
fn require_rows(tables: &[Table], previous: Option<&Manifest>, rules: &[Rule]) -> Result<()> {
    if !tables.iter().any(|table| !table.name.starts_with("sqlite_")) {
        return Err(saving::empty("it has no tables"));
    }
    let Some(previous) = previous else { return Ok(()) };
    let (is_empty, rows_before) = match previous.lacks_tables() {
        true => (stored_rows(tables) == 0, previous.rows),
        false => (RowCounts::of(tables).is_without_rows(), RowCounts::of(&previous.tables).total()),
    };
    // Rules can allow that all rows are gone.
    let is_allowed = || {
        let verdicts = compare_with(previous, &RowCounts::of(tables), stored_rows(tables), rules);
        !previous.lacks_tables() && verdicts.iter().all(|verdict| verdict.ok)
    };
    match is_empty && rows_before > 0 && !is_allowed() {
        true => Err(saving::empty(&format!("it has no rows, but {} had {rows_before}", previous.id))),
        false => Ok(()),
    }
}

/// Returns the tables of the previous snapshot that have lost no more than rules on them allow: they may be dropped, or
/// their rows are in tables of other names.
fn intended_losses(now: &RowCounts, before: &RowCounts, rules: &[Rule]) -> BTreeSet<String> {
    let allowed = rules::compare(before, now, rules).into_iter().filter(|verdict| verdict.ok && verdict.is_intended);
    allowed.flat_map(|verdict| verdict.tables).collect()
}

/// Warns if a table of the previous snapshot is missing, or has lost more than half of its rows, and no rule allows that.
fn warn_about_losses(tables: &[Table], previous: &Manifest, rules: &[Rule]) {
    if previous.lacks_tables() {
        // The previous snapshot is encrypted. Without its key, only the total number of its rows is known.
        let rows = stored_rows(tables);
        if rows < previous.rows / 2 {
            tracing::warn!("the database has {rows} rows; {} had {}", previous.id, previous.rows);
        }
    }
    let (now, before) = (RowCounts::of(tables), RowCounts::of(&previous.tables));
    let intended = intended_losses(&now, &before, rules);
    let others = before.tables.iter().filter(|(table, rows)| **rows > 0 && !intended.contains(*table));
    for (table, rows_before) in others {
        let name = one_line(table);
        match now.tables.get(table) {
            None if !now.has_table(table) => {
                tracing::warn!("the table {name} is gone; it had {rows_before} rows in {}", previous.id);
            }
            Some(rows) if *rows < rows_before / 2 => {
                tracing::warn!("the table {name} has {rows} rows; {} had {rows_before}", previous.id);
            }
            _ => {}
        }
    }
}
