//! Names of objects and databases with quotes, line breaks, comments, shell characters and SQL, in every restore mode.

use super::common::{Mode, Setup, content, require_error, require_same};
use crate::support::postgres::{Server, some_server};

/// The names of objects, as quoted SQL identifiers.
const SCHEMA: &str = "\"s'; DROP TABLE public.bystander; --\"";
const TABLE: &str = "\"t\"\"x ON y\n; DROP TABLE public.bystander;\n$$ \\ %I '\"";
const COLUMN: &str = "\"c\"\"'$$\\n\n\\. %s\"";
const TYPE: &str = "\"e'\\\"\" $$ \n--\"";

/// A database whose name must be quoted in a shell and in SQL. It is dropped at the end.
struct OddDatabase<'a> {
    server: &'a Server,
    name: String,
}

impl OddDatabase<'_> {
    fn quoted(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }
}

impl Drop for OddDatabase<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.server.psql("postgres", format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.quoted()));
        }
    }
}

fn odd_database<'a>(server: &'a Server, prefix: &str) -> OddDatabase<'a> {
    OddDatabase { server, name: format!("{prefix}'\"; DROP DATABASE x; -- $$ \\ %41 é/{}", std::process::id()) }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn names_that_contain_sql_are_never_run_as_sql() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = odd_database(server, "source");
        server.psql("postgres", format!("CREATE DATABASE {}", source.quoted()));
        let role = format!("\"r'\"\"; $$ \\ {}\"", std::process::id());
        server.psql("postgres", format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role}"));
        server.psql(
            &source.name,
            format!(
                "CREATE TABLE bystander (a int); INSERT INTO bystander VALUES (1);
                 CREATE SCHEMA {SCHEMA};
                 CREATE TYPE {SCHEMA}.{TYPE} AS ENUM ('a''b', '$$', E'x\\ny');
                 CREATE TABLE {SCHEMA}.{TABLE} (id serial PRIMARY KEY, {COLUMN} text NOT NULL, kind {SCHEMA}.{TYPE});
                 CREATE INDEX {TABLE} ON bystander (a);
                 CREATE VIEW {SCHEMA}.{COLUMN} AS SELECT * FROM {SCHEMA}.{TABLE};
                 COMMENT ON TABLE {SCHEMA}.{TABLE} IS 'it''s $$ \\ odd';
                 INSERT INTO {SCHEMA}.{TABLE} ({COLUMN}, kind) VALUES (E'a\\tb\\n\\\\.\\nc', 'a''b'), (E'\\\\N', E'x\\ny');
                 ALTER TABLE {SCHEMA}.{TABLE} OWNER TO {role};
                 GRANT SELECT ON bystander TO {role};"
            ),
        );
        let url = server.url(&source.name);
        let document = setup.json(&["snapshot", &url, "--name", "odd"]);
        let id = document["snapshots"][0]["id"].as_str().unwrap();
        let saved = content(server, &source.name);
        let table = document["snapshots"][0]["tables"].as_array().unwrap()[0]["name"].as_str().unwrap().to_owned();
        assert!(table.contains("DROP TABLE"), "{table}");
        let shown = setup.ok(&["show", id]);
        assert!(!shown.stdout().lines().any(|line| line.starts_with("; DROP")), "{}", shown.transcript());

        let restored = odd_database(server, "made");
        let to = server.url(&restored.name);
        setup.ok(&["restore", id, "--to", &to, "--create"]);
        require_same(&content(server, &restored.name), &saved);
        let changed = format!("UPDATE {SCHEMA}.{TABLE} SET {COLUMN} = 'changed'");
        for mode in [Mode::Replace, Mode::Swap, Mode::Beside, Mode::Tables] {
            server.psql(&restored.name, &changed);
            let beside = "b'\"; DROP SCHEMA public CASCADE; --\n$$";
            let arguments = match mode {
                Mode::Replace => vec!["--replace"],
                Mode::Swap => vec!["--swap"],
                Mode::Beside => vec!["--beside", beside],
                _ => {
                    server.psql(&restored.name, format!("DROP VIEW {SCHEMA}.{COLUMN}; DROP TABLE {SCHEMA}.{TABLE}"));
                    vec!["--table", table.as_str()]
                }
            };
            let document = setup.json(&[&["restore", id, "--to", &to, "--yes"], &arguments[..]].concat());
            match mode {
                Mode::Replace => {
                    require_same(&content(server, &restored.name), &saved);
                    // The printed undo command works in a shell.
                    let undo = document["undo"].as_str().unwrap().replacen("lifeboat", crate::support::LIFEBOAT, 1);
                    let line = format!("{undo} --yes");
                    let output = std::process::Command::new("sh")
                        .args(["-c", &line])
                        .env("PGPASSWORD", &server.password)
                        .output()
                        .unwrap();
                    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
                    let query = format!("SELECT DISTINCT {COLUMN} FROM {SCHEMA}.{TABLE}");
                    assert_eq!(server.query(&restored.name, &query), [["changed"]]);
                }
                Mode::Swap => {
                    require_same(&content(server, &restored.name), &saved);
                    let old_name = document["moved_aside"][0].as_str().unwrap().replace('"', "\"\"");
                    server.psql("postgres", format!("DROP DATABASE \"{old_name}\""));
                }
                Mode::Beside => {
                    let quoted = format!("\"{}\"", beside.replace('"', "\"\""));
                    let unchanged_rows = format!(
                        "SELECT count(*) FROM {quoted}.{TABLE} WHERE {COLUMN} IN (E'a\\tb\\n\\\\.\\nc', E'\\\\N')"
                    );
                    assert_eq!(server.value(&restored.name, &unchanged_rows), "2");
                    server.psql(&restored.name, format!("DROP SCHEMA {quoted} CASCADE"));
                }
                _ => {
                    let count = format!("SELECT count(*) FROM {SCHEMA}.{TABLE} WHERE {COLUMN} <> 'changed'");
                    assert_eq!(server.value(&restored.name, &count), "2");
                }
            }
            assert_eq!(server.value(&restored.name, "SELECT count(*) FROM bystander"), "1", "{mode:?}");
        }
        let empty = odd_database(server, "empty");
        server.psql("postgres", format!("CREATE DATABASE {} TEMPLATE template0", empty.quoted()));
        setup.ok(&["restore", id, "--to", &server.url(&empty.name)]);
        require_same(&content(server, &empty.name), &saved);
        let run = setup.run(&["restore", id, "--to", &server.url(&empty.name)]).code(2);
        require_error(&run, &["is not empty"]);
        drop((empty, restored, source));
        server.psql("postgres", format!("DROP ROLE {role}"));
    });
}
