//! Hypertables of a migration whose columns have names that need quotes.

use super::helpers::json;
use crate::support::timescale::take_databases;
use crate::support::{Sandbox, open};

#[test]
#[ignore = "needs TimescaleDB"]
fn compression_of_a_migrated_hypertable_accepts_any_column_name() {
    let sandbox = Sandbox::new();
    let [target] = take_databases();
    target.psql("CREATE EXTENSION timescaledb");
    open(sandbox.path("app.db"))
        .execute_batch(
            "CREATE TABLE ticks (\"noted at\" DATETIME NOT NULL, \"Sym, \"\"x\"\"\" TEXT NOT NULL, \"size DESC\" INTEGER);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)
             INSERT INTO ticks SELECT datetime('now', '-' || (3000 - n) || ' minutes'), 's' || (n % 5), n FROM n;",
        )
        .unwrap();
    json(&sandbox, &["migrate", "plan", "app.db", "--to", &target.url(), "--zone", "UTC", "-j", "1"]);
    let text = std::fs::read_to_string(sandbox.path("plan.toml")).unwrap();
    let text = text.replace("source = \"noted at\"", "source = \"noted at\", name = \"Noted At\"");
    let text = text.replace("time = \"noted at\"", "time = \"Noted At\"");
    let (plan, _) = text.split_once("# optional;").unwrap_or_else(|| panic!("{text}"));
    let compress = |order: &str| {
        format!(
            "{plan}\ncompress = {{ segment_by = [\"sym, \\\"x\\\"\"], order_by = {order}, after = \"30 days\" }}\n\
             retention = \"9 years\"\n"
        )
    };
    std::fs::write(sandbox.path("plan.toml"), compress("\"Volume DESC\"")).unwrap();
    let run = sandbox.run(&["migrate", "run", "plan.toml", "--store", "backups", "-j", "1"]).code(2);
    run.says("order_by: it has no column Volume");
    let order = r#"'"Noted At" desc nulls last, size DESC ASC'"#;
    std::fs::write(sandbox.path("plan.toml"), compress(order)).unwrap();
    json(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]);
    let settings = target.rows(
        "SELECT attname, segmentby_column_index, orderby_column_index, orderby_asc, orderby_nullsfirst
           FROM timescaledb_information.compression_settings ORDER BY 2, 3",
    );
    assert_eq!(settings, ["sym, \"x\"|1|||", "Noted At||1|f|f", "size desc||2|t|f"]);
    assert_eq!(json(&sandbox, &["migrate", "verify", "plan.toml", "-j", "1"])["ok"], true);
}
