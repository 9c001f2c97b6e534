//! `snapshot`: saves the state of databases into the store.

mod draft;
mod fanout;
mod measure;
mod postgres;
mod sqlite;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::archive::{Compression, Recipient, Sealing};
use crate::config::Config;
use crate::engine::source::Source;
use crate::engine::sqlite::source;
use crate::ops::destination::Destination;
use crate::ops::prune::{self, PruneReport};
use crate::ops::sources::Chosen;
use crate::ops::{Context, Problem, Report, error_document, snapshot_document, stores, tags};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::{Catalog, ProofSummary};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, Table};

pub(crate) use draft::Saved;
pub(crate) use measure::Measure;
pub(crate) use postgres::{
    LARGE_OBJECTS, Plan as PostgresPlan, origin_of as postgres_origin_of, schema_digest, table_of,
};
pub(crate) use sqlite::{Plan as SqlitePlan, origin_of as sqlite_origin_of};

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct SaveOptions {
    /// Names of the config, SQLite files, or URLs such as sqlite:///data/app.db and postgres://user@host/database; by
    /// default all sources of the config
    pub sources: Vec<String>,
    /// The source's name in the store; by default made from the name of the file
    pub name: Option<SourceName>,
    /// Words to find the snapshot by (repeatable)
    pub tag: Vec<String>,
    /// gzip[:1-9] can be read everywhere, zstd[:1-19] is faster; by default the config's value, or gzip:6
    pub compression: Option<Compression>,
    /// Encrypt to this public key of age: its secret key is needed to restore (repeatable); or use --passphrase-file
    pub encrypt_to: Vec<Recipient>,
    /// Save a database that is damaged, as kind 'damaged', which is never 'latest'
    pub allow_damaged: bool,
    /// Save an empty database
    pub allow_empty: bool,
    /// The longest that writers may be locked out, in seconds (only without WAL)
    pub max_lock: u64,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    pub full_check: bool,
    /// PostgreSQL: only these tables, by SCHEMA.TABLE or name, with * and ? (repeatable)
    pub table: Vec<String>,
    /// PostgreSQL: all but these tables (repeatable)
    pub exclude_table: Vec<String>,
    /// PostgreSQL: save only the definition of these tables (repeatable)
    pub exclude_data: Vec<String>,
    /// PostgreSQL: save no rows
    pub schema_only: bool,
    /// PostgreSQL: continue without what cannot be saved, as kind 'partial', which is never 'latest'
    pub allow_partial: bool,
    /// PostgreSQL: the longest to wait for others' locks, in seconds
    pub lock_timeout: u64,
    /// Prune by the config's retention afterwards, if every snapshot was made
    pub prune: bool,
    /// Accept the current state: missing rows and tables are not a loss, and this snapshot is the baseline for later
    /// ones
    pub accept: bool,
}

impl SaveOptions {
    /// Returns the options for one source, with the config's values where the command line sets none.
    fn of(&self, chosen: &Chosen, context: &Context) -> Result<Self> {
        let mut options = self.clone();
        let configured = chosen.configured.as_ref();
        if options.name.is_none() {
            options.name = configured.map(|configured| configured.name.clone()).or_else(|| chosen.name.clone());
        }
        if options.compression.is_none() {
            options.compression = configured.and_then(|configured| configured.compression);
        }
        if options.compression.is_none() {
            options.compression = context.config.as_ref().map(Config::compression).transpose()?.flatten();
        }
        for tag in configured.iter().flat_map(|configured| &configured.tags) {
            if !options.tag.contains(tag) {
                options.tag.push(tag.clone());
            }
        }
        Ok(options)
    }

    /// Returns the first given flag that only PostgreSQL supports.
    fn postgres_only(&self) -> Option<&'static str> {
        let given = [
            ("--table", !self.table.is_empty()),
            ("--exclude-table", !self.exclude_table.is_empty()),
            ("--exclude-data", !self.exclude_data.is_empty()),
            ("--schema-only", self.schema_only),
            ("--allow-partial", self.allow_partial),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

/// Sets the defaults of the command line.
impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions {
            sources: Vec::new(),
            name: None,
            tag: Vec::new(),
            compression: None,
            encrypt_to: Vec::new(),
            allow_damaged: false,
            allow_empty: false,
            max_lock: 300,
            full_check: false,
            table: Vec::new(),
            exclude_table: Vec::new(),
            exclude_data: Vec::new(),
            schema_only: false,
            allow_partial: false,
            lock_timeout: 30,
            prune: false,
            accept: false,
        }
    }
}

impl SaveOptions {
    /// Returns the keys or passphrase that the snapshot is encrypted with: those of the command line, or else the
    /// config's.
    fn sealing(&self, context: &Context) -> Result<Option<Sealing>> {
        match (self.encrypt_to.as_slice(), &context.passphrase) {
            ([], None) => context.config_sealing(),
            ([], Some(passphrase)) => Ok(Some(Sealing::Passphrase(passphrase.clone()))),
            (recipients, None) => Ok(Some(Sealing::Recipients(recipients.to_vec()))),
            (_, Some(_)) => Err(Error::usage("an archive is encrypted to keys or with a passphrase, not both")
                .hint("leave --encrypt-to or --passphrase-file away")),
        }
    }
}

/// The snapshots that were made, and the reasons why others were not.
#[derive(Debug)]
pub(crate) struct SnapshotReport {
    /// The snapshots made.
    pub snapshots: Vec<Saved>,
    /// The errors of the sources that were not saved, or not in all stores; the first decides the exit code.
    pub failures: Vec<Error>,
    /// The reports of pruning afterwards, one for each store.
    pub pruned: Vec<PruneReport>,
}

impl SnapshotReport {
    /// Returns the snapshots in the form of JSON documents.
    pub(crate) fn documents(&self) -> Vec<Map<String, Value>> {
        let document = |saved: &Saved| {
            let mut document = snapshot_document(&saved.manifest, &ProofSummary::default());
            document.insert("stores".to_owned(), json!(saved.stores));
            document
        };
        self.snapshots.iter().map(document).collect()
    }

    /// Prunes by the config's retention, but only if every snapshot was made without failures.
    fn prune(&mut self, context: &Context) -> Result<()> {
        if !self.failures.is_empty() || self.snapshots.is_empty() {
            tracing::warn!("nothing was pruned: not every snapshot was made, and is as it should be");
            return Ok(());
        }
        let sources: Vec<SourceName> = self.snapshots.iter().map(|saved| saved.manifest.source.clone()).collect();
        // The snapshots exist, and are reported whatever happens to the rest.
        let (pruned, failures) = prune::after_snapshot(&sources, context)?;
        self.pruned = pruned;
        let told = |error: Error| error.context("the snapshots were made, and a store was not pruned");
        self.failures.extend(failures.into_iter().map(told));
        Ok(())
    }
}

impl Serialize for SnapshotReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.failures.first() {
            Some(error) if error.kind != Kind::Problem => map.serialize_entry("error", &error_document(error))?,
            _ => {}
        }
        map.serialize_entry("snapshots", &self.documents())?;
        if !self.failures.is_empty() {
            let problems: Vec<_> = self.failures.iter().map(|error| Problem::of(error.kind.name(), error)).collect();
            map.serialize_entry("problems", &problems)?;
        }
        if !self.pruned.is_empty() {
            map.serialize_entry("pruned", &self.pruned)?;
        }
        map.end()
    }
}

impl Report for SnapshotReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

/// Runs the command: tries every source, even if others fail.
pub(crate) fn run(options: &SaveOptions, context: &Context) -> Result<SnapshotReport> {
    require_free_tags(&options.tag)?;
    let prunes = options.prune || context.prunes_after_snapshot()?;
    if options.prune {
        // If the config has no valid retention, fail before anything is saved, not after.
        context.retention()?;
    }
    let mut report = take(options, &context.sources(&options.sources)?, context)?;
    if prunes {
        report.prune(context)?;
    }
    Ok(report)
}

/// Fails if one of the tags is reserved for lifeboat.
pub(crate) fn require_free_tags(tags: &[String]) -> Result<()> {
    let reserved = [tags::PREDEPLOY, tags::SUSPECT];
    match tags.iter().find(|tag| reserved.contains(&tag.as_str())) {
        Some(tag) => Err(Error::usage(format!("the tag {tag} is lifeboat's own")).hint("choose another word")),
        None => Ok(()),
    }
}

/// Takes a snapshot of each source.
pub(crate) fn take(options: &SaveOptions, chosen: &[Chosen], context: &Context) -> Result<SnapshotReport> {
    if options.name.is_some() && chosen.len() > 1 {
        return Err(Error::usage("--name names one source, and several are given").hint("take them one by one"));
    }
    if let (Some(flag), true) = (options.postgres_only(), chosen.iter().any(|chosen| chosen.source.file().is_some())) {
        return Err(Error::usage(format!("{flag} does not go with an SQLite snapshot: its image is whole"))
            .hint("choose tables when you restore: 'lifeboat restore --table'"));
    }
    let sealing = options.sealing(context)?;
    // Sources first: a mistyped one must not leave a new, empty store behind.
    let mut report = SnapshotReport { snapshots: Vec::new(), failures: Vec::new(), pruned: Vec::new() };
    let mut located: Vec<(Source, SaveOptions, Option<Measure>)> = Vec::new();
    for chosen in chosen {
        let options = options.of(chosen, context)?;
        match locate(chosen.source.clone(), &options) {
            Ok(source) if located.iter().any(|(other, ..)| other.shown() == source.shown()) => {
                // On a command line, a source that is named twice is one source; in a config, two names are two
                // sources.
                if let Some(configured) = &chosen.configured {
                    let message = format!("{} is a second name of {}", configured.name, one_line(&source.shown()));
                    report.failures.push(Error::usage(message).hint("give each source of the config its own url"));
                }
            }
            Ok(source) => {
                let is_measured = chosen.configured.is_some() && !options.accept && !context.stores.is_empty();
                let measure = is_measured.then(|| Measure::of(chosen, context)).transpose();
                match measure {
                    Ok(measure) => located.push((source, options, measure)),
                    Err(error) if error.kind == Kind::Interrupted => return Err(error),
                    // No store could be read, so nothing will be saved, or only in the stores that can be used.
                    Err(error) => {
                        tracing::warn!("nothing to compare with: {}", error.whole());
                        located.push((source, options, None));
                    }
                }
            }
            Err(error) => report.failures.push(match &chosen.configured {
                Some(configured) => error.context(format!("no snapshot of {} was made", configured.name)),
                None => error,
            }),
        }
    }
    if located.is_empty() {
        return Ok(report);
    }
    let catalogs = open_stores(context, &mut report)?;
    if catalogs.is_empty() {
        return Ok(report);
    }
    let destination = Destination { catalogs: catalogs.iter().collect(), sealing };
    for (source, options, measure) in &located {
        let saved = match source {
            Source::Sqlite(path) => sqlite::save(path, options, measure.as_ref(), destination.clone(), context),
            Source::Postgres(params) => postgres::save(params, options, measure.as_ref(), destination.clone(), context),
        };
        match saved {
            Ok(mut saved) => {
                let id = &saved.manifest.id;
                let told = saved.failures.drain(..).map(|error| error.context(format!("{id} is not in every store")));
                report.failures.extend(told);
                let found = measure.as_ref().map(Measure::found).unwrap_or_default();
                if !found.is_empty() {
                    let message = format!("{id} was saved, and is no measure for those after it: {}", found.join("; "));
                    report.failures.push(Error::problem(message).hint(
                        "restore what was lost; or, if all is as it should be, run 'lifeboat snapshot --accept'",
                    ));
                }
                report.snapshots.push(saved);
            }
            Err(error) if error.kind == Kind::Interrupted && report.snapshots.is_empty() => return Err(error),
            // Snapshots that were saved before are reported all the same.
            Err(error) if error.kind == Kind::Interrupted => {
                report.failures.insert(0, error);
                break;
            }
            Err(error) => {
                report.failures.push(error.context(format!("no snapshot of {} was made", one_line(&source.shown()))));
            }
        }
    }
    Ok(report)
}

/// Opens or creates the stores. If one cannot be used, the snapshots are still saved in the others.
fn open_stores(context: &Context, report: &mut SnapshotReport) -> Result<Vec<Catalog>> {
    let mut catalogs: Vec<Catalog> = Vec::new();
    for (number, store) in context.all_stores()?.iter().enumerate() {
        // A store that is named twice holds one copy, not two.
        if context.stores[..number].iter().any(|other| stores::are_one(other, store)) {
            continue;
        }
        match context.open_to_write(store) {
            Ok(catalog) => catalogs.push(catalog),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => report.failures.push(error),
        }
    }
    Ok(catalogs)
}

/// Finds the source: its absolute path with links resolved, or a server that answers. Fails if it certainly cannot be
/// saved.
fn locate(source: Source, options: &SaveOptions) -> Result<Source> {
    match source {
        Source::Sqlite(path) => {
            let real = source::locate(&path)?;
            sqlite::require_database(&real, options).map(|()| Source::Sqlite(real))
        }
        Source::Postgres(params) => {
            crate::engine::postgres::wire::session::Session::connect(&params)?;
            Ok(Source::Postgres(params))
        }
    }
}

/// Returns true if a table belongs to the user, not to the engine.
fn is_ordinary(table: &&Table) -> bool {
    table.is_ordinary()
}

/// Fails if the database is empty, so that it never silently becomes the newest good backup.
fn require_something(tables: &[Table], previous: Option<&Manifest>) -> Result<()> {
    if !tables.iter().any(|table| !table.name.starts_with("sqlite_")) {
        return Err(empty("it has no tables"));
    }
    let own = |table: &&Table| table.kind != "virtual" && !table.name.starts_with("sqlite_");
    let rows: u64 = tables.iter().filter(own).filter_map(|table| table.rows).sum();
    match previous.filter(|previous| previous.rows > 0) {
        Some(previous) if rows == 0 => {
            Err(empty(&format!("it has no rows, where {} had {}", previous.id, previous.rows)))
        }
        _ => Ok(()),
    }
}

/// Warns if tables or many of their rows are missing since the previous snapshot.
fn tell_losses(tables: &[Table], previous: &Manifest) {
    if previous.encrypted && previous.tables.is_empty() {
        // Without its key, nothing else is known of it.
        let rows: u64 = tables.iter().filter(is_ordinary).filter_map(|table| table.rows).sum();
        if rows < previous.rows / 2 {
            tracing::warn!("the database has {rows} rows; {} had {}", previous.id, previous.rows);
        }
    }
    for before in previous.tables.iter().filter(is_ordinary) {
        let Some(rows_before) = before.rows.filter(|rows| *rows > 0) else { continue };
        let now = tables.iter().find(|table| table.name == before.name);
        let name = one_line(&before.name);
        match now.map(|table| table.rows) {
            None => tracing::warn!("the table {name} is gone; {} had {rows_before} rows of it", previous.id),
            Some(Some(rows)) if rows < rows_before / 2 => {
                tracing::warn!("the table {name} has {rows} rows; {} had {rows_before}", previous.id);
            }
            Some(_) => {}
        }
    }
}

fn empty(what: &str) -> Error {
    Error::problem(format!("the database is empty: {what}")).hint(
        "check that this is the right database and that its volume is mounted; --allow-empty saves it all the same",
    )
}
