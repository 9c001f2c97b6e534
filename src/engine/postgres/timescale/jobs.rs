//! Policies and other jobs. They are restored last: a retention policy may delete old rows as soon as it exists.

use serde_json::{Map, Value};

use super::addresses::hypertable_at;
use super::{Dimension, Timescale, json};
use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::quote::{dollars, ident, literal, qualified};
use crate::engine::postgres::schema::reader::Reader;
use crate::platform::error::{Result, one_line};

/// The procedure that refreshes an aggregate.
const REFRESH: &str = "policy_refresh_continuous_aggregate";

/// The lowest id of a job that is not internal to the extension.
const FIRST_USER_JOB: u64 = 1000;

/// One job, as in the public view.
#[derive(Clone, Debug)]
pub(super) struct Job {
    id: u64,
    row: Map<String, Value>,
}

impl Job {
    /// Parses one row of `timescaledb_information.jobs`. Returns `None` if it has no id.
    pub(super) fn of(row: &Value) -> Option<Self> {
        let row = row.as_object()?.clone();
        Some(Job { id: row.get("job_id")?.as_u64()?, row })
    }

    fn text(&self, column: &str) -> Option<&str> {
        self.row.get(column).and_then(Value::as_str)
    }

    fn config(&self) -> Map<String, Value> {
        self.row.get("config").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// Returns the name of its procedure, for example `policy_retention`.
    fn procedure(&self) -> &str {
        self.text("proc_name").unwrap_or_default()
    }

    fn is_policy(&self) -> bool {
        self.text("proc_schema").is_some_and(|schema| schema.starts_with("_timescaledb_"))
    }

    /// Returns the first start if the job has a fixed schedule. Otherwise each start depends on the end of the run
    /// before.
    fn fixed_start(&self) -> Option<&str> {
        let is_fixed = self.row.get("fixed_schedule").and_then(Value::as_bool).unwrap_or(false);
        self.text("initial_start").filter(|_| is_fixed)
    }
}

/// The object of a policy: its name as statements write it, and its time dimension.
pub(super) struct Subject<'a> {
    pub(super) name: String,
    pub(super) time: Option<&'a Dimension>,
}

/// Reads the jobs of users.
pub(super) fn read(reader: &mut Reader<'_>, timescale: &Timescale) -> Result<()> {
    let rows =
        reader.rows("SELECT pg_catalog.to_jsonb(j) AS job FROM timescaledb_information.jobs j ORDER BY j.job_id")?;
    let zones = zones(reader)?;
    let jobs = rows.iter().map(|row| Ok(Job::of(&json(row, "job")?))).collect::<Result<Vec<_>>>()?;
    let mut jobs: Vec<Job> = jobs.into_iter().flatten().filter(|job| job.id >= FIRST_USER_JOB).collect();
    // The refresh policy of an aggregate must exist before its other policies.
    jobs.sort_by_key(|job| (job.procedure() != REFRESH, job.id));
    for job in jobs {
        let on = (job.text("hypertable_schema").unwrap_or_default(), job.text("hypertable_name").unwrap_or_default());
        let table = timescale.hypertables.iter().find(|(_, table)| (&*table.schema, &*table.name) == on);
        // Some versions name the aggregate, others the hypertable of its rows.
        let aggregate = timescale.aggregates.iter().find(|(_, found)| {
            (&*found.schema, &*found.name) == on || (&*found.store.schema, &*found.store.name) == on
        });
        let (oid, subject) = match (table, aggregate) {
            (Some((oid, table)), _) => (Some(*oid), Some(Subject { name: table.qualified(), time: table.time() })),
            (_, Some((oid, aggregate))) => {
                (Some(*oid), Some(Subject { name: aggregate.qualified(), time: aggregate.store.time() }))
            }
            _ => (None, None),
        };
        let zone = zones.iter().find(|(id, _)| *id == job.id).map(|(_, zone)| zone.as_str());
        let shown = one_line(&format!("{} {}", job.procedure(), subject.as_ref().map_or("", |on| &on.name)));
        let Some(sql) = statement(&job, subject.as_ref(), zone, &timescale.schema) else {
            reader.refused.push(format!("job {} ({}): lifeboat does not know how to create it", job.id, shown.trim()));
            continue;
        };
        let address = Address { catalog: 0, oid: u32::try_from(job.id).unwrap_or(u32::MAX), column: 17 };
        let schema = if job.is_policy() { None } else { job.text("proc_schema") };
        let mut object = Object::new(address, Kind::Job, schema, shown.trim()).at(Section::Last);
        object.create = vec![sql];
        object.owner = job.text("owner").map(str::to_owned);
        if let Some(oid) = oid {
            let table = Address::new(catalogs::CLASS, oid);
            object.table = Some(table);
            object.needs = vec![table, hypertable_at(oid)];
            let before = |made: &&Object| made.table == Some(table) && made.section != Section::Pre;
            let is_refresh = |made: &Object| made.name.starts_with(REFRESH) && job.procedure() != REFRESH;
            let before = reader.objects.iter().filter(before);
            let before = before.filter(|made| made.kind != Kind::Job || is_refresh(made));
            object.needs.extend(before.map(|made| made.address));
        }
        if !job.is_policy() {
            procedures(reader, &job, &mut object)?;
            let owner = job.text("owner").unwrap_or_default();
            let user = reader.session.about().user.clone();
            if owner != user {
                reader.notes.push(format!(
                    "job {}: it runs as {} in the source; the restored job runs as the role that restores it",
                    shown.trim(),
                    one_line(owner)
                ));
            }
        }
        reader.add(object);
    }
    Ok(())
}

/// Records the procedures that a user-defined job calls.
fn procedures(reader: &mut Reader<'_>, job: &Job, object: &mut Object) -> Result<()> {
    for (schema, name) in [("proc_schema", "proc_name"), ("check_schema", "check_name")] {
        let (Some(schema), Some(name)) = (job.text(schema), job.text(name)) else { continue };
        let rows = reader.rows(&format!(
            "SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = {} AND p.proname = {}",
            literal(schema),
            literal(name)
        ))?;
        for row in &rows {
            object.needs.push(Address::new(catalogs::PROC, row.number("oid")?));
        }
    }
    Ok(())
}

/// Reads the time zones of jobs by their ids. The public view does not have them.
fn zones(reader: &mut Reader<'_>) -> Result<Vec<(u64, String)>> {
    let tables = reader.rows(
        "SELECT a.attrelid::pg_catalog.regclass::text AS jobs FROM pg_catalog.pg_attribute a
          WHERE a.attname = 'timezone' AND a.attrelid IN (
                pg_catalog.to_regclass('_timescaledb_config.bgw_job'), pg_catalog.to_regclass('_timescaledb_catalog.bgw_job'))
            AND pg_catalog.has_table_privilege(a.attrelid, 'SELECT')
            AND (SELECT c.relkind = 'r' FROM pg_catalog.pg_class c WHERE c.oid = a.attrelid)",
    )?;
    let Some(row) = tables.first() else { return Ok(Vec::new()) };
    let jobs = row.text("jobs")?.to_owned();
    let rows = reader.rows(&format!("SELECT id, timezone AS zone FROM {jobs} WHERE timezone IS NOT NULL"))?;
    rows.iter().map(|row| Ok((row.number("id")?, row.text("zone")?.to_owned()))).collect()
}

/// A call of the function that creates a job.
struct Call {
    function: &'static str,
    /// The keys of the job's config that the arguments set.
    config_keys: &'static [&'static str],
    arguments: Vec<String>,
}

fn interval(text: &str) -> String {
    format!("INTERVAL {}", literal(text))
}

/// Returns the call for one of TimescaleDB's policies, or `None` if the policy is not known.
fn policy(job: &Job, on: &Subject<'_>) -> Option<Call> {
    let config = job.config();
    let mut arguments: Vec<String> = Vec::new();
    arguments.push(format!("{}::pg_catalog.regclass", literal(&on.name)));
    let offset = |value: Option<&Value>| match value {
        Some(Value::String(text)) => Some(interval(text)),
        Some(Value::Number(number)) => {
            let kind = on.time.map_or("bigint", |time| time.type_name.as_str());
            Some(format!("{}::{kind}", literal(&number.to_string())))
        }
        None | Some(Value::Null) => Some("NULL".to_owned()),
        _ => None,
    };
    let (function, config_keys): (&'static str, &'static [&'static str]) = match job.procedure() {
        "policy_retention" => {
            let key = if config.contains_key("drop_created_before") { "drop_created_before" } else { "drop_after" };
            arguments.push(format!("{key} => {}", offset(config.get(key))?));
            ("add_retention_policy", &["drop_after", "drop_created_before"])
        }
        "policy_compression" => {
            let by_creation = "compress_created_before";
            let key = if config.contains_key(by_creation) { by_creation } else { "compress_after" };
            arguments.push(format!("{key} => {}", offset(config.get(key))?));
            ("add_compression_policy", &["compress_after", "compress_created_before"])
        }
        "policy_reorder" => {
            arguments.push(literal(config.get("index_name")?.as_str()?));
            ("add_reorder_policy", &["index_name"])
        }
        REFRESH => {
            for key in ["start_offset", "end_offset"] {
                arguments.push(format!("{key} => {}", offset(config.get(key))?));
            }
            arguments.push(format!("schedule_interval => {}", interval(job.text("schedule_interval")?)));
            ("add_continuous_aggregate_policy", &["start_offset", "end_offset"])
        }
        _ => return None,
    };
    Some(Call { function, config_keys, arguments })
}

/// Returns the call for a user-defined procedure.
fn action(job: &Job) -> Option<Call> {
    let mut arguments: Vec<String> = Vec::new();
    arguments.push(literal(&qualified(job.text("proc_schema")?, job.procedure())));
    arguments.push(interval(job.text("schedule_interval")?));
    if let Some(config) = job.row.get("config").filter(|config| !config.is_null()) {
        arguments.push(format!("config => {}::pg_catalog.jsonb", literal(&config.to_string())));
    }
    if let (Some(schema), Some(name)) = (job.text("check_schema"), job.text("check_name")) {
        arguments.push(format!("check_config => {}::pg_catalog.regproc", literal(&qualified(schema, name))));
    }
    arguments.push(format!("fixed_schedule => {}", job.fixed_start().is_some()));
    Some(Call { function: "add_job", config_keys: &[], arguments })
}

/// Returns the statement that creates a job with its settings, paused if it was paused. Returns `None` if the job
/// cannot be created again.
///
/// It is one block and so one transaction: a paused job is never visible in another state.
pub(super) fn statement(job: &Job, on: Option<&Subject<'_>>, zone: Option<&str>, schema: &str) -> Option<String> {
    let functions = ident(schema);
    let config = job.config();
    let Call { function, config_keys, mut arguments } = if job.is_policy() { policy(job, on?)? } else { action(job)? };
    if let Some(start) = job.fixed_start() {
        arguments.push(format!("initial_start => {}::pg_catalog.timestamptz", literal(start)));
        if let Some(zone) = zone {
            arguments.push(format!("timezone => {}", literal(zone)));
        }
    }
    let mut changes = Vec::new();
    for column in ["schedule_interval", "max_runtime", "retry_period"] {
        if let Some(value) = job.text(column) {
            changes.push(format!("{column} => {}", interval(value)));
        }
    }
    if let Some(retries) = job.row.get("max_retries").and_then(Value::as_i64) {
        changes.push(format!("max_retries => {retries}"));
    }
    if let Some(scheduled) = job.row.get("scheduled").and_then(Value::as_bool) {
        changes.push(format!("scheduled => {scheduled}"));
    }
    // The config also contains ids of hypertables, which differ on this server.
    let is_other = |key: &str| !config_keys.contains(&key) && !matches!(key, "hypertable_id" | "mat_hypertable_id");
    let more: Map<String, Value> = config.into_iter().filter(|(key, _)| job.is_policy() && is_other(key)).collect();
    if !more.is_empty() {
        let more = literal(&Value::Object(more).to_string());
        changes.push(format!(
            "config => (SELECT j.config || {more}::pg_catalog.jsonb FROM timescaledb_information.jobs j WHERE j.job_id = job)"
        ));
    }
    let body = format!(
        "DECLARE job pg_catalog.int4; BEGIN job := {functions}.{function}({}); PERFORM {functions}.alter_job(job, {}); END",
        arguments.join(", "),
        changes.join(", ")
    );
    Some(format!("DO {}", dollars(&body)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Rows of `timescaledb_information.jobs` as versions 2.11.2 and 2.23.1 returned them.
    const RECORDED: &[(&str, &str)] = &[
        (
            r#"{"owner": "postgres", "config": {"drop_after": "90 days", "hypertable_id": 1}, "job_id": 1000, "proc_name": "policy_retention", "scheduled": true, "check_name": "policy_retention_check", "next_start": "2026-11-27T17:22:54.945909+00:00", "max_retries": -1, "max_runtime": "00:05:00", "proc_schema": "_timescaledb_internal", "check_schema": "_timescaledb_internal", "retry_period": "00:05:00", "initial_start": null, "fixed_schedule": false, "hypertable_name": "records", "application_name": "Retention Policy [1000]", "hypertable_schema": "app", "schedule_interval": "1 day"}"#,
            "DO $$DECLARE job pg_catalog.int4; BEGIN job := public.add_retention_policy('app.records'::pg_catalog.regclass, \
             drop_after => INTERVAL '90 days'); PERFORM public.alter_job(job, schedule_interval => INTERVAL '1 day', \
             max_runtime => INTERVAL '00:05:00', retry_period => INTERVAL '00:05:00', max_retries => -1, \
             scheduled => true); END$$",
        ),
        (
            r#"{"owner": "postgres", "config": {"hypertable_id": 1, "compress_after": "30 days", "maxchunks_to_compress": 3}, "job_id": 1001, "proc_name": "policy_compression", "scheduled": true, "check_name": "policy_compression_check", "next_start": "2026-11-27T05:01:16.924031+00:00", "max_retries": -1, "max_runtime": "00:00:00", "proc_schema": "_timescaledb_functions", "check_schema": "_timescaledb_functions", "retry_period": "01:00:00", "initial_start": "2026-01-01T00:00:00+00:00", "fixed_schedule": true, "hypertable_name": "records", "application_name": "Columnstore Policy [1001]", "hypertable_schema": "app", "schedule_interval": "12:00:00"}"#,
            "DO $$DECLARE job pg_catalog.int4; BEGIN job := public.add_compression_policy('app.records'::pg_catalog.regclass, \
             compress_after => INTERVAL '30 days', initial_start => '2026-01-01T00:00:00+00:00'::pg_catalog.timestamptz, \
             timezone => 'Asia/Shanghai'); PERFORM public.alter_job(job, schedule_interval => INTERVAL '12:00:00', \
             max_runtime => INTERVAL '00:00:00', retry_period => INTERVAL '01:00:00', max_retries => -1, scheduled => true, \
             config => (SELECT j.config || '{\"maxchunks_to_compress\":3}'::pg_catalog.jsonb FROM \
             timescaledb_information.jobs j WHERE j.job_id = job)); END$$",
        ),
        (
            r#"{"owner": "postgres", "config": {"end_offset": 10, "start_offset": null, "mat_hypertable_id": 4}, "job_id": 1002, "proc_name": "policy_refresh_continuous_aggregate", "scheduled": false, "check_name": "policy_refresh_continuous_aggregate_check", "next_start": null, "max_retries": -1, "max_runtime": "00:00:00", "proc_schema": "_timescaledb_internal", "check_schema": "_timescaledb_internal", "retry_period": "01:00:00", "initial_start": null, "fixed_schedule": false, "hypertable_name": "_materialized_hypertable_4", "application_name": "Refresh Continuous Aggregate Policy [1002]", "hypertable_schema": "_timescaledb_internal", "schedule_interval": "01:00:00"}"#,
            "DO $$DECLARE job pg_catalog.int4; BEGIN job := \
             public.add_continuous_aggregate_policy('app.records'::pg_catalog.regclass, start_offset => NULL, \
             end_offset => '10'::integer, schedule_interval => INTERVAL '01:00:00'); PERFORM public.alter_job(job, \
             schedule_interval => INTERVAL '01:00:00', max_runtime => INTERVAL '00:00:00', \
             retry_period => INTERVAL '01:00:00', max_retries => -1, scheduled => false); END$$",
        ),
        (
            r#"{"owner": "postgres", "config": {"a": 1}, "job_id": 1003, "proc_name": "act", "scheduled": true, "check_name": null, "next_start": "2026-11-26T18:01:11.964419+00:00", "max_retries": -1, "max_runtime": "00:00:00", "proc_schema": "app", "check_schema": null, "retry_period": "00:05:00", "initial_start": "2026-11-26T17:01:11.964419+00:00", "fixed_schedule": true, "hypertable_name": null, "application_name": "User-Defined Action [1003]", "hypertable_schema": null, "schedule_interval": "01:00:00"}"#,
            "DO $$DECLARE job pg_catalog.int4; BEGIN job := public.add_job('app.act', INTERVAL '01:00:00', \
             config => '{\"a\":1}'::pg_catalog.jsonb, fixed_schedule => true, \
             initial_start => '2026-11-26T17:01:11.964419+00:00'::pg_catalog.timestamptz, timezone => 'Asia/Shanghai'); \
             PERFORM public.alter_job(job, schedule_interval => INTERVAL '01:00:00', max_runtime => INTERVAL '00:00:00', \
             retry_period => INTERVAL '00:05:00', max_retries => -1, scheduled => true); END$$",
        ),
    ];

    #[test]
    fn jobs_of_recorded_versions_are_created_again() {
        let time = Dimension { type_name: "integer".to_owned(), ..Dimension::default() };
        for (recorded, expected) in RECORDED {
            let job = Job::of(&serde_json::from_str(recorded).unwrap()).unwrap();
            let on = Subject { name: "app.records".to_owned(), time: Some(&time) };
            assert_eq!(statement(&job, Some(&on), Some("Asia/Shanghai"), "public").as_deref(), Some(*expected));
        }
    }

    #[test]
    fn an_unknown_policy_has_no_statement() {
        let recorded = RECORDED[0].0.replace("policy_retention", "policy_of_tomorrow");
        let job = Job::of(&serde_json::from_str(&recorded).unwrap()).unwrap();
        let on = Subject { name: "app.records".to_owned(), time: None };
        assert_eq!(statement(&job, Some(&on), None, "public"), None);
    }
}
