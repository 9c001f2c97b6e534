//! `list`: the snapshots in a store, newest first.

use chrono::Utc;
use clap::Args;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::ops::{Context, NarrowArgs, Report, snapshot_document};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::{Described, LeftOut};

/// Lists snapshots, newest first
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Which snapshots are meant
    #[command(flatten)]
    pub narrow: NarrowArgs,
    /// Only the newest N
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
}

/// The snapshots found.
#[derive(Debug)]
pub struct ListReport {
    /// Newest first.
    pub snapshots: Vec<Described>,
    /// Older ones that the limit left out.
    pub left_out: LeftOut,
}

impl Serialize for ListReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("snapshots", &self.snapshots.iter().map(listed_document).collect::<Vec<_>>())?;
        map.end()
    }
}

/// A snapshot as lists carry it: without its tables.
pub(crate) fn listed_document(described: &Described) -> Map<String, Value> {
    match &described.manifest {
        Ok(manifest) => {
            let mut document = snapshot_document(manifest, &described.proof);
            document.remove("tables");
            document.remove("sqlite");
            document
        }
        // It is there and it is damaged: that is all there is to say of it.
        Err(error) => {
            let id = &described.listed.id;
            let unknown = [
                "origin",
                "kind",
                "engine",
                "created_at",
                "tags",
                "archive",
                "archive_bytes",
                "raw_bytes",
                "sha256",
                "codec",
                "encrypted",
                "server_version",
                "rows",
                "seconds",
            ];
            let mut fields: Map<_, _> = unknown.map(|name| (name.to_owned(), json!(null))).into_iter().collect();
            fields.insert("id".to_owned(), json!(id));
            fields.insert("source".to_owned(), json!(id.source()));
            fields.insert("proof".to_owned(), json!(described.proof.level.name()));
            fields.insert("problem".to_owned(), json!(error.whole()));
            fields
        }
    }
}

impl Report for ListReport {
    fn text(&self) -> String {
        let now = Utc::now();
        let rows = self.snapshots.iter().map(|described| {
            let id = &described.listed.id;
            let age = text::age(id.time(), now);
            let proof = described.proof.level.name().to_owned();
            match &described.manifest {
                Ok(manifest) => vec![
                    id.to_string(),
                    age,
                    manifest.kind.name().to_owned(),
                    text::bytes(manifest.archive_bytes.unwrap_or(0)),
                    manifest.rows.to_string(),
                    proof,
                    described.proof.restore_seconds.map(text::seconds).unwrap_or_default(),
                    one_line(&manifest.tags.join(",")),
                ],
                Err(_) => {
                    vec![id.to_string(), age, "?".into(), "?".into(), "?".into(), proof, String::new(), String::new()]
                }
            }
        });
        let mut text = text::table(&["ID", ">AGE", "KIND", ">SIZE", ">ROWS", "PROOF", ">RESTORE", "TAGS"], rows);
        match self.left_out {
            LeftOut::These(0) => {}
            LeftOut::These(count) => {
                let all = count + self.snapshots.len();
                text.push_str(&format!("and {count} older: --limit {all} shows all\n"));
            }
            LeftOut::Some => text.push_str("and perhaps older ones: a higher --limit shows more\n"),
        }
        text
    }
}

/// Runs the command. Manifests are read only for the rows shown, unless tags or times choose them.
pub fn run(args: &ListArgs, context: &Context) -> Result<ListReport> {
    let catalog = context.open_catalog()?;
    let (source, before) = (args.narrow.source.as_ref(), args.narrow.before);
    let limit = args.limit.unwrap_or(usize::MAX);
    if args.narrow.tag.is_empty() {
        let (listed, left_out) = catalog.list_newest(source, before, limit)?;
        return Ok(ListReport { snapshots: catalog.describe(listed)?, left_out });
    }
    let mut snapshots = catalog.describe(catalog.list_newest(source, before, usize::MAX)?.0)?;
    let tagged = |described: &Described| {
        described.manifest.as_ref().is_ok_and(|manifest| args.narrow.tag.iter().all(|tag| manifest.tags.contains(tag)))
    };
    snapshots.retain(tagged);
    let left_out = LeftOut::These(snapshots.len().saturating_sub(limit));
    snapshots.truncate(limit);
    Ok(ListReport { snapshots, left_out })
}
