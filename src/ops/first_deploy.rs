//! Recognizes the state before a source's first deploy: there is no database yet, and no store holds anything of it.
//!
//! A store that cannot be read, or that has anything of the source, rules this state out: then the database was lost. So
//! does a store that has snapshots of the same database under another name: then the source was renamed.

use std::path::Path;

use crate::engine::source::Source;
use crate::ops::sources::Chosen;
use crate::ops::{Context, tags};
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::scratch::Scratch;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SourceName;
use crate::snapshots::list::{Described, LeftOut};

/// The part of every message about this state by which people and scripts recognize it.
pub(crate) const NOTHING_YET: &str = "first deploy: nothing to save yet";

/// The endings of SQLite's files beside a database, which may hold rows of it.
const COMPANIONS: [&str; 2] = ["-wal", "-journal"];

impl Context {
    /// Returns a description of the state, if this is the one before the first deploy of a source. Fails if a store
    /// cannot be read, or if a store has snapshots of the same place under another name.
    pub(crate) fn first_deploy(&self, chosen: &Chosen) -> Result<Option<String>> {
        let Some(absence) = absence(&chosen.source, &self.scratch)? else { return Ok(None) };
        if !self.holds_nothing_of(chosen)? {
            return Ok(None);
        }
        let name = chosen.name()?;
        self.require_no_other_name(chosen, "the database is missing or empty")?;
        Ok(Some(format!("{NOTHING_YET} ({absence}, and no store has a snapshot of {name})")))
    }

    /// Returns true if every store could be read, and none has a snapshot of the source, of any kind, or an archive of
    /// one.
    pub(crate) fn holds_nothing_of(&self, chosen: &Chosen) -> Result<bool> {
        let name = chosen.name()?;
        for catalog in self.opened_stores()? {
            let newest = catalog.list_with_archives(Some(&name), None, 1)?;
            if !newest.listed.is_empty() || !newest.without_manifest.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens all stores. Fails if one of them cannot be opened.
    pub(crate) fn opened_stores(&self) -> Result<Vec<Catalog>> {
        self.all_stores()?.iter().map(|store| self.open(store)).collect()
    }
}

/// The maximum number of snapshots that `guard` has taken before the first deploy is checked.
const MOST_OF_GUARD: usize = 64;

impl Context {
    /// Returns true if the stores have only snapshots that `guard` took of a source, and few of them: it runs the first
    /// deployed program, before which there was nothing to save.
    pub(crate) fn has_only_snapshots_of_guard(&self, source: &SourceName) -> Result<bool> {
        for store in self.all_stores()? {
            let catalog = self.open(store)?;
            let newest = catalog.list_with_archives(Some(source), None, MOST_OF_GUARD)?;
            if newest.left_out != LeftOut::Exactly(0) || !newest.without_manifest.is_empty() {
                return Ok(false);
            }
            let is_of_guard =
                |described: &Described| described.manifest.as_ref().is_ok_and(|manifest| manifest.has_tag(tags::GUARD));
            if !catalog.describe(newest.listed)?.iter().all(is_of_guard) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Describes the absence of a database, or of all tables in it. Returns `None` if there is something to save, or if that
/// is not known.
pub(crate) fn absence(source: &Source, scratch: &Scratch) -> Result<Option<String>> {
    let shown = one_line(&source.shown());
    if source.is_absent() {
        let has_companion = source.file().is_some_and(|path| COMPANIONS.iter().any(|ending| exists(path, ending)));
        return Ok((!has_companion).then(|| format!("there is no database {shown}")));
    }
    match source.open(scratch).and_then(|mut live| live.is_empty()) {
        Ok(is_empty) => Ok(is_empty.then(|| format!("{shown} has no tables"))),
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        Err(_) => Ok(None),
    }
}

/// Returns true if SQLite's file with this ending is beside a database file.
fn exists(path: &Path, ending: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    std::fs::symlink_metadata(Path::new(&name)).is_ok()
}
