//! The good snapshot that is newer than the one of `predeploy`. A cron job or a guard may take one between the gate and the
//! deploy; its rows are lost too if the deploy loses them, and a rollback does not restore them.

use std::collections::BTreeMap;

use chrono::Utc;

use crate::ops::Context;
use crate::ops::checks::Checks;
use crate::ops::differences::differences;
use crate::ops::inspect::{Found, allowed_losses, compare_with};
use crate::ops::restore_in_place::restore_command;
use crate::ops::sources::Chosen;
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::row_counts::RowCounts;

/// Finds the newest good snapshot of a source, if it is newer than the one from before the deploy. Logs a warning if it
/// cannot be read.
pub(super) fn find(before: &Manifest, context: &Context) -> Result<Option<Found>> {
    match context.newest_baseline(&before.source) {
        Ok(newest) => Ok(newest.filter(|newest| newest.manifest.id.stamp() > before.id.stamp())),
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        Err(error) => {
            let error = error.context(format!("not compared with snapshots that are newer than {}", before.id));
            tracing::warn!("{}", error.full_message());
            Ok(None)
        }
    }
}

/// Compares a source with its newer snapshot, and adds checks. Returns a sentence for the verdict, if there is something to
/// know. `now` has the rows of each table, if they could be read. If the source has already lost rows since `before`, the
/// newer snapshot is only named.
pub(super) fn check(
    newer: &Found,
    before: &Manifest,
    chosen: &Chosen,
    now: Option<&RowCounts>,
    is_lost: bool,
    context: &Context,
    checks: &mut Checks,
) -> Result<Option<String>> {
    let (manifest, name) = (&newer.manifest, chosen.name()?);
    let id = &manifest.id;
    if is_lost {
        if has_only_less(manifest, before) {
            return Ok(None);
        }
        let sentence = describe(newer, before, chosen, context);
        checks.add(format!("{name}: newer snapshot"), true, sentence.clone());
        return Ok(Some(sentence));
    }
    // The total of an encrypted snapshot counts the rows in another way. A gate that can compare no more than that has
    // failed already.
    let Some(now) = now.filter(|_| !manifest.lacks_tables()) else { return Ok(None) };
    let verdicts = compare_with(manifest, now, now.total(), &chosen.rules());
    let lost: Vec<_> = verdicts.iter().filter(|verdict| !verdict.ok && verdict.is_loss).collect();
    for verdict in &lost {
        checks.add(format!("{name}: {} since {id}", verdict.name), false, verdict.message());
    }
    if !lost.is_empty() {
        let sentence = describe(newer, before, chosen, context);
        checks.add(format!("{name}: newer snapshot"), true, sentence.clone());
        return Ok(Some(format!("{name} has lost rows since {sentence}")));
    }
    let allowed = allowed_losses(&verdicts);
    if allowed.is_empty() {
        return Ok(None);
    }
    checks.add(format!("{name}: rows since {id}"), true, format!("allowed: {allowed}"));
    Ok(Some(format!("{name} has fewer rows than {id}, which is newer than {}, as allowed: {allowed}", before.id)))
}

/// Describes a newer snapshot: its age, the rows that it has beyond the older one, and the command that restores it.
fn describe(newer: &Found, before: &Manifest, chosen: &Chosen, context: &Context) -> String {
    let manifest = &newer.manifest;
    let rows = match manifest.lacks_tables() || before.lacks_tables() {
        true => format!("it has {} rows, and {} has {}", manifest.rows, before.id, before.rows),
        false => differences(manifest, before),
    };
    let options: &[&str] = if chosen.source.is_absent() { &[] } else { &["--replace"] };
    let command = restore_command(manifest, &newer.catalog.location(), Some(chosen), options, context);
    let age = text::age_with("ago", manifest.created_at, Utc::now());
    one_line(&format!(
        "{}, taken {age}, is newer than {}: {rows}; '{command}' restores it instead",
        manifest.id, before.id
    ))
}

/// Returns true if a newer snapshot has fewer rows than an older one in some table, and more in none.
fn has_only_less(newer: &Manifest, older: &Manifest) -> bool {
    if newer.lacks_tables() || older.lacks_tables() {
        return newer.rows < older.rows;
    }
    let rows = |manifest: &Manifest| RowCounts::of(&manifest.tables).tables;
    let (now, before) = (rows(newer), rows(older));
    let of = |rows: &BTreeMap<String, u64>, table: &String| rows.get(table).copied().unwrap_or(0);
    let has_more = now.iter().any(|(table, rows)| *rows > of(&before, table));
    !has_more && before.iter().any(|(table, rows)| *rows > of(&now, table))
}
