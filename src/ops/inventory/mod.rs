//! `inventory`: finds SQLite databases by their content, reports their contents, saves them, and proves that they do
//! not change.

mod freeze;
mod names;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config::ConfiguredSource;
use crate::engine::source::sqlite_file;
use crate::engine::sqlite::find::{self, FoundDatabase, Remark};
use crate::engine::sqlite::holders::Holder;
use crate::engine::sqlite::inspect::{self, CountedTable, DatabaseContent, FileFacts, SchemaCounts};
use crate::ops::save::{self, SaveOptions, SnapshotReport};
use crate::ops::sources::{self, Chosen};
use crate::ops::{Context, Report, error_document};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Kind, Result, one_line};
use freeze::{Freeze, Observation};

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct InventoryOptions {
    /// Files and folders to search
    pub paths: Vec<PathBuf>,
    /// Save every database found into the store, one source each, named after its file
    pub snapshot: bool,
    /// Tags to find the snapshots by (repeatable)
    pub tag: Vec<String>,
    /// Also save empty databases
    pub allow_empty: bool,
    /// Check that no database changes for this time (30s, 10m), and list the databases that change and the processes
    /// that have them open; with --snapshot, also check until all databases are saved
    pub watch: Option<chrono::Duration>,
}

/// The databases that were found.
#[derive(Debug)]
pub(crate) struct InventoryReport {
    /// The databases, in the order of their paths.
    pub databases: Vec<DatabaseReport>,
    /// Remarks that are not failures.
    pub notes: Vec<PathRemark>,
    /// Reasons why the list is not complete, or the databases did not stay unchanged.
    pub problems: Vec<PathRemark>,
    /// The result of the watch, if one was asked for.
    pub watch: Option<WatchReport>,
    /// The snapshots, if they were asked for.
    pub snapshots: Option<SnapshotReport>,
    /// All failures; the first one decides the exit code.
    pub failures: Vec<Error>,
}

/// A remark on a path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathRemark {
    /// `note`, `problem`, or the kind of error that kept a snapshot from being made.
    pub kind: &'static str,
    /// The path; `None` if the remark is not about a path.
    pub path: Option<String>,
    /// The text of the remark.
    pub message: String,
}

/// The result of a watch.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WatchReport {
    /// Its duration in seconds, including snapshots.
    pub seconds: f64,
    /// True if every database was watched and none changed.
    pub still: bool,
    /// The number of processes of other users, whose open files this user may not see.
    pub hidden_processes: usize,
}

/// A database and its contents. Values that could not be read are null, and `problem` says why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DatabaseReport {
    /// The path under which it was found.
    pub path: String,
    /// The absolute path, with links resolved.
    pub real_path: String,
    /// Links and hard links to the same file.
    pub other_paths: Vec<String>,
    /// Length of the file, without its WAL.
    pub bytes: u64,
    /// Length of its WAL.
    pub wal_bytes: u64,
    /// Length of its rollback journal: a write is in progress, or was interrupted.
    pub journal_bytes: u64,
    /// `wal`, or `delete` for all others.
    pub journal_mode: &'static str,
    /// The last write to the file or its WAL.
    pub modified_at: DateTime<Utc>,
    /// Permission bits, octal.
    pub mode: String,
    /// The user id of the owner.
    pub owner: u32,
    /// The group id.
    pub group: u32,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Pages, including those in the WAL.
    pub pages: Option<u64>,
    /// Unused pages.
    pub free_pages: Option<u64>,
    /// `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: Option<String>,
    /// The number that the application gives its schema (`user_version`).
    pub user_version: Option<i64>,
    /// The number of the application that the file belongs to (`application_id`).
    pub application_id: Option<i64>,
    /// `none`, `full` or `incremental`.
    pub auto_vacuum: Option<&'static str>,
    /// The number of objects in its schema.
    pub schema: Option<SchemaCounts>,
    /// The number of rows in all tables, except virtual tables.
    pub rows: Option<u64>,
    /// The tables, by name; SQLite's own are left out.
    pub tables: Vec<TableReport>,
    /// The reason why it could not be read, or not completely.
    pub problem: Option<String>,
    /// The changes while it was watched; absent without a watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<String>>,
    /// The processes that had it open while it was watched; absent without a watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<HolderReport>>,
}

/// A table and its rows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TableReport {
    /// Its name.
    pub name: String,
    /// Its rows; `None` if they cannot be counted.
    pub rows: Option<u64>,
    /// `table`, `virtual`, or `shadow` (a table in which a virtual table keeps its rows).
    pub kind: String,
    /// The reason why its rows cannot be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A process that has a database open.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HolderReport {
    /// Its process id; `None` for a process in another container.
    pub pid: Option<u32>,
    /// Its name.
    pub command: Option<String>,
    /// True if it has the database open for writing.
    pub writes: bool,
}

/// Runs the command.
pub(crate) fn run(options: &InventoryOptions, context: &Context) -> Result<InventoryReport> {
    save::require_free_tags(&options.tag)?;
    if options.snapshot {
        // Fail here if no store is named, before the search begins.
        context.all_stores()?;
    }
    let found = find::find(&options.paths)?;
    let mut report = InventoryReport::of(&found.notes, found.problems);
    if found.databases.is_empty() {
        let error = Error::problem("no SQLite database was found");
        report.fail(None, error.hint("check the path, and that its volume is mounted"));
        return Ok(report);
    }
    let mut freeze = options.watch.map(|_| Freeze::begin(&found.databases)).transpose()?;
    for database in &found.databases {
        report.describe(database, context)?;
    }
    if let (Some(freeze), Some(time)) = (&mut freeze, options.watch) {
        freeze.watch(time.to_std().unwrap_or(Duration::ZERO))?;
    }
    let is_unchanged = freeze.as_ref().is_none_or(Freeze::is_unchanged);
    let mut is_interrupted = false;
    if options.snapshot && is_unchanged {
        let saved = save(options, &found.databases, context)?;
        // Snapshots that were saved before an interrupt are reported, too.
        is_interrupted = saved.failures.iter().any(|error| error.kind == Kind::Interrupted);
        report.snapshots = Some(saved);
        if let Some(freeze) = freeze.as_mut().filter(|_| !is_interrupted) {
            freeze.compare()?;
        }
    }
    if let Some(freeze) = freeze.filter(|_| !is_interrupted) {
        report.add_watch_result(freeze, &found.databases);
    }
    if options.snapshot && !is_unchanged {
        let error = Error::problem("no snapshot was taken: a database changed or could not be watched");
        report.fail(
            None,
            error.hint("stop the programs that write to them, or omit --watch to save each one at one point in time"),
        );
    }
    report.add_snapshot_failures();
    Ok(report)
}

/// Takes a snapshot of each database.
fn save(options: &InventoryOptions, databases: &[FoundDatabase], context: &Context) -> Result<SnapshotReport> {
    let configured: &[ConfiguredSource] = match &context.config {
        Some(config) => config.sources()?,
        None => &[],
    };
    let of_config = |path: &Path| {
        let source = sqlite_file(path.to_owned());
        configured.iter().find(|configured| configured.source.is_same(&*source))
    };
    let reserved: BTreeSet<_> = configured.iter().map(|configured| configured.name.clone()).collect();
    let nameless: Vec<&Path> =
        databases.iter().map(|database| &*database.real_path).filter(|path| of_config(path).is_none()).collect();
    let mut known = names::Known::read(context, reserved)?;
    let mut given = names::name(&nameless, &context.host, &mut known)?.into_iter();
    let mut chosen = Vec::new();
    for database in databases {
        chosen.push(match of_config(&database.real_path) {
            Some(configured) => sources::chosen(configured.clone()),
            None => Chosen {
                source: sqlite_file(database.real_path.clone()),
                configured: None,
                name: given.next(),
                rules: Vec::new(),
            },
        });
    }
    let snapshot = SaveOptions { tag: options.tag.clone(), allow_empty: options.allow_empty, ..SaveOptions::default() };
    save::take(&snapshot, &chosen, context)
}

impl InventoryReport {
    fn of(notes: &[Remark<String>], problems: Vec<Remark<Error>>) -> Self {
        let mut report = InventoryReport {
            databases: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
            watch: None,
            snapshots: None,
            failures: Vec::new(),
        };
        notes.iter().for_each(|note| report.note(&note.path, note.what.clone()));
        problems.into_iter().for_each(|problem| report.fail(Some(&problem.path), problem.what));
        report
    }

    fn note(&mut self, path: &Path, message: String) {
        self.notes.push(PathRemark { kind: "note", path: Some(path.display().to_string()), message });
    }

    fn fail(&mut self, path: Option<&Path>, mut error: Error) {
        // For this command, every fault that it finds is a problem, whatever the kind of the error was.
        error.kind = Kind::Problem;
        let path = path.map(|path| path.display().to_string());
        self.problems.push(PathRemark { kind: "problem", path, message: error.full_message() });
        self.failures.push(error);
    }

    /// Inspects a database and adds it to the report.
    fn describe(&mut self, database: &FoundDatabase, context: &Context) -> Result<()> {
        let path = &database.path;
        let files = match inspect::inspect_files(&database.real_path) {
            Ok(files) => files,
            Err(error) => {
                self.fail(Some(path), error);
                return Ok(());
            }
        };
        let content = match inspect::inspect_database(&database.real_path, &database.header, &context.scratch) {
            Ok(content) => Ok(content),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => Err(error),
        };
        let mut report = DatabaseReport::of(database, &files);
        match content {
            Ok(content) => {
                if let Some(way) = content.way {
                    self.note(path, way.to_owned());
                }
                if content.changed_meanwhile {
                    let message = "it was written to while its rows were counted: the counts are from different times";
                    self.note(path, message.to_owned());
                }
                let uncounted = report.fill(content);
                if let Some(error) = uncounted {
                    report.problem = Some(error.full_message());
                    self.fail(Some(path), error);
                }
            }
            Err(error) => {
                report.problem = Some(error.full_message());
                self.fail(Some(path), error);
            }
        }
        self.databases.push(report);
        Ok(())
    }

    /// Adds the result of the watch to the report.
    fn add_watch_result(&mut self, freeze: Freeze, databases: &[FoundDatabase]) {
        self.watch = Some(WatchReport {
            seconds: freeze.seconds(),
            still: freeze.is_unchanged(),
            hidden_processes: freeze.hidden,
        });
        for (database, Observation { changes, holders, unwatched }) in databases.iter().zip(freeze.observations) {
            let path = &database.path;
            let shown = shown(path);
            let names: Vec<String> = holders.iter().map(Holder::shown).collect();
            if !changes.is_empty() {
                let by = if names.is_empty() { String::new() } else { format!(" (held open by {})", names.join(", ")) };
                let error = Error::problem(format!("{shown} changed while it was watched: {}{by}", changes.join("; ")));
                self.fail(Some(path), error.hint("stop the programs that write to it, then run the command again"));
            } else if !names.is_empty() {
                let writes = if holders.iter().any(|holder| holder.writes) { ", for writing" } else { "" };
                self.note(path, format!("held open by {}{writes}, but not changed", names.join(", ")));
            }
            if let Some(error) = unwatched {
                self.fail(Some(path), error.context(format!("{shown} could not be watched")));
            }
            let own = database.path.display().to_string();
            if let Some(report) = self.databases.iter_mut().find(|report| report.path == own) {
                report.changes = Some(changes);
                let holder =
                    |holder: Holder| HolderReport { pid: holder.pid, command: holder.command, writes: holder.writes };
                report.holders = Some(holders.into_iter().map(holder).collect());
            }
        }
    }

    /// Puts the failures of snapshots first, since the first failure decides the exit code, as for `snapshot`.
    fn add_snapshot_failures(&mut self) {
        let Some(snapshots) = &mut self.snapshots else { return };
        let mut failures = std::mem::take(&mut snapshots.failures);
        for error in &failures {
            let message = error.full_message();
            self.problems.push(PathRemark { kind: error.kind.name(), path: None, message });
        }
        failures.append(&mut self.failures);
        self.failures = failures;
    }
}

impl DatabaseReport {
    fn of(database: &FoundDatabase, files: &FileFacts) -> Self {
        let text = |path: &PathBuf| path.display().to_string();
        DatabaseReport {
            path: text(&database.path),
            real_path: text(&database.real_path),
            other_paths: database.other_paths.iter().map(text).collect(),
            bytes: files.bytes,
            wal_bytes: files.wal_bytes,
            journal_bytes: files.journal_bytes,
            journal_mode: database.header.journal_mode(),
            modified_at: files.modified_at,
            mode: format!("{:04o}", files.mode),
            owner: files.owner,
            group: files.group,
            page_bytes: database.header.page_bytes,
            pages: None,
            free_pages: None,
            encoding: None,
            user_version: None,
            application_id: None,
            auto_vacuum: None,
            schema: None,
            rows: None,
            tables: Vec::new(),
            problem: None,
            changes: None,
            holders: None,
        }
    }

    /// Copies what was read. Returns an error for the first table whose rows could not be counted, unless the reason is
    /// harmless.
    fn fill(&mut self, content: DatabaseContent) -> Option<Error> {
        let DatabaseContent { facts, free_pages, auto_vacuum, schema, tables, .. } = content;
        self.pages = Some(facts.pages);
        self.encoding = Some(facts.encoding);
        self.user_version = Some(facts.user_version);
        self.application_id = Some(facts.application_id);
        (self.free_pages, self.auto_vacuum, self.schema) = (Some(free_pages), Some(auto_vacuum), Some(schema));
        let own = tables.iter().filter(|table| table.kind != "virtual");
        let uncounted = tables.iter().find_map(|table| {
            let uncounted = table.rows.as_ref().err().filter(|uncounted| !uncounted.is_harmless)?;
            let shown = one_line(&self.path);
            let message =
                format!("cannot count the rows of {} in {shown}: {}", one_line(&table.name), uncounted.reason);
            Some(
                Error::problem(message)
                    .hint("run 'lifeboat check' to find damage, and 'lifeboat list' to see the snapshots to restore"),
            )
        });
        // A sum over only some of the tables would be wrong.
        self.rows = own.map(|table| table.rows.as_ref().ok()).sum();
        self.tables = tables.into_iter().map(table_report).collect();
        uncounted
    }
}

fn table_report(table: CountedTable) -> TableReport {
    let (rows, reason) = match table.rows {
        Ok(rows) => (Some(rows), None),
        Err(uncounted) => (None, Some(uncounted.reason)),
    };
    TableReport { name: table.name, rows, kind: table.kind, reason }
}

impl Serialize for InventoryReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(error) = self.failures.first().filter(|error| error.kind != Kind::Problem) {
            map.serialize_entry("error", &error_document(error))?;
        }
        map.serialize_entry("ok", &self.failures.is_empty())?;
        map.serialize_entry("databases", &self.databases)?;
        map.serialize_entry("notes", &self.notes)?;
        map.serialize_entry("problems", &self.problems)?;
        if let Some(watch) = &self.watch {
            map.serialize_entry("watch", watch)?;
        }
        if let Some(snapshots) = &self.snapshots {
            map.serialize_entry("snapshots", &snapshots.documents())?;
        }
        map.end()
    }
}

impl Report for InventoryReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}
