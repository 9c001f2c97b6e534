//! `predeploy`: lets a deploy continue only if the data passes its checks and is saved.

use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::gate::{commit, preflight, wait_until};
use crate::ops::inspect::{Found, Strictness, inspect};
use crate::ops::save::{self, SaveOptions, Saved};
use crate::ops::sources::Chosen;
use crate::ops::tags::PREDEPLOY;
use crate::ops::{Context, ReportedSnapshot, stores, verify};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Depth;
use crate::snapshots::proofs::ProofSummary;
use chrono::Duration;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct PredeployOptions {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    pub sources: Vec<String>,
    /// The commit to deploy, which becomes a tag of the snapshots; default: the workflow's commit in GitHub Actions
    pub commit: Option<String>,
    /// Additional tags for the snapshots
    pub tag: Vec<String>,
    /// The maximum time to wait until failing checks pass
    pub wait: Duration,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    pub full_check: bool,
}

/// Runs the command.
pub(crate) fn run(options: &PredeployOptions, context: &Context) -> Result<ChecksReport> {
    save::require_free_tags(&options.tag)?;
    save::require_free_tags(options.commit.as_slice())?;
    let chosen = context.sources(&options.sources)?;
    let depth = if options.full_check { Depth::Full } else { Depth::Quick };
    let mut before: Vec<Option<Found>> = Vec::new();
    for chosen in &chosen {
        before.push(context.newest_baseline(&chosen.name()?)?);
    }
    let checks = wait_until(options.wait.to_std().unwrap_or_default(), || {
        let mut checks = Checks::default();
        preflight(&chosen, context, &mut checks)?;
        for (chosen, before) in chosen.iter().zip(&before) {
            let before = before.as_ref().map(|found| &found.manifest);
            checks.append(inspect(chosen, before, depth, Strictness::Damage)?.checks);
        }
        Ok((checks.are_ok(), checks))
    })?;
    if !checks.are_ok() {
        let mut report = checks.into_report();
        let failed = report.failed().count();
        report.verdict = format!(
            "the gate is CLOSED: {failed} checks failed, and no snapshot was taken; if missing rows were deleted on \
             purpose, run 'lifeboat snapshot --accept' to make the current state the new baseline"
        );
        return Ok(report);
    }
    save(options, &chosen, checks, context)
}

/// Takes the snapshots and reads them back.
fn save(options: &PredeployOptions, chosen: &[Chosen], mut checks: Checks, context: &Context) -> Result<ChecksReport> {
    let mut tags = vec![PREDEPLOY.to_owned()];
    tags.extend(commit(options.commit.as_deref()));
    tags.extend(options.tag.iter().cloned());
    let taken = SaveOptions { tag: tags, full_check: options.full_check, ..SaveOptions::default() };
    let taken = save::take(&taken, chosen, context)?;
    let mut snapshots = Vec::new();
    for saved in &taken.snapshots {
        let is_intact = read_back(saved, &mut checks, context)?;
        let mut proof = ProofSummary::default();
        if is_intact {
            proof.level = crate::snapshots::proofs::ProofLevel::Verified;
        }
        let (manifest, stores) = (saved.manifest.clone(), saved.stores.clone());
        snapshots.push(ReportedSnapshot { manifest, proof, stores });
    }
    let mut report = checks.into_report();
    report.snapshots = snapshots;
    report.failures = taken.failures;
    for saved in &taken.snapshots {
        report.rollback.push(rollback(saved, chosen, context)?);
    }
    report.verdict = match (report.ok, report.failures.is_empty()) {
        (true, true) => "the gate is open; if the deploy goes wrong, this restores the data:".to_owned(),
        (_, false) => "the gate is CLOSED: not everything was saved".to_owned(),
        (false, true) => "the gate is CLOSED: a snapshot was saved, but could not be read back intact".to_owned(),
    };
    if !report.ok {
        report.rollback.clear();
    }
    Ok(report)
}

/// Reads a snapshot back from every store that has it. Returns true if every store returns the bytes that were written.
fn read_back(saved: &Saved, checks: &mut Checks, context: &Context) -> Result<bool> {
    let id = &saved.manifest.id;
    let mut is_intact = true;
    for location in &saved.stores {
        let read = || {
            for store in context.all_stores()? {
                let catalog = stores::open(store)?;
                if catalog.location() == *location {
                    let outcome = verify::read_back(&catalog, id, context)?;
                    return match outcome.problems.first() {
                        None => Ok(format!("{id}: every byte was read back from {}", one_line(location))),
                        Some(problem) => Err(Error::problem(format!("{id}: {}", problem.message))),
                    };
                }
            }
            Err(Error::unreachable(format!("the store {} can no longer be opened", one_line(location))))
        };
        is_intact &= checks.note(format!("{}: snapshot", saved.manifest.source), read())?;
    }
    Ok(is_intact)
}

/// Returns the command that restores a snapshot.
fn rollback(saved: &Saved, chosen: &[Chosen], context: &Context) -> Result<String> {
    let manifest = &saved.manifest;
    let id = manifest.id.to_string();
    let mut words = vec!["restore".to_owned(), id, "--replace".to_owned()];
    // For a source of the config, `restore` needs no --to: it finds the database by the source's name.
    if context.configured_source(manifest)?.is_none() {
        let source = chosen.iter().find(|chosen| chosen.name().is_ok_and(|name| name == manifest.source));
        match source.and_then(|chosen| chosen.source.server()) {
            Some(params) => words.extend(["--to".to_owned(), params.shown()]),
            _ => words.extend(manifest.origin.path.iter().flat_map(|path| ["--to".to_owned(), path.clone()])),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let store = saved.stores.first().map(String::as_str).unwrap_or_default();
    Ok(context.command_line(&words, manifest, Some(store)))
}
