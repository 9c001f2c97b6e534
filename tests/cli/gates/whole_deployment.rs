//! From nothing to data that is back, by a config alone: an SQLite app and a PostgreSQL app, a folder and S3 for stores.

use std::path::Path;
use std::process::Command;

use crate::support::actions::Action;
use crate::support::postgres::server;
use crate::support::s3::{fresh_prefix, s3_server};
use crate::support::{LIFEBOAT, Sandbox, open};

/// Runs a line in a shell that finds the program, and requires an exit code.
#[track_caller]
fn shell(sandbox: &Sandbox, line: &str, variables: &[(&str, &str)], code: i32) -> String {
    let program = Path::new(LIFEBOAT).parent().unwrap().to_owned();
    let outer = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([program].into_iter().chain(std::env::split_paths(&outer))).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(sandbox.root()).env("PATH", path).envs(variables.iter().copied());
    command.env_remove("LIFEBOAT_CONFIG").env_remove("DATABASE_URL").env("TMPDIR", sandbox.root());
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "$ {line}\n{stdout}\n{stderr}");
    format!("{stdout}{stderr}")
}

const STORY: &str = "lifeboat init && lifeboat doctor && lifeboat predeploy --commit abc123";

/// The same with a folder and a bucket for stores.
fn transcript_with(place: &str) -> String {
    STORY.replace("lifeboat init", &format!("lifeboat init --store backups --store s3://{place}"))
}

fn sqlite_app(url: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    std::fs::write(sandbox.path(".env"), format!("DATABASE_URL={url}\n")).unwrap();
    open(sandbox.path("data/app.db"))
        .execute_batch(
            "CREATE TABLE ibkr_accounts (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO ibkr_accounts (name) VALUES ('a'), ('b'), ('c');
             CREATE TABLE ibkr_balances (id INTEGER PRIMARY KEY, amount REAL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO ibkr_balances (amount) SELECT i * 0.25 FROM n;",
        )
        .unwrap();
    sandbox
}

fn wipe_and_roll_back(sandbox: &Sandbox, variables: &[(&str, &str)]) {
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    open(sandbox.path("data/app.db")).execute_batch("CREATE TABLE ibkr_accounts (id INTEGER)").unwrap();
    let told = shell(sandbox, "lifeboat postdeploy --rollback", variables, 3);
    assert!(told.contains("ibkr_balances") && told.contains("brought back"), "{told}");
    let sum: f64 = open(sandbox.path("data/app.db"))
        .query_row("SELECT sum(amount) FROM ibkr_balances", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 125_125.0);
    shell(sandbox, "lifeboat postdeploy --commit abc123 && lifeboat check", variables, 0);
}

#[test]
fn an_sqlite_app_with_a_folder() {
    for url in ["sqlite:///./data/app.db", "sqlite+aiosqlite:///data/app.db"] {
        let sandbox = sqlite_app(url);
        shell(&sandbox, STORY, &[], 0);
        wipe_and_roll_back(&sandbox, &[]);
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn an_sqlite_app_with_a_bucket() {
    let bucket = s3_server("seaweedfs");
    let sandbox = sqlite_app("sqlite:///data/app.db");
    let (store, prefix) = (bucket.bucket.clone(), fresh_prefix());
    // The bucket of the tests is shared: a prefix of one's own stands for one's own bucket.
    let place = format!("{store}/{prefix}");
    let variables = [
        ("AWS_ACCESS_KEY_ID", bucket.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &bucket.secret_key),
        ("AWS_ENDPOINT_URL", &bucket.endpoint),
    ];
    let told = shell(&sandbox, &transcript_with(&place), &variables, 0);
    assert!(told.contains(&format!("s3://{place}")), "{told}");
    // The folder goes with the machine.
    std::fs::remove_dir_all(sandbox.path("backups")).unwrap();
    std::fs::create_dir(sandbox.path("backups")).unwrap();
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    let told = shell(&sandbox, "lifeboat postdeploy --rollback --commit abc123", &variables, 3);
    assert!(told.contains("brought back"), "{told}");
    let sum: f64 = open(sandbox.path("data/app.db"))
        .query_row("SELECT sum(amount) FROM ibkr_balances", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 125_125.0);
}

#[test]
#[ignore = "needs PostgreSQL 17 and S3 servers"]
fn a_postgresql_app_with_a_folder_and_a_bucket() {
    let (server, bucket) = (server(17), s3_server("seaweedfs"));
    let database = server.create_database("done_when");
    server.psql(
        &database.name,
        "CREATE TABLE kline (code text, at timestamptz, close numeric, PRIMARY KEY (code, at));
         INSERT INTO kline SELECT 'c' || i % 10, now() - i * interval '1 minute', i * 1.5 FROM generate_series(1, 2000) i;
         CREATE VIEW latest AS SELECT code, max(at) AS at FROM kline GROUP BY code;",
    );
    let sandbox = Sandbox::new();
    let env = format!(
        "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={}\nTDX_DB_NAME={}\nTDX_DB_USER={}\nTDX_DB_PASSWORD='{}'\n",
        server.port, database.name, server.user, server.password
    );
    std::fs::write(sandbox.path(".env"), env).unwrap();
    let place = format!("{}/{}", bucket.bucket, fresh_prefix());
    let variables = [
        ("AWS_ACCESS_KEY_ID", bucket.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &bucket.secret_key),
        ("AWS_ENDPOINT_URL", &bucket.endpoint),
    ];
    shell(&sandbox, &transcript_with(&place), &variables, 0);
    let before = server.value(&database.name, "SELECT count(*) || ' ' || sum(close) || ' ' || max(at) FROM kline");
    // The deploy's migration takes the table away and makes an empty one.
    server.psql(&database.name, "DROP TABLE kline CASCADE; CREATE TABLE kline (code text)");
    let told = shell(&sandbox, "lifeboat postdeploy --rollback", &variables, 3);
    assert!(told.contains("kline") && told.contains("brought back"), "{told}");
    let after = server.value(&database.name, "SELECT count(*) || ' ' || sum(close) || ' ' || max(at) FROM kline");
    assert_eq!(after, before);
    assert_eq!(server.value(&database.name, "SELECT count(*) FROM latest"), "10");
    shell(&sandbox, "lifeboat postdeploy --commit abc123", &variables, 0);
}

#[test]
fn the_same_inside_the_composite_actions() {
    let sandbox = sqlite_app("sqlite:///data/app.db");
    shell(&sandbox, "lifeboat init && lifeboat doctor", &[], 0);
    let action = |name: &str| Action::new(name, sandbox.root(), &sandbox.path("runner")).with("binary", LIFEBOAT);
    let before = action("pre-deploy").run();
    assert_eq!(before.code, 0, "{}", before.log);
    assert_eq!(before.outputs["ok"], "true");
    let id = &before.outputs["snapshot-id"];
    assert!(
        before.summary.contains("lifeboat predeploy") && before.summary.contains(id.as_str()),
        "{}",
        before.summary
    );
    assert_eq!(before.outputs["snapshot-ids"], *id);
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    let after = action("post-deploy").with("rollback", "true").with("wait", "1s").run();
    assert_eq!((after.code, after.outputs["ok"].as_str()), (3, "false"), "{}", after.log);
    assert_eq!(after.outputs["snapshot-id"], *id);
    assert!(after.log.contains("::error title=lifeboat postdeploy::app: database"), "{}", after.log);
    assert!(after.summary.contains("FAILED"), "{}", after.summary);
    let rows: i64 = open(sandbox.path("data/app.db"))
        .query_row("SELECT count(*) FROM ibkr_balances", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1000);
    let again = action("post-deploy").run();
    assert_eq!((again.code, again.outputs["ok"].as_str()), (0, "true"), "{}", again.log);
}
