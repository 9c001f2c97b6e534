//! `show`: one snapshot, and the exact commands that restore it.

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::engine::source::engine_named;
use crate::ops::choose::Choice;
use crate::ops::restore::target_word;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, Report, SnapshotFilter, fetch, snapshot_document};
use crate::platform::error::{Error, Kind, Result};
use crate::platform::shell::quote_word;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::find::LATEST;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::proofs::{ProofLevel, ProofSummary};

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct ShowOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: String,
    /// The filters for the snapshots to choose from
    pub filter: SnapshotFilter,
}

/// One snapshot.
#[derive(Debug)]
pub(crate) struct ShowReport {
    /// Its manifest.
    pub manifest: Manifest,
    /// The results of its tests.
    pub proof: ProofSummary,
    /// The commands that restore it, each with a description.
    pub restore: Vec<(&'static str, String)>,
    /// True if the archive has no manifest in a store, and is described by its own.
    pub is_alone: bool,
    /// The reason why it is not trusted, if it is not.
    pub distrust: Option<Error>,
    /// The reason why it should not be restored, if it is damaged or suspect.
    pub flaw: Option<&'static str>,
    /// If it has a flaw: the newest snapshot of the source that has none, and the first command that restores it.
    pub last_good: Option<(SnapshotId, Option<String>)>,
}

/// The word for a snapshot that cannot be restored.
pub(crate) const DAMAGED: &str = "damaged";

impl Serialize for ShowReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut document = snapshot_document(&self.manifest, &self.proof);
        let commands: Vec<&String> = self.restore.iter().map(|(_, command)| command).collect();
        document.insert("restore".to_owned(), json!(commands));
        document.insert("without_manifest".to_owned(), json!(self.is_alone));
        if let Some(distrust) = &self.distrust {
            document.insert("untrusted".to_owned(), json!(distrust.full_message()));
        }
        if self.flaw.is_some() {
            document.insert("last_good".to_owned(), json!(self.last_good.as_ref().map(|(id, _)| id)));
        }
        document.serialize(serializer)
    }
}

impl Report for ShowReport {}

/// Runs the command.
pub(crate) fn run(options: &ShowOptions, context: &Context) -> Result<ShowReport> {
    let choice = Choice::find(&options.snapshot, &options.filter, || context.open_catalog())?;
    let (choice, distrust, options_to_use) = trust_to_show(choice, context)?;
    let (manifest, proof) = match &choice {
        Choice::Snapshot(catalog, listed) => (fetch::manifest(catalog, &listed.id, context)?, catalog.proof(listed)?),
        Choice::WithoutManifest(..) | Choice::File(_) => {
            (choice.open_as_stored(context)?.manifest, ProofSummary::default())
        }
    };
    let mut restore = restore_commands_with(&manifest, choice.location().as_deref(), &options_to_use, context)?;
    if let Choice::File(path) = &choice {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        // The id is one word of the command.
        let (id, path) = (manifest.id.to_string(), quote_word(&path));
        for (_, command) in &mut restore {
            *command = command.replacen(&format!(" {id} "), &format!(" {path} "), 1);
        }
    }
    let is_alone = !matches!(choice, Choice::Snapshot(..));
    let flaw = match proof.level {
        ProofLevel::Damaged => Some(DAMAGED),
        _ => manifest.tags.iter().any(|tag| tag == SUSPECT).then_some(SUSPECT),
    };
    let last_good = match choice.catalog().filter(|_| flaw.is_some()) {
        Some(catalog) => last_good(catalog, &manifest, context)?,
        None => None,
    };
    Ok(ShowReport { manifest, proof, restore, is_alone, distrust, flaw, last_good })
}

/// Returns the newest snapshot of the source that can be restored and is not suspect, with the first command that restores
/// it.
fn last_good(
    catalog: &Catalog,
    manifest: &Manifest,
    context: &Context,
) -> Result<Option<(SnapshotId, Option<String>)>> {
    let filter = SnapshotFilter {
        source: Some(manifest.source.clone()),
        without: Some(SUSPECT.to_owned()),
        ..SnapshotFilter::default()
    };
    let found = catalog.find(LATEST, &filter).and_then(|listed| fetch::manifest(catalog, &listed.id, context));
    let good = match found {
        Ok(good) => good,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            tracing::debug!("{}", error.full_message());
            return Ok(None);
        }
    };
    let command =
        restore_commands(&good, Some(&catalog.location()), context)?.into_iter().map(|(_, command)| command).next();
    Ok(Some((good.id, command)))
}

/// Returns a snapshot with a store of which every snapshot can be shown, the reason why this one is not trusted, if it is
/// not, and the options with which it is used all the same.
fn trust_to_show(choice: Choice, context: &Context) -> Result<(Choice, Option<Error>, Vec<&'static str>)> {
    let checked = match &choice {
        Choice::Snapshot(catalog, listed) => catalog.manifest(&listed.id).map(drop),
        Choice::WithoutManifest(..) | Choice::File(_) => choice.open(context).map(drop),
    };
    let Some(distrust) = checked.err().filter(Error::is_not_trusted) else { return Ok((choice, None, Vec::new())) };
    let options = match &choice {
        Choice::Snapshot(catalog, listed) => {
            let (manifest, document) = catalog.manifest_as_stored(&listed.id)?;
            catalog.options_for(&manifest, manifest.encrypted, Some(&document))
        }
        Choice::WithoutManifest(catalog, _) => {
            let opened = choice.open_as_stored(context)?;
            catalog.options_for(&opened.manifest, opened.is_encrypted(), None)
        }
        Choice::File(_) => context.trust.options_for_archive(choice.open_as_stored(context)?.is_encrypted()),
    };
    let choice = match choice {
        Choice::Snapshot(catalog, listed) => {
            Choice::Snapshot(catalog.with_trust(context.trust.clone().of_every_snapshot()), listed)
        }
        choice => choice,
    };
    Ok((choice, Some(distrust), options))
}

/// Returns the commands that restore a snapshot, each with a description.
pub(crate) fn restore_commands(
    manifest: &Manifest,
    store: Option<&str>,
    context: &Context,
) -> Result<Vec<(&'static str, String)>> {
    restore_commands_with(manifest, store, &[], context)
}

/// Does the same as [`restore_commands`], with options that use a snapshot which is not trusted.
fn restore_commands_with(
    manifest: &Manifest,
    store: Option<&str>,
    options: &[&str],
    context: &Context,
) -> Result<Vec<(&'static str, String)>> {
    let target = context.configured_source_or_origin(manifest)?;
    let target_word = |shown: &str| target_word(manifest, shown, context);
    let commands = engine_named(&manifest.engine)?.restore_commands(manifest, target.as_ref(), &target_word)?;
    let command_line = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(options.iter().copied()).collect();
        context.command_line(&words, manifest, store)
    };
    Ok(commands.into_iter().map(|(purpose, words)| (purpose, command_line(words))).collect())
}
