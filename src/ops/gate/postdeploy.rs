//! `postdeploy`: checks whether a deploy lost data, and restores it on request.

use chrono::Duration;
use serde_json::json;

use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::gate::{commit, preflight, wait_until};
use crate::ops::look::{Found, Strictness, look};
use crate::ops::put_back::{gone_mounts, put_back};
use crate::ops::sources::Chosen;
use crate::ops::tags::PREDEPLOY;
use crate::ops::{Context, snapshot_document};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::Narrow;
use crate::snapshots::manifest::Depth;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct PostdeployOptions {
    /// Names of the config, SQLite files, or URLs; by default all sources of the config
    pub sources: Vec<String>,
    /// The commit that was deployed: the data is compared with its snapshots; by default in GitHub Actions the
    /// workflow's commit, otherwise the newest snapshots of any gate
    pub commit: Option<String>,
    /// The longest to wait for checks that do not pass yet, such as 60s
    pub wait: Duration,
    /// Restore what was lost; the exit code stays 3
    pub rollback: bool,
    /// PostgreSQL: the longest to wait for others' locks in a rollback, in seconds
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
        let narrow = Narrow { source: Some(source.clone()), tags: tags.clone(), ..Narrow::default() };
        let before = context.newest(&narrow)?.ok_or_else(|| {
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
            let looked = look(pair.chosen, Some(&pair.before.manifest), Depth::Quick, Strictness::Loss)?;
            if looked.is_lost {
                lost.push(number);
            }
            checks.append(looked.checks);
        }
        Ok((checks.are_ok(), (checks, lost)))
    })?;
    let gone = gone_mounts(context)?;
    let mut report = checks.into_report();
    for pair in &pairs {
        let manifest = &pair.before.manifest;
        let mut document = snapshot_document(manifest, &pair.before.catalog.proof(&pair.before.listed)?);
        document.insert("stores".to_owned(), json!([pair.before.catalog.location()]));
        report.snapshots.push(document);
    }
    if report.ok {
        report.verdict = "nothing was lost".to_owned();
        return Ok(report);
    }
    let failed = report.failed().count();
    if lost.is_empty() {
        report.verdict = format!("{failed} checks FAILED; no data was lost, and nothing is to be restored");
        return Ok(report);
    }
    if !options.rollback {
        report.verdict = format!("{failed} checks FAILED; this brings the data back:");
        report.rollback.push(rollback_command(options, context)?);
        return Ok(report);
    }
    let mut is_back = true;
    for pair in lost.iter().map(|number| &pairs[*number]) {
        let name = pair.chosen.name()?;
        match put_back(&pair.before, pair.chosen, options.lock_timeout, &gone, context) {
            Ok(restored) => {
                report.restored.push(restored);
                // The current state of the database decides.
                let mut again = look(pair.chosen, Some(&pair.before.manifest), Depth::Quick, Strictness::Loss)?
                    .checks
                    .into_report();
                is_back &= again.ok;
                again.checks.iter_mut().for_each(|check| check.name.push_str(" (after the rollback)"));
                report.checks.append(&mut again.checks);
            }
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // The loss remains the result of the gate; the failed restore is reported in addition.
            Err(error) => {
                let told = Error::problem(format!("{name} was not restored: {}", error.whole()));
                report.failures.push(match error.hint {
                    Some(hint) => told.hint(hint),
                    None => told,
                });
            }
        }
    }
    report.verdict = match report.failures.is_empty() {
        true if !is_back => format!("{failed} checks FAILED; the snapshot was put back, and some fail still"),
        true => format!("{failed} checks FAILED; the data was brought back: {} restored", report.restored.len()),
        false => format!("{failed} checks FAILED, and not everything could be brought back"),
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
