//! `list`: the snapshots in a store, newest first.

use chrono::{DateTime, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::ops::{Context, Report, SnapshotFilter, snapshot_document};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::{Described, LeftOut, NewestListing};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    /// Filters for the snapshots to list
    pub filter: SnapshotFilter,
    /// Only snapshots taken at this time or later
    pub since: Option<DateTime<Utc>>,
    /// Only the newest N
    pub limit: Option<usize>,
    /// Show times in UTC, and not in the zone of this machine
    pub utc: bool,
}

/// A snapshot in a list.
#[derive(Debug)]
pub(crate) struct ListedSnapshot {
    pub described: Described,
    /// The reason why it is not trusted, if it is not.
    pub distrust: Option<Error>,
}

/// The snapshots found.
#[derive(Debug)]
pub(crate) struct ListReport {
    /// Newest first.
    pub snapshots: Vec<ListedSnapshot>,
    /// The number of older ones that the limit excludes.
    pub left_out: LeftOut,
    /// The archives without a manifest, newest first.
    pub without_manifest: Vec<ArchiveWithoutManifest>,
    /// True if times are shown in UTC.
    pub in_utc: bool,
}

impl Serialize for ListReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("snapshots", &self.snapshots.iter().map(ListedSnapshot::document).collect::<Vec<_>>())?;
        let without: Vec<Value> = self.without_manifest.iter().map(without_manifest_document).collect();
        map.serialize_entry("without_manifest", &without)?;
        map.end()
    }
}

impl ListedSnapshot {
    fn document(&self) -> Map<String, Value> {
        let mut document = listed_document(&self.described);
        if let Some(distrust) = &self.distrust {
            document.insert("untrusted".to_owned(), json!(distrust.full_message()));
        }
        document
    }
}

/// Returns the JSON document of an archive without a manifest.
pub(crate) fn without_manifest_document(found: &ArchiveWithoutManifest) -> Value {
    json!({
        "id": found.id,
        "source": found.id.source(),
        "archive": found.archive.key.name(),
        "archive_bytes": found.archive.bytes,
        "modified_at": DateTime::<Utc>::from(found.archive.modified),
    })
}

/// Returns the JSON document of a snapshot in lists, which is without its tables.
pub(crate) fn listed_document(described: &Described) -> Map<String, Value> {
    match &described.manifest {
        Ok(manifest) => {
            let mut document = snapshot_document(manifest, &described.proof);
            document.remove("tables");
            document.remove("sqlite");
            document
        }
        // The manifest cannot be read: only the id and the error are known.
        Err(error) => {
            let id = &described.listed.id;
            let unknown = [
                "origin",
                "kind",
                "engine",
                "created_at",
                "tags",
                "archive",
                "archive_bytes",
                "raw_bytes",
                "sha256",
                "codec",
                "encrypted",
                "server_version",
                "rows",
                "seconds",
            ];
            let mut fields: Map<_, _> = unknown.map(|name| (name.to_owned(), json!(null))).into_iter().collect();
            fields.insert("id".to_owned(), json!(id));
            fields.insert("source".to_owned(), json!(id.source()));
            fields.insert("proof".to_owned(), json!(described.proof.level.name()));
            fields.insert("problem".to_owned(), json!(error.full_message()));
            fields
        }
    }
}

impl Report for ListReport {}

/// Runs the command. Manifests are read only for the snapshots shown, unless tags choose among them.
pub(crate) fn run(options: &ListOptions, context: &Context) -> Result<ListReport> {
    let catalog = context.open_catalog()?;
    // The requests of a list depend on the rows that are shown, and not on the history.
    let catalog = catalog.with_trust(context.trust.clone().without_history());
    let (source, before) = (options.filter.source.as_ref(), options.filter.before);
    let limit = options.limit.unwrap_or(usize::MAX);
    // Of a store that is far away, no more is listed than is shown, if that is possible.
    let most = if options.filter.tags.is_empty() && options.since.is_none() { limit } else { usize::MAX };
    let mut listing = catalog.list_with_archives(source, before, most)?;
    let is_since = |id: &SnapshotId| options.since.is_none_or(|since| id.time() >= since);
    let has_any = !listing.listed.is_empty() || !listing.without_manifest.is_empty();
    if let Some(source) = source.filter(|_| !has_any) {
        require_known(source, &catalog, context)?;
    }
    listing.listed.retain(|listed| is_since(&listed.id));
    listing.without_manifest.retain(|archive| is_since(&archive.id));
    let NewestListing { mut listed, mut left_out, without_manifest } = listing;
    if options.filter.tags.is_empty() && most != limit {
        left_out = LeftOut::Exactly(listed.len().saturating_sub(limit));
        listed.truncate(limit);
    }
    let mut snapshots = describe(&catalog, listed)?;
    warn_about_newer(&snapshots);
    if !options.filter.tags.is_empty() {
        let has_tags = |manifest: &Manifest| options.filter.tags.iter().all(|tag| manifest.tags.contains(tag));
        snapshots.retain(|listed| listed.described.manifest.as_ref().is_ok_and(has_tags));
        left_out = LeftOut::Exactly(snapshots.len().saturating_sub(limit));
        snapshots.truncate(limit);
    }
    // The tags of an archive without a manifest are not known here.
    Ok(ListReport { snapshots, left_out, without_manifest, in_utc: options.utc })
}

/// Reads the manifests of snapshots, trusted or not.
fn describe(catalog: &Catalog, listed: Vec<Listed>) -> Result<Vec<ListedSnapshot>> {
    let described = catalog.describe_as_stored(listed)?.into_iter();
    Ok(described
        .map(|mut described| {
            let distrust = described.distrust.take();
            ListedSnapshot { described, distrust }
        })
        .collect())
}

/// Fails if neither the store nor the config has the source: a mistyped name must not look like a source without
/// snapshots.
fn require_known(source: &SourceName, catalog: &Catalog, context: &Context) -> Result<()> {
    let config = context.config.as_ref();
    let is_configured = config.is_some_and(|config| config.source_names().contains(source));
    let sources = if is_configured { Vec::new() } else { catalog.sources()? };
    if sources.is_empty() || sources.contains(source) {
        return Ok(());
    }
    catalog.require_source(source).map_err(|mut error| {
        if error.kind == Kind::NotFound {
            error.kind = Kind::Usage;
        }
        error
    })
}

/// Warns about the snapshots that a newer version of this program made, of which nothing else is known, and about those
/// that it has tested.
fn warn_about_newer(snapshots: &[ListedSnapshot]) {
    for ListedSnapshot { described, .. } in snapshots {
        if described.proof.has_newer {
            let id = &described.listed.id;
            tracing::warn!("the result of a test of {id} is not known: its proof was made by a newer lifeboat");
        }
        if let Err(error) = &described.manifest
            && error.is_newer_format()
        {
            tracing::warn!("{}", error.full_message_with_hint());
        }
    }
}
