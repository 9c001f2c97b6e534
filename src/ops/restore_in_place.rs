//! Restores a snapshot in place without asking questions, for gates and guards.

use std::path::{Path, PathBuf};

use crate::engine::restoring::RestoreReport;
use crate::ops::inspect::Found;
use crate::ops::restore::RestorePlan;
use crate::ops::sources::Chosen;
use crate::ops::{Context, stores};
use crate::platform::error::{Error, Result, one_line};

/// Returns the mount points of the config that fail their preflight check.
pub(crate) fn missing_mounts(context: &Context) -> Result<Vec<PathBuf>> {
    let Some(config) = &context.config else { return Ok(Vec::new()) };
    let wanted = config.preflight()?;
    let is_missing = |path: &&PathBuf| !crate::ops::preflight::mount(path, wanted.allow_tmpfs).ok;
    Ok(wanted.mounts.iter().filter(is_missing).cloned().collect())
}

/// Restores a snapshot to the place of its source. Fails if an SQLite file would be below one of the mount points in
/// `missing_mounts`.
pub(crate) fn restore_in_place(
    found: &Found,
    chosen: &Chosen,
    lock_timeout: u64,
    missing_mounts: &[PathBuf],
    context: &Context,
) -> Result<RestoreReport> {
    let manifest = &found.manifest;
    if let Some(path) = chosen.source.file() {
        let place = real(path);
        if let Some(mount) = missing_mounts.iter().find(|mount| place.starts_with(real(mount))) {
            let mount = crate::platform::disk::shown(mount);
            return Err(Error::problem(format!("{mount} is not mounted: a file restored there would be lost again"))
                .hint("mount it, then restore the snapshot"));
        }
    }
    let catalog = reopen(found, context)?;
    let restored = RestorePlan::in_place(found.listed.clone(), catalog, &chosen.source, lock_timeout, context)
        .and_then(|plan| plan.run(context))
        .map_err(|error| {
            error.context(format!("{} was not restored to {}", manifest.id, one_line(&chosen.source.shown())))
        })?;
    // Nobody may read the report of a gate or a guard that succeeds.
    if !restored.moved_aside.is_empty() {
        let moved = restored.moved_aside.join(", ");
        tracing::warn!("the files that were there, which may have newer rows, were moved aside: {moved}");
    }
    for note in &restored.notes {
        tracing::warn!("{}", one_line(note));
    }
    Ok(restored)
}

/// Opens the store of a snapshot once more, since a plan takes ownership of its catalog.
fn reopen(found: &Found, context: &Context) -> Result<crate::snapshots::catalog::Catalog> {
    let location = found.catalog.location();
    for store in context.all_stores()? {
        if let Ok(catalog) = stores::open(store)
            && catalog.location() == location
        {
            return Ok(catalog);
        }
    }
    Err(Error::unreachable(format!("the store {} can no longer be opened", one_line(&location))))
}

/// Resolves a path, whether all of it exists or not. Links and `..` are followed as far as possible.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(target) = std::fs::read_link(&absolute)
        && !absolute.exists()
    {
        return real(&absolute.parent().unwrap_or(Path::new("/")).join(target));
    }
    let mut rest = Vec::new();
    let mut above = absolute.as_path();
    loop {
        if let Ok(real) = above.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (above.parent(), above.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                above = parent;
            }
            _ => return absolute,
        }
    }
}
