//! `restore --swap`: a new database in the place of the old one, and what a new or an empty database gets.

use super::helpers::{Place, lasting, shop, stay, text};
use crate::support::compare::{assert_equal, assert_equal_data, data};
use crate::support::postgres::{TestDatabase, oldest_and_newest, some_server};

/// What belongs to the database itself.
fn own(database: &TestDatabase) -> Vec<Vec<String>> {
    database.server.query(
        "postgres",
        &format!(
            "SELECT datdba::regrole, datconnlimit, shobj_description(d.oid, 'pg_database'),
                    (SELECT string_agg(acl::text, ' ' ORDER BY acl::text) FROM unnest(datacl) AS acl),
                    (SELECT string_agg(setrole::regrole || ' ' || setconfig::text, ';' ORDER BY setrole)
                       FROM pg_db_role_setting s WHERE s.setdatabase = d.oid)
               FROM pg_database d WHERE datname = '{}'",
            database.name
        ),
    )
}

#[test]
#[ignore = "needs PostgreSQL"]
fn swap_keeps_owner_grants_settings_and_the_old_one() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = shop(server, "swapped");
        let (name, url) = (&database.name, database.url());
        let id = place.snapshot(&database, &[]);
        let copy = place.restore_new(&id, &[]);
        // What it is now counts, not what it was.
        server.psql(
            "postgres",
            format!(
                "ALTER DATABASE \"{name}\" OWNER TO lifeboat_owner; COMMENT ON DATABASE \"{name}\" IS 'the ''real'' one';
                 ALTER DATABASE \"{name}\" SET search_path = 'a b', public; ALTER DATABASE \"{name}\" CONNECTION LIMIT 77;
                 ALTER ROLE lifeboat_reader IN DATABASE \"{name}\" SET work_mem = '7MB';
                 GRANT CREATE ON DATABASE \"{name}\" TO lifeboat_writer WITH GRANT OPTION; REVOKE TEMPORARY ON DATABASE \"{name}\" FROM PUBLIC"
            ),
        );
        database.psql("ALTER TABLE public.users ADD later integer; DROP TABLE public.log CASCADE");
        let (settings, harmed, schema) = (own(&database), data(&database), lasting(&database));
        let somebody = stay(&database);
        let run = place.run(&["restore", &id, "--swap", "--to", &url]).code(1);
        assert!(
            run.stderr().contains("1 sessions of others") && run.stderr().contains("nothing was changed"),
            "{}",
            run.transcript()
        );
        assert_eq!(lasting(&database), schema);
        drop(somebody);
        let document = place.json(&["restore", &id, "--swap", "--to", &url]);
        assert_eq!(document["mode"], "swap");
        assert_eq!(own(&database), settings);
        assert_equal_data(&copy, &database, "swapped");
        assert_eq!(database.value("SELECT to_regclass('public.log') IS NOT NULL"), "t");
        let old = TestDatabase { server: server.clone(), name: text(&document["moved_aside"][0]) };
        assert!(old.name.starts_with(&name[..name.len().min(38)]) && old.name.contains("_before_"), "{}", old.name);
        assert_eq!(data(&old), harmed);
        place.paste(&text(&document["undo"]));
        assert_eq!((data(&database), lasting(&database), own(&database)), (harmed, schema, settings));
        // What was restored is there still, under another name.
        let undo = text(&document["undo"]);
        let kept = undo.split("RENAME TO ").nth(1).unwrap().split(';').next().unwrap();
        let kept = TestDatabase { server: server.clone(), name: kept.to_owned() };
        assert_equal_data(&copy, &kept, "what was swapped in");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn into_an_empty_database() {
    some_server(|server| {
        let place = Place::new(server);
        let source = shop(server, "to_fill");
        let id = place.snapshot(&source, &[]);
        let target = server.create_database("filled");
        server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS 'mine'", target.name));
        let document = place.json(&["restore", &id, "--to", &target.url()]);
        assert_eq!(document["mode"], "empty");
        assert_eq!(own(&target)[0][2], "mine");
        server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS NULL", target.name));
        assert_equal(&source, &target, "filled");
        // It is not empty any more.
        let before = (lasting(&target), data(&target));
        let run = place.run(&["restore", &id, "--to", &target.url()]).code(2);
        assert!(run.stderr().contains("not empty") && run.stderr().contains("--replace"), "{}", run.transcript());
        assert_eq!((lasting(&target), data(&target)), before);
        let run = place.run(&["restore", &id, "--to", &server.url("nobody_has_this"), "--swap"]).code(2);
        assert!(run.stderr().contains("is not there") && run.stderr().contains("--create"), "{}", run.transcript());
    });
}

/// While it is filled, a database says so; where that fails, it is empty again.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_failed_restore_leaves_an_empty_database_empty() {
    some_server(|server| {
        let place = Place::new(server);
        let source = server.create_database("to_fail");
        // Its check lets no row in again: it tells of the database it is in.
        source.psql(format!(
            "CREATE TABLE a (id serial PRIMARY KEY); INSERT INTO a SELECT FROM generate_series(1, 1000);
             CREATE FUNCTION here() RETURNS boolean LANGUAGE sql AS $$SELECT current_database() = '{}'$$;
             CREATE SCHEMA \"s t\"; CREATE TABLE \"s t\".b (id integer, CONSTRAINT only_here CHECK (public.here())); INSERT INTO \"s t\".b VALUES (1);
             CREATE VIEW v AS SELECT * FROM a; CREATE TYPE mood AS ENUM ('x'); SELECT lo_from_bytea(0, 'x')",
            source.name
        ));
        let id = place.snapshot(&source, &[]);
        let target = server.create_database("failing");
        let empty = target.schema_dump();
        let run = place.run(&["restore", &id, "--to", &target.url()]).code(1);
        assert!(run.stderr().contains("is empty again") && run.stderr().contains("only_here"), "{}", run.transcript());
        assert_eq!(target.schema_dump(), empty);
        assert_eq!(target.value("SELECT count(*) FROM pg_largeobject_metadata"), "0");
        assert_eq!(own(&target)[0][2], "\\N");
        // One that a killed restore has left says so, and is not taken for empty.
        let mark = "lifeboat: not finished {\"purpose\":\"restore\",\"snapshot\":\"x\",\"host\":\"h\",\"process\":1,\"since\":\"2026-11-21T00:00:00Z\"}";
        server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS '{mark}'", target.name));
        let run = place.run(&["restore", &id, "--to", &target.url()]).code(1);
        assert!(run.stderr().contains("is being restored to"), "{}", run.transcript());
        // A new one is not there at all.
        let new = server.reserve_database("never_made");
        place.run(&["restore", &id, "--to", &new.url(), "--create"]).code(1);
        assert!(place.databases_like(&format!("datname = '{}'", new.name)).is_empty());
        // And one to be exchanged is as it was.
        let old = server.create_database("as_it_was");
        old.psql("CREATE TABLE mine (id integer)");
        place.run(&["restore", &id, "--to", &old.url(), "--swap"]).code(1);
        assert_eq!(old.value("SELECT to_regclass('mine') IS NOT NULL"), "t");
        let scratch = format!("shobj_description(oid, 'pg_database') ~ 'not finished.*{id}'");
        assert!(place.databases_like(&scratch).is_empty());
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn roles_that_are_missing_are_told_before_anything_is_made() {
    some_server(|server| {
        let place = Place::new(server);
        let role = format!("lifeboat_gone_{}_{}", std::process::id(), server.major);
        let source = server.create_database("with_role");
        source.psql(format!(
            "CREATE ROLE {role}; CREATE TABLE t (id integer); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO {role};
             CREATE TABLE u (id integer); GRANT SELECT ON u TO {role}; ALTER TABLE u ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON u TO {role} USING (id > 0); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}"
        ));
        let id = place.snapshot(&source, &[]);
        source.psql(format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"));
        let new = server.reserve_database("without_role");
        let run = place.run(&["restore", &id, "--to", &new.url(), "--create"]).code(1);
        for word in [&role[..], "is missing", "--no-owner", "nothing was changed"] {
            assert!(run.stderr().contains(word), "{word}\n{}", run.transcript());
        }
        assert!(place.databases_like(&format!("datname = '{}'", new.name)).is_empty());
        let run = place.ok(&["restore", &id, "--to", &new.url(), "--create", "--no-owner"]);
        assert!(run.stderr().contains("policy") && run.stderr().contains("public.u"), "{}", run.transcript());
        assert_eq!(new.value("SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "postgres");
        assert_eq!(new.value("SELECT count(*) FROM t"), "1");
        // Without its policies nobody but the owner sees a row: closed rather than open.
        assert_eq!(new.value("SELECT relrowsecurity FROM pg_class WHERE relname = 'u'"), "t");
        // Into a database that is there.
        let there = server.create_database("there");
        place.ok(&["restore", &id, "--to", &there.url(), "--no-owner"]);
    });
}
