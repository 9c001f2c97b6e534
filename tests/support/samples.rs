//! Creates the sample databases of `tests/data/postgres` on a server.

use std::path::Path;

use super::postgres::{Server, TestDatabase, zabbix_database};

/// The names of the sample databases, for [`database`].
pub const SAMPLES: [&str; 7] = ["everything", "kin", "types", "many", "odd_settings", "beyond_pg_dump", "zabbix"];

/// Creates a database for one test and fills it with one of [`SAMPLES`].
#[track_caller]
pub fn database(server: &Server, sample: &str) -> TestDatabase {
    if sample == "zabbix" {
        return zabbix_database(server, "zabbix");
    }
    create_roles(server);
    let database = server.create_database(sample);
    run_file(server, &database.name, sample);
    database
}

/// Creates the roles and the tablespace that the samples need. They remain as long as the server runs.
#[track_caller]
pub fn create_roles(server: &Server) {
    let path = server.socket_dir.with_file_name(format!("roles-{}.lock", server.major));
    let lock = std::fs::File::create(path).unwrap();
    lock.lock().unwrap();
    run_file(server, "postgres", "roles");
}

/// Adds a table `name` of about `megabytes`, with short rows of JSON and other types, a primary key and an index.
#[track_caller]
pub fn add_big_table(database: &TestDatabase, name: &str, megabytes: u32) {
    // A row takes about 109 bytes of a page.
    let rows = u64::from(megabytes) * 1024 * 1024 / 109;
    database.psql(format!(
        "SET synchronous_commit = off;
         CREATE TABLE {name} (id bigint NOT NULL, account integer NOT NULL, at timestamptz NOT NULL, body jsonb, filler text);
         INSERT INTO {name}
             SELECT g, g % 1009, timestamptz '2026-01-01 00:00+00' + g * interval '1 second',
                    jsonb_build_object('n', g, 'ok', g % 2 = 0), left(md5(g::text), 20)
               FROM generate_series(1, {rows}::bigint) AS g;
         ALTER TABLE {name} ADD PRIMARY KEY (id);
         CREATE INDEX ON {name} (account);"
    ));
}

/// Runs a file of `tests/data/postgres` with psql.
#[track_caller]
fn run_file(server: &Server, database: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/postgres").join(name).with_extension("sql");
    let mut command = server.command(&server.psql, database);
    let output = command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&path).output().unwrap();
    assert!(
        output.status.success(),
        "PostgreSQL {}, {}\n{}",
        server.version,
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}
