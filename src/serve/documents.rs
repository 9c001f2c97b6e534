//! The answers for programs: the status of everything, as JSON and as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::engine::rules::Verdict;
use crate::notify::metrics::{Family, exposition};
use crate::ops::list::listed_document;
use crate::serve::page::Status;
use crate::serve::status::{SourceStanding, Standing};
use crate::snapshots::catalog::Described;

fn word(status: Status) -> &'static str {
    // `Unknown` counts as unhealthy: before the first inspection nothing is known to be healthy.
    if status == Status::Good { "healthy" } else { "unhealthy" }
}

/// Returns the health of the data.
pub(super) fn health(standing: &Standing) -> Value {
    let sources: Vec<Value> = standing.sources.iter().map(|source| source_health(source, standing)).collect();
    let stores = standing.stores.iter().map(|store| {
        json!({
            "location": store.location,
            "status": word(store.status),
            "free_bytes": store.seen.as_ref().and_then(|seen| seen.free_bytes),
            "message": store.message,
        })
    });
    json!({
        "status": word(standing.status()),
        "at": standing.at,
        "sources": sources,
        "stores": stores.collect::<Vec<_>>(),
    })
}

fn source_health(source: &SourceStanding, standing: &Standing) -> Value {
    let look = source.reading.last.as_ref();
    let rule = |verdict: &Verdict| json!({"name": verdict.name, "ok": verdict.ok, "expected": verdict.expected, "observed": verdict.observed});
    let rules: Vec<Value> = match look {
        Some(look) => look.glance.rules.iter().chain(&look.glance.since).map(rule).collect(),
        None => Vec::new(),
    };
    let problems: Vec<String> = match look {
        None if source.reading.late.is_none() => vec!["it was not looked at yet".to_owned()],
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
        "free_bytes": look.and_then(|look| look.free_bytes),
        "rules": rules,
        "tables": tables,
        "newest_snapshot": source.newest.as_deref().map(|newest| newest_snapshot(newest, standing)),
        "problems": problems,
    })
}

fn is_reachable(source: &SourceStanding) -> bool {
    source.reading.late.is_none() && source.reading.last.as_ref().is_some_and(|look| look.glance.error.is_none())
}

fn newest_snapshot(newest: &Described, standing: &Standing) -> Value {
    let manifest = newest.manifest.as_ref().ok();
    json!({
        "id": newest.listed.id,
        "created_at": manifest.map(|manifest| manifest.created_at),
        "age_seconds": (standing.at - newest.listed.id.time()).num_seconds().max(0),
        "archive_bytes": manifest.and_then(|manifest| manifest.archive_bytes),
        "rows": manifest.map(|manifest| manifest.rows),
        "proof": newest.proof.level.name(),
        "proof_at": newest.proof.at,
        "restore_seconds": newest.proof.restore_seconds,
    })
}

/// Returns snapshots in the form that `list` prints, newest first.
pub(super) fn snapshots(standing: &Standing, source: Option<&str>, limit: usize) -> Value {
    let sources = standing.sources.iter().filter(|one| source.is_none_or(|name| one.name.as_str() == name));
    let mut snapshots: Vec<&Described> =
        sources.flat_map(|source| source.snapshots.iter().take(limit).map(|described| &**described)).collect();
    snapshots.sort_by(|one, other| other.listed.id.stamp().cmp(one.listed.id.stamp()));
    let shown: Vec<Map<String, Value>> = snapshots.into_iter().take(limit).map(listed_document).collect();
    json!({"snapshots": shown})
}

/// Returns the status of everything as metrics.
pub(super) fn metrics(standing: &Standing, is_running: bool, up: Duration) -> String {
    let flag = u8::from;
    let one = |name, help, value: String| {
        let mut family = Family::new(name, help);
        family.add(&[], value);
        family
    };
    let mut build = Family::new("lifeboat_build_info", "The version that runs.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut families = vec![
        build,
        one("lifeboat_up_seconds", "How long it has been running.", format!("{:.0}", up.as_secs_f64())),
        one("lifeboat_healthy", "Whether all is well.", flag(standing.status() == Status::Good).to_string()),
        one(
            "lifeboat_snapshot_running",
            "Whether a snapshot is being taken for a request.",
            flag(is_running).to_string(),
        ),
    ];
    families.extend(of_sources(standing));
    families.extend(of_rules_tables_and_proofs(standing));
    families.extend(of_stores(standing));
    exposition(&families)
}

/// Returns the metrics that have one value for each source.
fn of_sources(standing: &Standing) -> Vec<Family> {
    let flag = u8::from;
    // Returns the value of a metric for a source, or `None` if there is no value.
    type Of<'a> = &'a dyn Fn(&SourceStanding) -> Option<String>;
    let of_newest = |source: &SourceStanding, value: &dyn Fn(&Described) -> Option<String>| {
        source.newest.as_deref().and_then(value)
    };
    let manifest = |described: &Described, value: &dyn Fn(&crate::snapshots::manifest::Manifest) -> String| {
        described.manifest.as_ref().ok().map(value)
    };
    let by_source: [(&'static str, &'static str, Of<'_>); 12] = [
        ("lifeboat_source_healthy", "Whether all is well with the source.", &|source| {
            Some(flag(source.status == Status::Good).to_string())
        }),
        ("lifeboat_source_reachable", "Whether the database answers.", &|source| {
            Some(flag(is_reachable(source)).to_string())
        }),
        ("lifeboat_source_checked_timestamp_seconds", "When the source was last looked at.", &|source| {
            source.reading.at.map(|at| at.timestamp().to_string())
        }),
        ("lifeboat_source_check_duration_seconds", "How long the last look at the source took.", &|source| {
            source.reading.at.map(|_| format!("{:.3}", source.reading.seconds))
        }),
        ("lifeboat_source_free_bytes", "What is free beside the database file.", &|source| {
            Some(source.reading.last.as_ref()?.free_bytes?.to_string())
        }),
        ("lifeboat_snapshots", "The snapshots of the source.", &|source| {
            Some((source.snapshots.len() + source.unread).to_string())
        }),
        (
            "lifeboat_snapshot_created_timestamp_seconds",
            "The instant that the newest good snapshot shows.",
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
        ("lifeboat_snapshot_rows", "The rows in the newest good snapshot.", &|source| {
            of_newest(source, &|newest| manifest(newest, &|manifest| manifest.rows.to_string()))
        }),
        ("lifeboat_snapshot_duration_seconds", "How long the newest good snapshot took.", &|source| {
            of_newest(source, &|newest| manifest(newest, &|manifest| format!("{:.3}", manifest.seconds)))
        }),
        (
            "lifeboat_restore_duration_seconds",
            "How long a restore takes, as the newest drill has measured it.",
            &|source| {
                let measured = source.snapshots.iter().find_map(|described| described.proof.restore_seconds);
                measured.map(|seconds| format!("{seconds:.3}"))
            },
        ),
    ];
    let family = |(name, help, value): (&'static str, &'static str, Of<'_>)| {
        let mut family = Family::new(name, help);
        for source in &standing.sources {
            if let Some(value) = value(source) {
                family.add(&[("source", source.name.as_str())], value);
            }
        }
        family
    };
    by_source.into_iter().map(family).collect()
}

/// Returns the metrics that can have several values for each source.
fn of_rules_tables_and_proofs(standing: &Standing) -> [Family; 3] {
    let mut rules = Family::new("lifeboat_rule_ok", "Whether a rule of the source holds.");
    let mut rows = Family::new("lifeboat_table_rows", "The rows of tables that rules are about.");
    let mut proofs = Family::new(
        "lifeboat_proof_timestamp_seconds",
        "When the newest good snapshot was proved, by the level of the proof.",
    );
    for source in &standing.sources {
        let name = source.name.as_str();
        if let Some(look) = &source.reading.last {
            // Two rules may have the same name, but two series may not: the value is 1 if all rules of that name hold.
            let mut named: BTreeMap<&str, bool> = BTreeMap::new();
            for verdict in look.glance.rules.iter().chain(&look.glance.since) {
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
fn of_stores(standing: &Standing) -> [Family; 2] {
    let mut reachable = Family::new("lifeboat_store_reachable", "Whether the store answers.");
    let mut free = Family::new("lifeboat_store_free_bytes", "What the store can still take, where it can tell.");
    for store in &standing.stores {
        let labels = [("store", store.location.as_str())];
        reachable.add(&labels, u8::from(store.status == Status::Good));
        if let Some(bytes) = store.seen.as_ref().and_then(|seen| seen.free_bytes) {
            free.add(&labels, bytes);
        }
    }
    [reachable, free]
}
