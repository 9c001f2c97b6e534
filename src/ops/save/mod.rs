//! `snapshot`: saves the state of databases into the store.

mod baseline;
mod draft;
mod fanout;
mod plan;

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::archive::{Compression, EncryptWith, Recipient};
use crate::config::Config;
use crate::engine::saving::SaveRequest;
use crate::engine::source::Source;
use crate::ops::destination::{Destination, OtherOrigin};
use crate::ops::prune::{self, PruneReport};
use crate::ops::save::baseline::Baseline;
use crate::ops::sources::Chosen;
use crate::ops::summary::{RunSummary, SnapshotSummary};
use crate::ops::{Context, Problem, Report, error_document, snapshot_document, tags};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, SnapshotKind};
use crate::snapshots::proofs::ProofSummary;

pub(crate) use draft::Saved;
pub(crate) use plan::SnapshotPlan;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct SaveOptions {
    /// Names of the config, SQLite files, or URLs such as sqlite:///data/app.db and postgres://user@host/database; by
    /// default all sources of the config
    pub sources: Vec<String>,
    /// The source's name in the store; by default made from the name of the file
    pub name: Option<SourceName>,
    /// Tags for the snapshot (repeatable)
    pub tag: Vec<String>,
    /// The compression; default: the source's compression in the config, or gzip:6
    pub compression: Option<Compression>,
    /// Encrypt to this public key of age: its secret key is needed to restore (repeatable); or use --passphrase-file
    pub encrypt_to: Vec<Recipient>,
    /// Save a database that is damaged, as kind 'damaged', which is never 'latest'
    pub allow_damaged: bool,
    /// Save an empty database
    pub allow_empty: bool,
    /// The maximum time that writers may be locked out, in seconds (only without WAL)
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
    /// PostgreSQL: the maximum time to wait for locks of other sessions, in seconds
    pub lock_timeout: u64,
    /// Prune by the config's retention afterwards, if every snapshot was made
    pub prune: bool,
    /// Accept the current state: missing rows and tables are not a loss, and this snapshot is the baseline for later
    /// ones
    pub accept: bool,
    /// The database has moved from another host or path: continue the history of its snapshots
    pub moved: bool,
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

    /// Returns the settings of the save of one source.
    fn request(&self) -> SaveRequest {
        SaveRequest {
            allow_damaged: self.allow_damaged,
            allow_empty: self.allow_empty,
            max_lock: Duration::from_secs(self.max_lock),
            check: if self.full_check { Depth::Full } else { Depth::Quick },
            lock_timeout: Duration::from_secs(self.lock_timeout),
            tables: self.table.clone(),
            exclude_tables: self.exclude_table.clone(),
            exclude_data: self.exclude_data.clone(),
            schema_only: self.schema_only,
            allow_partial: self.allow_partial,
        }
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
            moved: false,
        }
    }
}

impl SaveOptions {
    /// Returns the keys or passphrase that the snapshot is encrypted with: those of the command line, or else the
    /// config's.
    fn encrypt_with(&self, context: &Context) -> Result<Option<EncryptWith>> {
        match (self.encrypt_to.as_slice(), &context.passphrase) {
            ([], None) => context.config_encryption(),
            ([], Some(passphrase)) => Ok(Some(EncryptWith::Passphrase(passphrase.clone()))),
            (recipients, None) => Ok(Some(EncryptWith::Recipients(recipients.to_vec()))),
            (_, Some(_)) => Err(Error::usage("an archive is encrypted to keys or with a passphrase, not both")
                .hint("omit --encrypt-to or --passphrase-file")),
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
            tracing::warn!("nothing was pruned: some snapshots were not made, or have problems");
            return Ok(());
        }
        let sources: Vec<SourceName> = self.snapshots.iter().map(|saved| saved.manifest.source.clone()).collect();
        // The snapshots exist, and are reported whatever happens to the rest.
        let (pruned, failures) = prune::after_snapshot(&sources, context)?;
        self.pruned = pruned;
        let with_context = |error: Error| error.context("the snapshots were made, but a store was not pruned");
        self.failures.extend(failures.into_iter().map(with_context));
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
    fn summary(&self) -> RunSummary {
        let of = |saved: &Saved| SnapshotSummary::of(&saved.manifest, &ProofSummary::default());
        RunSummary { snapshots: self.snapshots.iter().map(of).collect(), ..RunSummary::default() }
    }

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
        Some(tag) => Err(Error::usage(format!("the tag {tag} is reserved for lifeboat")).hint("choose another tag")),
        None => Ok(()),
    }
}

/// Takes a snapshot of each source.
pub(crate) fn take(options: &SaveOptions, chosen: &[Chosen], context: &Context) -> Result<SnapshotReport> {
    if options.name.is_some() && chosen.len() > 1 {
        return Err(Error::usage("--name is for one source, but several are given").hint("save them one by one"));
    }
    for chosen in chosen {
        chosen.source.require_supported(&options.request())?;
    }
    let encrypt_with = options.encrypt_with(context)?;
    // Sources first: a mistyped one must not leave a new, empty store behind.
    let mut report = SnapshotReport { snapshots: Vec::new(), failures: Vec::new(), pruned: Vec::new() };
    let mut located: Vec<(Source, SaveOptions, Option<Baseline>)> = Vec::new();
    for chosen in chosen {
        let options = options.of(chosen, context)?;
        match chosen.source.locate(&options.request()) {
            Ok(source) if located.iter().any(|(other, ..)| other.shown() == source.shown()) => {
                // On a command line, a source that is named twice is one source; in a config, two names are two
                // sources.
                if let Some(configured) = &chosen.configured {
                    let message = format!("{} is a second name for {}", configured.name, one_line(&source.shown()));
                    report.failures.push(Error::usage(message).hint("give each source of the config its own url"));
                }
            }
            Ok(source) => {
                let has_baseline = chosen.configured.is_some() && !options.accept && !context.stores.is_empty();
                let baseline = has_baseline.then(|| Baseline::of(chosen, context)).transpose();
                match baseline {
                    Ok(baseline) => located.push((source, options, baseline)),
                    Err(error) if error.kind == Kind::Interrupted => return Err(error),
                    // No store could be read, so nothing will be saved, or only in the stores that can be used.
                    Err(error) => {
                        tracing::warn!("the snapshot is not compared with a baseline: {}", error.full_message());
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
    let destination = Destination { catalogs: catalogs.iter().collect(), encrypt_with };
    for (source, options, baseline) in &located {
        let saved = save(source, options, baseline.as_ref(), destination.clone(), context);
        match saved {
            Ok(mut saved) => {
                let id = &saved.manifest.id;
                let missing = saved.failures.drain(..);
                report.failures.extend(missing.map(|error| error.context(format!("{id} is not in every store"))));
                let reasons = baseline.as_ref().map(Baseline::reasons).unwrap_or_default().join("; ");
                if !reasons.is_empty() {
                    let message =
                        format!("{id} was saved, but is not used as the baseline for later snapshots: {reasons}");
                    report.failures.push(Error::problem(message).hint(
                        "restore the lost data; or, if the change was intended, run 'lifeboat snapshot --accept'",
                    ));
                }
                report.snapshots.push(saved);
            }
            Err(error) if error.kind == Kind::Interrupted && report.snapshots.is_empty() => return Err(error),
            // Snapshots that were saved before the signal are still reported.
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
        if context.stores[..number].iter().any(|other| other.is_same_place(store)) {
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

/// Takes a snapshot of one source.
fn save(
    source: &Source,
    options: &SaveOptions,
    baseline: Option<&Baseline>,
    mut destination: Destination<'_>,
    context: &Context,
) -> Result<Saved> {
    let origin = source.origin(&context.host)?;
    let name = options.name.clone().or_else(|| source.derived_name()).ok_or_else(|| {
        Error::usage(format!("no source name can be derived from {}", one_line(&source.shown())))
            .hint("set one with --name")
    })?;
    let other_origin = match (options.moved, options.accept) {
        (true, _) => OtherOrigin::Moved,
        (false, true) => OtherOrigin::AcceptIfGone,
        (false, false) => OtherOrigin::Refuse,
    };
    let (previous, failures) = destination.previous(&name, &origin, other_origin)?;
    let plan = SnapshotPlan {
        name,
        origin,
        engine: source.engine().to_owned(),
        kind: SnapshotKind::Full,
        tags: options.tag.clone(),
        compression: options.compression.unwrap_or_default(),
        allow_empty: options.allow_empty,
        previous,
        baseline,
    };
    let mut saving = source.begin_save(&options.request(), &context.for_engine())?;
    let mut saved = plan.run(&mut *saving, &destination, context)?;
    saved.failures.extend(failures);
    Ok(saved)
}
