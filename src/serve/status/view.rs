//! Turns the status of everything into pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Duration, NaiveDate, Utc};

use crate::ops::diff::{Status as TableStatus, compare};
use crate::ops::show::restore_commands;
use crate::ops::{Context, fetch};
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::text;
use crate::serve::page::{
    Calendar, DAYS, Day, Finding, Overview, Plot, SnapshotPage, SnapshotRow, SourceView, Status, StoreView, TableRow,
    Unit,
};
use crate::serve::status::history::is_good;
use crate::serve::status::{OverallStatus, SourceStatus};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::list::Described;
use crate::snapshots::manifest::{Manifest, SnapshotKind, Table};
use crate::snapshots::proofs::ProofLevel;

/// The maximum number of snapshots that a page lists.
const LISTED: usize = 30;
/// The maximum number of tables that the page of a snapshot lists.
const MAX_TABLES: usize = 2000;

/// A failure: its time, its source (`None` if it concerns all), and its message.
#[derive(Clone, Debug)]
pub(crate) struct RunFailure {
    pub(crate) at: DateTime<Utc>,
    pub(crate) source: Option<String>,
    pub(crate) message: String,
}

/// Returns the overview page.
pub(crate) fn overview(
    status: &OverallStatus,
    run_failures: &[RunFailure],
    served: bool,
    context: &Context,
) -> Overview {
    let store = |store: &crate::serve::status::StoreStatus| StoreView {
        location: one_line(&store.location),
        status: store.status,
        message: store.message.clone(),
    };
    Overview {
        host: context.host.clone(),
        at: status.at,
        sources: status.sources.iter().map(|source| view(source, run_failures, status.at)).collect(),
        stores: status.stores.iter().map(store).collect(),
        served,
    }
}

fn view(source: &SourceStatus, run_failures: &[RunFailure], now: DateTime<Utc>) -> SourceView {
    let name = source.name.as_str();
    let prefix = format!("{name}: ");
    let finding = |check: &crate::serve::status::Check| Finding {
        name: check.name.strip_prefix(&prefix).unwrap_or(&check.name).to_owned(),
        ok: check.ok,
        message: check.message.clone(),
    };
    let own = run_failures.iter().filter(|failure| failure.source.as_deref().is_none_or(|of| of == name));
    let restore = source.snapshots.iter().find_map(|described| described.proof.restore_seconds);
    SourceView {
        name: name.to_owned(),
        location: source.location.clone(),
        status: source.status,
        checked_at: source.reading.at,
        findings: source.checks.iter().map(finding).collect(),
        newest: source.newest.as_deref().map(|described| row(described, now)),
        calendar: calendar(&source.snapshots, own, now),
        plots: plots(&source.snapshots, now),
        growth: source.summary.growth.clone(),
        growth_span: source.summary.growth_span.clone(),
        restore: restore.map(text::seconds),
        removals: source.summary.removals.clone(),
        snapshots: source.snapshots.iter().take(LISTED).map(|described| row(described, now)).collect(),
        total: source.snapshots.len() + source.unread,
        unread: source.unread,
    }
}

fn row(described: &Described, now: DateTime<Utc>) -> SnapshotRow {
    let id = &described.listed.id;
    let unknown = || "?".to_owned();
    let manifest = described.manifest.as_ref().ok();
    let is_bad = described.proof.level == ProofLevel::Damaged
        || manifest.is_none_or(|manifest| manifest.kind == SnapshotKind::Damaged)
        || (!is_good(described) && manifest.is_some_and(|manifest| manifest.kind == SnapshotKind::Full));
    let proof = match described.proof.at {
        Some(at) => format!("{}, {}", described.proof.level.name(), text::age_with("ago", at, now)),
        None => described.proof.level.name().to_owned(),
    };
    SnapshotRow {
        id: id.to_string(),
        at: id.time(),
        age: text::age(id.time(), now),
        kind: manifest.map_or_else(unknown, |manifest| manifest.kind.name().to_owned()),
        size: manifest.map_or_else(unknown, |manifest| text::bytes(manifest.archive_bytes.unwrap_or(0))),
        rows: manifest.map_or_else(unknown, |manifest| manifest.rows.to_string()),
        duration: manifest.map_or_else(unknown, |manifest| text::seconds(manifest.seconds)),
        proof,
        status: match described.proof.level {
            _ if is_bad => Status::Bad,
            // Nothing is known to be wrong with it, and nothing is known to be right.
            ProofLevel::None => Status::Unknown,
            _ => Status::Good,
        },
        tags: manifest.map(|manifest| one_line(&manifest.tags.join(", "))).unwrap_or_default(),
    }
}

fn calendar<'a>(
    snapshots: &[Arc<Described>],
    run_failures: impl Iterator<Item = &'a RunFailure>,
    now: DateTime<Utc>,
) -> Calendar {
    let mut days: BTreeMap<NaiveDate, Day> = BTreeMap::new();
    for described in snapshots {
        let id = &described.listed.id;
        let day = days.entry(id.time().date_naive()).or_default();
        day.snapshots += 1;
        day.good += u32::from(is_good(described));
        if described.proof.level == ProofLevel::Damaged || described.manifest.is_err() {
            day.failures.push(format!("{id} is damaged"));
        } else if let Ok(manifest) = &described.manifest
            && manifest.kind == SnapshotKind::Full
            && !is_good(described)
        {
            day.failures.push(format!("{id}: rows were lost since the previous snapshot"));
        }
    }
    for failure in run_failures {
        days.entry(failure.at.date_naive()).or_default().failures.push(one_line(&failure.message));
    }
    Calendar::new(now.date_naive(), &days.into_iter().collect::<Vec<_>>())
}

fn plots(snapshots: &[Arc<Described>], now: DateTime<Utc>) -> Vec<Plot> {
    let start = now - Duration::days(i64::from(DAYS));
    let shown: Vec<&Manifest> = snapshots
        .iter()
        .filter(|described| described.listed.id.time() >= start)
        .filter_map(|described| described.manifest.as_ref().ok())
        .filter(|manifest| manifest.kind == SnapshotKind::Full)
        .collect();
    let plot = |title: &str, unit: Unit, value: &dyn Fn(&Manifest) -> f64| {
        let values: Vec<_> = shown.iter().map(|manifest| (manifest.created_at, value(manifest))).collect();
        Plot::new(title, unit, &values)
    };
    vec![
        plot("Size of the archive", Unit::Bytes, &|manifest| manifest.archive_bytes.unwrap_or(0) as f64),
        plot("Rows", Unit::Rows, &|manifest| manifest.rows as f64),
        plot("Duration", Unit::Seconds, &|manifest| manifest.seconds),
    ]
}

/// Returns the page of one snapshot, from any store that has it, or `None` if no store has it.
pub(crate) fn snapshot(
    id: &SnapshotId,
    described: &Described,
    before: Option<&SnapshotId>,
    context: &Context,
) -> Result<Option<SnapshotPage>> {
    let now = Utc::now();
    let mut failed = None;
    for store in context.all_stores()? {
        let found = context.open(store).and_then(|catalog| {
            let manifest = fetch::manifest(&catalog, id, context)?;
            Ok((catalog, manifest))
        });
        match found {
            Ok((catalog, manifest)) => {
                return page(&manifest, described, before, &catalog, context, now).map(Some);
            }
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

fn page(
    manifest: &Manifest,
    described: &Described,
    before: Option<&SnapshotId>,
    catalog: &Catalog,
    context: &Context,
    now: DateTime<Utc>,
) -> Result<SnapshotPage> {
    let before: Option<Manifest> = match before.map(|id| fetch::manifest(catalog, id, context)) {
        None => None,
        Some(Ok(before)) => Some(before),
        // It was pruned meanwhile, or is damaged: there is nothing to compare with.
        Some(Err(error)) => {
            tracing::debug!("{}", error.full_message());
            None
        }
    };
    let before = before.filter(|before| !before.lacks_tables());
    let mut tables_note = None;
    let tables = if manifest.lacks_tables() {
        let note = "The snapshot is encrypted and no available key decrypts it, so its tables are not known.";
        tables_note = Some(note.to_owned());
        Vec::new()
    } else {
        rows(manifest, before.as_ref())
    };
    if tables.len() > MAX_TABLES {
        tables_note = Some(format!("The first {MAX_TABLES} of {} tables:", tables.len()));
    }
    let location = catalog.location();
    let commands = restore_commands(manifest, Some(&location), context)?;
    let mut facts = vec![
        ("from", format!("{} ({} {})", manifest.origin, manifest.engine, manifest.server_version)),
        ("taken", format!("{}, in {}", text::time(manifest.created_at), text::seconds(manifest.seconds))),
        (
            "size",
            format!("{} in {}", text::bytes(manifest.raw_bytes), text::bytes(manifest.archive_bytes.unwrap_or(0))),
        ),
        ("rows", manifest.rows.to_string()),
        ("kind", manifest.kind.name().to_owned()),
        ("store", location),
        ("sha256", manifest.sha256.map(|sha256| sha256.to_string()).unwrap_or_default()),
        ("encrypted", if manifest.encrypted { "with age" } else { "no" }.to_owned()),
    ];
    facts.extend(described.proof.restore_seconds.map(|seconds| ("restore time", text::seconds(seconds))));
    if !manifest.tags.is_empty() {
        facts.push(("tags", manifest.tags.join(", ")));
    }
    Ok(SnapshotPage {
        row: row(described, now),
        facts: facts.into_iter().map(|(name, value)| (name.to_owned(), one_line(&value))).collect(),
        compared_with: before.map(|before| before.id.to_string()),
        tables: tables.into_iter().take(MAX_TABLES).collect(),
        tables_note,
        commands: commands.into_iter().map(|(description, command)| (description.to_owned(), command)).collect(),
    })
}

/// Returns the tables of a snapshot, and their changes since the previous one.
fn rows(manifest: &Manifest, before: Option<&Manifest>) -> Vec<TableRow> {
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let size = |table: &Table| table.bytes.map(text::bytes).unwrap_or_default();
    let Some(before) = before else {
        let one = |table: &Table| TableRow {
            name: one_line(&table.name),
            status: String::new(),
            before: String::new(),
            rows: number(table.rows),
            change: String::new(),
            bytes: size(table),
        };
        return manifest.tables.iter().map(one).collect();
    };
    let sizes: BTreeMap<&str, String> =
        manifest.tables.iter().map(|table| (table.name.as_str(), size(table))).collect();
    let diffs = compare(&before.tables, &manifest.tables);
    let one = |diff: &crate::ops::diff::TableDiff| TableRow {
        name: one_line(&diff.name),
        status: match diff.status {
            TableStatus::Same => "same",
            TableStatus::Changed => "changed",
            TableStatus::Added => "added",
            TableStatus::Removed => "removed",
        }
        .to_owned(),
        before: number(diff.rows_before),
        rows: number(diff.rows_after),
        change: match (diff.rows_before, diff.rows_after) {
            (Some(before), Some(after)) if before != after => format!("{:+}", i128::from(after) - i128::from(before)),
            _ => String::new(),
        },
        bytes: sizes.get(diff.name.as_str()).cloned().unwrap_or_default(),
    };
    diffs.iter().map(one).collect()
}
