//! Takes one snapshot: chooses its id, writes its content, compares it with earlier snapshots, and publishes it.

use std::time::Instant;

use crate::archive::{Compression, FORMAT, README_PATH};
use crate::engine::saving::{self, Identity, SavedContent, Saving};
use crate::ops::Context;
use crate::ops::destination::Destination;
use crate::ops::save::baseline::Baseline;
use crate::ops::save::draft::{Draft, Saved};
use crate::platform::entries::EntryWriter;
use crate::platform::error::{Result, one_line};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, Origin, SnapshotKind, Table, by_name};

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
        let clock = Instant::now();
        let started = saving.started();
        let mut draft = Draft::start(destination, &self.name, started, self.compression, saving.max_bytes(), context)?;
        let archive = draft.name();
        let Draft { id, archive: out, .. } = &mut draft;
        let identity = Identity { id, origin: &self.origin, archive: &archive };
        out.append(README_PATH, saving.readme(identity).as_bytes())?;
        let content = saving.write(identity, out, &*context.progress)?;
        if content.has_all_tables {
            if !self.allow_empty && !content.is_damaged {
                require_rows(&content.tables, self.previous.as_ref())?;
            }
            if let Some(previous) = &self.previous {
                warn_about_losses(&content.tables, previous);
            }
        }
        let baseline = self.baseline.filter(|_| content.has_all_tables);
        let tag = baseline.and_then(|baseline| baseline.tag(&content.tables));
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
            kind,
            engine: self.engine.clone(),
            created_at: started,
            tags: self.tags.iter().cloned().chain(tag).collect(),
            archive,
            archive_bytes: None,
            raw_bytes,
            sha256: None,
            codec: self.compression.codec().name().to_owned(),
            encrypted: draft.is_encrypted(),
            server_version,
            rows,
            tables,
            seconds: clock.elapsed().as_secs_f64(),
            sqlite,
            postgres,
        };
        draft.publish(manifest)
    }
}

/// Fails if the database is empty, so that an empty snapshot never silently becomes the newest good backup.
fn require_rows(tables: &[Table], previous: Option<&Manifest>) -> Result<()> {
    if !tables.iter().any(|table| !table.name.starts_with("sqlite_")) {
        return Err(saving::empty("it has no tables"));
    }
    let is_counted = |table: &&Table| table.kind != "virtual" && !table.name.starts_with("sqlite_");
    let rows: u64 = tables.iter().filter(is_counted).filter_map(|table| table.rows).sum();
    match previous.filter(|previous| previous.rows > 0) {
        Some(previous) if rows == 0 => {
            Err(saving::empty(&format!("it has no rows, but {} had {}", previous.id, previous.rows)))
        }
        _ => Ok(()),
    }
}

/// Warns if a table of the previous snapshot is missing, or has lost more than half of its rows.
fn warn_about_losses(tables: &[Table], previous: &Manifest) {
    if previous.lacks_tables() {
        // The previous snapshot is encrypted. Without its key, only the total number of its rows is known.
        let rows: u64 = tables.iter().filter(|table| table.is_ordinary()).filter_map(|table| table.rows).sum();
        if rows < previous.rows / 2 {
            tracing::warn!("the database has {rows} rows; {} had {}", previous.id, previous.rows);
        }
    }
    let tables = by_name(tables);
    for before in previous.tables.iter().filter(|table| table.is_ordinary()) {
        let Some(rows_before) = before.rows.filter(|rows| *rows > 0) else { continue };
        let now = tables.get(before.name.as_str());
        let name = one_line(&before.name);
        match now.map(|table| table.rows) {
            None => tracing::warn!("the table {name} is gone; it had {rows_before} rows in {}", previous.id),
            Some(Some(rows)) if rows < rows_before / 2 => {
                tracing::warn!("the table {name} has {rows} rows; {} had {rows_before}", previous.id);
            }
            Some(_) => {}
        }
    }
}
