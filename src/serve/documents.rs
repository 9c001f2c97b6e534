//! The answers for programs: the status of everything, as JSON and as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::engine::rules::Verdict;
use crate::notify::metrics::{Family, exposition};
use crate::ops::list::listed_document;
use crate::serve::page::Status;
use crate::serve::status::{OverallStatus, SourceStatus};
use crate::snapshots::list::Described;

fn word(status: Status) -> &'static str {
    // `Unknown` counts as unhealthy: before the first inspection nothing is known to be healthy.
    if status == Status::Good { "healthy" } else { "unhealthy" }
}

/// Returns the health of the data.
pub(super) fn health(status: &OverallStatus) -> Value {
    let sources: Vec<Value> = status.sources.iter().map(|source| source_health(source, status)).collect();
    let stores = status.stores.iter().map(|store| {
        json!({
            "location": store.location,
            "status": word(store.status),
            "free_bytes": store.contents.as_ref().and_then(|contents| contents.free_bytes),
            "message": store.message,
        })
    });
    json!({
        "status": word(status.status()),
        "at": status.at,
        "sources": sources,
        "stores": stores.collect::<Vec<_>>(),
    })
}

fn source_health(source: &SourceStatus, status: &OverallStatus) -> Value {
    let inspection = source.reading.last.as_ref();
    let rule = |verdict: &Verdict| {
        json!({
            "name": verdict.name,
            "ok": verdict.ok,
            "expected": verdict.expected,
            "observed": verdict.observed,
        })
    };
    let rules: Vec<Value> = match inspection {
        Some(inspection) => inspection.brief.rules.iter().chain(&inspection.brief.comparison).map(rule).collect(),
        None => Vec::new(),
    };
    let problems: Vec<String> = match inspection {
        None if source.reading.late.is_none() => vec!["it was not checked yet".to_owned()],
        _ => {
            let failed = source.checks.iter().filter(|check| !check.ok);
            failed.map(|check| format!("{}: {}", check.name, check.message)).collect()
        }
    };
    let tables: Vec<Value> = source.tables.iter().map(|(name, rows)| json!({"name": name, "rows": rows})).collect();
    json!({
        "name": source.name,
        "status": word(source.status),
        "reachable": is_reachable(source),
        "checked_at": source.reading.at,
        "free_bytes": inspection.and_then(|inspection| inspection.free_bytes),
        "rules": rules,
        "tables": tables,
        "newest_snapshot": source.newest.as_deref().map(|newest| newest_snapshot(newest, status)),
        "problems": problems,
    })
}

fn is_reachable(source: &SourceStatus) -> bool {
    let reading = &source.reading;
    reading.late.is_none() && reading.last.as_ref().is_some_and(|inspection| inspection.brief.error.is_none())
}

fn newest_snapshot(newest: &Described, status: &OverallStatus) -> Value {
    let manifest = newest.manifest.as_ref().ok();
    json!({
        "id": newest.listed.id,
        "created_at": manifest.map(|manifest| manifest.created_at),
        "age_seconds": (status.at - newest.listed.id.time()).num_seconds().max(0),
        "archive_bytes": manifest.and_then(|manifest| manifest.archive_bytes),
        "rows": manifest.map(|manifest| manifest.rows),
        "proof": newest.proof.level.name(),
        "proof_at": newest.proof.at,
        "restore_seconds": newest.proof.restore_seconds,
    })
}

/// Returns snapshots in the form that `list` prints, newest first.
pub(super) fn snapshots(status: &OverallStatus, source: Option<&str>, limit: usize) -> Value {
    let sources = status.sources.iter().filter(|one| source.is_none_or(|name| one.name.as_str() == name));
    let mut snapshots: Vec<&Described> =
        sources.flat_map(|source| source.snapshots.iter().take(limit).map(|described| &**described)).collect();
    snapshots.sort_by(|one, other| other.listed.id.stamp().cmp(one.listed.id.stamp()));
    let shown: Vec<Map<String, Value>> = snapshots.into_iter().take(limit).map(listed_document).collect();
    json!({"snapshots": shown})
}

/// Returns the status of everything as metrics.
pub(super) fn metrics(status: &OverallStatus, is_running: bool, up: Duration) -> String {
    let flag = u8::from;
    let one = |name, help, value: String| {
        let mut family = Family::new(name, help);
        family.add(&[], value);
        family
    };
    let mut build = Family::new("lifeboat_build_info", "The version of the running lifeboat; the value is always 1.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut families = vec![
        build,
        one("lifeboat_up_seconds", "The seconds since the server started.", format!("{:.0}", up.as_secs_f64())),
        one(
            "lifeboat_healthy",
            "1 if all sources and stores are healthy, else 0.",
            flag(status.status() == Status::Good).to_string(),
        ),
        one(
            "lifeboat_snapshot_running",
            "1 while a snapshot is being taken for a request, else 0.",
            flag(is_running).to_string(),
        ),
    ];
    families.extend(of_sources(status));
    families.extend(of_rules_tables_and_proofs(status));
    families.extend(of_stores(status));
    exposition(&families)
}

/// Returns the metrics that have one value for each source.
fn of_sources(status: &OverallStatus) -> Vec<Family> {
    let flag = u8::from;
    // Returns the value of a metric for a source, or `None` if there is no value.
    type Of<'a> = &'a dyn Fn(&SourceStatus) -> Option<String>;
    let of_newest =
        |source: &SourceStatus, value: &dyn Fn(&Described) -> Option<String>| source.newest.as_deref().and_then(value);
    let manifest = |described: &Described, value: &dyn Fn(&crate::snapshots::manifest::Manifest) -> String| {
        described.manifest.as_ref().ok().map(value)
    };
    let by_source: [(&'static str, &'static str, Of<'_>); 12] = [
        ("lifeboat_source_healthy", "1 if the source is healthy, else 0.", &|source| {
            Some(flag(source.status == Status::Good).to_string())
        }),
        ("lifeboat_source_reachable", "1 if the database answers, else 0.", &|source| {
            Some(flag(is_reachable(source)).to_string())
        }),
        ("lifeboat_source_checked_timestamp_seconds", "The time of the last check of the source.", &|source| {
            source.reading.at.map(|at| at.timestamp().to_string())
        }),
        ("lifeboat_source_check_duration_seconds", "The duration of the last check of the source.", &|source| {
            source.reading.at.map(|_| format!("{:.3}", source.reading.seconds))
        }),
        ("lifeboat_source_free_bytes", "The free bytes in the folder of the database file.", &|source| {
            Some(source.reading.last.as_ref()?.free_bytes?.to_string())
        }),
        ("lifeboat_snapshots", "The number of snapshots of the source.", &|source| {
            Some((source.snapshots.len() + source.unread).to_string())
        }),
        (
            "lifeboat_snapshot_created_timestamp_seconds",
            "The time of the data in the newest good snapshot.",
            &|source| {
                of_newest(source, &|newest| manifest(newest, &|manifest| manifest.created_at.timestamp().to_string()))
            },
        ),
        ("lifeboat_snapshot_archive_bytes", "The size of the newest good snapshot's archive.", &|source| {
            of_newest(source, &|newest| manifest(newest, &|one| one.archive_bytes.unwrap_or(0).to_string()))
        }),
        ("lifeboat_snapshot_raw_bytes", "The size of the newest good snapshot before compression.", &|source| {
            of_newest(source, &|newest| manifest(newest, &|manifest| manifest.raw_bytes.to_string()))
        }),
        ("lifeboat_snapshot_rows", "The number of rows in the newest good snapshot.", &|source| {
            of_newest(source, &|newest| manifest(newest, &|manifest| manifest.rows.to_string()))
        }),
        ("lifeboat_snapshot_duration_seconds", "The time that the newest good snapshot took.", &|source| {
            of_newest(source, &|newest| manifest(newest, &|manifest| format!("{:.3}", manifest.seconds)))
        }),
        (
            "lifeboat_restore_duration_seconds",
            "The duration of a restore, as measured by the newest drill.",
            &|source| {
                let measured = source.snapshots.iter().find_map(|described| described.proof.restore_seconds);
                measured.map(|seconds| format!("{seconds:.3}"))
            },
        ),
    ];
    let family = |(name, help, value): (&'static str, &'static str, Of<'_>)| {
        let mut family = Family::new(name, help);
        for source in &status.sources {
            if let Some(value) = value(source) {
                family.add(&[("source", source.name.as_str())], value);
            }
        }
        family
    };
    by_source.into_iter().map(family).collect()
}

/// Returns the metrics that can have several values for each source.
fn of_rules_tables_and_proofs(status: &OverallStatus) -> [Family; 3] {
    let mut rules = Family::new("lifeboat_rule_ok", "1 if a rule of the source passes, else 0.");
    let mut rows = Family::new("lifeboat_table_rows", "The number of rows in each table that a rule checks.");
    let mut proofs = Family::new(
        "lifeboat_proof_timestamp_seconds",
        "The time of the last proof of the newest good snapshot, by the level of the proof.",
    );
    for source in &status.sources {
        let name = source.name.as_str();
        if let Some(inspection) = &source.reading.last {
            // Two rules may have the same name, but two series may not: the value is 1 if all rules of that name hold.
            let mut named: BTreeMap<&str, bool> = BTreeMap::new();
            for verdict in inspection.brief.rules.iter().chain(&inspection.brief.comparison) {
                *named.entry(&verdict.name).or_insert(true) &= verdict.ok;
            }
            named.iter().for_each(|(rule, ok)| rules.add(&[("source", name), ("rule", rule)], u8::from(*ok)));
        }
        for (table, count) in &source.tables {
            rows.add(&[("source", name), ("table", table)], count);
        }
        if let Some(proof) = source.newest.as_deref().map(|newest| &newest.proof)
            && let Some(at) = proof.at
        {
            proofs.add(&[("source", name), ("level", proof.level.name())], at.timestamp());
        }
    }
    [rules, rows, proofs]
}

/// Returns the metrics of stores.
fn of_stores(status: &OverallStatus) -> [Family; 2] {
    let mut reachable = Family::new("lifeboat_store_reachable", "1 if the store answers, else 0.");
    let mut free = Family::new("lifeboat_store_free_bytes", "The free bytes in the store, if the store reports them.");
    for store in &status.stores {
        let labels = [("store", store.location.as_str())];
        reachable.add(&labels, u8::from(store.status == Status::Good));
        if let Some(bytes) = store.contents.as_ref().and_then(|contents| contents.free_bytes) {
            free.add(&labels, bytes);
        }
    }
    [reachable, free]
}
