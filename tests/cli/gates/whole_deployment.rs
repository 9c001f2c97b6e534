//! Whole deployments from `init` to the rollback, with an SQLite app and a PostgreSQL app, and with stores in a folder
//! and in S3.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::actions::Action;
use crate::support::postgres::server;
use crate::support::s3::{fresh_prefix, s3_server};
use crate::support::{LIFEBOAT, Sandbox, open};

/// Runs a shell command with the program on PATH and requires this exit code. Returns stdout and stderr.
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

/// The commands before a deployment.
const COMMANDS: &str = "lifeboat init && lifeboat doctor && lifeboat predeploy --commit abc123";

/// Returns the commands before a deployment with two stores: a folder, and this bucket with its prefix.
fn commands_with_bucket(location: &str) -> String {
    COMMANDS.replace("lifeboat init", &format!("lifeboat init --store backups --store s3://{location}"))
}

/// Creates an app with a database of 1000 balances, and with this URL in `DATABASE_URL`.
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

/// Replaces the database with an empty one, and requires that a rollback restores it.
fn empty_and_roll_back(sandbox: &Sandbox, variables: &[(&str, &str)]) {
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    open(sandbox.path("data/app.db")).execute_batch("CREATE TABLE ibkr_accounts (id INTEGER)").unwrap();
    let output = shell(sandbox, "lifeboat postdeploy --rollback", variables, 3);
    assert!(output.contains("ibkr_balances") && output.contains("the lost data was restored"), "{output}");
    let sum: f64 = open(sandbox.path("data/app.db"))
        .query_row("SELECT sum(amount) FROM ibkr_balances", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 125_125.0);
    shell(sandbox, "lifeboat postdeploy --commit abc123 && lifeboat check", variables, 0);
}

#[test]
fn an_sqlite_app_is_rolled_back_from_a_folder() {
    for url in ["sqlite:///./data/app.db", "sqlite+aiosqlite:///data/app.db"] {
        let sandbox = sqlite_app(url);
        shell(&sandbox, COMMANDS, &[], 0);
        empty_and_roll_back(&sandbox, &[]);
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn an_sqlite_app_is_rolled_back_from_a_bucket() {
    let bucket = s3_server("seaweedfs");
    let sandbox = sqlite_app("sqlite:///data/app.db");
    let (store, prefix) = (bucket.bucket.clone(), fresh_prefix());
    // All tests share one bucket, so each test uses its own prefix.
    let location = format!("{store}/{prefix}");
    let variables = [
        ("AWS_ACCESS_KEY_ID", bucket.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &bucket.secret_key),
        ("AWS_ENDPOINT_URL", &bucket.endpoint),
    ];
    let output = shell(&sandbox, &commands_with_bucket(&location), &variables, 0);
    assert!(output.contains(&format!("s3://{location}")), "{output}");
    // The machine is lost, with its store and its database.
    std::fs::remove_dir_all(sandbox.path("backups")).unwrap();
    std::fs::create_dir(sandbox.path("backups")).unwrap();
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    let output = shell(&sandbox, "lifeboat postdeploy --rollback --commit abc123", &variables, 3);
    assert!(output.contains("the lost data was restored"), "{output}");
    let sum: f64 = open(sandbox.path("data/app.db"))
        .query_row("SELECT sum(amount) FROM ibkr_balances", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 125_125.0);
}

#[test]
#[ignore = "needs PostgreSQL 17 and S3 servers"]
fn a_postgresql_app_is_rolled_back_with_a_folder_and_a_bucket() {
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
    std::fs::set_permissions(sandbox.path(".env"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let location = format!("{}/{}", bucket.bucket, fresh_prefix());
    let variables = [
        ("AWS_ACCESS_KEY_ID", bucket.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &bucket.secret_key),
        ("AWS_ENDPOINT_URL", &bucket.endpoint),
    ];
    shell(&sandbox, &commands_with_bucket(&location), &variables, 0);
    let before = server.value(&database.name, "SELECT count(*) || ' ' || sum(close) || ' ' || max(at) FROM kline");
    // The migration of the deployment replaces the table with an empty one.
    server.psql(&database.name, "DROP TABLE kline CASCADE; CREATE TABLE kline (code text)");
    let output = shell(&sandbox, "lifeboat postdeploy --rollback", &variables, 3);
    assert!(output.contains("kline") && output.contains("the lost data was restored"), "{output}");
    let after = server.value(&database.name, "SELECT count(*) || ' ' || sum(close) || ' ' || max(at) FROM kline");
    assert_eq!(after, before);
    assert_eq!(server.value(&database.name, "SELECT count(*) FROM latest"), "10");
    shell(&sandbox, "lifeboat postdeploy --commit abc123", &variables, 0);
}

#[test]
fn an_sqlite_app_is_rolled_back_by_the_composite_actions() {
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
    // A migration drops one table and renames another, whose name has spaces.
    open(sandbox.path("data/app.db"))
        .execute_batch("DROP TABLE ibkr_accounts; ALTER TABLE ibkr_balances RENAME TO \"balances of today\"")
        .unwrap();
    let migrated = action("post-deploy")
        .with("expect-dropped", "ibkr_accounts\n")
        .with("expect-renamed", "ibkr_balances=balances of today")
        .run();
    assert_eq!((migrated.code, migrated.outputs["ok"].as_str()), (0, "true"), "{}", migrated.log);
    assert_eq!(migrated.outputs["snapshot-id"], *id);
    let refused = action("post-deploy").with("rollback", "true").with("discard-new", "yes").run();
    assert_eq!(refused.code, 2, "{}", refused.log);
}
