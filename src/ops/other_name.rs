//! Snapshots of a source's database under another source name: the source was renamed in the config. Its database is then not
//! new, although no store has a snapshot of its name.

use crate::engine::source::sqlite_file;
use crate::ops::command_line::source_word;
use crate::ops::inspect::Found;
use crate::ops::sources::Chosen;
use crate::ops::{Context, fetch, tags};
use crate::platform::disk::real_path;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, Origin};

impl Context {
    /// Returns the newest snapshot of a source's database under another name, from any store: a good one, or else a
    /// suspect one. Fails if a store cannot be read.
    pub(crate) fn under_other_name(&self, chosen: &Chosen) -> Result<Option<Found>> {
        let (name, Some(origin)) = (chosen.name()?, self.origin_of(chosen)) else { return Ok(None) };
        let mut newest = None;
        for catalog in self.opened_stores()? {
            newest = newer(newest, under_other_name(catalog, &name, &origin, self)?);
        }
        Ok(newest)
    }

    /// Returns the place of a source's database, or `None` if it is not known.
    pub(crate) fn origin_of(&self, chosen: &Chosen) -> Option<Origin> {
        // The path of a file that is absent has its links resolved as far as they lead.
        let source = match chosen.source.file() {
            Some(path) => sqlite_file(real_path(path)),
            None => chosen.source.clone(),
        };
        source.origin(&self.host).ok()
    }

    /// Fails if a store has snapshots of a source's database under another name. `state` says what is wrong.
    pub(crate) fn require_no_other_name(&self, chosen: &Chosen, state: &str) -> Result<()> {
        match self.under_other_name(chosen)? {
            None => Ok(()),
            Some(found) => Err(Error::problem(format!("{state}, but {}", described(&found, &chosen.name()?)))
                .hint(self.advice_on_other_name(&found, chosen))),
        }
    }

    /// Returns the advice for a source that was renamed.
    pub(crate) fn advice_on_other_name(&self, found: &Found, chosen: &Chosen) -> String {
        let command = self.restore_elsewhere(found, chosen);
        format!(
            "give the source its earlier name again: {}; or '{command}' restores that snapshot",
            found.manifest.source
        )
    }

    /// Returns the command that restores a snapshot of another source name to a source.
    pub(crate) fn restore_elsewhere(&self, found: &Found, chosen: &Chosen) -> String {
        let (id, target) = (found.manifest.id.to_string(), source_word(chosen));
        let mut words = vec!["restore", &id, "--to", &target];
        if !chosen.source.is_absent() {
            words.push("--replace");
        }
        self.command_line(&words, &found.manifest, Some(&found.catalog.location()))
    }
}

/// Returns the newest snapshot of the database at `origin` in a store, under another name than `name`.
pub(crate) fn under_other_name(
    catalog: Catalog,
    name: &SourceName,
    origin: &Origin,
    context: &Context,
) -> Result<Option<Found>> {
    let is_good = |manifest: &Manifest| !manifest.has_tag(tags::SUSPECT);
    let found = catalog.under_other_names(name, origin)?;
    let newest = found
        .into_iter()
        .max_by(|(a, one), (b, other)| (is_good(one), a.id.stamp()).cmp(&(is_good(other), b.id.stamp())));
    let Some((listed, _)) = newest else { return Ok(None) };
    let manifest = fetch::manifest(&catalog, &listed.id, context)?;
    Ok(Some(Found { catalog, listed, manifest }))
}

/// Returns the newer of two snapshots.
pub(crate) fn newer(one: Option<Found>, other: Option<Found>) -> Option<Found> {
    one.into_iter().chain(other).max_by(|a, b| a.listed.id.stamp().cmp(b.listed.id.stamp()))
}

/// Describes a snapshot of the database of source `name` that has another source name.
pub(crate) fn described(found: &Found, name: &SourceName) -> String {
    let (manifest, place) = (&found.manifest, one_line(&found.catalog.location()));
    format!(
        "no store has a snapshot of {name}, and {place} has snapshots of the same database, {}, under the name {}: the \
         newest is {}, with {} rows",
        one_line(&manifest.origin.to_string()),
        manifest.source,
        manifest.id,
        manifest.rows
    )
}
