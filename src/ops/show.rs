//! `show`: one snapshot, and the exact commands that restore it.

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::engine::source::engine_named;
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
}

impl Serialize for ShowReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut document = snapshot_document(&self.manifest, &self.proof);
        let commands: Vec<&String> = self.restore.iter().map(|(_, command)| command).collect();
        document.insert("restore".to_owned(), json!(commands));
        document.serialize(serializer)
    }
}

impl Report for ShowReport {}

/// Runs the command.
pub(crate) fn run(options: &ShowOptions, context: &Context) -> Result<ShowReport> {
    let catalog = context.open_catalog()?;
    let listed = catalog.find(&options.snapshot, &options.filter)?;
    let manifest = fetch::manifest(&catalog, &listed.id, context)?;
    let proof = catalog.proof(&listed)?;
    let restore = restore_commands(&manifest, &catalog.location(), context)?;
    Ok(ShowReport { manifest, proof, restore })
}

/// Returns the commands that restore a snapshot, each with a description.
pub(crate) fn restore_commands(
    manifest: &Manifest,
    store: &str,
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
