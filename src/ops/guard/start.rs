//! The decisions of the guard before CMD starts: may it start, and on which data.
//!
//! All sources are judged before one of them is changed, so that a doubt about one leaves the others as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;

use crate::config::OnDoubt;
use crate::ops::checks::Checks;
use crate::ops::guard::judge::{Case, Decision, Judgement, Live};
use crate::ops::guard::newest::{self, DamagedCopy, Stored, Wanted, taken};
use crate::ops::inspect::Found;
use crate::ops::restore_in_place::{missing_mounts, restore_in_place};
use crate::ops::sources::Chosen;
use crate::ops::{Context, gate, verify};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::MissingPeriod;

/// The text before every reason why the program was not started.
const NOT_STARTED: &str = "the program was not started";

/// The most damaged snapshots of one source that a restore tries.
const MOST_DAMAGED: usize = 8;

/// The settings of the judgement.
pub(super) struct Settings {
    /// True if a database that is missing or empty is restored.
    pub(super) restores: bool,
    /// The action if there is a doubt.
    pub(super) on_doubt: OnDoubt,
    /// The maximum time to wait for a store if the databases are there and well.
    pub(super) store_wait: Duration,
}

/// Fails if the preflight checks of the config do not pass within `wait`.
pub(super) fn require_preflight(wait: Duration, chosen: &[Chosen], context: &Context) -> Result<()> {
    let checks = gate::wait_until(wait, || {
        let mut checks = Checks::default();
        gate::preflight(chosen, context, &mut checks)?;
        Ok((checks.are_ok(), checks))
    })?;
    let failed: Vec<String> =
        checks.failed().map(|check| format!("{}: {}", one_line(&check.name), one_line(&check.message))).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::problem(format!("{NOT_STARTED}: {}", failed.join("; ")))
        .hint("correct the cause, or change [preflight] in the config"))
}

/// The judgement of all sources: CMD may start after the restores.
pub(super) struct Plan<'a> {
    restores: Vec<Restore<'a>>,
    /// The failures that do not prevent the start.
    failures: Vec<Error>,
    /// The sources that have rows, and of which no store has a snapshot.
    pub(super) unsaved: BTreeSet<SourceName>,
}

/// A source that is restored: it is missing, empty, or has no rows that the snapshot lacks.
struct Restore<'a> {
    wanted: Wanted,
    chosen: &'a Chosen,
    live: Live,
    /// The state of the database, such as "is missing".
    why: &'static str,
    stored: Stored,
    /// True if newer snapshots are passed over.
    is_older: bool,
}

/// Judges every source, logs the failures that do not prevent the start, and changes nothing. Fails if the program must
/// not be started.
pub(super) fn judge<'a>(chosen: &'a [Chosen], settings: &Settings, context: &Arc<Context>) -> Result<Plan<'a>> {
    let (mut refusals, mut failures) = (Vec::new(), Vec::new());
    let mut inspected: Vec<(Wanted, &'a Chosen, Live)> = Vec::new();
    for chosen in chosen {
        let wanted = Wanted::new(chosen, context)?;
        match Live::inspect(chosen, context) {
            Ok(live) => inspected.push((wanted, chosen, live)),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => {
                let error = error.context(format!("the database of {} cannot be read", wanted.name));
                if settings.on_doubt == OnDoubt::Start { &mut failures } else { &mut refusals }.push(error);
            }
        }
    }
    let mut plan = Plan { restores: Vec::new(), failures: Vec::new(), unsaved: BTreeSet::new() };
    // Without restores, stores are optional.
    if inspected.is_empty() || (!settings.restores && context.stores.is_empty()) {
        plan.failures = finish(refusals, failures)?;
        return Ok(plan);
    }
    let all: Vec<Wanted> = inspected.iter().map(|(wanted, ..)| wanted.clone()).collect();
    // Without restores, a database without rows starts as it is.
    let needs_store = |live: &Live| !live.is_well() && (settings.restores || !live.is_empty());
    let wait = (!inspected.iter().any(|(.., live)| needs_store(live))).then_some(settings.store_wait);
    let stored = newest::read(&all, wait, context)?;
    for ((wanted, chosen, live), stored) in inspected.into_iter().zip(stored) {
        let case = settings.case(&wanted, chosen, &live, &stored, context);
        if !settings.restores && live.is_empty() {
            case.warn_about_snapshots();
            continue;
        }
        let Judgement { decision, failures: found } = case.judge()?;
        let is_older = !found.is_empty();
        failures.extend(found);
        if stored.has_no_snapshot() && live.has_rows() {
            plan.unsaved.insert(wanted.name.clone());
        }
        match decision {
            Decision::Start => {}
            Decision::Restore(why) => plan.restores.push(Restore { wanted, chosen, live, why, stored, is_older }),
            Decision::Refuse(error) => refusals.push(error),
        }
    }
    plan.failures = finish(refusals, failures)?;
    Ok(plan)
}

impl Settings {
    fn case<'a>(
        &self,
        wanted: &Wanted,
        chosen: &'a Chosen,
        live: &'a Live,
        stored: &'a Stored,
        context: &'a Context,
    ) -> Case<'a> {
        let (restores, on_doubt) = (self.restores, self.on_doubt);
        Case { name: wanted.name.clone(), chosen, live, stored, restores, on_doubt, context }
    }
}

/// The result of the restores.
#[derive(Default)]
pub(super) struct Restored {
    /// The failures that do not prevent the start.
    pub(super) failures: Vec<Error>,
    /// The sources that were restored to an older state, each with the period whose rows it lacks.
    pub(super) lacks: BTreeMap<SourceName, MissingPeriod>,
}

impl<'a> Plan<'a> {
    /// Returns the sources that [`restore`](Self::restore) restores.
    pub(super) fn restored(&self) -> impl Iterator<Item = (SourceName, &'a Chosen)> {
        self.restores.iter().map(|restore| (restore.wanted.name.clone(), restore.chosen))
    }

    /// Restores the databases. Fails if the program must not be started, because a restore has failed, or because a rule
    /// fails that the snapshot has once passed.
    pub(super) fn restore(self, settings: &Settings, context: &Arc<Context>) -> Result<Restored> {
        let mut restored = Restored { failures: self.failures, lacks: BTreeMap::new() };
        for mut restore in self.restores {
            let name = restore.wanted.name.clone();
            let Some(after) = restore.run(settings, &mut restored.failures, context)? else { continue };
            restored.failures.extend(require_rules(&restore, settings.on_doubt, context)?);
            if restore.is_older {
                restored.lacks.insert(name, MissingPeriod { after, until: Utc::now() });
            }
        }
        Ok(restored)
    }
}

impl Restore<'_> {
    /// Restores the newest snapshot. If that finds damage, decides on the next older one as on a newest snapshot that is
    /// known to be damaged. Returns the id of the snapshot that was restored.
    fn run(
        &mut self,
        settings: &Settings,
        failures: &mut Vec<Error>,
        context: &Arc<Context>,
    ) -> Result<Option<SnapshotId>> {
        for _ in 0..MOST_DAMAGED {
            let Some(found) = self.stored.newest() else { return Ok(None) };
            let error = match restore(&self.wanted.name, self.chosen, self.why, found, context) {
                Ok(()) => return Ok(Some(found.manifest.id.clone())),
                Err(error) => error,
            };
            let Some(reason) = damage_of(found, &error, context)? else { return Err(error) };
            tracing::error!("{}", error.full_message());
            let (id, location) = (found.listed.id.clone(), found.catalog.location());
            self.wanted.damaged.push(DamagedCopy { location, id, reason });
            let stored = newest::read_one(&self.wanted, context)?;
            let case = settings.case(&self.wanted, self.chosen, &self.live, &stored, context);
            let judgement = case.restore(self.why)?;
            match judgement.decision {
                Decision::Restore(_) => self.is_older |= !judgement.failures.is_empty(),
                Decision::Start => {
                    return finish(Vec::new(), judgement.failures).map(|found| {
                        failures.extend(found);
                        None
                    });
                }
                Decision::Refuse(error) => return Err(error.context(NOT_STARTED)),
            }
            judgement.failures.iter().for_each(|failure| tracing::warn!("{}", failure.full_message_with_hint()));
            failures.extend(judgement.failures);
            self.stored = stored;
        }
        Err(Error::problem(format!(
            "{NOT_STARTED}: the newest {MOST_DAMAGED} snapshots of {} are damaged",
            self.wanted.name
        ))
        .hint("'lifeboat verify' finds the whole ones, and 'lifeboat restore ID' restores one of them"))
    }
}

/// Returns the damage of a snapshot whose restore has failed, or `None` if every byte of its archive is right, so that
/// something else has failed.
fn damage_of(found: &Found, error: &Error, context: &Context) -> Result<Option<String>> {
    if error.kind != Kind::Problem {
        return Ok(None);
    }
    match verify::read_back(&found.catalog, &found.listed.id, context) {
        Ok(outcome) => Ok(outcome.problems.first().map(|problem| problem.message.clone())),
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        Err(_) => Ok(None),
    }
}

/// Returns the first refusal, and logs the others; or else the failures.
fn finish(refusals: Vec<Error>, failures: Vec<Error>) -> Result<Vec<Error>> {
    let mut refusals = refusals.into_iter().map(|error| error.context(NOT_STARTED));
    match refusals.next() {
        None => {
            failures.iter().for_each(|failure| tracing::warn!("{}", failure.full_message_with_hint()));
            Ok(failures)
        }
        Some(first) => {
            failures.iter().for_each(|failure| tracing::warn!("{}", failure.full_message_with_hint()));
            refusals.for_each(|error| tracing::error!("{}", error.full_message_with_hint()));
            Err(first)
        }
    }
}

/// Restores a snapshot in place.
fn restore(name: &SourceName, chosen: &Chosen, why: &str, found: &Found, context: &Context) -> Result<()> {
    let manifest = &found.manifest;
    let snapshot = format!("{}, {}", manifest.id, taken(manifest.created_at));
    tracing::info!("{name} {why}: restoring {snapshot}, with {} rows", manifest.rows);
    let restored = restore_in_place(found, chosen, 30, &missing_mounts(context)?, context)
        .map_err(|error| error.context(format!("{NOT_STARTED}: {name} could not be restored")))?;
    tracing::warn!(
        "{name} {why}, and was restored from {snapshot}: {} rows in {}",
        manifest.rows,
        text::seconds(restored.seconds)
    );
    if let (Some(safety), Some(undo)) = (&restored.safety_snapshot, &restored.undo) {
        tracing::warn!("what was there is saved as {safety}; '{undo}' restores it");
    }
    Ok(())
}

/// Checks the rules on a database that was restored. Fails if one fails that the snapshot has once passed.
fn require_rules(restored: &Restore<'_>, on_doubt: OnDoubt, context: &Context) -> Result<Vec<Error>> {
    let Restore { wanted: Wanted { name, .. }, chosen, stored, .. } = restored;
    let live = Live::inspect(chosen, context)
        .map_err(|error| error.context(format!("{NOT_STARTED}: {name} was restored, and cannot be read")))?;
    let failed: Vec<Error> = live
        .failed_rules()
        .iter()
        .map(|rule| {
            Error::problem(format!("{name} was restored, but a rule fails: {rule}"))
                .hint("correct the rule in the config, or restore another snapshot; 'lifeboat list' shows them")
        })
        .collect();
    if stored.is_good && on_doubt != OnDoubt::Start {
        return finish(failed, Vec::new());
    }
    finish(Vec::new(), failed)
}
