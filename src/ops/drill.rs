//! `drill`: restores a snapshot into a scratch file or database, compares everything, measures the time, and deletes
//! the result.

use std::time::Instant;

use crate::config::ConfiguredSource;
use crate::engine::postgres::restore::create::Owners;
use crate::engine::sqlite::image;
use crate::ops::restore::drill_postgres;
use crate::ops::verify::{Outcome, VerifyReport, keep_proof};
use crate::ops::{Context, Problem, fetch};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{Catalog, Described, Listed, Narrow, ProofLevel};
use crate::snapshots::manifest::SnapshotKind;

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct DrillOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: Option<String>,
    /// Choose one of the full, undamaged snapshots at random, not the newest
    pub random: bool,
    /// Filters for the snapshots to choose from
    pub narrow: Narrow,
    /// PostgreSQL: the server to make the scratch database on; by default the one the snapshot came from
    pub to: Option<String>,
    /// PostgreSQL: leave owners and grants out, for a server that lacks the roles
    pub no_owner: bool,
}

/// Runs the command. If one of several drills fails, the others are still run.
pub(crate) fn run(options: &DrillOptions, context: &Context) -> Result<VerifyReport> {
    let catalog = context.open_first()?;
    let mut report = VerifyReport { ok: true, snapshots: Vec::new(), failures: Vec::new() };
    let narrows = options.narrows(context)?;
    for narrow in &narrows {
        let drilled = options.find(narrow, &catalog).and_then(|listed| drill(&listed, options, &catalog, context));
        match drilled {
            Ok(outcome) => report.snapshots.push(outcome),
            Err(error) if error.kind == Kind::Interrupted || narrows.len() == 1 => return Err(error),
            Err(error) => report.failures.push(match &narrow.source {
                Some(source) => error.context(format!("no snapshot of {source} was drilled")),
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
    fn narrows(&self, context: &Context) -> Result<Vec<Narrow>> {
        let narrow = self.narrow.clone();
        let Some(config) = &context.config else { return Ok(vec![narrow]) };
        if self.snapshot.is_some() || narrow.source.is_some() || config.sources()?.is_empty() {
            return Ok(vec![narrow]);
        }
        let of = |source: &ConfiguredSource| Narrow { source: Some(source.name.clone()), ..narrow.clone() };
        Ok(config.sources()?.iter().map(of).collect())
    }

    fn find(&self, narrow: &Narrow, catalog: &Catalog) -> Result<Listed> {
        if !self.random {
            return catalog.find(self.snapshot.as_deref().unwrap_or("latest"), narrow);
        }
        // The newest one is also a candidate; finding it fails with the right error if there is no snapshot.
        let newest = catalog.find("latest", narrow)?;
        let listed = catalog.list(newest.id.source())?;
        let is_good = |described: &Described| {
            described.proof.level != ProofLevel::Damaged
                && described.manifest.as_ref().is_ok_and(|manifest| manifest.kind == SnapshotKind::Full)
        };
        let mut good: Vec<Described> = catalog.describe(listed)?.into_iter().filter(is_good).collect();
        let number = getrandom::u64()
            .map_err(|error| Error::failed("the system gives no random numbers").because(error.to_string()))?;
        if good.is_empty() {
            return Ok(newest);
        }
        let number = usize::try_from(number % good.len() as u64).unwrap_or(0);
        Ok(good.swap_remove(number).listed)
    }
}

fn drill(listed: &Listed, options: &DrillOptions, catalog: &Catalog, context: &Context) -> Result<Outcome> {
    let _lease = catalog.lease(&listed.id);
    let clock = Instant::now();
    let mut different = None;
    let owners = if options.no_owner { Owners::Leave } else { Owners::Keep };
    let mut restore = || {
        let opened = fetch::open(catalog, &listed.id, context)?;
        if opened.manifest.postgres.is_some() {
            different = drill_postgres(&opened, options.to.as_deref(), owners, context)?;
            return Ok(());
        }
        if options.to.is_some() || options.no_owner {
            return Err(Error::usage(
                "--to and --no-owner go with a server, and the snapshot is of an SQLite database",
            )
            .hint("it is drilled in a scratch file: --scratch names the folder"));
        }
        // The folder is marked as owned by this process, and is removed later if the process dies.
        let scratch = context.scratch.folder(opened.manifest.raw_bytes)?;
        let fetched = opened.fetch_image(scratch.path("drill.db"), context)?;
        image::check(fetched.image.path(), &opened.manifest).map(drop)
    };
    let restored = match restore() {
        // Damage is recorded permanently. Bytes that were only damaged in transit from a remote store are not damage.
        Err(error) if error.kind == Kind::Problem && !catalog.is_near() => {
            tracing::warn!("restoring {} once more: {}", listed.id, error.whole());
            restore()
        }
        restored => restored,
    };
    let problems = match restored {
        Ok(()) => Vec::new(),
        Err(error) if error.kind == Kind::Problem => vec![Problem::of("damage", &error)],
        Err(error) => return Err(error.context(format!("cannot drill {}", listed.id))),
    };
    let seconds = clock.elapsed().as_secs_f64();
    if let Some(error) = different {
        // The archive is as it was written, but this server shows the data differently. This is neither a proof nor
        // damage.
        let problems = vec![Problem::of("different", &error)];
        let level = ProofLevel::None.name();
        let id = listed.id.to_string();
        return Ok(Outcome { id, level, ok: false, problems, seconds, restore_seconds: None });
    }
    let (level, restore_seconds) =
        if problems.is_empty() { (ProofLevel::Drilled, Some(seconds)) } else { (ProofLevel::Damaged, None) };
    keep_proof(catalog, listed, level, seconds, restore_seconds, &problems, context);
    let ok = problems.is_empty();
    Ok(Outcome { id: listed.id.to_string(), level: level.name(), ok, problems, seconds, restore_seconds })
}
