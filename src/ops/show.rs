//! `show`: one snapshot, and the exact commands that restore it.

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::ops::restore::{origin_params, target_word};
use crate::ops::{Context, Narrow, Report, fetch, snapshot_document};
use crate::platform::error::Result;
use crate::snapshots::catalog::ProofSummary;
use crate::snapshots::manifest::{Manifest, SnapshotKind};

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct ShowOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: String,
    /// Filters for the snapshots to choose from
    pub narrow: Narrow,
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
    let listed = catalog.find(&options.snapshot, &options.narrow)?;
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
    let id = manifest.id.to_string();
    let mut restore = Vec::new();
    let command_line = |words: &[&str]| context.command_line(words, manifest, store);
    if manifest.engine == "postgres" {
        let database = manifest.origin.database.as_deref().unwrap_or_default();
        let params = origin_params(manifest, context)?;
        let (same, new) =
            (target_word(manifest, &params, context)?, params.with_database(&format!("{database}_restored")).shown());
        restore.push(("as a new database", command_line(&["restore", &id, "--to", &new, "--create"])));
        restore.push((
            "the rows of one table",
            command_line(&["restore", &id, "--to", &same, "--replace", "--table", "SCHEMA.TABLE"]),
        ));
        restore.push(("all rows, in place", command_line(&["restore", &id, "--to", &same, "--replace"])));
        restore.push(("the whole database, exchanged", command_line(&["restore", &id, "--to", &same, "--swap"])));
    } else if manifest.kind != SnapshotKind::Damaged
        || manifest.sqlite.as_ref().is_some_and(|facts| facts.health.is_some())
    {
        let copy = format!("{}-restored.db", manifest.source);
        restore.push(("to look at it, as a new file", command_line(&["restore", &id, "--to", &copy])));
        match context.home_path(manifest)?.and_then(|path| path.to_str().map(str::to_owned)) {
            Some(path) => {
                restore.push((
                    "to put it back where it came from",
                    command_line(&["restore", &id, "--to", &path, "--replace"]),
                ));
            }
            None => restore
                .push(("over another database", command_line(&["restore", &id, "--to", "TARGET.db", "--replace"]))),
        }
    } else {
        restore.push(("to get the raw files", command_line(&["extract", &id, "--to", "DIR"])));
    }
    Ok(restore)
}
