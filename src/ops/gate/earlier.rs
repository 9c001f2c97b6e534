//! The snapshot of an earlier `predeploy` for the same commit. `postdeploy` compares with the newest one, so a loss between
//! the two would no longer be found, and must be named when the second one is taken.

use crate::ops::inspect::{Found, compare_with};
use crate::ops::restore_in_place::restore_command;
use crate::ops::sources::Chosen;
use crate::ops::tags::PREDEPLOY;
use crate::ops::{Context, fetch};
use crate::platform::error::{Kind, Result, one_line};
use crate::snapshots::catalog::Listed;
use crate::snapshots::id::SourceName;
use crate::snapshots::list::Described;
use crate::snapshots::row_counts::RowCounts;

/// The number of the newest snapshots in each store among which it is searched.
const SEARCHED: usize = 16;

/// Finds the newest snapshot that `predeploy` has taken of a source for a commit, unless it has taken one for another commit
/// since. Stores that cannot be read are left out: the next step reports them.
pub(super) fn find(source: &SourceName, commit: &str, context: &Context) -> Result<Option<Found>> {
    let mut newest: Option<Found> = None;
    for store in context.all_stores()? {
        let found = context.open(store).and_then(|catalog| {
            let listed = catalog.list_with_archives(Some(source), None, SEARCHED)?.listed;
            let described = catalog.describe(listed)?;
            let tags = |described: &Described| {
                described.manifest.as_ref().map(|manifest| manifest.tags.clone()).unwrap_or_default()
            };
            let last = described.iter().map(|one| (tags(one), &one.listed));
            let last = last
                .filter(|(tags, _)| tags.iter().any(|tag| tag == PREDEPLOY))
                .max_by_key(|(_, listed)| stamp(listed));
            let Some((_, listed)) = last.filter(|(tags, _)| tags.iter().any(|tag| tag == commit)) else {
                return Ok(None);
            };
            let manifest = fetch::manifest(&catalog, &listed.id, context)?;
            let listed = listed.clone();
            Ok(Some(Found { catalog, listed, manifest }))
        });
        match found {
            Ok(Some(found)) if newest.as_ref().is_none_or(|own| stamp(&own.listed) < stamp(&found.listed)) => {
                newest = Some(found);
            }
            Ok(_) => {}
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => tracing::debug!("{}", error.full_message()),
        }
    }
    Ok(newest)
}

fn stamp(listed: &Listed) -> String {
    listed.id.stamp().to_owned()
}

/// Describes the rows that are gone since the earlier snapshot, and the command that restores it. Returns `None` if none
/// are.
pub(super) fn losses(
    earlier: &Found,
    commit: &str,
    chosen: &Chosen,
    now: &RowCounts,
    context: &Context,
) -> Option<String> {
    let manifest = &earlier.manifest;
    // Of an encrypted snapshot, only the total is known, which the baseline was compared with.
    if manifest.lacks_tables() {
        return None;
    }
    let verdicts = compare_with(manifest, now, now.total(), &chosen.rules());
    let lost: Vec<String> =
        verdicts.iter().filter(|verdict| verdict.is_loss).map(|verdict| verdict.description()).collect();
    if lost.is_empty() {
        return None;
    }
    let command = restore_command(manifest, &earlier.catalog.location(), Some(chosen), &["--replace"], context);
    Some(one_line(&format!(
        "an earlier predeploy for {commit} has taken {}, which has more rows: {}; 'postdeploy' compares with the new \
         snapshot, in which they are missing; '{command}' restores the earlier one",
        manifest.id,
        lost.join("; ")
    )))
}
