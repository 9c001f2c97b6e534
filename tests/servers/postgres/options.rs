//! Options of tables, indexes, views and columns. A snapshot contains the options that users set, but not the internal
//! options of the server. A restore leaves out options that the target does not accept, and warns about them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::helpers::{Setup, rows};
use crate::support::compare::assert_equal;
use crate::support::copy_folder;
use crate::support::craft::{self, BLOCK, Layout};
use crate::support::postgres::{Server, TestDatabase, each_server, oldest_and_newest};

/// Creates a database with every kind of object that can have options, and sets options on each of them.
fn database_with_options(server: &Server) -> TestDatabase {
    let database = server.create_database("options");
    database.psql(
        "CREATE TABLE t (id integer PRIMARY KEY WITH (fillfactor = 80), v text, r int4range, words tsvector,
                         EXCLUDE USING gist (r WITH &&) WITH (fillfactor = 75))
             WITH (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off);
         ALTER TABLE t ALTER v SET (n_distinct = 5, n_distinct_inherited = -0.5);
         CREATE INDEX by_v ON t (v) WITH (fillfactor = 60);
         CREATE INDEX by_words ON t USING gist (words tsvector_ops (siglen = 64));
         DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database()); END$$;
         CREATE INDEX by_id ON t USING brin (id) WITH (pages_per_range = 8, autosummarize = on);
         CREATE VIEW w WITH (security_barrier = true) AS SELECT id, v FROM t WHERE id > 0 WITH CASCADED CHECK OPTION;
         CREATE MATERIALIZED VIEW m WITH (fillfactor = 90, toast.autovacuum_enabled = off) AS SELECT id, v FROM t;
         INSERT INTO t SELECT g, 'v' || g, int4range(g, g + 1) FROM generate_series(1, 20) AS g;
         REFRESH MATERIALIZED VIEW m;",
    );
    database
}

/// SQL that adds internal options of a server to the catalogs, before and after the options of users.
const ADD_INTERNAL_OPTIONS: &str = "
    UPDATE pg_attribute SET attoptions = '{pg_private=1}' || attoptions || '{secret_version=77}'
     WHERE attrelid IN (SELECT oid FROM pg_class WHERE relname IN ('t', 'w', 'm')) AND attnum > 0;
    UPDATE pg_attribute SET attoptions = '{pg_private=1}' || attoptions WHERE attrelid = 'by_words'::regclass;
    UPDATE pg_class SET reloptions = '{pg_private=1}' || reloptions || '{secret_version=77}'
     WHERE relname IN ('t', 'w', 'm', 'by_v', 'by_id', 't_pkey', 't_r_excl')
        OR oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 't');";

#[test]
#[ignore = "needs PostgreSQL"]
fn only_options_that_users_can_set_are_saved() {
    each_server(|server| {
        let setup = Setup::new(server);
        let database = database_with_options(server);
        let twin = database_with_options(server);
        database.psql(ADD_INTERNAL_OPTIONS);
        let id = setup.snapshot(&database, &[]);
        setup.ok(&["extract", &id, "--to", "files"]);
        for name in ["pre-data.sql", "post-data.sql", "objects.json"] {
            let text = std::fs::read_to_string(setup.sandbox.path("files/schema").join(name)).unwrap();
            for internal in ["pg_attver", "pg_private", "secret_version"] {
                assert!(!text.contains(internal), "PostgreSQL {}: {name} sets {internal}\n{text}", server.version);
            }
        }
        // A note names each option that is left out, with the number of columns and relations that have it. There is no
        // note about pg_attver, an internal option that pg_dump leaves out too.
        let manifest = std::fs::read_to_string(setup.sandbox.path("files/manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let notes = manifest["postgres"]["notes"].to_string();
        for object in ["column", "table", "view", "index"] {
            assert!(notes.contains(&format!("the option secret_version of the {object} public.")), "{object}: {notes}");
        }
        assert!(notes.contains("column public.m.id and 7 more is left out") && !notes.contains("pg_attver"), "{notes}");

        let new = setup.restore_new(&id, &[]);
        assert_equal(&twin, &new, "options");
        let diff = setup.json(&["diff", &id, &new.url()]);
        assert_eq!((&diff["equal"], &diff["schema_equal"]), (&true.into(), &true.into()), "{diff}");
        let diff = setup.json(&["diff", &id, &database.url()]);
        assert_eq!(diff["schema_equal"], true, "{diff}");
    });
}

/// Restores `tests/data/v1/postgres_attver`. It was written on PostgreSQL 15.20 by a version of Lifeboat that saved the
/// internal option pg_attver.
#[test]
#[ignore = "needs PostgreSQL"]
fn an_archive_with_an_internal_option_is_restored_without_it() {
    let sample: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/postgres_attver");
    each_server(|server| {
        if server.major < 15 {
            return;
        }
        let setup = Setup::new(server);
        copy_folder(&sample, &setup.sandbox.path("backups"));
        setup.ok(&["extract", "latest", "--to", "files"]);
        let read = |name: &str| std::fs::read_to_string(setup.sandbox.path("files/schema").join(name)).unwrap();
        let (saved, script) = (read("objects.json"), read("pre-data.sql"));
        assert!(saved.contains("SET (pg_attver=") && saved.contains("n_distinct="), "{saved}");
        assert!(!script.contains("pg_attver") && script.contains("n_distinct="), "{script}");

        let new = setup.server.reserve_database("attver");
        let run = setup.ok(&["restore", "latest", "--to", &new.url(), "--create"]);
        assert!(!run.stderr().contains("pg_attver"), "{}", run.transcript());
        assert_eq!(rows(&new, "SELECT t::text FROM t ORDER BY a"), ["(1,x)", "(2,y)"]);
        let query = "SELECT option_name || '=' || option_value FROM pg_attribute a, pg_options_to_table(a.attoptions)
                    WHERE a.attrelid = 't'::regclass AND a.attname = 'b' AND option_name <> 'pg_attver'";
        assert_eq!(rows(&new, query), ["n_distinct=5"]);
        let diff = setup.json(&["diff", "latest", &new.url()]);
        // Since PostgreSQL 16, servers print the definitions of views differently.
        assert_eq!(diff["equal"], server.major == 15, "{diff}");
        assert_eq!(setup.json(&["drill", "latest", "--to", &server.url("postgres")])["ok"], true);
        // diff still finds a difference in an option of a user.
        new.psql("ALTER TABLE t ALTER b SET (n_distinct = 6)");
        let diff = setup.json(&["diff", "latest", &new.url()]);
        assert_eq!((&diff["equal"], &diff["schema_equal"]), (&false.into(), &false.into()), "{diff}");
    });
}

/// Restores a snapshot of an imaginary newer version: it has options and a namespace that the server does not know, and
/// a value that it does not accept. Some are alone in a statement, some are not; some are set in a transaction.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_leaves_out_options_that_the_target_rejects() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = database_with_options(server);
        let id = setup.snapshot(&database, &[]);
        let changes = [
            ("fillfactor='70'", "fillfactor='70', of_tomorrow='1'"),
            ("n_distinct='5'", "of_tomorrow='x', n_distinct='5'"),
            ("fillfactor='60'", "of_tomorrow=on"),
            ("fillfactor='75'", "fillfactor='75', of_tomorrow=on"),
            ("fillfactor='80'", "fillfactor='3'"),
            ("toast.autovacuum_enabled='off'", "tomorrow.autovacuum_enabled='off'"),
            ("security_barrier='true'", "security_barrier='true', of_tomorrow='1'"),
            ("fillfactor='90'", "of_tomorrow='1', of_tomorrow_too='2'"),
            ("siglen='64'", "of_tomorrow='1', siglen='64'"),
            ("'work_mem'", "'memory_of_tomorrow'"),
        ];
        change_schema(&setup, &id, &changes);
        let new = server.reserve_database("tomorrow");
        let run = setup.run(&["restore", &id, "--to", &new.url(), "--create"]).code(0);
        let run = run.says("the settings are restored without one, which the server does not accept");
        let objects = [
            "table public.t",
            "index public.by_v",
            "index public.by_words",
            "view public.w",
            "materialized view public.m",
        ];
        for object in objects {
            let warning = format!("the {object} is restored without the option of_tomorrow");
            assert!(run.stderr().contains(&warning), "{warning}\n{}", run.transcript());
        }
        for object in ["constraint public.t_pkey", "constraint public.t_r_excl"] {
            let warning = format!("the {object} is restored without");
            assert!(run.stderr().contains(&warning), "{warning}\n{}", run.transcript());
        }
        let options = "SELECT c.relname || ' ' || coalesce(c.reloptions::text, '') FROM pg_class c
                    WHERE relname IN ('t', 'by_v', 'by_id', 't_pkey', 't_r_excl', 'w', 'm') ORDER BY 1";
        let expected = [
            "by_id {pages_per_range=8,autosummarize=on}",
            "by_v ",
            "m ",
            "t {fillfactor=70,autovacuum_enabled=off}",
            "t_pkey ",
            "t_r_excl {fillfactor=75}",
            "w {security_barrier=true,check_option=cascaded}",
        ];
        assert_eq!(rows(&new, options), expected);
        let query = "SELECT count(*) FROM pg_attribute, pg_options_to_table(attoptions)
                    WHERE attrelid = 't'::regclass AND option_name = 'n_distinct' AND option_value = '5'";
        assert_eq!(new.value(query), "1");
        assert_eq!(new.value("SELECT count(*) FROM t"), "20");

        // A dropped table is restored in one transaction, which a rejected option must not abort.
        new.psql("DROP TABLE t CASCADE");
        let run = setup.ok(&["restore", &id, "--to", &new.url(), "--table", "t"]);
        assert!(run.stderr().contains("restored without the option of_tomorrow"), "{}", run.transcript());
        assert_eq!(new.value("SELECT count(*) FROM t"), "20");
        setup.ok(&["restore", &id, "--to", &new.url(), "--beside", "old", "--table", "t"]);
        assert_eq!(new.value("SELECT count(*) FROM old.t"), "20");
    });
}

/// Replaces texts in the `objects.json` of a snapshot, and adapts the archive and its manifest.
fn change_schema(setup: &Setup, id: &str, changes: &[(&str, &str)]) {
    let source = setup.json(&["show", id])["source"].as_str().unwrap().to_owned();
    let path = |ending: &str| setup.sandbox.path(format!("backups/{source}/{id}{ending}"));
    let map = craft::map(&std::fs::read(path(".tar.gz")).unwrap());
    let mut files = map.files;
    let objects = files.iter_mut().find(|file| file.path == "schema/objects.json").unwrap();
    let mut text = String::from_utf8(objects.content.clone()).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old} is not in\n{text}");
        text = text.replace(old, new);
    }
    objects.content = text.into_bytes();
    let archive = Layout::of(map.codec, &files, BLOCK).bytes();
    std::fs::write(path(".tar.gz"), &archive).unwrap();
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(path(".json")).unwrap()).unwrap();
    manifest["archive_bytes"] = archive.len().into();
    manifest["sha256"] = craft::sha256(&archive).into();
    std::fs::write(path(".json"), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
}
