//! `restore --swap`, which exchanges a database for a restored one; and restores into empty and new databases.

use super::helpers::{Setup, connect, definitions_and_oids, shop, text};
use crate::support::compare::{assert_equal, assert_equal_data, data};
use crate::support::postgres::{TestDatabase, oldest_and_newest, some_server};

/// Returns the properties of the database itself: owner, connection limit, comment, privileges and settings.
fn properties(database: &TestDatabase) -> Vec<Vec<String>> {
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
fn swap_keeps_the_properties_of_the_database_and_moves_the_old_one_aside() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "swapped");
        let (name, url) = (&database.name, database.url());
        let id = setup.snapshot(&database, &[]);
        let copy = setup.restore_new(&id, &[]);
        // The restored database gets the current properties, not the properties at the time of the snapshot.
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
        let state = || (data(&database), definitions_and_oids(&database), properties(&database));
        let (damaged, schema, settings) = state();
        let client = connect(&database);
        let run = setup.run(&["restore", &id, "--swap", "--to", &url]).code(1);
        assert!(
            run.stderr().contains("1 other session is connected") && run.stderr().contains("nothing was changed"),
            "{}",
            run.transcript()
        );
        assert_eq!(definitions_and_oids(&database), schema);
        drop(client);
        let document = setup.json(&["restore", &id, "--swap", "--to", &url]);
        assert_eq!(document["mode"], "swap");
        assert_eq!(properties(&database), settings);
        assert_equal_data(&copy, &database, "swapped");
        assert_eq!(database.value("SELECT to_regclass('public.log') IS NOT NULL"), "t");
        let old = TestDatabase { server: server.clone(), name: text(&document["moved_aside"][0]) };
        assert!(old.name.starts_with(&name[..name.len().min(38)]) && old.name.contains("_before_"), "{}", old.name);
        assert_eq!(data(&old), damaged);
        let kept_database = setup.undo_swap(&document);
        assert_eq!(state(), (damaged, schema, settings));
        assert_equal_data(&copy, &kept_database, "the database that was swapped in");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_into_an_empty_database_keeps_its_comment() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "to_fill");
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("filled");
        server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS 'mine'", target.name));
        let document = setup.json(&["restore", &id, "--to", &target.url()]);
        assert_eq!(document["mode"], "empty");
        assert_eq!(properties(&target)[0][2], "mine");
        server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS NULL", target.name));
        assert_equal(&source, &target, "filled");
        // The database is not empty any more, so a second restore is refused.
        let before = (definitions_and_oids(&target), data(&target));
        let run = setup.run(&["restore", &id, "--to", &target.url()]).code(2);
        assert!(run.stderr().contains("not empty") && run.stderr().contains("--replace"), "{}", run.transcript());
        assert_eq!((definitions_and_oids(&target), data(&target)), before);
        let run = setup.run(&["restore", &id, "--to", &server.url("nobody_has_this"), "--swap"]).code(2);
        assert!(run.stderr().contains("does not exist") && run.stderr().contains("--create"), "{}", run.transcript());
    });
}

/// A comment marks a database while it is being restored. After a failure, the database is empty again.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_failed_restore_leaves_an_empty_database_empty() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("to_fail");
        // The check constraint depends on the name of the database, so the row cannot be restored into another one.
        source.psql(format!(
            "CREATE TABLE a (id serial PRIMARY KEY); INSERT INTO a SELECT FROM generate_series(1, 1000);
             CREATE FUNCTION here() RETURNS boolean LANGUAGE sql AS $$SELECT current_database() = '{}'$$;
             CREATE SCHEMA \"s t\"; CREATE TABLE \"s t\".b (id integer, CONSTRAINT only_here CHECK (public.here())); INSERT INTO \"s t\".b VALUES (1);
             CREATE VIEW v AS SELECT * FROM a; CREATE TYPE mood AS ENUM ('x'); SELECT lo_from_bytea(0, 'x')",
            source.name
        ));
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("failing");
        let empty = target.schema_dump();
        let run = setup.run(&["restore", &id, "--to", &target.url()]).code(1);
        assert!(run.stderr().contains("is empty again") && run.stderr().contains("only_here"), "{}", run.transcript());
        assert_eq!(target.schema_dump(), empty);
        assert_eq!(target.value("SELECT count(*) FROM pg_largeobject_metadata"), "0");
        assert_eq!(properties(&target)[0][2], "\\N");
        // A database with the mark of a killed restore is not taken for an empty one.
        let mark = "lifeboat: not finished {\"purpose\":\"restore\",\"snapshot\":\"x\",\"host\":\"h\",\"process\":1,\"since\":\"2026-11-21T00:00:00Z\"}";
        server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS '{mark}'", target.name));
        let run = setup.run(&["restore", &id, "--to", &target.url()]).code(1);
        assert!(run.stderr().contains("is restoring"), "{}", run.transcript());
        // A new database does not exist after a failed restore.
        let new = server.reserve_database("never_made");
        setup.run(&["restore", &id, "--to", &new.url(), "--create"]).code(1);
        assert!(setup.databases_where(&format!("datname = '{}'", new.name)).is_empty());
        // A database that was to be exchanged is unchanged.
        let old = server.create_database("as_it_was");
        old.psql("CREATE TABLE mine (id integer)");
        setup.run(&["restore", &id, "--to", &old.url(), "--swap"]).code(1);
        assert_eq!(old.value("SELECT to_regclass('mine') IS NOT NULL"), "t");
        let scratch = format!("shobj_description(oid, 'pg_database') ~ 'not finished.*{id}'");
        assert!(setup.databases_where(&scratch).is_empty());
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn missing_roles_are_reported_before_the_target_is_created() {
    some_server(|server| {
        let setup = Setup::new(server);
        let role = format!("lifeboat_gone_{}_{}", std::process::id(), server.major);
        let source = server.create_database("with_role");
        source.psql(format!(
            "CREATE ROLE {role}; CREATE TABLE t (id integer); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO {role};
             CREATE TABLE u (id integer); GRANT SELECT ON u TO {role}; ALTER TABLE u ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON u TO {role} USING (id > 0); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}"
        ));
        let id = setup.snapshot(&source, &[]);
        source.psql(format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"));
        let new = server.reserve_database("without_role");
        let run = setup.run(&["restore", &id, "--to", &new.url(), "--create"]).code(1);
        for word in [&role[..], "is missing", "--no-owner", "nothing was changed"] {
            assert!(run.stderr().contains(word), "{word}\n{}", run.transcript());
        }
        assert!(setup.databases_where(&format!("datname = '{}'", new.name)).is_empty());
        let run = setup.ok(&["restore", &id, "--to", &new.url(), "--create", "--no-owner"]);
        assert!(run.stderr().contains("policy") && run.stderr().contains("public.u"), "{}", run.transcript());
        assert_eq!(new.value("SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "postgres");
        assert_eq!(new.value("SELECT count(*) FROM t"), "1");
        // Without its policies, row level security stays enabled, so that only the owner sees rows.
        assert_eq!(new.value("SELECT relrowsecurity FROM pg_class WHERE relname = 'u'"), "t");
        // A restore into an existing database works in the same way.
        let existing = server.create_database("there");
        setup.ok(&["restore", &id, "--to", &existing.url(), "--no-owner"]);
    });
}
