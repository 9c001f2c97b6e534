//! `show`: one snapshot, and the exact commands that restore it.

use clap::Args;
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::ops::restore::{origin_params, target_word};
use crate::ops::{Context, NarrowArgs, Report, fetch, snapshot_document};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::ProofSummary;
use crate::snapshots::manifest::{Manifest, SnapshotKind};

/// Shows a snapshot's manifest, and the commands that restore it
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// Which snapshots are meant
    #[command(flatten)]
    pub narrow: NarrowArgs,
}

/// One snapshot.
#[derive(Debug)]
pub struct ShowReport {
    /// Its manifest.
    pub manifest: Manifest,
    /// What its tests showed.
    pub proof: ProofSummary,
    /// The commands that restore it, with what each does.
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

impl Report for ShowReport {
    fn text(&self) -> String {
        let manifest = &self.manifest;
        let proof = match self.proof.at {
            Some(at) => format!("{} at {}", self.proof.level.name(), text::time(at)),
            None => self.proof.level.name().to_owned(),
        };
        let mut lines = format!(
            "snapshot  {}\nkind      {}\nfrom      {} ({} {})\ntaken     {} in {}\nsize      {} in {}\nsha256    {}\nproof     {proof}\n",
            manifest.id,
            manifest.kind.name(),
            manifest.origin,
            one_line(&manifest.engine),
            one_line(&manifest.server_version),
            text::time(manifest.created_at),
            text::seconds(manifest.seconds),
            text::bytes(manifest.raw_bytes),
            text::bytes(manifest.archive_bytes.unwrap_or(0)),
            manifest.sha256.map(|sha256| sha256.to_string()).unwrap_or_default(),
        );
        if let Some(seconds) = self.proof.restore_seconds {
            lines.push_str(&format!("restores  in {}, checks included\n", text::seconds(seconds)));
        }
        if !manifest.tags.is_empty() {
            lines.push_str(&format!("tags      {}\n", one_line(&manifest.tags.join(", "))));
        }
        if let Some(facts) = &manifest.sqlite {
            lines.push_str(&format!(
                "database  {} pages of {}, journal mode {}\n",
                facts.pages,
                facts.page_bytes,
                one_line(&facts.journal_mode)
            ));
            for fault in facts.health.iter().flat_map(|health| &health.integrity).take(5) {
                lines.push_str(&format!("fault     {}\n", one_line(fault)));
            }
            for orphan in facts.health.iter().flat_map(|health| &health.orphans) {
                lines.push_str(&format!(
                    "fault     {} rows of {} without their parent in {}\n",
                    orphan.rows,
                    one_line(&orphan.table),
                    one_line(&orphan.parent)
                ));
            }
        }
        if let Some(facts) = &manifest.postgres {
            let database = &facts.database;
            lines.push_str(&format!(
                "database  {}, {} {}, read by the role {}\n",
                one_line(&database.name),
                one_line(&database.encoding),
                one_line(&database.collate),
                one_line(&facts.role)
            ));
            let extensions: Vec<String> =
                facts.extensions.iter().map(|extension| format!("{} {}", extension.name, extension.version)).collect();
            for (what, words) in [("needs", extensions), ("roles", facts.roles.clone())] {
                if !words.is_empty() {
                    lines.push_str(&format!("{what:<10}{}\n", one_line(&words.join(", "))));
                }
            }
            if facts.large_objects.count > 0 {
                lines.push_str(&format!("objects   {} large objects\n", facts.large_objects.count));
            }
            for left_out in &facts.left_out {
                lines.push_str(&format!("left out  {}\n", one_line(left_out)));
            }
            for note in &facts.notes {
                lines.push_str(&format!("note      {}\n", one_line(note)));
            }
        }
        let is_closed = manifest.encrypted && manifest.sqlite.is_none() && manifest.postgres.is_none();
        if manifest.encrypted {
            let key = if is_closed { ": a key (--identity FILE) shows its tables" } else { "" };
            lines.push_str(&format!("encrypted with age{key}\n"));
        }
        lines.push('\n');
        let rows = manifest.tables.iter().map(|table| {
            let number = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
            let note = table.reason.as_deref().unwrap_or(if table.kind == "table" { "" } else { &table.kind });
            vec![one_line(&table.name), number(table.rows), number(table.bytes), note.to_owned()]
        });
        if !is_closed {
            lines.push_str(&text::table(&["TABLE", ">ROWS", ">BYTES", "NOTE"], rows));
            lines.push('\n');
        }
        for (what, command) in &self.restore {
            lines.push_str(&format!("{what}:\n  {command}\n"));
        }
        lines
    }
}

/// Runs the command.
pub fn run(args: &ShowArgs, context: &Context) -> Result<ShowReport> {
    let catalog = context.open_catalog()?;
    let listed = catalog.find(&args.snapshot, &(&args.narrow).into())?;
    let manifest = fetch::manifest(&catalog, &listed.id, context)?;
    let proof = catalog.proof(&listed)?;
    let restore = restore_commands(&manifest, &catalog.location(), context)?;
    Ok(ShowReport { manifest, proof, restore })
}

/// The commands that restore a snapshot, with what each does.
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
