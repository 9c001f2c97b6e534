//! `restore`: restores a snapshot, and reports how to undo that.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::archive::Compression;
use crate::engine::restoring::{self, RestoreCaller, RestoreReport, RestoreSettings};
use crate::engine::saving::Saving;
use crate::engine::source::{Source, engine_named};
use crate::ops::choose::Choice;
use crate::ops::destination::Destination;
use crate::ops::fetch::Opened;
use crate::ops::origin::{place_of_origin, require_same_database};
use crate::ops::overwritten::{estimated_seconds, overwritten};
use crate::ops::save::SnapshotPlan;
use crate::ops::{Context, Report, SnapshotFilter, tags};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::restored;
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::manifest::{Manifest, Origin, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::trust::ALLOW_UNSIGNED;

/// Options of a restore.
#[derive(Clone, Debug, Default)]
pub(crate) struct RestoreOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: String,
    /// Restrict the search to these snapshots
    pub filter: SnapshotFilter,
    /// The database file or URL to restore to; default: the database that the snapshot was taken from
    pub to: Option<String>,
    /// The settings of the restore
    pub settings: RestoreSettings,
}

impl Report for RestoreReport {
    fn is_ok(&self) -> bool {
        !self.is_incomplete
    }
}

/// A plan of a restore, made before anything is changed.
pub(crate) struct RestorePlan {
    choice: Choice,
    opened: Arc<Opened>,
    plan: Box<dyn restoring::RestorePlan>,
    dry_run: bool,
    target: Source,
    /// True if a person has chosen the snapshot.
    is_chosen: bool,
}

impl RestorePlan {
    /// Finds the snapshot and inspects the target; changes nothing.
    pub(crate) fn make(options: &RestoreOptions, context: &Context) -> Result<Self> {
        let choice = Choice::find(&options.snapshot, &options.filter, || context.open_catalog())?;
        if options.settings.dry_run {
            require_undamaged(&choice)?;
        }
        let opened = choice.open(context)?;
        let target = target(&opened.manifest, options.to.as_deref(), choice.catalog(), context)?;
        let opened = Arc::new(opened);
        let plan = target.plan_restore(Arc::<Opened>::clone(&opened), &options.settings, &context.for_engine())?;
        Ok(RestorePlan { choice, opened, plan, dry_run: options.settings.dry_run, target, is_chosen: true })
    }

    /// Plans the restore in place of a snapshot that was already found, to a target of the same engine.
    pub(crate) fn in_place(
        listed: Listed,
        catalog: Catalog,
        target: &Source,
        lock_timeout: u64,
        context: &Context,
    ) -> Result<Self> {
        let choice = Choice::Snapshot(catalog, listed);
        let opened = Arc::new(choice.open(context)?);
        let plan = target.plan_restore_in_place(Arc::<Opened>::clone(&opened), lock_timeout, &context.for_engine())?;
        Ok(RestorePlan { choice, opened, plan, dry_run: false, target: target.clone(), is_chosen: false })
    }

    /// Returns the question to ask the user before data is overwritten, or `None` if nothing is overwritten.
    #[must_use]
    pub(crate) fn question(&self) -> Option<String> {
        self.plan.question()
    }

    /// Returns the report of a restore that changes nothing, with the rows that would be replaced.
    pub(crate) fn preview(&self, context: &Context) -> Result<RestoreReport> {
        let mut report = self.plan.preview()?;
        let manifest = &self.opened.manifest;
        if self.question().is_some() {
            match overwritten(&report, manifest, &self.target, context) {
                Ok(overwrites) => report.overwrites = overwrites,
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    report.notes.push(format!("the present rows cannot be counted: {}", error.full_message()))
                }
            }
        }
        if let Some(catalog) = self.choice.catalog() {
            report.estimated_seconds = match estimated_seconds(manifest, catalog) {
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                // A proof of another snapshot that cannot be read must not prevent a restore.
                estimated => estimated.unwrap_or_default(),
            };
        }
        Ok(report)
    }

    /// Carries the plan out.
    pub(crate) fn run(self, context: &Context) -> Result<RestoreReport> {
        if self.dry_run {
            return self.preview(context);
        }
        let RestorePlan { choice, opened, plan, .. } = &self;
        let catalog = choice.catalog();
        let _lease = catalog.map(|catalog| catalog.lease(&opened.manifest.id));
        let report =
            plan.run(&Caller { catalog, safety_store: OnceCell::new(), safety: OnceCell::new(), opened, context })?;
        if let Some(file) = self.target.file().filter(|_| report.mode != "tables") {
            restored::set(file, self.is_older().then_some(report.id.as_str()));
        }
        Ok(report)
    }
}

impl RestorePlan {
    /// Returns true if a person has chosen the snapshot although its source has a newer one.
    fn is_older(&self) -> bool {
        let manifest = &self.opened.manifest;
        let newest =
            self.choice.catalog().filter(|_| self.is_chosen).map(|catalog| catalog.newest_full(&manifest.source));
        newest.is_some_and(|newest| newest.is_ok_and(|newest| newest.is_some_and(|newest| newest.id > manifest.id)))
    }
}

/// Fails if a test has found the snapshot damaged. A restore itself reads every byte again.
fn require_undamaged(choice: &Choice) -> Result<()> {
    let Choice::Snapshot(catalog, listed) = choice else { return Ok(()) };
    if catalog.proof(listed)?.level != ProofLevel::Damaged {
        return Ok(());
    }
    let id = &listed.id;
    Err(Error::problem(format!("{id} is damaged: it cannot be restored"))
        .hint(format!("'lifeboat show {id}' names the last good snapshot")))
}

/// Returns the target of a restore: the one that `to` names, or else the database of the config or of the snapshot's
/// origin. Fails if its engine is not that of the snapshot, or if it is another database and `to` does not name it.
/// `catalog` is the store of the snapshot.
fn target(manifest: &Manifest, to: Option<&str>, catalog: Option<&Catalog>, context: &Context) -> Result<Source> {
    let engine = engine_named(&manifest.engine)?;
    let Some(to) = to else {
        if let Some(source) = context.configured_source(manifest)? {
            let newest = || catalog.map_or(Ok(None), |catalog| catalog.newest_full(&manifest.source));
            require_same_database(manifest, &source, newest, context)?;
            return Ok(source);
        }
        return place_of_origin(manifest, catalog, context)?.ok_or_else(|| {
            Error::usage(format!("{} is from another machine, {}", manifest.id, one_line(&manifest.origin.to_string())))
                .hint("name the target with --to")
        });
    };
    let target = context.named_source(to)?.source;
    if target.engine() == engine.name() {
        return Ok(target);
    }
    Err(Error::usage(format!(
        "{} is a snapshot of {}, but --to names a database of another kind: {}",
        manifest.id,
        engine.title(),
        one_line(&target.shown())
    ))
    .hint(
        "name an SQLite file for a snapshot of SQLite, or a URL such as postgres://USER@HOST/DATABASE for a snapshot \
           of PostgreSQL",
    ))
}

/// Returns the word for a database in a printed command: its name in the config, which has its password, or `shown`.
pub(crate) fn target_word(manifest: &Manifest, shown: &str, context: &Context) -> Result<String> {
    Ok(match context.configured_source(manifest)? {
        Some(configured) if configured.shown() == shown => manifest.source.to_string(),
        _ => shown.to_owned(),
    })
}

/// The part of a restore that knows the store and the config.
struct Caller<'a> {
    /// The store that the snapshot is in.
    catalog: Option<&'a Catalog>,
    /// The store of the safety snapshot, if the snapshot is in none.
    safety_store: OnceCell<Catalog>,
    /// The id of the safety snapshot.
    safety: OnceCell<String>,
    opened: &'a Opened,
    context: &'a Context,
}

impl Caller<'_> {
    /// Returns the destination of a safety snapshot: the store of the snapshot that is restored, or of the command line
    /// or the config if it is restored from a file. If the snapshot is encrypted, the key that opened it also opens the safety snapshot.
    fn safety_destination(&self) -> Result<Destination<'_>> {
        // The safety snapshot holds today's data. It is also encrypted if only the config asks for it or keys are
        // given.
        let mut encrypt_with = self.opened.reader.encrypt_with().cloned();
        if encrypt_with.is_none() {
            encrypt_with = self.context.config_encryption()?;
        }
        let encrypt_with = encrypt_with.or_else(|| self.context.keys.encrypt_with());
        Ok(Destination { catalogs: vec![self.catalog_for_safety()?], encrypt_with, predecessor: None })
    }

    fn catalog_for_safety(&self) -> Result<&Catalog> {
        if let Some(catalog) = self.catalog.or_else(|| self.safety_store.get()) {
            return Ok(catalog);
        }
        if self.context.stores.is_empty() {
            return Err(Error::usage("there is no store for the safety snapshot")
                .hint("name one with --store; --no-safety restores without one: the overwritten data is then lost"));
        }
        let catalog = self.context.open_to_write(self.context.store()?)?;
        Ok(self.safety_store.get_or_init(|| catalog))
    }
}

impl RestoreCaller for Caller<'_> {
    fn save_safety(&self, origin: Origin, saving: &mut dyn Saving) -> Result<String> {
        let plan = SnapshotPlan {
            name: self.opened.manifest.source.clone(),
            origin,
            engine: self.opened.manifest.engine.clone(),
            kind: SnapshotKind::Safety,
            tags: vec![tags::SAFETY.to_owned()],
            compression: Compression::default(),
            allow_empty: true,
            previous: None,
            lost: None,
            rules: Vec::new(),
            missing_periods: Vec::new(),
            baseline: None,
        };
        let saved = plan.run(saving, &self.safety_destination()?, self.context)?;
        Ok(self.safety.get_or_init(|| saved.manifest.id.to_string()).clone())
    }

    fn command_line(&self, words: &[&str]) -> String {
        let location = self.catalog.or_else(|| self.safety_store.get()).map(Catalog::location);
        let mut words = words.to_vec();
        // The safety snapshot is our own, also where no key signs.
        let is_of_safety = self.safety.get().is_some_and(|safety| words.contains(&safety.as_str()));
        if is_of_safety && !self.context.trust.signs_for_itself() {
            words.push(ALLOW_UNSIGNED);
        }
        self.context.command_line(&words, &self.opened.manifest, location.as_deref())
    }

    fn target_word(&self, shown: &str) -> Result<String> {
        target_word(&self.opened.manifest, shown, self.context)
    }
}
