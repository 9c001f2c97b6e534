//! `snapshot`: saves the state of databases into the store.

mod baseline;
mod draft;
mod fanout;
mod plan;
mod small_losses;
mod unchanged;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::archive::{Compression, EncryptWith, Recipient};
use crate::config::Config;
use crate::engine::postgres::provider::Provider;
use crate::engine::rules::Rule;
use crate::engine::saving::SaveRequest;
use crate::engine::source::Source;
use crate::ops::destination::{Destination, OtherOrigin};
use crate::ops::newest_state::NewestState;
use crate::ops::other_name::described;
use crate::ops::prune::{self, PruneReport};
use crate::ops::save::baseline::Baseline;
use crate::ops::sources::Chosen;
use crate::ops::summary::{RunSummary, SnapshotSummary, SourceResults};
use crate::ops::{Context, Problem, Report, error_document, snapshot_document, tags};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Depth, MissingPeriod, SnapshotKind};
use crate::snapshots::proofs::ProofSummary;

pub(crate) use baseline::Comparison;
pub(crate) use draft::Saved;
pub(crate) use plan::SnapshotPlan;
pub(crate) use unchanged::is_newest_everywhere;

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
    /// PostgreSQL: leave out what this provider of the server owns
    pub provider: Option<Provider>,
    /// PostgreSQL: the maximum time to wait for locks of other sessions, in seconds
    pub lock_timeout: u64,
    /// Prune by the config's retention afterwards, if every snapshot was made
    pub prune: bool,
    /// Accept the current state: missing rows and tables are not a loss, and this snapshot is the baseline for later
    /// ones
    pub accept: bool,
    /// The database has moved from another host or path: continue the history of its snapshots
    pub moved: bool,
    /// Store nothing if the newest snapshot in every store has the same content
    pub only_changes: bool,
    /// The periods whose rows sources may lack, by source: `guard` has restored an older snapshot
    pub missing_periods: BTreeMap<SourceName, MissingPeriod>,
    /// The reasons why the snapshots of sources must not be baselines for later ones, by source
    pub doubts: BTreeMap<SourceName, String>,
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
            provider: self.provider,
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
            provider: None,
            lock_timeout: 30,
            prune: false,
            accept: false,
            moved: false,
            only_changes: false,
            missing_periods: BTreeMap::new(),
            doubts: BTreeMap::new(),
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
#[derive(Debug, Default)]
pub(crate) struct SnapshotReport {
    /// The snapshots made.
    pub snapshots: Vec<Saved>,
    /// The errors of the sources that were not saved, or not in all stores; the first decides the exit code.
    pub failures: Vec<Error>,
    /// The sources that were not saved because their newest snapshots have the same content, with the ids of these.
    pub unchanged: Vec<SnapshotId>,
    /// The reports of pruning afterwards, one for each store.
    pub pruned: Vec<PruneReport>,
    /// The results, by source: a source is saved only if its snapshot is in every store and has lost nothing.
    pub results: SourceResults,
    /// The sources that have nothing to save yet, because this is their first deploy, each with its state.
    pub nothing_yet: Vec<(SourceName, String)>,
    /// The comparisons of the snapshots with their baselines.
    pub compared: BTreeMap<SnapshotId, Comparison>,
}

impl SnapshotReport {
    /// Returns the snapshots in the form of JSON documents.
    pub(crate) fn documents(&self) -> Vec<Map<String, Value>> {
        let document = |saved: &Saved| {
            let mut document = snapshot_document(&saved.manifest, &ProofSummary::default());
            document.insert("stores".to_owned(), json!(saved.stores));
            if let Some(compared) = self.compared.get(&saved.manifest.id) {
                document.insert("compared".to_owned(), json!(compared));
            }
            document
        };
        self.snapshots.iter().map(document).collect()
    }

    /// Adds a failure of a source.
    fn fail(&mut self, source: Option<&SourceName>, error: Error) {
        if let Some(source) = source {
            self.results.fail(source, Some(&error));
        }
        self.failures.push(error);
    }

    /// Adds an outcome, with the failures of stores that lack the snapshot and the reasons why it is not a baseline.
    fn add(&mut self, mut outcome: Outcome, located: &Located, context: &Context) {
        let id = outcome.id().clone();
        let source = id.source();
        self.results.succeed(source);
        for error in outcome.take_failures() {
            self.fail(Some(source), error.context(format!("{id} is not in every store")));
        }
        let reasons = located.baseline.as_ref().map(Baseline::reasons).unwrap_or_default().join("; ");
        if !reasons.is_empty() {
            let message = format!("{id} was saved, but is not used as the baseline for later snapshots: {reasons}");
            let words = ["snapshot", source.as_str(), "--accept"].map(str::to_owned);
            // The snapshots that were saved are reported in any case.
            let command = context.gate_command_line(&words).unwrap_or_else(|_| "lifeboat snapshot --accept".to_owned());
            let error = Error::problem(message)
                .hint(format!("restore the lost data; or, if the change was intended, run '{command}'"));
            self.fail(Some(source), error);
        }
        match outcome {
            Outcome::Saved(saved) => {
                self.compared.extend(located.baseline.as_ref().and_then(Baseline::comparison).map(|found| (id, found)));
                self.snapshots.push(*saved);
            }
            Outcome::Unchanged { id, .. } => self.unchanged.push(id),
        }
    }

    /// Prunes by the config's retention, but only if every snapshot was made without failures.
    fn prune(&mut self, context: &Context) -> Result<()> {
        if self.failures.is_empty() && self.snapshots.is_empty() && !self.nothing_yet.is_empty() {
            return Ok(());
        }
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
        if !self.nothing_yet.is_empty() {
            let names: Vec<_> = self.nothing_yet.iter().map(|(name, _)| name).collect();
            map.serialize_entry("first_deploy", &names)?;
        }
        map.end()
    }
}

impl Report for SnapshotReport {
    fn summary(&self) -> RunSummary {
        let of = |saved: &Saved| SnapshotSummary::of(&saved.manifest, &ProofSummary::default());
        RunSummary {
            snapshots: self.snapshots.iter().map(of).collect(),
            results: self.results.clone(),
            ..RunSummary::default()
        }
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

/// A source whose database was found.
struct Located {
    source: Source,
    /// Its name in the stores; `None` if none can be derived, so that it cannot be saved.
    name: Option<SourceName>,
    options: SaveOptions,
    /// The rules for it.
    rules: Vec<Rule>,
    baseline: Option<Baseline>,
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
    let mut report = SnapshotReport::default();
    // Sources first: a mistyped one must not leave a new, empty store behind.
    let sources = locate_all(options, chosen, &mut report, context)?;
    if sources.is_empty() {
        return Ok(report);
    }
    let catalogs = open_stores(&sources, &mut report, context)?;
    if catalogs.is_empty() {
        return Ok(report);
    }
    let destination = Destination { catalogs: catalogs.iter().collect(), encrypt_with, predecessor: None };
    for (number, located) in sources.iter().enumerate() {
        match save(located, destination.clone(), context) {
            Ok(outcome) => report.add(outcome, located, context),
            Err(error) if error.kind == Kind::Interrupted && report.snapshots.is_empty() => return Err(error),
            // Snapshots that were saved before the signal are still reported.
            Err(error) if error.kind == Kind::Interrupted => {
                for missed in sources[number..].iter().filter_map(|located| located.name.as_ref()) {
                    report.results.fail(missed, Some(&error));
                }
                report.failures.insert(0, error);
                break;
            }
            Err(error) => {
                let error = error.context(format!("no snapshot of {} was made", one_line(&located.source.shown())));
                report.fail(located.name.as_ref(), error);
            }
        }
    }
    Ok(report)
}

/// Describes the state of a source before its first deploy, if the current state is accepted, whatever it is. If a store
/// cannot be read, or something was lost, the source is not skipped.
fn accepted_absence(chosen: &Chosen, options: &SaveOptions, context: &Context) -> Result<Option<String>> {
    if !options.accept || options.allow_empty || context.stores.is_empty() {
        return Ok(None);
    }
    match context.first_deploy(chosen) {
        Err(error) if error.kind != Kind::Interrupted => Ok(None),
        found => found,
    }
}

/// Finds the databases and their baselines. The failures are added to the report.
fn locate_all(
    options: &SaveOptions,
    chosen: &[Chosen],
    report: &mut SnapshotReport,
    context: &Context,
) -> Result<Vec<Located>> {
    let mut located: Vec<Located> = Vec::new();
    for chosen in chosen {
        let options = options.of(chosen, context)?;
        if let Some(state) = accepted_absence(chosen, &options, context)? {
            report.nothing_yet.push((chosen.name()?, state));
            continue;
        }
        let name = options.name.clone().or_else(|| chosen.source.derived_name());
        match chosen.source.locate(&options.request()) {
            Ok(source) if located.iter().any(|other| other.source.shown() == source.shown()) => {
                // On a command line, a source that is named twice is one source; in a config, two names are two
                // sources.
                if let Some(configured) = &chosen.configured {
                    let message = format!("{} is a second name for {}", configured.name, one_line(&source.shown()));
                    let error = Error::usage(message).hint("give each source of the config its own url");
                    report.fail(name.as_ref(), error);
                }
            }
            Ok(source) => {
                // A link is saved under the name of the file that it leads to.
                let name = options.name.clone().or_else(|| source.derived_name());
                let baseline = baseline_of(chosen, &options, context)?;
                located.push(Located { source, name, options, rules: chosen.rules(), baseline });
            }
            Err(error) => {
                let error = match &chosen.configured {
                    Some(configured) => error.context(format!("no snapshot of {} was made", configured.name)),
                    None => error,
                };
                report.fail(name.as_ref(), error);
            }
        }
    }
    Ok(located)
}

/// Returns the baseline that the snapshot of a source is compared with, and the reasons to doubt the snapshot.
fn baseline_of(chosen: &Chosen, options: &SaveOptions, context: &Context) -> Result<Option<Baseline>> {
    let has_baseline = chosen.configured.is_some() && !options.accept && !context.stores.is_empty();
    let baseline = match has_baseline.then(|| Baseline::of(chosen, context)).transpose() {
        Ok(baseline) => baseline,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        // No store could be read, so nothing will be saved, or only in the stores that can be used.
        Err(error) => {
            tracing::warn!("the snapshot is not compared with a baseline: {}", error.full_message());
            None
        }
    };
    if options.accept && chosen.configured.is_some() && !context.stores.is_empty() {
        warn_about_other_name(chosen, context)?;
    }
    let doubt = chosen.name().ok().and_then(|name| options.doubts.get(&name).cloned());
    Ok(match doubt {
        Some(doubt) => Some(baseline.unwrap_or_default().with_doubt(doubt)),
        None => baseline,
    })
}

/// Warns if a source whose current state is accepted has no snapshot, but its database has some under another name.
fn warn_about_other_name(chosen: &Chosen, context: &Context) -> Result<()> {
    let found = match context.holds_nothing_of(chosen) {
        Ok(true) => context.under_other_name(chosen),
        Ok(false) => return Ok(()),
        Err(error) => Err(error),
    };
    match found {
        Ok(Some(found)) => {
            tracing::warn!(
                "{}: the source was renamed, and its history begins anew",
                described(&found, &chosen.name()?)
            );
            Ok(())
        }
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        // The save reports a store that cannot be read.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Opens or creates the stores. If one cannot be used, the snapshots are still saved in the others, but no source counts
/// as saved.
fn open_stores(sources: &[Located], report: &mut SnapshotReport, context: &Context) -> Result<Vec<Catalog>> {
    let mut catalogs: Vec<Catalog> = Vec::new();
    for (number, store) in context.all_stores()?.iter().enumerate() {
        // A store that is named twice holds one copy, not two.
        if context.stores[..number].iter().any(|other| other.is_same_place(store)) {
            continue;
        }
        match context.open_to_write(store) {
            Ok(catalog) => catalogs.push(catalog),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => {
                sources.iter().flat_map(|one| &one.name).for_each(|name| report.results.fail(name, Some(&error)));
                report.failures.push(error);
            }
        }
    }
    Ok(catalogs)
}

/// The outcome of saving one source.
enum Outcome {
    /// A snapshot was taken.
    Saved(Box<Saved>),
    /// Nothing was stored, since the newest snapshot has the same content.
    Unchanged {
        /// The newest snapshot.
        id: SnapshotId,
        /// The errors of the stores that could not be read.
        failures: Vec<Error>,
    },
}

impl Outcome {
    /// Returns the id of the snapshot that has the current content.
    fn id(&self) -> &SnapshotId {
        match self {
            Outcome::Saved(saved) => &saved.manifest.id,
            Outcome::Unchanged { id, .. } => id,
        }
    }

    fn take_failures(&mut self) -> Vec<Error> {
        match self {
            Outcome::Saved(saved) => std::mem::take(&mut saved.failures),
            Outcome::Unchanged { failures, .. } => std::mem::take(failures),
        }
    }
}

/// Takes a snapshot of one source.
fn save(located: &Located, mut destination: Destination<'_>, context: &Context) -> Result<Outcome> {
    let Located { source, name, options, rules, baseline } = located;
    let origin = source.origin(&context.host)?;
    let name = name.clone().ok_or_else(|| {
        Error::usage(format!("no source name can be derived from {}", one_line(&source.shown())))
            .hint("set one with --name")
    })?;
    let other_origin = match (options.moved, options.accept) {
        (true, _) => OtherOrigin::Moved,
        (false, true) => OtherOrigin::AcceptIfGone,
        (false, false) => OtherOrigin::Refuse,
    };
    let (previous, failures) = destination.previous(&name, &origin, other_origin)?;
    let mut lost = None;
    if previous.is_none() && baseline.is_none() && !options.accept {
        lost = match context.newest_state(&name) {
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // The error was logged.
            found => found.ok().and_then(NewestState::or_warn),
        };
    }
    // To accept the current state is also to accept that rows are missing in it.
    let earlier = baseline.as_ref().and_then(Baseline::before).into_iter().chain(&previous).filter(|_| !options.accept);
    let earlier = earlier.flat_map(|earlier| earlier.missing_periods.iter().cloned());
    let missing_periods = MissingPeriod::merge(earlier.chain(options.missing_periods.get(&name).cloned()));
    let plan = SnapshotPlan {
        name,
        origin,
        engine: source.engine().to_owned(),
        kind: SnapshotKind::Full,
        tags: options.tag.clone(),
        compression: options.compression.unwrap_or_default(),
        allow_empty: options.allow_empty,
        previous,
        lost,
        rules: rules.clone(),
        missing_periods,
        baseline: baseline.as_ref(),
    };
    let mut saving = source.begin_save(&options.request(), &context.for_engine())?;
    let (draft, manifest) = plan.write(&mut *saving, &destination, context)?;
    if options.only_changes
        && let Some(id) = unchanged::newest_equal(&manifest, plan.previous.as_ref(), &destination, context)?
    {
        return Ok(Outcome::Unchanged { id, failures });
    }
    let mut saved = draft.publish(manifest)?;
    saved.failures.extend(failures);
    Ok(Outcome::Saved(Box::new(saved)))
}
