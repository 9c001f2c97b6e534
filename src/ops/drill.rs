//! `drill`: restores a snapshot into a scratch file or database, compares everything, measures the time, and deletes
//! the result.

use std::time::Instant;

use crate::config::ConfiguredSource;
use crate::engine::database::{DrillSettings, Drilled};
use crate::engine::restoring::Without;
use crate::engine::source::{Source, engine_named};
use crate::ops::origin::{place_of_origin, require_same_database};
use crate::ops::verify::{Outcome, VerifyReport, record_proof};
use crate::ops::{Context, Problem, fetch};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::find::LATEST;
use crate::snapshots::list::Described;
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::search::SnapshotFilter;

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DrillOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: Option<String>,
    /// Choose one of the full, undamaged snapshots at random, not the newest
    pub random: bool,
    /// The filters for the snapshots to choose from
    pub filter: SnapshotFilter,
    /// PostgreSQL: the server to create the scratch database on, or an empty database to drill in if the role may not
    /// create one; default: the server that the snapshot was taken from
    pub to: Option<String>,
    /// PostgreSQL: leave owners and grants out, for a server that lacks the roles
    pub no_owner: bool,
    /// PostgreSQL: the objects that are left out
    pub without: Without,
}

/// Runs the command. If one of several drills fails, the others are still run.
pub(crate) fn run(options: &DrillOptions, context: &Context) -> Result<VerifyReport> {
    let catalog = context.open_first()?;
    let mut report = VerifyReport { ok: true, ..VerifyReport::default() };
    let filters = options.filters(context)?;
    for filter in &filters {
        let drilled = options.find(filter, &catalog).and_then(|listed| drill(&listed, options, &catalog, context));
        match drilled {
            Ok(outcome) => report.snapshots.push(outcome),
            Err(error) if error.kind == Kind::Interrupted || filters.len() == 1 => return Err(error),
            Err(error) => report.failures.push(match &filter.source {
                Some(source) => {
                    let error = error.context(format!("no snapshot of {source} was drilled"));
                    report.results.fail(source, Some(&error));
                    error
                }
                None => error,
            }),
        }
    }
    report.ok = report.failures.is_empty() && report.snapshots.iter().all(|outcome| outcome.ok);
    Ok(report)
}

impl DrillOptions {
    /// Returns one filter for each snapshot to drill: the one that is named, or else one for every source of the
    /// config.
    fn filters(&self, context: &Context) -> Result<Vec<SnapshotFilter>> {
        let filter = self.filter.clone();
        let Some(config) = &context.config else { return Ok(vec![filter]) };
        if self.snapshot.is_some() || filter.source.is_some() || config.sources()?.is_empty() {
            return Ok(vec![filter]);
        }
        let of = |source: &ConfiguredSource| SnapshotFilter { source: Some(source.name.clone()), ..filter.clone() };
        Ok(config.sources()?.iter().map(of).collect())
    }

    fn find(&self, filter: &SnapshotFilter, catalog: &Catalog) -> Result<Listed> {
        if !self.random {
            return catalog.find(self.snapshot.as_deref().unwrap_or(LATEST), filter);
        }
        // The newest one is also a candidate; finding it fails with the right error if there is no snapshot.
        let newest = catalog.find(LATEST, filter)?;
        let listed = catalog.list(newest.id.source())?;
        let is_good = |described: &Described| {
            described.proof.level != ProofLevel::Damaged
                && described.manifest.as_ref().is_ok_and(|manifest| manifest.kind == SnapshotKind::Full)
        };
        let mut good: Vec<Described> = catalog.describe(listed)?.into_iter().filter(is_good).collect();
        let number = getrandom::u64()
            .map_err(|error| Error::failed("cannot get random numbers from the system").because(error.to_string()))?;
        if good.is_empty() {
            return Ok(newest);
        }
        let number = usize::try_from(number % good.len() as u64).unwrap_or(0);
        Ok(good.swap_remove(number).listed)
    }
}

fn drill(listed: &Listed, options: &DrillOptions, catalog: &Catalog, context: &Context) -> Result<Outcome> {
    catalog.require_known_proofs(listed).map_err(|error| error.context(format!("cannot drill {}", listed.id)))?;
    let _lease = catalog.lease(&listed.id);
    let clock = Instant::now();
    let mut different = None;
    let engine_context = context.for_engine();
    let mut restore = || -> Result<()> {
        let opened = fetch::open(catalog, &listed.id, context)?;
        let engine = engine_named(&opened.manifest.engine)?;
        let settings = DrillSettings {
            to: drill_target(&opened.manifest, options, catalog, context)?,
            is_named: options.to.is_some(),
            no_owner: options.no_owner,
            without: options.without,
        };
        if let Drilled::Different(error) = engine.drill(&opened, &settings, &engine_context)? {
            different = Some(error);
        }
        Ok(())
    };
    let restored = match restore() {
        // Damage is recorded permanently. Bytes that were only damaged in transit from a remote store are not damage.
        Err(error) if error.is_not_trusted() => return Err(error),
        Err(error) if error.kind == Kind::Problem && !catalog.is_local() => {
            tracing::warn!("restoring {} a second time: {}", listed.id, error.full_message());
            restore()
        }
        restored => restored,
    };
    let problems = match restored {
        Ok(()) => Vec::new(),
        Err(error) if error.kind == Kind::Problem && !error.is_not_trusted() => vec![Problem::of("damage", &error)],
        Err(error) => return Err(error.context(format!("cannot drill {}", listed.id))),
    };
    let seconds = clock.elapsed().as_secs_f64();
    if let Some(error) = different {
        // The archive is as it was written, but this server returns other data. This is neither a proof nor damage.
        let problems = vec![Problem::of("different", &error)];
        let level = ProofLevel::None.name();
        let id = listed.id.to_string();
        return Ok(Outcome { id, level, ok: false, problems, seconds, restore_seconds: None });
    }
    let (level, restore_seconds) =
        if problems.is_empty() { (ProofLevel::Drilled, Some(seconds)) } else { (ProofLevel::Damaged, None) };
    // A manifest that cannot be read is visible in every listing, and may be written again. It is no damage of the data.
    if problems.is_empty() || catalog.manifest(&listed.id).is_ok() {
        record_proof(catalog, listed, level, seconds, restore_seconds, &problems, context);
    }
    let ok = problems.is_empty();
    Ok(Outcome { id: listed.id.to_string(), level: level.name(), ok, problems, seconds, restore_seconds })
}

/// Returns the server to drill a snapshot on: the one that the options name, or else the one that it came from. `None`
/// if the options name none and the database is a file, which is drilled in a scratch file. Fails if the source of the
/// config is on a server and is another database.
fn drill_target(
    manifest: &Manifest,
    options: &DrillOptions,
    catalog: &Catalog,
    context: &Context,
) -> Result<Option<Source>> {
    if let Some(to) = &options.to {
        return Ok(Some(context.named_source(to)?.source));
    }
    let Some(source) = context.configured_source(manifest)? else {
        // A file is drilled in a scratch file, wherever it comes from.
        if engine_named(&manifest.engine)?.origin_of(manifest, &context.host)?.is_none_or(|it| it.file().is_some()) {
            return Ok(None);
        }
        return place_of_origin(manifest, Some(catalog), context);
    };
    if source.file().is_some() {
        return Ok(None);
    }
    require_same_database(manifest, &source, || catalog.newest_full(&manifest.source), context)?;
    Ok(Some(source))
}
