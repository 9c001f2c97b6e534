//! Restores a snapshot in place without asking questions, for gates and guards.

use std::path::PathBuf;

use crate::engine::restoring::RestoreReport;
use crate::ops::Context;
use crate::ops::command_line::source_word;
use crate::ops::inspect::Found;
use crate::ops::restore::RestorePlan;
use crate::ops::sources::Chosen;
use crate::platform::disk::{real_path, shown};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::find::LATEST;
use crate::snapshots::manifest::Manifest;

/// Returns the mount points of the config that fail their preflight check.
pub(crate) fn missing_mounts(context: &Context) -> Result<Vec<PathBuf>> {
    let Some(config) = &context.config else { return Ok(Vec::new()) };
    let wanted = config.preflight()?;
    let is_missing = |path: &&PathBuf| !crate::ops::preflight::mount(path, wanted.allow_tmpfs).ok;
    Ok(wanted.mounts.iter().filter(is_missing).cloned().collect())
}

/// Returns the command that restores a snapshot of the store at `location` to the place of its source. `options` are the
/// options of the restore, such as `--replace`.
pub(crate) fn restore_command(
    manifest: &Manifest,
    location: &str,
    chosen: Option<&Chosen>,
    options: &[&str],
    context: &Context,
) -> String {
    let mut words = vec!["restore".to_owned(), manifest.id.to_string()];
    words.extend(options.iter().map(|option| (*option).to_owned()));
    // For a source of the config, `restore` needs no --to: it finds the database by the source's name. A source that the
    // command line names by its path may have the name of one of the config.
    if chosen.is_none_or(|chosen| chosen.configured.is_none()) {
        match chosen.and_then(|chosen| chosen.source.server()) {
            Some(params) => words.extend(["--to".to_owned(), params.shown()]),
            None => words.extend(manifest.origin.path.iter().flat_map(|path| ["--to".to_owned(), path.clone()])),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    context.command_line(&words, manifest, Some(location))
}

/// Returns the command that restores the last good snapshot of a source whose database is missing or damaged.
pub(crate) fn restore_latest(chosen: &Chosen, context: &Context) -> Result<String> {
    let mut words = ["restore", LATEST, "--source"].map(str::to_owned).to_vec();
    words.push(chosen.name()?.to_string());
    if chosen.configured.is_none() {
        words.extend(["--to".to_owned(), source_word(chosen)]);
    }
    let is_file = chosen.source.file().is_some_and(|path| !path.is_dir());
    words.extend((is_file && !chosen.source.is_absent()).then(|| "--replace".to_owned()));
    context.gate_command_line(&words)
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
        let place = real_path(path);
        if let Some(mount) = missing_mounts.iter().find(|mount| place.starts_with(real_path(mount))) {
            let mount = shown(mount);
            return Err(Error::problem(format!("{mount} is not mounted: a file restored there would be lost again"))
                .hint("mount it, then restore the snapshot"));
        }
    }
    let (catalog, location) = (reopen(found, context)?, found.catalog.location());
    let restored = RestorePlan::in_place(found.listed.clone(), catalog, &chosen.source, lock_timeout, context)
        .and_then(|plan| plan.run(context))
        .map_err(|error| {
            // Gates and guards do not have the option.
            let error = match error.hint.as_deref().is_some_and(|hint| hint.contains("--no-safety")) {
                true => {
                    let options = ["--replace", "--no-safety"];
                    let restore = restore_command(manifest, &location, Some(chosen), &options, context);
                    error.hint(format!(
                        "correct the cause; '{restore}' restores without a safety snapshot: the overwritten data is then \
                         lost"
                    ))
                }
                false => error,
            };
            error.context(format!("{} was not restored to {}", manifest.id, one_line(&chosen.source.shown())))
        })?;
    // Nobody may read the report of a gate or a guard that succeeds.
    if !restored.moved_aside.is_empty() {
        let moved = one_line(&restored.moved_aside.join(", "));
        let undo =
            restored.undo.as_deref().map_or(String::new(), |undo| format!("; to put them back: {}", one_line(undo)));
        tracing::warn!("the files that were there, which may have newer rows, were moved aside: {moved}{undo}");
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
        if let Ok(catalog) = context.open(store)
            && catalog.location() == location
        {
            return Ok(catalog);
        }
    }
    Err(Error::unreachable(format!("the store {} can no longer be opened", one_line(&location))))
}
