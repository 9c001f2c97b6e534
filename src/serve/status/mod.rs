//! The status of everything: the last inspections of sources and stores, combined into checks.
//!
//! `serve` inspects repeatedly and `report` inspects once; both get their checks from here.

pub(super) mod history;
pub(super) mod view;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::config::Backups;
use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::first_deploy::NOTHING_YET;
use crate::ops::inspect::{BriefInspection, allowed_losses, compared_message, counted, inspect_briefly};
use crate::ops::lost_manifests::{check_archives, is_settled};
use crate::ops::sources::Chosen;
use crate::ops::summary::Check;
use crate::ops::{Context, check, gate};
use crate::platform::disk::{folder_of, free_bytes};
use crate::platform::duration::format_duration;
use crate::platform::error::{Result, one_line};
use crate::platform::scratch::Scratch;
use crate::platform::text;
use crate::serve::page::Status;
use crate::serve::status::history::{SourceContents, StoreContents, Summary, is_good};
use crate::snapshots::id::SourceName;
use crate::snapshots::list::Described;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// The result of an inspection of a source.
pub(super) struct SourceInspection {
    pub(super) brief: BriefInspection,
    /// The free bytes in the folder of a database file.
    pub(super) free_bytes: Option<u64>,
    /// True, with the amount, if that is enough; false, with the reason, if it is not or cannot be determined.
    space_check: Option<(bool, String)>,
}

/// The last inspection of something.
pub(super) struct Reading<T> {
    /// Its result; `None` before the first inspection has ended.
    pub(super) last: Option<Arc<T>>,
    /// The time at which it ended.
    pub(super) at: Option<DateTime<Utc>>,
    /// The time that it took, in seconds.
    pub(super) seconds: f64,
    /// The time that the current inspection has taken so far, if that is too long.
    pub(super) late: Option<Duration>,
}

/// The status of all sources and stores.
pub(super) struct OverallStatus {
    pub(super) at: DateTime<Utc>,
    pub(super) sources: Vec<SourceStatus>,
    pub(super) stores: Vec<StoreStatus>,
}

/// The status of a source.
pub(super) struct SourceStatus {
    pub(super) name: SourceName,
    /// Its location, without secrets.
    pub(super) location: String,
    pub(super) status: Status,
    pub(super) reading: Reading<SourceInspection>,
    /// The results of all checks.
    pub(super) checks: Vec<Check>,
    /// The tables that rules are about, with their rows.
    pub(super) tables: Vec<(String, u64)>,
    /// The snapshots in all stores, newest first.
    pub(super) snapshots: Vec<Arc<Described>>,
    /// The newest good one.
    pub(super) newest: Option<Arc<Described>>,
    /// The number of snapshots that are still to be read.
    pub(super) unread: usize,
    pub(super) summary: Summary,
}

/// The status of a store.
pub(super) struct StoreStatus {
    pub(super) location: String,
    pub(super) status: Status,
    pub(super) message: String,
    pub(super) contents: Option<Arc<StoreContents>>,
}

/// Returns the bytes that must be free in the folder of a database: `min_free` of the config, or 1.
pub(super) fn min_free_bytes(context: &Context) -> Result<u64> {
    Ok(match &context.config {
        Some(config) => config.preflight()?.min_free.unwrap_or(1),
        None => 1,
    })
}

/// Inspects a source. Only a signal is returned as an error; other errors are part of the result.
pub(super) fn inspect_source(
    chosen: &Chosen,
    before: Option<&Manifest>,
    min_free_bytes: u64,
    scratch: &Scratch,
) -> Result<SourceInspection> {
    let free_bytes = chosen.source.file().and_then(|path| free_bytes(folder_of(path)).ok());
    let space_check = gate::free_beside(&chosen.source, min_free_bytes).map(|found| match found {
        Ok(message) => (true, message),
        Err(error) => (false, error.full_message()),
    });
    Ok(SourceInspection { brief: inspect_briefly(chosen, before, scratch)?, free_bytes, space_check })
}

impl SourceInspection {
    /// Returns the result of an inspection that did not complete.
    pub(super) fn failed(reason: String) -> SourceInspection {
        let brief = BriefInspection { error: Some(reason), ..BriefInspection::default() };
        SourceInspection { brief, free_bytes: None, space_check: None }
    }
}

/// Combines the inspections into the status of everything.
pub(super) fn assemble(
    sources: Vec<(&Chosen, Reading<SourceInspection>)>,
    stores: Vec<(String, Reading<StoreContents>)>,
    context: &Context,
) -> Result<OverallStatus> {
    let default = Backups::default();
    let backups = match &context.config {
        Some(config) => config.backups()?,
        None => &default,
    };
    let stores = stores.into_iter().map(|(location, reading)| store_status(location, reading));
    let stores: Vec<StoreStatus> = stores.collect();
    let sources = sources.into_iter().map(|(chosen, reading)| source_status(chosen, reading, &stores, backups));
    Ok(OverallStatus { at: Utc::now(), sources: sources.collect::<Result<_>>()?, stores })
}

impl OverallStatus {
    pub(super) fn status(&self) -> Status {
        let sources = self.sources.iter().map(|source| source.status);
        Status::of_all(sources.chain(self.stores.iter().map(|store| store.status)))
    }

    /// Returns the results of all checks, as commands report them.
    pub(super) fn checks(&self) -> ChecksReport {
        let mut checks = Checks::default();
        for source in &self.sources {
            source.checks.iter().for_each(|check| checks.add(check.name.clone(), check.ok, check.message.clone()));
        }
        for store in &self.stores {
            checks.add(format!("store {}", store.location), store.status == Status::Good, store.message.clone());
        }
        checks.into_report()
    }
}

fn too_long(late: Duration) -> String {
    let late = chrono::Duration::seconds(i64::try_from(late.as_secs()).unwrap_or(i64::MAX / 1000));
    format!("it does not answer: the current check has been running for {}", format_duration(late))
}

fn store_status(location: String, reading: Reading<StoreContents>) -> StoreStatus {
    let (status, message) = match (&reading.late, &reading.last) {
        (Some(late), _) => (Status::Bad, too_long(*late)),
        (None, None) => (Status::Unknown, "it was not checked yet".to_owned()),
        (None, Some(contents)) => match &contents.error {
            Some(error) => (Status::Bad, error.clone()),
            None => {
                let count: usize = contents.sources.values().map(|source| source.snapshots.len() + source.unread).sum();
                let free = contents.free_bytes.map(|free| format!(", {} free", text::bytes(free))).unwrap_or_default();
                (Status::Good, format!("{count} snapshots{free}"))
            }
        },
    };
    StoreStatus { location, status, message, contents: reading.last }
}

fn source_status(
    chosen: &Chosen,
    reading: Reading<SourceInspection>,
    stores: &[StoreStatus],
    backups: &Backups,
) -> Result<SourceStatus> {
    let name = chosen.name()?;
    let mut checks = Checks::default();
    let mut tables = Vec::new();
    match (&reading.late, &reading.last) {
        (Some(late), _) => checks.add(format!("{name}: database"), false, too_long(*late)),
        (None, None) => {}
        (None, Some(inspection)) => {
            match inspection.brief.absence.as_ref().filter(|_| hold_nothing_of(stores, &name)) {
                Some(absence) => {
                    checks.add(format!("{name}: database"), true, format!("{NOTHING_YET} ({absence})"));
                }
                None => judge_inspection(&name, inspection, &mut checks),
            }
            let rules = chosen.rules();
            let has_rule = |table: &str| {
                rules
                    .iter()
                    .filter_map(|rule| rule.table.as_deref())
                    .any(|of| of == table || table.strip_prefix("public.") == Some(of))
            };
            let rows = inspection.brief.tables.tables.iter().filter(|(table, _)| has_rule(table));
            tables.extend(rows.map(|(table, rows)| (table.clone(), *rows)));
        }
    }
    let mut merged: Vec<Arc<Described>> = Vec::new();
    let (mut unread, mut summary) = (0, Summary::default());
    let mut is_unknown = reading.last.is_none();
    for store in stores {
        let Some(of_source) = store.contents.as_ref().and_then(|contents| contents.sources.get(&name)) else {
            // A store that cannot be reached is reported on its own.
            is_unknown |= store.status == Status::Unknown;
            continue;
        };
        let full = of_source.snapshots.iter().map(Arc::as_ref).filter(|described| check::may_be_full(described));
        let full: Vec<&Described> = full.take(32).collect();
        // There may be a full snapshot among those that are still to be read.
        if !full.is_empty() || of_source.unread == 0 {
            check::check_backups(&store.location, &name, &full, backups, &mut checks);
            let newest = full.first().map(|newest| &newest.listed.id);
            let is_local = store.contents.as_ref().is_some_and(|contents| contents.is_local);
            let is_settled = |archive: &ArchiveWithoutManifest| is_settled(archive, is_local);
            check_archives(&store.location, &name, &of_source.without_manifest, newest, is_settled, &mut checks);
        }
        unread = unread.max(of_source.unread);
        if let Some(reason) = &of_source.summary.baseline_error {
            let message = format!("the newest good snapshot cannot be read: {reason}");
            checks.add(format!("{name}: compared"), false, message);
        }
        if summary.baseline.is_none() {
            summary = of_source.summary.clone();
        }
        merged.extend(of_source.snapshots.iter().cloned());
    }
    // If a snapshot has two copies, the good one is shown.
    merged.sort_by(|one, other| {
        let order = other.listed.id.stamp().cmp(one.listed.id.stamp());
        order.then_with(|| is_good(other).cmp(&is_good(one)))
    });
    let mut known = HashSet::new();
    merged.retain(|described| known.insert(described.listed.id.clone()));
    let newest = merged.iter().find(|described| is_good(described)).cloned();
    let report = checks.into_report();
    let status = match (report.ok, is_unknown) {
        (false, _) => Status::Bad,
        (true, true) => Status::Unknown,
        (true, false) => Status::Good,
    };
    Ok(SourceStatus {
        name,
        location: one_line(&chosen.source.shown()),
        status,
        reading,
        checks: report.checks,
        tables,
        snapshots: merged,
        newest,
        unread,
        summary,
    })
}

/// Returns true if all stores could be read, and none has a snapshot of the source.
fn hold_nothing_of(stores: &[StoreStatus], name: &SourceName) -> bool {
    stores.iter().all(|store| {
        let contents = store.contents.as_ref().filter(|_| store.status == Status::Good);
        let is_empty = |source: &SourceContents| source.snapshots.is_empty() && source.unread == 0;
        contents.is_some_and(|contents| contents.sources.get(name).is_none_or(is_empty))
    })
}

fn judge_inspection(name: &SourceName, inspection: &SourceInspection, checks: &mut Checks) {
    let brief = &inspection.brief;
    match &brief.error {
        Some(error) => checks.add(format!("{name}: database"), false, error.clone()),
        None => checks.add(format!("{name}: database"), true, "it answers"),
    }
    for verdict in &brief.rules {
        checks.add(format!("{name}: {}", verdict.name), verdict.ok, verdict.message());
    }
    for verdict in brief.comparison.iter().filter(|verdict| !verdict.ok) {
        checks.add(format!("{name}: {}", verdict.name), false, verdict.message());
    }
    let counted = counted(&brief.tables);
    let is_empty = brief.tables.number_of_tables() == 0;
    match &brief.compared_with {
        _ if brief.error.is_some() => {}
        Some(id) if brief.only_totals => {
            let message = format!(
                "{counted}; {id} is encrypted and no available key decrypts it, so only the total number of rows was \
                 compared"
            );
            checks.add(format!("{name}: rows"), true, message);
        }
        Some(id) if brief.comparison.iter().all(|verdict| verdict.ok) => {
            let message = compared_message(&counted, id, &allowed_losses(&brief.comparison));
            checks.add(format!("{name}: rows"), true, message);
        }
        Some(_) => {}
        None => checks.add(
            format!("{name}: rows"),
            !is_empty,
            match is_empty {
                true => "it has no tables".to_owned(),
                false => counted,
            },
        ),
    }
    if let Some((ok, message)) = &inspection.space_check {
        checks.add(format!("{name}: free space"), *ok, message.clone());
    }
}
