//! The status of everything: the last inspections of sources and stores, combined and judged.
//!
//! `serve` inspects repeatedly and `report` inspects once; the results are judged here, for both.

pub(super) mod history;
pub(super) mod view;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::config::Backups;
use crate::ops::checks::{Check, Checks, ChecksReport};
use crate::ops::look::{Glance, glance};
use crate::ops::sources::Chosen;
use crate::ops::{Context, check, gate};
use crate::platform::disk::{folder_of, free_bytes};
use crate::platform::duration::format_duration;
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::serve::page::Status;
use crate::serve::status::history::{StoreSeen, Summary, is_good};
use crate::snapshots::catalog::Described;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Manifest;

/// The result of an inspection of a source.
pub(super) struct SourceLook {
    pub(super) glance: Glance,
    /// The free bytes in the folder of a database file.
    pub(super) free_bytes: Option<u64>,
    /// True, with the amount, if that is enough; false, with the reason, if it is not or cannot be determined.
    room: Option<(bool, String)>,
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
pub(super) struct Standing {
    pub(super) at: DateTime<Utc>,
    pub(super) sources: Vec<SourceStanding>,
    pub(super) stores: Vec<StoreStanding>,
}

/// The status of a source.
pub(super) struct SourceStanding {
    pub(super) name: SourceName,
    /// Its location, without secrets.
    pub(super) place: String,
    pub(super) status: Status,
    pub(super) reading: Reading<SourceLook>,
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
pub(super) struct StoreStanding {
    pub(super) location: String,
    pub(super) status: Status,
    pub(super) message: String,
    pub(super) seen: Option<Arc<StoreSeen>>,
}

/// Returns the bytes that must be free in the folder of a database: `min_free` of the config, or 1.
pub(super) fn least_free(context: &Context) -> Result<u64> {
    Ok(match &context.config {
        Some(config) => config.preflight()?.min_free.unwrap_or(1),
        None => 1,
    })
}

/// Inspects a source. Only a signal is returned as an error; other errors are part of the result.
pub(super) fn look_at(chosen: &Chosen, before: Option<&Manifest>, least_free: u64) -> Result<SourceLook> {
    let free_bytes = chosen.source.file().and_then(|path| free_bytes(folder_of(path)).ok());
    let room = gate::free_beside(&chosen.source, least_free).map(|found| match found {
        Ok(message) => (true, message),
        Err(error) => (false, error.whole()),
    });
    Ok(SourceLook { glance: glance(chosen, before)?, free_bytes, room })
}

impl SourceLook {
    /// Returns the result of an inspection that did not complete.
    pub(super) fn failed(why: String) -> SourceLook {
        SourceLook { glance: Glance { error: Some(why), ..Glance::default() }, free_bytes: None, room: None }
    }
}

/// Combines the inspections into the status of everything.
pub(super) fn assemble(
    sources: Vec<(&Chosen, Reading<SourceLook>)>,
    stores: Vec<(String, Reading<StoreSeen>)>,
    context: &Context,
) -> Result<Standing> {
    let default = Backups::default();
    let backups = match &context.config {
        Some(config) => config.backups()?,
        None => &default,
    };
    let stores: Vec<StoreStanding> = stores.into_iter().map(|(location, reading)| stand(location, reading)).collect();
    let sources = sources.into_iter().map(|(chosen, reading)| source(chosen, reading, &stores, backups));
    Ok(Standing { at: Utc::now(), sources: sources.collect::<Result<_>>()?, stores })
}

impl Standing {
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
    format!("it does not answer: the look at it has been going on for {}", format_duration(late))
}

fn stand(location: String, reading: Reading<StoreSeen>) -> StoreStanding {
    let (status, message) = match (&reading.late, &reading.last) {
        (Some(late), _) => (Status::Bad, too_long(*late)),
        (None, None) => (Status::Unknown, "it was not looked at yet".to_owned()),
        (None, Some(seen)) => match &seen.error {
            Some(error) => (Status::Bad, error.clone()),
            None => {
                let count: usize = seen.sources.values().map(|source| source.snapshots.len() + source.unread).sum();
                let free = seen.free_bytes.map(|free| format!(", {} free", text::bytes(free))).unwrap_or_default();
                (Status::Good, format!("{count} snapshots{free}"))
            }
        },
    };
    StoreStanding { location, status, message, seen: reading.last }
}

fn source(
    chosen: &Chosen,
    reading: Reading<SourceLook>,
    stores: &[StoreStanding],
    backups: &Backups,
) -> Result<SourceStanding> {
    let name = chosen.name()?;
    let mut checks = Checks::default();
    let mut tables = Vec::new();
    match (&reading.late, &reading.last) {
        (Some(late), _) => checks.add(format!("{name}: database"), false, too_long(*late)),
        (None, None) => {}
        (None, Some(look)) => {
            judge_look(&name, look, &mut checks);
            let ruled = |table: &str| {
                let names = chosen.rules().iter().filter_map(|rule| rule.table.as_deref());
                names.into_iter().any(|of| of == table || table.strip_prefix("public.") == Some(of))
            };
            let rows = look.glance.tables.iter().filter(|(table, _)| ruled(table));
            tables.extend(rows.map(|(table, rows)| (table.clone(), *rows)));
        }
    }
    let mut merged: Vec<Arc<Described>> = Vec::new();
    let (mut unread, mut summary) = (0, Summary::default());
    let mut is_unknown = reading.last.is_none();
    for store in stores {
        let Some(seen) = store.seen.as_ref().and_then(|seen| Some((seen, seen.sources.get(&name)?))) else {
            // A store that cannot be reached is reported on its own.
            is_unknown |= store.status == Status::Unknown;
            continue;
        };
        let (_, of_source) = seen;
        let full = of_source.snapshots.iter().map(Arc::as_ref).filter(|described| check::may_be_full(described));
        let full: Vec<&Described> = full.take(32).collect();
        // There may be a full snapshot among those that are still to be read.
        if !full.is_empty() || of_source.unread == 0 {
            check::judge(&store.location, &name, &full, backups, &mut checks);
        }
        unread = unread.max(of_source.unread);
        if let Some(why) = &of_source.summary.unmeasured {
            checks.add(format!("{name}: compared"), false, format!("the newest good snapshot cannot be read: {why}"));
        }
        if summary.measure.is_none() {
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
    Ok(SourceStanding {
        name,
        place: one_line(&chosen.source.shown()),
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

fn judge_look(name: &SourceName, look: &SourceLook, checks: &mut Checks) {
    let glance = &look.glance;
    match &glance.error {
        Some(error) => checks.add(format!("{name}: database"), false, error.clone()),
        None => checks.add(format!("{name}: database"), true, "it answers"),
    }
    for verdict in &glance.rules {
        checks.add(format!("{name}: {}", verdict.name), verdict.ok, verdict.message());
    }
    for verdict in glance.since.iter().filter(|verdict| !verdict.ok) {
        checks.add(format!("{name}: {}", verdict.name), false, verdict.message());
    }
    let rows: u64 = glance.tables.values().sum();
    let counted = format!("{} tables, {rows} rows", glance.tables.len());
    match &glance.compared_with {
        _ if glance.error.is_some() => {}
        Some(id) if glance.only_sums => {
            let message = format!(
                "{counted}; {id} is encrypted, and no key here opens it: only the sum of all rows was compared"
            );
            checks.add(format!("{name}: rows"), true, message);
        }
        Some(id) if glance.since.iter().all(|verdict| verdict.ok) => {
            checks.add(format!("{name}: rows"), true, format!("{counted}; nothing lost since {id}"));
        }
        Some(_) => {}
        None => checks.add(
            format!("{name}: rows"),
            !glance.tables.is_empty(),
            match glance.tables.is_empty() {
                true => "it has no tables".to_owned(),
                false => counted,
            },
        ),
    }
    if let Some((ok, message)) = &look.room {
        checks.add(format!("{name}: free space"), *ok, message.clone());
    }
}
