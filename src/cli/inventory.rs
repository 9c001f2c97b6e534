//! `inventory`: its arguments, and its result for people.

use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::call::{Call, Subcommand, Text};
use crate::engine::sqlite::holders::Holder;
use crate::engine::sqlite::inspect::SchemaCounts;
use crate::ops::inventory::{self, DatabaseReport, InventoryOptions, InventoryReport};
use crate::platform::duration::{format_duration, parse_duration};
use crate::platform::error::{Result, one_line};
use crate::platform::text;

/// Finds SQLite databases by their content and lists their tables, rows, sizes, journal mode and last write
///
/// Folders are searched recursively. Links to files are followed, and a file with several names is listed once. Links
/// to folders are followed only if they are given as PATH. Databases are not changed, but SQLite creates the -shm file
/// that it needs to read a WAL database. The command fails (exit 3) if something cannot be read, if a PATH is not a
/// database, or if no database is found.
#[derive(Args, Clone, Debug)]
pub(super) struct InventoryArgs {
    /// Files and folders to search
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Save every database found into the store, one source each, named after its file
    #[arg(long)]
    snapshot: bool,
    /// A tag to find the snapshots by (repeatable)
    #[arg(long, value_name = "TAG", requires = "snapshot")]
    tag: Vec<String>,
    /// Also save empty databases
    #[arg(long, requires = "snapshot")]
    allow_empty: bool,
    /// Check that no database changes for this time (30s, 10m), and list the databases that change and the processes
    /// that have them open; with --snapshot, also check until all databases are saved
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    watch: Option<chrono::Duration>,
}

impl From<InventoryArgs> for InventoryOptions {
    fn from(args: InventoryArgs) -> Self {
        InventoryOptions {
            paths: args.paths,
            snapshot: args.snapshot,
            tag: args.tag,
            allow_empty: args.allow_empty,
            watch: args.watch,
        }
    }
}

impl Subcommand for InventoryArgs {
    fn name(&self) -> &'static str {
        "inventory"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&inventory::run(&self.clone().into(), &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn fields_on_problem(&self) -> Vec<(&'static str, Value)> {
        vec![("databases", json!([]))]
    }
}

impl Text for InventoryReport {
    fn text(&self) -> String {
        let now = Utc::now();
        let mut lines: String = self.databases.iter().map(|database| lines(database, now) + "\n").collect();
        for note in &self.notes {
            let path = note.path.as_deref().map(one_line).unwrap_or_default();
            lines.push_str(&format!("note: {path}: {}\n", one_line(&note.message)));
        }
        if let Some(snapshots) = &self.snapshots {
            lines.push_str(&snapshots.text());
        }
        if let Some(watch) = &self.watch {
            let seconds = format_duration(chrono::Duration::seconds(watch.seconds as i64));
            lines.push_str(&match watch.still {
                true => format!("nothing changed for {seconds}\n"),
                false => format!("NOT FROZEN: a database changed or could not be watched (watched for {seconds})\n"),
            });
            if watch.hidden_processes > 0 {
                let count = counted(watch.hidden_processes as u64, "process").replace("processs", "processes");
                lines.push_str(&format!("not checked: the open files of {count} of other users\n"));
            }
        }
        let databases = self.databases.len() as u64;
        let tables = self.databases.iter().map(|database| database.tables.len() as u64).sum();
        let rows: u64 = self.databases.iter().filter_map(|database| database.rows).sum();
        let bytes: u64 = self.databases.iter().map(|database| database.bytes + database.wal_bytes).sum();
        let more = if self.databases.iter().all(|database| database.rows.is_some()) { "" } else { "at least " };
        lines.push_str(&format!(
            "{}, {}, {more}{rows} rows, {}\n",
            counted(databases, "database"),
            counted(tables, "table"),
            text::bytes(bytes)
        ));
        lines
    }
}

/// Returns the lines about one database.
fn lines(database: &DatabaseReport, now: DateTime<Utc>) -> String {
    let mut lines = format!("{}\n", one_line(&database.path));
    for other in &database.other_paths {
        lines.push_str(&format!("  also {}\n", one_line(other)));
    }
    let wal =
        if database.wal_bytes > 0 { format!(" and {} of WAL", text::bytes(database.wal_bytes)) } else { String::new() };
    let mode = if database.journal_mode == "wal" { "WAL mode" } else { "rollback journal" };
    let (modified, age) = (text::time(database.modified_at), text::age(database.modified_at, now));
    lines.push_str(&format!("  {}{wal}, {mode}, written {modified} ({age})\n", text::bytes(database.bytes)));
    let pages = database.pages.map(|pages| format!("{pages} pages of ")).unwrap_or_default();
    let free = database.free_pages.filter(|free| *free > 0).map(|free| format!(" ({free} free)")).unwrap_or_default();
    let encoding = database.encoding.as_ref().map(|encoding| format!(", {encoding}")).unwrap_or_default();
    let version = database.user_version.filter(|version| *version != 0);
    let version = version.map(|version| format!(", user_version {version}")).unwrap_or_default();
    lines.push_str(&format!(
        "  {pages}{} bytes{free}{encoding}{version}, mode {}, owner {}:{}\n",
        database.page_bytes, database.mode, database.owner, database.group
    ));
    if let Some(schema) = &database.schema {
        lines.push_str(&format!("  {}\n", schema_words(schema)));
    }
    if database.journal_bytes > 0 {
        lines.push_str(&format!("  has a rollback journal of {}\n", text::bytes(database.journal_bytes)));
    }
    if let Some(problem) = &database.problem {
        lines.push_str(&format!("  PROBLEM: {}\n", one_line(problem)));
    }
    for change in database.changes.iter().flatten() {
        lines.push_str(&format!("  CHANGED: {}\n", one_line(change)));
    }
    for holder in database.holders.iter().flatten() {
        let holder = Holder { pid: holder.pid, command: holder.command.clone(), writes: holder.writes };
        let writes = if holder.writes { ", for writing" } else { "" };
        lines.push_str(&format!("  held open by {}{writes}\n", holder.shown()));
    }
    let rows = database.tables.iter().map(|table| {
        let rows = table.rows.map_or("?".to_owned(), |rows| rows.to_string());
        let kind = if table.kind == "table" { String::new() } else { table.kind.clone() };
        vec![table.name.clone(), rows, table.reason.clone().unwrap_or(kind)]
    });
    if !database.tables.is_empty() {
        for line in text::table(&["TABLE", ">ROWS", ""], rows).lines() {
            lines.push_str(&format!("  {line}\n"));
        }
    }
    lines
}

fn schema_words(schema: &SchemaCounts) -> String {
    let counts = [
        (schema.tables, "table"),
        (schema.virtual_tables, "virtual table"),
        (schema.indexes, "index"),
        (schema.triggers, "trigger"),
        (schema.views, "view"),
    ];
    let words = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| counted(*count, word));
    let words: Vec<String> = words.collect();
    if words.is_empty() { "no tables".to_owned() } else { words.join(", ") }
}

fn counted(count: u64, word: &str) -> String {
    match (count, word) {
        (1, _) => format!("1 {word}"),
        (_, "index") => format!("{count} indexes"),
        _ => format!("{count} {word}s"),
    }
}
