//! Partial snapshots: objects that cannot be saved, and restores that need `--allow-partial`.

use super::helpers::{Setup, require_refused, rows, shop, text};
use crate::support::compare::data;
use crate::support::postgres::{TestDatabase, oldest_and_newest};

#[test]
#[ignore = "needs PostgreSQL"]
fn a_partial_snapshot_replaces_a_whole_database_only_with_allow_partial() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "in_part");
        let url = database.url();
        let selections =
            [&["--exclude-data", "public.orders"][..], &["--table", "public.users", "--table", "public.log"]];
        for selection in selections {
            let id = setup.snapshot(&database, selection);
            let restore = ["restore", &id, "--to", &url];
            let swap = [&restore[..], &["--swap"]].concat();
            let replace = [&restore[..], &["--replace"]].concat();
            let words = ["is incomplete", "rows of public.orders", "--allow-partial"];
            require_refused(&setup, &database, &swap, 2, &words);
            require_refused(&setup, &database, &replace, 2, &words);
            // Even with --allow-partial, rows are not deleted if the snapshot has no rows for the table.
            let allowed = [&replace[..], &["--allow-partial"]].concat();
            require_refused(&setup, &database, &allowed, 1, &["the table public.orders is not in the snapshot"]);
            database.psql("INSERT INTO log (what) VALUES ('later')");
            setup.ok(&[&replace[..], &["--table", "log", "--no-safety"]].concat());
            assert_eq!(database.value("SELECT count(*) FROM log"), "0");

            let before = data(&database);
            let run = setup.ok(&[&swap[..], &["--allow-partial", "--json"]].concat());
            assert!(run.stderr().contains("not in the snapshot: rows of public.orders"), "{}", run.transcript());
            assert_eq!(
                rows(&database, "SELECT count(*) FROM users UNION ALL SELECT count(*) FROM orders"),
                ["20", "0"]
            );
            let old = TestDatabase { server: server.clone(), name: text(&run.json()["moved_aside"][0]) };
            assert_eq!(data(&old), before);
            drop(setup.undo_swap(&run.json()));
            assert_eq!(data(&database), before);
        }
    });
}

/// A safety snapshot contains only the tables that the restore overwrites.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_safety_snapshot_of_some_tables_is_swapped_in_only_with_allow_partial() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "safety_swap");
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        let replaced = setup.json(&["restore", &id, "--replace", "--table", "log", "--to", &url]);
        let some = text(&replaced["safety_snapshot"]);
        let words = ["is incomplete", "rows of public.orders"];
        require_refused(&setup, &database, &["restore", &some, "--swap", "--to", &url], 2, &words);
        // The safety snapshot of a restore of all tables is complete.
        let replaced = setup.json(&["restore", &id, "--replace", "--to", &url]);
        let all = text(&replaced["safety_snapshot"]);
        let before = data(&database);
        let swapped = setup.json(&["restore", &all, "--swap", "--to", &url]);
        drop(TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) });
        assert_eq!(data(&database), before);
    });
}

/// The hash of an enum value depends on oids, which change with a restore: rows would be in the wrong partitions.
#[test]
#[ignore = "needs PostgreSQL"]
fn hash_partitions_by_an_enum_are_named_and_left_out_only_with_allow_partial() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("hashed");
        database.psql(
            "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
             CREATE TABLE moods (id integer, mood mood) PARTITION BY HASH (mood);
             CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST (id);
             CREATE TABLE moods_1_1 PARTITION OF moods_1 DEFAULT;
             CREATE TABLE numbers (id integer) PARTITION BY HASH (id);
             CREATE TABLE numbers_0 PARTITION OF numbers FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE by_list (mood mood) PARTITION BY LIST (mood);
             CREATE TABLE by_list_ok PARTITION OF by_list FOR VALUES IN ('ok');
             INSERT INTO moods SELECT g, (enum_range(NULL::mood))[g % 3 + 1] FROM generate_series(1, 30) AS g;
             INSERT INTO numbers SELECT generate_series(1, 9); INSERT INTO by_list VALUES ('ok')",
        );
        let url = database.url();
        let messages = [
            "table public.moods_0: it is a hash partition by an enum",
            "table public.moods_1_1: it is a hash partition",
        ];
        let words = [&messages[..], &["2 objects cannot be saved", "--allow-partial"]].concat();
        // If the options of the snapshot exclude them, it is not refused.
        let chosen = setup.snapshot(&database, &["--exclude-data", "moods_*"]);
        assert_eq!(setup.json(&["show", &chosen])["rows"], 10);
        require_refused(&setup, &database, &["snapshot", &url], 1, &words);
        let run = setup.ok(&["snapshot", &url, "--allow-partial", "--json"]);
        assert!(messages.iter().all(|words| run.stderr().contains(words)), "{}", run.transcript());
        let saved = &run.json()["snapshots"][0];
        assert_eq!((&saved["kind"], &saved["rows"]), (&"partial".into(), &10.into()));
        let id = text(&saved["id"]);
        setup.run(&["restore", "latest", "--to", &server.url("anything"), "--create"]).code(4);
        let new = setup.restore_new(&id, &[]);
        assert_eq!(rows(&new, "SELECT count(*) FROM moods UNION ALL SELECT count(*) FROM numbers"), ["0", "9"]);
    });
}

/// The hash of an array, a range or a domain depends on the hashes of its elements.
#[test]
#[ignore = "needs PostgreSQL"]
fn hash_partitions_by_a_type_that_contains_an_enum_are_named() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("hashed_within");
        database.psql(
            "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); CREATE DOMAIN good AS mood CHECK (value <> 'sad');
             CREATE TYPE moods AS RANGE (SUBTYPE = mood);
             CREATE TABLE lists (moods mood[]) PARTITION BY HASH (moods);
             CREATE TABLE lists_0 PARTITION OF lists FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE ranges (id integer, moods moods) PARTITION BY HASH (id, moods);
             CREATE TABLE ranges_0 PARTITION OF ranges FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE domains (mood good) PARTITION BY HASH (mood);
             CREATE TABLE domains_0 PARTITION OF domains FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE holds (id integer, moods mood[]) PARTITION BY HASH (id);
             CREATE TABLE holds_0 PARTITION OF holds FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             INSERT INTO lists VALUES ('{ok}'); INSERT INTO holds VALUES (1, '{ok}')",
        );
        let url = database.url();
        let run = setup.run(&["snapshot", &url]).code(1).says("3 objects cannot be saved");
        for name in ["lists_0", "ranges_0", "domains_0"] {
            assert!(
                run.stderr().contains(&format!("table public.{name}: it is a hash partition by an enum")),
                "{}",
                run.transcript()
            );
        }
        // The partition key of this table is not an enum, so its rows are saved.
        let partial = setup.snapshot(&database, &["--allow-partial"]);
        assert_eq!(setup.json(&["show", &partial])["rows"], 1);
    });
}
