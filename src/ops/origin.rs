//! Requires that a snapshot that is restored without a named target is of the database that it replaces. Two environments
//! can share a store and a source name by mistake, and whoever may write to a store chooses what a snapshot says.

use crate::engine::source::{Source, engine_named};
use crate::ops::Context;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::{Manifest, Origin};

/// Returns the database that a snapshot was taken from, if this machine can reach it. Nothing but the store names it, so
/// the snapshot before it in `catalog`, and the oldest one, must be of the same place, unless the one before says that the
/// database was moved there. A text, a program or a folder is never replaced. Without a `catalog`, the user has named the
/// archive itself.
pub(crate) fn place_of_origin(
    manifest: &Manifest,
    catalog: Option<&Catalog>,
    context: &Context,
) -> Result<Option<Source>> {
    let Some(source) = engine_named(&manifest.engine)?.origin_of(manifest, &context.host)? else { return Ok(None) };
    let hint = "name the target with --to, or the source in a config, if it is the right one";
    let earlier = catalog.map(|catalog| catalog.earlier(manifest)).transpose()?.unwrap_or_default();
    let is_known = |origin: &Origin| {
        let says_moved = |before: &Manifest| before.origin == manifest.origin && before.moved_from.contains(origin);
        *origin == manifest.origin || earlier.first().is_some_and(says_moved)
    };
    if let Some(other) = earlier.iter().find(|other| !is_known(&other.origin)) {
        let (theirs, ours) = (one_line(&other.origin.to_string()), one_line(&manifest.origin.to_string()));
        return Err(Error::usage(format!(
            "{} is of {ours}, but {}, which is older, is of {theirs}",
            manifest.id, other.id
        ))
        .hint(hint));
    }
    if source.is_of_another_kind() {
        let (id, shown) = (&manifest.id, one_line(&source.shown()));
        return Err(Error::usage(format!(
            "{shown} was never a database: it is a text, a program or a folder, and only {id} says otherwise"
        ))
        .hint(hint));
    }
    Ok(Some(source))
}

/// Fails if the snapshot is of another database than `source`. `newest` returns the newest full snapshot of the same
/// source, which can say that the database was moved.
pub(crate) fn require_same_database(
    manifest: &Manifest,
    source: &Source,
    newest: impl FnOnce() -> Result<Option<Manifest>>,
    context: &Context,
) -> Result<()> {
    let origin = source.origin(&context.host)?;
    if manifest.is_of_database_at(&origin, None) || manifest.is_of_database_at(&origin, newest()?.as_ref()) {
        return Ok(());
    }
    let (id, name) = (&manifest.id, &manifest.source);
    let (theirs, ours) = (one_line(&manifest.origin.to_string()), one_line(&origin.to_string()));
    // A source of the config is named in commands by its name, any other by its place.
    let word = match context.configured_source(manifest)? {
        Some(configured) if configured.is_same(&**source) => name.to_string(),
        _ => source.shown(),
    };
    let mut restore = ["restore", &id.to_string(), "--to", &source.shown()].map(str::to_owned).to_vec();
    restore.extend((!source.is_absent()).then(|| "--replace".to_owned()));
    let restore = context.gate_command_line(&restore)?;
    let moved = context.gate_command_line(&["snapshot".to_owned(), word, "--moved".to_owned()])?;
    let other_host = only_host_differs(&manifest.origin, &origin).map(|host| {
        format!(
            "if it is the same machine, or the container in its place, set host = \"{host}\" in lifeboat.toml (or --host); \
             or "
        )
    });
    Err(Error::usage(format!("{id} is of another database, {theirs}; {name} is {ours} here")).hint(format!(
        "{}give this source another name, or its store another folder or prefix; or, if it is the same database in a new \
         place, run '{moved}' once, and before it, if its rows are not there, '{restore}'",
        other_host.unwrap_or_default()
    )))
}

/// Returns the name of the machine in `old`, if a file has the same path in both origins, and only the machine differs.
pub(crate) fn only_host_differs(old: &Origin, new: &Origin) -> Option<String> {
    let is_same_place = (old.path.as_ref(), old.port, &old.database) == (new.path.as_ref(), new.port, &new.database);
    (old.host != new.host && is_same_place).then(|| one_line(&old.host))
}
