//! Restores a snapshot in place and chooses the way by itself: for gates and guards, which cannot ask anybody.

use std::path::{Path, PathBuf};

use crate::engine::source::Source;
use crate::ops::look::Found;
use crate::ops::restore::{RestoreOptions, RestorePlan, RestoreReport, target_word};
use crate::ops::sources::Chosen;
use crate::ops::{Context, stores};
use crate::platform::error::{Error, Kind, Result, one_line};

/// Returns the mount points of the config that fail their preflight check.
pub(crate) fn gone_mounts(context: &Context) -> Result<Vec<PathBuf>> {
    let Some(config) = &context.config else { return Ok(Vec::new()) };
    let wanted = config.preflight()?;
    let is_gone = |path: &&PathBuf| !crate::ops::preflight::mount(path, wanted.allow_tmpfs).ok;
    Ok(wanted.mounts.iter().filter(is_gone).cloned().collect())
}

/// Restores a snapshot to the place of its source. Fails if an SQLite file would be below one of the mount points in
/// `gone`.
pub(crate) fn put_back(
    found: &Found,
    chosen: &Chosen,
    lock_timeout: u64,
    gone: &[PathBuf],
    context: &Context,
) -> Result<RestoreReport> {
    let manifest = &found.manifest;
    let basic = RestoreOptions { lock_timeout, ..RestoreOptions::default() };
    let attempts = match &chosen.source {
        Source::Sqlite(path) => {
            let place = real(path);
            if let Some(mount) = gone.iter().find(|mount| place.starts_with(real(mount))) {
                let mount = crate::platform::disk::shown(mount);
                return Err(Error::problem(format!(
                    "{mount} is not mounted, and what is put there would be lost again"
                ))
                .hint("mount it, then restore"));
            }
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|error| {
                    Error::failed(format!("cannot make the folder {}", crate::platform::disk::shown(folder)))
                        .because(error)
                })?;
            }
            let to = path
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| Error::usage(format!("the path {} is not UTF-8", crate::platform::disk::shown(path))))?;
            let there = std::fs::symlink_metadata(path).is_ok();
            vec![RestoreOptions { to: Some(to), replace: there, ..basic }]
        }
        // In this order: fill an empty database; replace the rows, if the schema is the same; exchange the database;
        // create it.
        Source::Postgres(params) => {
            let to = Some(match &chosen.configured {
                Some(configured) => configured.name.to_string(),
                None => target_word(manifest, params, context)?,
            });
            let plain = RestoreOptions { to, ..basic };
            vec![
                plain.clone(),
                RestoreOptions { replace: true, ..plain.clone() },
                RestoreOptions { swap: true, disconnect: true, ..plain.clone() },
                RestoreOptions { create: true, ..plain },
            ]
        }
    };
    let mut refused: Vec<String> = Vec::new();
    for options in attempts {
        let catalog = reopen(found, context)?;
        match RestorePlan::of(&manifest.id, catalog, &options, context) {
            Ok(plan) => return plan.run(&options, context),
            // This attempt does not fit, and the next one is tried. Nothing is changed before a plan is made.
            Err(error) if matches!(error.kind, Kind::Usage | Kind::Failed) => refused.push(one_line(&error.whole())),
            Err(error) => return Err(error),
        }
    }
    Err(Error::failed(format!("{} fits nowhere", manifest.id)).because(Error::usage(refused.join("; "))))
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
    Err(Error::unreachable(format!("the store {} is no longer there", one_line(&location))))
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
