//! `doctor` of a PostgreSQL source that is named by a URL, or by an application's `.env`.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::helpers::Setup;
use crate::support::postgres::{server, some_server};

/// Returns the result and the message of a check.
#[track_caller]
fn check<'a>(document: &'a Value, name: &str) -> (&'a Value, &'a str) {
    let found = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check '{name}': {document:#}"));
    (&found["ok"], found["message"].as_str().unwrap())
}

#[test]
#[ignore = "needs PostgreSQL"]
fn doctor_of_an_empty_database_reports_the_server_and_passes() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("standing");
        let document = setup.json(&["doctor", &database.url()]);
        let name = lifeboat::snapshots::id::SourceName::derive(&database.name).unwrap();
        let message = |check_name: &str| check(&document, &format!("{name}: {check_name}")).1.to_owned();
        assert_eq!(document["ok"], true, "{document:#}");
        let server_message = message("server");
        assert!(server_message.contains(&server.version) && server_message.contains(&database.name), "{document:#}");
        assert!(message("role").starts_with(&server.user), "{document:#}");
        assert_eq!(message("writing"), "allowed");
        assert!(message("extensions").contains("plpgsql "), "{document:#}");
        let found = database.query("SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'");
        let expected = match found.first() {
            Some(row) => format!("timescaledb {} is available, but not installed in this database", row[0]),
            None => "timescaledb is not available on this server".to_owned(),
        };
        assert!(message("extensions").contains(&expected), "{document:#}");
        assert!(message("rights to create").contains("schemas in the database: yes"), "{document:#}");
        assert!(message("connections").contains(" more can be opened"), "{document:#}");
        assert_eq!(message("rows"), "it has no tables");
        assert!(!setup.sandbox.path("backups").exists(), "doctor must not create a store");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn doctor_reports_the_missing_rights_of_a_read_only_role_and_passes() {
    let server = server(15);
    let setup = Setup::new(&server);
    let database = server.create_database("reader");
    let role = format!("{}_reader", database.name);
    database.psql(format!(
        "CREATE SCHEMA app; CREATE TABLE app.trades AS SELECT 1 AS id; CREATE ROLE {role} LOGIN PASSWORD 'only-reads' CONNECTION LIMIT 7;
         GRANT USAGE ON SCHEMA app TO {role}; GRANT SELECT ON app.trades TO {role};
         ALTER ROLE {role} SET default_transaction_read_only = on; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    ));
    let env = format!(
        "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={}\nTDX_DB_NAME={}\nTDX_DB_USER={role}\nTDX_DB_PASSWORD=only-reads\n",
        server.port, database.name
    );
    std::fs::write(setup.sandbox.path(".env"), env).unwrap();
    std::fs::set_permissions(setup.sandbox.path(".env"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = "env_file = \".env\"\n[[source]]\nname = \"app\"\nenv_prefix = \"TDX_DB_\"\n";
    std::fs::write(setup.sandbox.path("lifeboat.toml"), config).unwrap();
    let run = setup.run(&["doctor", "app", "--json"]).code(0);
    assert!(!run.stdout().contains("only-reads"), "{}", run.transcript());
    let document = run.json();
    assert_eq!(check(&document, "app: role"), (&true.into(), &*role));
    let (ok, rights) = check(&document, "app: rights to create");
    assert_eq!(ok, true);
    assert!(rights.contains("schemas in the database: no; create objects in app, public: no"), "{rights}");
    assert!(rights.contains("a backup does not need these rights"), "{rights}");
    assert!(check(&document, "app: writing").1.starts_with("no: transactions are read-only"), "{}", run.transcript());
    let connections = check(&document, "app: connections").1;
    assert!(connections.starts_with("6 more can be opened") && connections.contains("or role is 7"), "{connections}");
    // With a limit of one connection, the workers of a snapshot cannot connect.
    database.psql(format!("ALTER ROLE {role} CONNECTION LIMIT 1"));
    let run = setup.run(&["doctor", "app", "--json"]).code(3);
    assert_eq!(check(&run.json(), "app: connections").0, false, "{}", run.transcript());
    database.psql(format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn doctor_of_an_unreachable_server_reports_one_failed_check() {
    let server = server(15);
    let setup = Setup::new(&server);
    let run = setup.run(&["doctor", "postgres://nobody@127.0.0.1:1/nothing", "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["checks"].as_array().unwrap().len(), 1, "{}", run.transcript());
    assert_eq!(check(&document, "nothing: server").0, false, "{}", run.transcript());
}
