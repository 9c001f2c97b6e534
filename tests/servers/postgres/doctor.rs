//! `doctor` of a PostgreSQL source: how we stand with its server, from a URL and from an application's `.env`.

use serde_json::Value;

use super::helpers::Place;
use crate::support::postgres::{server, some_server};

#[track_caller]
fn check<'a>(document: &'a Value, name: &str) -> (&'a Value, &'a str) {
    let found = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check '{name}': {document:#}"));
    (&found["ok"], found["message"].as_str().unwrap())
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_url_is_tried_and_an_empty_database_passes() {
    some_server(|server| {
        let place = Place::new(server);
        let database = server.create_database("standing");
        let document = place.json(&["doctor", &database.url()]);
        let name = lifeboat::snapshots::id::SourceName::derive(&database.name).unwrap();
        let told = |what: &str| check(&document, &format!("{name}: {what}")).1.to_owned();
        assert_eq!(document["ok"], true, "{document:#}");
        assert!(told("server").contains(&server.version) && told("server").contains(&database.name), "{document:#}");
        assert!(told("role").starts_with(&server.user), "{document:#}");
        assert_eq!(told("writing"), "allowed");
        assert!(told("extensions").contains("plpgsql "), "{document:#}");
        let there = database.query("SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'");
        let expected = match there.first() {
            Some(row) => format!("timescaledb {} is available, and not installed in this database", row[0]),
            None => "timescaledb is not available on this server".to_owned(),
        };
        assert!(told("extensions").contains(&expected), "{document:#}");
        assert!(told("rights to create").contains("schemas in the database: yes"), "{document:#}");
        assert!(told("connections").contains(" more may be opened"), "{document:#}");
        assert_eq!(told("rows"), "it has no tables");
        assert!(!place.sandbox.path("backups").exists(), "nothing is made");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_that_may_only_read_is_told_what_it_lacks_and_passes() {
    let server = server(15);
    let place = Place::new(&server);
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
    std::fs::write(place.sandbox.path(".env"), env).unwrap();
    let config = "env_file = \".env\"\n[[source]]\nname = \"app\"\nenv_prefix = \"TDX_DB_\"\n";
    std::fs::write(place.sandbox.path("lifeboat.toml"), config).unwrap();
    let run = place.run(&["doctor", "app", "--json"]).code(0);
    assert!(!run.stdout().contains("only-reads"), "{}", run.transcript());
    let document = run.json();
    assert_eq!(check(&document, "app: role"), (&true.into(), &*role));
    let (ok, rights) = check(&document, "app: rights to create");
    assert_eq!(ok, true);
    assert!(rights.contains("schemas in the database: no; in app, public: no"), "{rights}");
    assert!(rights.contains("a backup needs none of them"), "{rights}");
    assert!(check(&document, "app: writing").1.starts_with("no: transactions are read-only"), "{}", run.transcript());
    let connections = check(&document, "app: connections").1;
    assert!(connections.starts_with("6 more may be opened") && connections.contains("may have 7"), "{connections}");
    // With the last connection gone there is none for a snapshot's workers.
    database.psql(format!("ALTER ROLE {role} CONNECTION LIMIT 1"));
    let run = place.run(&["doctor", "app", "--json"]).code(3);
    assert_eq!(check(&run.json(), "app: connections").0, false, "{}", run.transcript());
    database.psql(format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_server_that_is_not_there_fails_in_one_line() {
    let server = server(15);
    let place = Place::new(&server);
    let run = place.run(&["doctor", "postgres://nobody@127.0.0.1:1/nothing", "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["checks"].as_array().unwrap().len(), 1, "{}", run.transcript());
    assert_eq!(check(&document, "nothing: server").0, false, "{}", run.transcript());
}
