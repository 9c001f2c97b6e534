//! `show`: one snapshot, and the exact commands that restore it.

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::engine::source::engine_named;
use crate::engine::sqlite::target::quote_word;
use crate::ops::choose::Choice;
use crate::ops::restore::target_word;
use crate::ops::{Context, Report, SnapshotFilter, fetch, snapshot_document};
use crate::platform::error::Result;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::proofs::ProofSummary;

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
}

impl Serialize for ShowReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut document = snapshot_document(&self.manifest, &self.proof);
        let commands: Vec<&String> = self.restore.iter().map(|(_, command)| command).collect();
        document.insert("restore".to_owned(), json!(commands));
        document.insert("without_manifest".to_owned(), json!(self.is_alone));
        document.serialize(serializer)
    }
}

impl Report for ShowReport {}

/// Runs the command.
pub(crate) fn run(options: &ShowOptions, context: &Context) -> Result<ShowReport> {
    let choice = Choice::find(&options.snapshot, &options.filter, || context.open_catalog())?;
    let (manifest, proof) = match &choice {
        Choice::Snapshot(catalog, listed) => (fetch::manifest(catalog, &listed.id, context)?, catalog.proof(listed)?),
        Choice::WithoutManifest(..) | Choice::File(_) => (choice.open(context)?.manifest, ProofSummary::default()),
    };
    let mut restore = restore_commands(&manifest, choice.location().as_deref(), context)?;
    if let Choice::File(path) = &choice {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        // The id is one word of the command.
        let (id, path) = (manifest.id.to_string(), quote_word(&path));
        for (_, command) in &mut restore {
            *command = command.replacen(&format!(" {id} "), &format!(" {path} "), 1);
        }
    }
    let is_alone = !matches!(choice, Choice::Snapshot(..));
    Ok(ShowReport { manifest, proof, restore, is_alone })
}

/// Returns the commands that restore a snapshot, each with a description.
pub(crate) fn restore_commands(
    manifest: &Manifest,
    store: Option<&str>,
    context: &Context,
) -> Result<Vec<(&'static str, String)>> {
    let target = context.configured_source_or_origin(manifest)?;
    let target_word = |shown: &str| target_word(manifest, shown, context);
    let commands = engine_named(&manifest.engine)?.restore_commands(manifest, target.as_ref(), &target_word)?;
    let command_line = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        context.command_line(&words, manifest, store)
    };
    Ok(commands.into_iter().map(|(purpose, words)| (purpose, command_line(words))).collect())
}
