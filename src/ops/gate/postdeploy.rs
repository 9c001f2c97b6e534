//! `postdeploy`: checks whether a deploy lost data, and restores it on request.

use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::command_line::{option, source_word};
use crate::ops::differences::{MOST_TABLES, some};
use crate::ops::gate::intended::IntendedChanges;
use crate::ops::gate::renames::Renamed;
use crate::ops::gate::rollback::{Loss, RollbackOptions, descriptions, find_new_rows, roll_back};
use crate::ops::gate::verdict::Known;
use crate::ops::gate::{commit, newer, preflight, renames, verdict, wait_until};
use crate::ops::inspect::{Found, Strictness, inspect};
use crate::ops::origin::require_same_database;
use crate::ops::save::{self, SaveOptions};
use crate::ops::sources::Chosen;
use crate::ops::tags::{POSTDEPLOY, PREDEPLOY};
use crate::ops::{Context, ReportedSnapshot};
use crate::platform::error::{Error, Result};
use crate::snapshots::manifest::Depth;
use crate::snapshots::proofs::ProofSummary;
use crate::snapshots::search::SnapshotFilter;
use chrono::Duration;

/// The default of [`PostdeployOptions::lock_timeout`].
pub(crate) const DEFAULT_LOCK_TIMEOUT: u64 = 30;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct PostdeployOptions {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    pub sources: Vec<String>,
    /// The deployed commit: databases are compared with its snapshots; default: the workflow's commit in GitHub
    /// Actions, otherwise the newest snapshots of 'predeploy' for any commit
    pub commit: Option<String>,
    /// The maximum time to wait until failing checks pass
    pub wait: Duration,
    /// The tables that the deploy drops and renames
    pub intended: IntendedChanges,
    /// Restore what was lost; the exit code stays 3
    pub rollback: bool,
    /// Restore also if that takes away rows that came after the snapshot; a safety snapshot keeps them
    pub discard_new: bool,
    /// PostgreSQL: the maximum time to wait for locks of other sessions in a rollback, in seconds
    pub lock_timeout: u64,
}

/// A source, and its snapshot from before the deploy.
struct Pair {
    chosen: Chosen,
    /// True if the command line names changes of its tables.
    has_intended_changes: bool,
    /// The snapshot; `None` if this is the first deploy, so that there was nothing to save.
    before: Option<Found>,
    /// A newer good snapshot, if there is one.
    newer: Option<Found>,
    /// True if the snapshot was not taken by `predeploy`, because this is the first deploy.
    is_first: bool,
}

/// The results of the checks after a deploy.
#[derive(Default)]
struct State {
    checks: Checks,
    /// The indexes of the pairs whose data was lost, and can be restored.
    lost: Vec<usize>,
    /// The facts about each source.
    known: Vec<Known>,
    /// The tables that are gone, and must not be.
    gone: Vec<String>,
}

impl State {
    /// Inspects the source of a pair.
    fn add(&mut self, number: usize, pair: &Pair, context: &Context) -> Result<()> {
        let before = pair.before.as_ref();
        let mut inspection = inspect(
            &pair.chosen,
            before.map(|found| &found.manifest),
            Depth::Quick,
            Strictness::Loss,
            &context.scratch,
        )?;
        let mut is_lost = inspection.is_lost;
        let name = pair.chosen.name()?;
        self.checks.of_source(&name, |checks| -> Result<()> {
            checks.append(std::mem::take(&mut inspection.checks));
            if let Some(before) = before {
                is_lost |= renames::check(before, &pair.chosen, context, checks)? == Renamed::WithoutRows;
            }
            Ok(())
        })?;
        is_lost &= before.is_some();
        self.gone.append(&mut inspection.gone_tables);
        if is_lost {
            self.lost.push(number);
        }
        let mut known = Known::new(name.clone(), before.map(|before| before.manifest.id.clone()), is_lost, &inspection);
        if let (Some(before), Some(newer)) = (before, &pair.newer) {
            let now = inspection.tables.as_ref();
            let check = |checks: &mut Checks| {
                newer::check(newer, &before.manifest, &pair.chosen, now, is_lost, context, checks)
            };
            known.newer = self.checks.of_source(&name, check)?;
        }
        self.known.push(known);
        if pair.is_first {
            let message = match before {
                None => "first deploy: there was no snapshot from before it to compare with".to_owned(),
                Some(before) => format!(
                    "no snapshot was taken before the deploy; compared with {}, the first good one of guard",
                    before.manifest.id
                ),
            };
            self.checks.of_source(&name, |checks| checks.add(format!("{name}: compared"), true, message));
        }
        Ok(())
    }
}

/// Runs the command.
pub(crate) fn run(options: &PostdeployOptions, context: &Context) -> Result<ChecksReport> {
    let chosen = context.sources(&options.sources)?;
    let mut tags = vec![PREDEPLOY.to_owned()];
    tags.extend(commit(options.commit.as_deref()));
    let mut pairs = chosen.iter().map(|chosen| pair(chosen, &tags, context)).collect::<Result<Vec<_>>>()?;
    for (pair, before) in pairs.iter().filter_map(|pair| Some((pair, pair.before.as_ref()?))) {
        let newest = || before.catalog.newest_full(&before.manifest.source);
        require_same_database(&before.manifest, &pair.chosen.source, newest, context)?;
    }
    let snapshots: Vec<_> = pairs.iter().map(|pair| pair.before.as_ref().map(|before| &before.manifest)).collect();
    let rules = options.intended.rules(&snapshots)?;
    for (pair, rules) in pairs.iter_mut().zip(rules) {
        pair.has_intended_changes = !rules.is_empty();
        pair.chosen.rules.extend(rules);
    }
    let State { checks, lost, known, gone } = wait_until(options.wait.to_std().unwrap_or_default(), || {
        let mut state = State::default();
        preflight(&chosen, context, &mut state.checks)?;
        for (number, pair) in pairs.iter().enumerate() {
            state.add(number, pair, context)?;
        }
        Ok((state.checks.are_ok(), state))
    })?;
    let mut report = checks.into_report();
    for pair in &pairs {
        if let Some(before) = &pair.before {
            report.snapshots.push(ReportedSnapshot {
                manifest: before.manifest.clone(),
                proof: before.catalog.proof(&before.listed)?,
                stores: vec![before.catalog.location()],
            });
        }
        if pair.is_first && pair.before.is_none() {
            report.first_deploy.push(pair.chosen.name()?.to_string());
        }
    }
    if report.ok {
        report.verdict = verdict::passed(&known);
        save_new_baselines(&pairs, &tags, context, &mut report)?;
        return Ok(report);
    }
    let intended = drop_advice(&gone, options, &pairs, context)?;
    let limits = verdict::limits(&known) + &intended;
    let losses: Vec<Loss<'_>> = lost.into_iter().filter_map(|number| pairs[number].loss()).collect();
    if losses.is_empty() {
        report.verdict = verdict::failed(report.failed().count(), &known, options.rollback) + &intended;
    } else if options.rollback {
        let (discard_new, lock_timeout) = (options.discard_new, options.lock_timeout);
        let how = RollbackOptions { discard_new, lock_timeout, limits };
        roll_back(&losses, &how, context, &mut report)?;
    } else {
        propose_rollback(&losses, options, &pairs, &limits, context, &mut report)?;
    }
    Ok(report)
}

impl Pair {
    /// Returns the source and the snapshot that a rollback restores, if there is one.
    fn loss(&self) -> Option<Loss<'_>> {
        Some(Loss { chosen: &self.chosen, before: self.before.as_ref()? })
    }
}

/// Adds the command of the rollback to the report, and the rows that it would take away. `limits` has the sentences about
/// what it does not restore.
fn propose_rollback(
    losses: &[Loss<'_>],
    options: &PostdeployOptions,
    pairs: &[Pair],
    limits: &str,
    context: &Context,
    report: &mut ChecksReport,
) -> Result<()> {
    let failed = report.failed().count();
    for error in find_new_rows(losses, context, report)? {
        tracing::warn!("{}", error.full_message_with_hint());
    }
    report.verdict = match report.new_rows.as_slice() {
        [] => format!("{failed} checks FAILED{limits}; this command restores the data:"),
        new => format!(
            "{failed} checks FAILED{limits}; this command restores the data, but it refuses to take away {}, unless --discard-new \
             is added:",
            descriptions(new)
        ),
    };
    report.rollback.push(rollback_command(options, pairs, context)?);
    Ok(())
}

/// Takes snapshots of the sources whose tables were changed on purpose, so that the next gate or snapshot is compared with
/// the new tables. The intended changes are no loss for these snapshots.
fn save_new_baselines(pairs: &[Pair], tags: &[String], context: &Context, report: &mut ChecksReport) -> Result<()> {
    let changed: Vec<Chosen> =
        pairs.iter().filter(|pair| pair.has_intended_changes).map(|pair| pair.chosen.clone()).collect();
    if changed.is_empty() {
        return Ok(());
    }
    // Without the tag of the gate before the deploy, whose snapshot stays the one to compare this deploy with.
    let tag = tags.iter().filter(|tag| *tag != PREDEPLOY).cloned().chain([POSTDEPLOY.to_owned()]).collect();
    let taken = save::take(&SaveOptions { tag, ..SaveOptions::default() }, &changed, context)?;
    for saved in taken.snapshots {
        let id = saved.manifest.id.to_string();
        report.verdict += &format!("; {id} is the new baseline");
        let (manifest, stores) = (saved.manifest, saved.stores);
        report.new_baselines.push(ReportedSnapshot { manifest, proof: ProofSummary::default(), stores });
    }
    report.failures.extend(taken.failures);
    Ok(())
}

/// Finds the snapshot of a source from before the deploy. There is none if this is the first deploy; then only `guard`
/// may have taken snapshots since.
fn pair(chosen: &Chosen, tags: &[String], context: &Context) -> Result<Pair> {
    let source = chosen.name()?;
    let pair = |before: Option<Found>, is_first: bool| {
        let newer = before.as_ref().map(|before| newer::find(&before.manifest, context)).transpose()?.flatten();
        Ok(Pair { chosen: chosen.clone(), has_intended_changes: false, before, newer, is_first })
    };
    let filter = SnapshotFilter { source: Some(source.clone()), tags: tags.to_vec(), ..SnapshotFilter::default() };
    if let Some(before) = context.newest(&filter)? {
        return pair(Some(before), false);
    }
    if context.holds_nothing_of(chosen)? {
        context.require_no_other_name(chosen, "there is no snapshot from before the deploy")?;
        return pair(None, true);
    }
    if context.has_only_snapshots_of_guard(&source)? {
        context.require_no_other_name(chosen, "there is no snapshot from before the deploy")?;
        return pair(context.newest_baseline(&source)?, true);
    }
    Err(Error::not_found(format!("there is no snapshot of {source} with the tags {}", tags.join(", ")))
        .hint("run 'lifeboat predeploy' before the deploy, with the same --commit"))
}

/// Returns the sentence that names the command for tables that the deploy has dropped on purpose, after a semicolon. Empty
/// if no table is gone.
fn drop_advice(gone: &[String], options: &PostdeployOptions, pairs: &[Pair], context: &Context) -> Result<String> {
    if gone.is_empty() {
        return Ok(String::new());
    }
    let mut words = words_of(options, pairs);
    words.extend(gone.iter().take(MOST_TABLES).flat_map(|table| option("--expect-dropped", table)));
    let (command, tables) = (context.gate_command_line(&words)?, some(gone.iter()));
    Ok(format!("; if the deploy has dropped {tables} on purpose, run '{command}'"))
}

/// Returns the words of this run that a printed command repeats.
fn words_of(options: &PostdeployOptions, pairs: &[Pair]) -> Vec<String> {
    let mut words = vec!["postdeploy".to_owned()];
    if !options.sources.is_empty() {
        words.extend(pairs.iter().map(|pair| source_word(&pair.chosen)));
    }
    words.extend(commit(options.commit.as_deref()).iter().flat_map(|commit| option("--commit", commit)));
    words.extend(options.intended.words());
    words
}

/// Returns the command that restores what was lost, as this run would have with `--rollback`.
fn rollback_command(options: &PostdeployOptions, pairs: &[Pair], context: &Context) -> Result<String> {
    let mut words = words_of(options, pairs);
    words.insert(1, "--rollback".to_owned());
    if options.lock_timeout != DEFAULT_LOCK_TIMEOUT {
        words.extend(option("--lock-timeout", &options.lock_timeout.to_string()));
    }
    context.gate_command_line(&words)
}
