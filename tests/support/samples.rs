//! The databases of `tests/data/postgres`, on a server.

use std::path::Path;

use super::postgres::{Server, TestDatabase, zabbix_database};

/// The databases that the schema test is held to, by name: for [`database`].
pub const SAMPLES: [&str; 7] = ["everything", "kin", "types", "many", "odd_settings", "beyond_pg_dump", "zabbix"];

/// A database of one's own filled with one of [`SAMPLES`].
#[track_caller]
pub fn database(server: &Server, sample: &str) -> TestDatabase {
    if sample == "zabbix" {
        return zabbix_database(server, "zabbix");
    }
    roles(server);
    let database = server.create_database(sample);
    run_file(server, &database.name, sample);
    database
}

/// Makes the roles and the tablespace that the samples need; they stay as long as the server runs.
#[track_caller]
pub fn roles(server: &Server) {
    let path = server.socket_dir.with_file_name(format!("roles-{}.lock", server.major));
    let lock = std::fs::File::create(path).unwrap();
    lock.lock().unwrap();
    run_file(server, "postgres", "roles");
}

/// Adds a table `NAME` of about so many megabytes, in short rows with a key, an index, and JSON.
#[track_caller]
pub fn add_big_table(database: &TestDatabase, name: &str, megabytes: u32) {
    // What a row takes of a page.
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

/// Runs a file of `tests/data/postgres` as psql does.
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
