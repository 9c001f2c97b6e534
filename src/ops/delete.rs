//! `delete`: deletes the snapshots that the user names, and all objects that belong to them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::ops::tags::SUSPECT;
use crate::ops::{Context, Report, serialize_failures};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::find::LATEST;
use crate::snapshots::search::SnapshotFilter;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct DeleteOptions {
    /// Ids, or the starts of ids
    pub snapshots: Vec<String>,
    /// Delete, instead of only printing what would be deleted
    pub yes: bool,
}

/// A snapshot that is deleted.
#[derive(Debug, Serialize)]
pub(crate) struct Deleted {
    /// Its id.
    pub id: String,
    /// The store that it is deleted from.
    pub store: String,
}

/// The snapshots that are deleted.
#[derive(Debug)]
pub(crate) struct DeleteReport {
    /// True if nothing was deleted.
    pub dry_run: bool,
    /// In the order of the command line.
    pub delete: Vec<Deleted>,
    /// The bytes of the archives that were deleted, or would be.
    pub freed_bytes: u64,
    /// The error that ended the deletion early, or none.
    pub failures: Vec<Error>,
}

impl Serialize for DeleteReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_failures(&mut map, &self.failures)?;
        map.serialize_entry("dry_run", &self.dry_run)?;
        map.serialize_entry("delete", &self.delete)?;
        map.serialize_entry("freed_bytes", &self.freed_bytes)?;
        map.end()
    }
}

impl Report for DeleteReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

/// Runs the command. Nothing is deleted unless every snapshot was found and none is being read.
pub(crate) fn run(options: &DeleteOptions, context: &Context) -> Result<DeleteReport> {
    let urls = if context.stores_are_given { std::slice::from_ref(context.store()?) } else { context.all_stores()? };
    let catalogs = urls.iter().map(|url| context.open(url)).collect::<Result<Vec<_>>>()?;
    let mut chosen: Vec<(&Catalog, Listed)> = Vec::new();
    for wanted in &options.snapshots {
        let mut is_found = false;
        let mut absent = None;
        for catalog in &catalogs {
            match find(catalog, wanted) {
                Ok(listed) => {
                    is_found = true;
                    let is_chosen =
                        |(other, known): &(&Catalog, Listed)| std::ptr::eq(*other, catalog) && known.id == listed.id;
                    if !chosen.iter().any(is_chosen) {
                        chosen.push((catalog, listed));
                    }
                }
                Err(error) if error.kind == Kind::NotFound => absent = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = absent.filter(|_| !is_found) {
            return Err(error);
        }
    }
    for (catalog, listed) in &chosen {
        if catalog.in_use(listed.id.source(), false)?.contains(&listed.id) {
            return Err(Error::failed(format!("{} is being restored or drilled", listed.id))
                .hint("try again when that has ended; the mark of a process that was killed expires after a day"));
        }
    }
    for (catalog, listed) in &chosen {
        warn_if_newest(catalog, listed)?;
    }
    let mut report = DeleteReport { dry_run: !options.yes, delete: Vec::new(), freed_bytes: 0, failures: Vec::new() };
    for (catalog, listed) in &chosen {
        let mut is_gone = true;
        if options.yes {
            let deletion = catalog.delete(&[listed]);
            is_gone = !deletion.gone.is_empty();
            report.freed_bytes += deletion.freed_bytes;
            report.failures.extend(deletion.failure);
        } else {
            report.freed_bytes += listed.archive.as_ref().map_or(0, |archive| archive.bytes);
        }
        if is_gone {
            report.delete.push(Deleted { id: listed.id.to_string(), store: catalog.location() });
        }
        // The report names what was deleted until then.
        if !report.failures.is_empty() {
            break;
        }
    }
    Ok(report)
}

/// Warns if a snapshot is the newest good one of its source: `latest` and the baseline are others without it.
fn warn_if_newest(catalog: &Catalog, listed: &Listed) -> Result<()> {
    let source = listed.id.source();
    let filter =
        SnapshotFilter { source: Some(source.clone()), without: Some(SUSPECT.to_owned()), ..SnapshotFilter::default() };
    match catalog.find(LATEST, &filter) {
        Ok(newest) if newest.id == listed.id => {
            tracing::warn!(
                "{} is the newest good snapshot of {source} in {}",
                listed.id,
                one_line(&catalog.location())
            );
        }
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        _ => {}
    }
    Ok(())
}

/// Finds a snapshot by its id or the start of it. `latest` may mean another one a second later, and is refused.
fn find(catalog: &Catalog, wanted: &str) -> Result<Listed> {
    if wanted == LATEST {
        return Err(
            Error::usage("'latest' cannot be deleted by that name").hint("give the id; 'lifeboat list' shows the ids")
        );
    }
    catalog
        .find(wanted, &SnapshotFilter::default())
        .map_err(|error| error.context(format!("nothing was deleted in {}", one_line(&catalog.location()))))
}
