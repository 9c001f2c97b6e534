//! The snapshot that a user names: one of a store, an archive of a store that has no manifest, or an archive in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ops::fetch::{self, Opened};
use crate::ops::{Context, SnapshotFilter};
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::{Ranged, RangedFile};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::find::Named;
use crate::snapshots::names::is_archive_name;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// The snapshot that a user names.
pub(crate) enum Choice {
    /// A snapshot of a store.
    Snapshot(Catalog, Listed),
    /// An archive of a store that has no manifest there, or one that was cut, emptied or overwritten.
    WithoutManifest(Catalog, ArchiveWithoutManifest),
    /// An archive in a file. No store and no config is needed to read it.
    File(PathBuf),
}

impl Choice {
    /// Finds a snapshot by the path of its archive, or in the store that `open_store` opens.
    pub(crate) fn find(
        wanted: &str,
        filter: &SnapshotFilter,
        open_store: impl FnOnce() -> Result<Catalog>,
    ) -> Result<Self> {
        if let Some(path) = archive_path(wanted) {
            if filter.source.is_some() || !filter.tags.is_empty() || filter.before.is_some() {
                return Err(Error::usage("--source, --tag and --before cannot be used with the path of an archive")
                    .hint("leave them out: the path names one archive"));
            }
            return Ok(Choice::File(path));
        }
        let catalog = open_store()?;
        Ok(match catalog.find_named(wanted, filter)? {
            Named::Snapshot(listed) => match catalog.with_lost_manifest(&listed)? {
                None => Choice::Snapshot(catalog, listed),
                Some(archive) => {
                    tracing::warn!(
                        "the manifest of {} is damaged: it is described by the one in its archive",
                        archive.id
                    );
                    Choice::WithoutManifest(catalog, archive)
                }
            },
            Named::WithoutManifest(archive) => {
                tracing::warn!(
                    "{} has no manifest in the store: it is described by the one in its archive",
                    archive.id
                );
                Choice::WithoutManifest(catalog, archive)
            }
        })
    }

    /// Opens it. Fails if it is not trusted.
    pub(crate) fn open(&self, context: &Context) -> Result<Opened> {
        match self {
            Choice::Snapshot(catalog, listed) => fetch::open(catalog, &listed.id, context),
            Choice::WithoutManifest(catalog, _) => {
                let opened = self.open_as_stored(context)?;
                catalog.require_trusted_alone(&opened.manifest, opened.is_encrypted())?;
                Ok(opened)
            }
            Choice::File(path) => {
                let opened = self.open_as_stored(context)?;
                context.trust.require_archive(&shown(path), opened.is_encrypted())?;
                Ok(opened)
            }
        }
    }

    /// Opens it, if it is a snapshot that is trusted, or an archive without a manifest, trusted or not.
    pub(crate) fn open_as_stored(&self, context: &Context) -> Result<Opened> {
        match self {
            Choice::Snapshot(catalog, listed) => fetch::open(catalog, &listed.id, context),
            Choice::WithoutManifest(catalog, archive) => open_without_manifest(catalog, archive, context),
            Choice::File(path) => fetch::open_alone(open_file(path)?, &shown(path), context),
        }
    }

    /// Returns the store that it is in.
    pub(crate) fn catalog(&self) -> Option<&Catalog> {
        match self {
            Choice::Snapshot(catalog, _) | Choice::WithoutManifest(catalog, _) => Some(catalog),
            Choice::File(_) => None,
        }
    }

    /// Returns a name for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Choice::Snapshot(_, listed) => listed.id.to_string(),
            Choice::WithoutManifest(_, archive) => archive.id.to_string(),
            Choice::File(path) => shown(path),
        }
    }

    /// Returns the location of its store, for printed commands; `None` if it is in none.
    pub(crate) fn location(&self) -> Option<String> {
        self.catalog().map(Catalog::location)
    }
}

/// Returns the path of an archive, if a user names one: a text with a `/`, or the name of a file that ends as those of
/// archives. No id has a `/` or such an ending.
pub(crate) fn archive_path(wanted: &str) -> Option<PathBuf> {
    let is_path = wanted.contains('/') || (is_archive_name(wanted) && Path::new(wanted).exists());
    is_path.then(|| PathBuf::from(wanted))
}

/// Opens the file of an archive.
pub(crate) fn open_file(path: &Path) -> Result<Arc<dyn Ranged>> {
    // Opening a pipe would wait for a writer.
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(Error::usage(format!("{} is not a file", shown(path))).hint("give the path of an archive")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::not_found(format!("there is no archive {}", shown(path))).because(error));
        }
        Err(error) => {
            return Err(error).io(Kind::Unreachable, || format!("cannot read {}", shown(path)));
        }
    }
    let file = File::open(path).and_then(RangedFile::new);
    Ok(Arc::new(file.io(Kind::Unreachable, || format!("cannot read {}", shown(path)))?))
}

/// Opens an archive of a store that has no manifest there. Fails if the manifest in it is that of another snapshot.
pub(crate) fn open_without_manifest(
    catalog: &Catalog,
    archive: &ArchiveWithoutManifest,
    context: &Context,
) -> Result<Opened> {
    let key = &archive.archive.key;
    let opened = fetch::open_alone(catalog.open_without_manifest(archive)?, key.as_str(), context)?;
    if opened.manifest.id != archive.id || opened.manifest.archive != key.name() {
        return Err(Error::problem(format!("the archive {key} is damaged: its manifest belongs to another snapshot")));
    }
    Ok(opened)
}
