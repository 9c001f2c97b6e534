//! Runs of a migration into hypertables that go on after something was changed.

use super::helpers::{json, run};
use crate::support::timescale::{TimescaleDatabase, take_databases};
use crate::support::{Sandbox, open};

/// Plans a file with a table `ticks` of 2,000 old rows and an empty table `z`, for a target that was prepared with this SQL.
fn planned(preparation: &str) -> (Sandbox, TimescaleDatabase) {
    let sandbox = Sandbox::new();
    let [target] = take_databases();
    target.psql(&format!("CREATE EXTENSION timescaledb; {preparation}"));
    open(sandbox.path("app.db"))
        .execute_batch(
            "CREATE TABLE ticks (at DATETIME NOT NULL, v INTEGER); CREATE TABLE z (id INTEGER PRIMARY KEY);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)
             INSERT INTO ticks SELECT datetime('2020-01-01', n || ' minutes'), n FROM n; INSERT INTO z VALUES (1);",
        )
        .unwrap();
    json(&sandbox, &["migrate", "plan", "app.db", "--to", &target.url(), "--zone", "UTC", "-j", "1"]);
    (sandbox, target)
}

#[test]
#[ignore = "needs TimescaleDB"]
fn rows_that_the_target_compresses_meanwhile_are_not_taken_for_changed_ones() {
    let (sandbox, target) = planned(
        "CREATE SCHEMA app; CREATE TABLE app.ticks (at timestamptz NOT NULL, v bigint);
         SELECT create_hypertable('app.ticks', 'at'); ALTER TABLE app.ticks SET (timescaledb.compress);
         CREATE TABLE app.z (id bigint PRIMARY KEY);
         CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = '55000'; END$$;",
    );
    // The plan would find a trigger that was there before.
    target.psql("CREATE TRIGGER boom BEFORE INSERT ON app.z FOR EACH ROW EXECUTE FUNCTION boom()");
    run(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]).code(1).says("boom");
    target.psql("DROP TRIGGER boom ON app.z; SELECT compress_chunk(c) FROM show_chunks('app.ticks') c");
    json(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]);
    json(&sandbox, &["migrate", "verify", "plan.toml", "-j", "1"]);
    json(&sandbox, &["migrate", "rollback", "plan.toml"]);
    assert_eq!(target.rows("SELECT count(*) FROM app.ticks"), ["0"]);
}

#[test]
#[ignore = "needs TimescaleDB"]
fn a_retention_that_is_not_in_force_may_be_edited_in_the_plan() {
    let (sandbox, target) = planned("");
    let path = sandbox.path("plan.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (plan, _) = text.split_once("# optional;").unwrap_or_else(|| panic!("{text}"));
    let rest =
        text.split_once("[[table]]").map_or("", |(_, rest)| rest.split_once("[[table]]").map_or("", |(_, rest)| rest));
    let keep = |age: &str| std::fs::write(&path, format!("{plan}\nretention = \"{age}\"\n\n[[table]]{rest}")).unwrap();
    let policies =
        || target.rows("SELECT config ->> 'drop_after' FROM timescaledb_information.jobs WHERE job_id >= 1000");
    keep("1 year");
    let document = json(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]);
    assert!(document["notes"].to_string().contains("it would drop 2000 rows"), "{document}");
    assert_eq!(policies(), [""; 0]);
    keep("900 years");
    json(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]);
    assert_eq!(policies(), ["900 years"]);
    keep("90 years");
    let again = run(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]).code(2);
    again.says("the step 'retention policy app.ticks' is done, but the plan was changed since");
}
