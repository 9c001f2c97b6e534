//! `postdeploy`: checks whether a deploy lost data, and restores it on request.

use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::gate::{commit, preflight, wait_until};
use crate::ops::inspect::{Found, Strictness, inspect};
use crate::ops::restore_in_place::{missing_mounts, restore_in_place};
use crate::ops::sources::Chosen;
use crate::ops::tags::PREDEPLOY;
use crate::ops::{Context, ReportedSnapshot};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::find::SnapshotFilter;
use crate::snapshots::manifest::Depth;
use chrono::Duration;

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
    /// Restore what was lost; the exit code stays 3
    pub rollback: bool,
    /// PostgreSQL: the maximum time to wait for locks of other sessions in a rollback, in seconds
    pub lock_timeout: u64,
}

/// A source, and its snapshot from before the deploy.
struct Pair<'a> {
    chosen: &'a Chosen,
    before: Found,
}

/// Runs the command.
pub(crate) fn run(options: &PostdeployOptions, context: &Context) -> Result<ChecksReport> {
    let chosen = context.sources(&options.sources)?;
    let mut tags = vec![PREDEPLOY.to_owned()];
    tags.extend(commit(options.commit.as_deref()));
    let mut pairs = Vec::new();
    for chosen in &chosen {
        let source = chosen.name()?;
        let filter = SnapshotFilter { source: Some(source.clone()), tags: tags.clone(), ..SnapshotFilter::default() };
        let before = context.newest(&filter)?.ok_or_else(|| {
            Error::not_found(format!("there is no snapshot of {source} with the tags {}", tags.join(", ")))
                .hint("run 'lifeboat predeploy' before the deploy, with the same --commit")
        })?;
        pairs.push(Pair { chosen, before });
    }
    let (checks, lost) = wait_until(options.wait.to_std().unwrap_or_default(), || {
        let mut checks = Checks::default();
        preflight(&chosen, context, &mut checks)?;
        let mut lost = Vec::new();
        for (number, pair) in pairs.iter().enumerate() {
            let inspection = inspect(pair.chosen, Some(&pair.before.manifest), Depth::Quick, Strictness::Loss)?;
            if inspection.is_lost {
                lost.push(number);
            }
            checks.append(inspection.checks);
        }
        Ok((checks.are_ok(), (checks, lost)))
    })?;
    let missing_mounts = missing_mounts(context)?;
    let mut report = checks.into_report();
    for pair in &pairs {
        report.snapshots.push(ReportedSnapshot {
            manifest: pair.before.manifest.clone(),
            proof: pair.before.catalog.proof(&pair.before.listed)?,
            stores: vec![pair.before.catalog.location()],
        });
    }
    if report.ok {
        report.verdict = "nothing was lost".to_owned();
        return Ok(report);
    }
    let failed = report.failed().count();
    if lost.is_empty() {
        report.verdict = format!("{failed} checks FAILED; no data was lost, so nothing needs to be restored");
        return Ok(report);
    }
    if !options.rollback {
        report.verdict = format!("{failed} checks FAILED; this command restores the data:");
        report.rollback.push(rollback_command(options, context)?);
        return Ok(report);
    }
    let mut passes_again = true;
    for pair in lost.iter().map(|number| &pairs[*number]) {
        let name = pair.chosen.name()?;
        match restore_in_place(&pair.before, pair.chosen, options.lock_timeout, &missing_mounts, context) {
            Ok(restored) => {
                report.restored.push(restored);
                // The current state of the database decides.
                let mut again = inspect(pair.chosen, Some(&pair.before.manifest), Depth::Quick, Strictness::Loss)?
                    .checks
                    .into_report();
                passes_again &= again.ok;
                again.checks.iter_mut().for_each(|check| check.name.push_str(" (after the rollback)"));
                report.checks.append(&mut again.checks);
            }
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // The loss remains the result of the gate; the failed restore is reported in addition.
            Err(error) => {
                let failure = Error::problem(format!("{name} was not restored: {}", error.full_message()));
                report.failures.push(match error.hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                });
            }
        }
    }
    report.verdict = match report.failures.is_empty() {
        true if !passes_again => format!("{failed} checks FAILED; the snapshot was restored, but checks still fail"),
        true => format!("{failed} checks FAILED; the lost data was restored: {} sources", report.restored.len()),
        false => format!("{failed} checks FAILED, and some of the lost data could not be restored"),
    };
    Ok(report)
}

fn rollback_command(options: &PostdeployOptions, context: &Context) -> Result<String> {
    let mut words = vec!["lifeboat".to_owned(), "postdeploy".to_owned(), "--rollback".to_owned()];
    words.extend(options.sources.iter().cloned());
    words.extend(options.commit.iter().flat_map(|commit| ["--commit".to_owned(), commit.clone()]));
    if context.stores_are_given {
        words.extend(context.stores.iter().flat_map(|store| ["--store".to_owned(), store.to_string()]));
    }
    if let Some(config) = &context.config {
        words.extend(["--config".to_owned(), config.path.display().to_string()]);
    }
    words.extend(context.key_flags.iter().cloned());
    let quoted: Vec<String> = words.iter().map(|word| crate::engine::sqlite::target::quote_word(word)).collect();
    Ok(quoted.join(" "))
}
