//! Restores the sources whose data a deploy has lost, unless that takes away rows that came after the snapshots.

use crate::ops::checks::ChecksReport;
use crate::ops::gate::new_rows;
use crate::ops::inspect::{Found, Strictness, inspect};
use crate::ops::new_rows::NewRows;
use crate::ops::restore_in_place::{missing_mounts, restore_in_place};
use crate::ops::show::restore_commands;
use crate::ops::sources::Chosen;
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::manifest::Depth;
use crate::snapshots::search::SnapshotFilter;

/// A source whose data was lost, and the snapshot that has it.
pub(super) struct Loss<'a> {
    pub(super) chosen: &'a Chosen,
    pub(super) before: &'a Found,
}

/// The settings of a rollback.
pub(super) struct RollbackOptions {
    /// Restore also if that takes away new rows.
    pub(super) discard_new: bool,
    /// PostgreSQL: the maximum time to wait for locks of other sessions, in seconds.
    pub(super) lock_timeout: u64,
    /// The sentences about what is not restored, each after a semicolon.
    pub(super) limits: String,
}

/// Adds the rows that a rollback would take away to the report. Returns the failures to find them out.
pub(super) fn find_new_rows(losses: &[Loss<'_>], context: &Context, report: &mut ChecksReport) -> Result<Vec<Error>> {
    let mut failures = Vec::new();
    for loss in losses {
        match new_rows::find(loss.before, loss.chosen, context) {
            Ok(found) => report.new_rows.extend(found),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => {
                let name = loss.chosen.name()?;
                failures.push(error.context(format!("the rows of {name} that came after its snapshot are not known")));
            }
        }
    }
    Ok(failures)
}

/// Restores the sources, and inspects them again. Does nothing if any of them would lose new rows, or if that is not known,
/// unless they may be discarded.
pub(super) fn roll_back(
    losses: &[Loss<'_>],
    options: &RollbackOptions,
    context: &Context,
    report: &mut ChecksReport,
) -> Result<()> {
    let failed = report.failed().count();
    let unknown = find_new_rows(losses, context, report)?;
    let takes_nothing = report.new_rows.is_empty() && unknown.is_empty();
    if !takes_nothing && !options.discard_new {
        report.verdict = format!("{failed} checks FAILED, and nothing was restored{}", options.limits);
        let refusals = report.new_rows.iter().map(|new| {
            Error::problem(format!("{} was not restored, because that takes away {}", new.source, new.description()))
        });
        let unknown = unknown.iter().map(|error| Error::problem(error.full_message_with_hint()));
        let hint =
            "add --discard-new to restore it; the rows are then only in the safety snapshot that a restore takes first";
        report.failures = refusals.chain(unknown).map(|error| error.hint(hint)).collect();
        return Ok(());
    }
    let missing_mounts = missing_mounts(context)?;
    let (mut passes_again, mut kept) = (true, Vec::new());
    for Loss { chosen, before } in losses {
        let name = chosen.name()?;
        match restore_in_place(before, chosen, options.lock_timeout, &missing_mounts, context) {
            Ok(restored) => {
                let new = report.new_rows.iter().find(|new| new.source == name.as_str());
                if let (Some(new), Some(safety)) = (new, &restored.safety_snapshot) {
                    kept.push(format!("{} of {name} are in {safety}", new.description()));
                    report.rollback.extend(command_for_safety(safety, before, context)?);
                }
                report.restored.push(restored);
                // The current state of the database decides. Intended changes of its tables are undone too.
                let restored = Chosen { rules: Vec::new(), ..(*chosen).clone() };
                let mut again =
                    inspect(&restored, Some(&before.manifest), Depth::Quick, Strictness::Loss, &context.scratch)?
                        .checks
                        .into_report();
                passes_again &= again.ok;
                again.checks.iter_mut().for_each(|check| {
                    check.name.push_str(" (after the rollback)");
                    check.source = Some(name.to_string());
                });
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
    report.verdict += &options.limits;
    if !kept.is_empty() {
        report.verdict += &format!("; {}; to get them:", kept.join("; "));
    }
    Ok(())
}

/// Describes the rows that a rollback would take away.
pub(super) fn descriptions(new: &[NewRows]) -> String {
    new.iter().map(|new| format!("{} of {}", new.description(), new.source)).collect::<Vec<_>>().join("; ")
}

/// Returns the command that restores a safety snapshot into a new place, to get rows from there.
fn command_for_safety(safety: &str, before: &Found, context: &Context) -> Result<Option<String>> {
    let catalog = &before.catalog;
    let listed = catalog.find(safety, &SnapshotFilter::default())?;
    let manifest = fetch::manifest(catalog, &listed.id, context)?;
    let commands = restore_commands(&manifest, Some(&catalog.location()), context)?;
    Ok(commands.into_iter().map(|(_, command)| command).next())
}
