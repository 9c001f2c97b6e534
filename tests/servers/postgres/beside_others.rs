//! Restores into an existing, empty database in which other programs create objects meanwhile: if the restore fails, what it
//! made is dropped again, and nothing else.

use super::helpers::{Setup, connect, rows, shop, wait_until};
use crate::support::Run;
use crate::support::postgres::{TestDatabase, TestRole, oldest_and_newest, some_server};
use crate::support::samples;

/// A function that waits for an advisory lock, and then fails in all other databases.
fn pausing(source: &TestDatabase) -> String {
    format!(
        "CREATE FUNCTION public.pause(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
             PERFORM pg_catalog.pg_advisory_xact_lock_shared(77);
             IF current_database() <> '{}' THEN RAISE EXCEPTION 'not here'; END IF; RETURN $1; END$$;",
        source.name
    )
}

/// Runs the program with a database as its target. `meanwhile` is called while it waits in the function.
fn run_paused(setup: &Setup, target: &TestDatabase, arguments: &[&str], meanwhile: impl FnOnce()) -> Run {
    let mut holder = connect(target);
    holder.execute("SELECT pg_advisory_lock(77)").unwrap();
    let running = setup.sandbox.start_command(setup.command(arguments));
    let waiting = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
          WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = '{}'",
        target.name
    );
    wait_until("the program waits in the function", || setup.server.value("postgres", &waiting) != "0");
    meanwhile();
    drop(holder);
    running.finish()
}

/// Everything is created when the first row fails.
#[test]
#[ignore = "needs PostgreSQL"]
fn objects_of_others_that_depend_on_restored_ones_are_left_with_these() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("beside");
        source.psql(pausing(&source));
        source.psql(
            "CREATE SCHEMA s; CREATE SCHEMA bare; CREATE TYPE s.mood AS ENUM ('x'); CREATE TABLE public.viewed (i integer);
             CREATE TABLE public.keyed (i integer PRIMARY KEY); CREATE TABLE s.plain (i integer);
             CREATE TABLE public.parts (i integer) PARTITION BY RANGE (i);
             CREATE TABLE public.part PARTITION OF public.parts FOR VALUES FROM (0) TO (10);
             CREATE TABLE public.first (i integer, CHECK (public.pause(i) > 0)); INSERT INTO public.first VALUES (1);
             CREATE VIEW public.first_view AS SELECT * FROM public.first",
        );
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("beside_target");
        let run = run_paused(&setup, &target, &["restore", &id, "--to", &target.url(), "-j", "1"], || {
            target.psql(
                "CREATE SCHEMA theirs; CREATE VIEW theirs.v AS SELECT * FROM public.viewed;
                 CREATE TABLE theirs.of_type (m s.mood); INSERT INTO theirs.of_type VALUES ('x');
                 CREATE TABLE s.theirs (i integer); INSERT INTO s.theirs VALUES (1), (2);
                 CREATE TABLE theirs.part PARTITION OF public.parts FOR VALUES FROM (10) TO (20);
                 INSERT INTO theirs.part VALUES (11)",
            );
        })
        .code(1);
        for words in
            ["is left incomplete", "public.viewed (view theirs.v depends on", "s.mood", "theirs.part", "schema s"]
        {
            assert!(run.stderr().contains(words), "stderr lacks '{words}'\n{}", run.transcript());
        }
        for (query, found) in [
            ("SELECT count(*) FROM theirs.v", "0"),
            ("SELECT m FROM theirs.of_type", "x"),
            ("SELECT count(*) FROM s.theirs", "2"),
            ("SELECT i FROM public.parts", "11"),
        ] {
            assert_eq!(target.value(query), found, "{query}");
        }
        let left = "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname IN ('public', 's', 'bare') ORDER BY c.relname";
        assert_eq!(rows(&target, left), ["parts", "s.theirs", "viewed"], "{}", run.transcript());
        assert_eq!(target.value("SELECT to_regnamespace('bare') IS NULL AND to_regproc('pause') IS NULL"), "t");
        let comment =
            format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'", target.name);
        assert!(target.value(&comment).starts_with("lifeboat: not finished"));
    });
}

/// The column's expression is evaluated when its table is created, before the next table is.
#[test]
#[ignore = "needs PostgreSQL"]
fn an_object_of_the_same_name_that_another_program_has_created_is_not_dropped() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("same_name");
        source.psql(pausing(&source));
        source.psql(
            "CREATE SCHEMA app; CREATE TABLE app.a (i integer, g integer GENERATED ALWAYS AS (public.pause(1)) STORED);
             CREATE TABLE app.z (i integer); CREATE TABLE app.y (i integer); CREATE VIEW app.v AS SELECT * FROM app.z",
        );
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("same_name_target");
        let theirs = "CREATE TABLE public.y (i integer); INSERT INTO public.y VALUES (5);
                      CREATE VIEW public.z AS SELECT 1 AS one;
                      CREATE FUNCTION public.f(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'";
        let arguments = ["restore", &id, "--to", &target.url(), "-j", "1"];
        let run = run_paused(&setup, &target, &arguments, || drop(target.psql(theirs))).code(1);
        let words = "nothing of it is left in";
        assert!(run.stderr().contains(words) && run.stderr().contains("public.y"), "{}", run.transcript());
        assert_eq!(target.value("SELECT i FROM public.y"), "5");
        assert_eq!(target.value("SELECT public.f(1) + one FROM public.z"), "2");
        assert_eq!(target.value("SELECT to_regnamespace('app') IS NULL AND to_regproc('pause') IS NULL"), "t");
        // A table of the same name is in the way: it is not ours.
        let target = server.create_database("same_table_target");
        source.psql(
            "ALTER TABLE app.z SET SCHEMA public; ALTER TABLE app.y SET SCHEMA public; DROP VIEW app.v;
             CREATE OR REPLACE FUNCTION public.pause(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(77); RETURN $1; END$$",
        );
        let id = setup.snapshot(&source, &[]);
        let arguments = ["restore", &id, "--to", &target.url(), "-j", "1"];
        let run = run_paused(&setup, &target, &arguments, || drop(target.psql(theirs))).code(1);
        assert!(run.stderr().contains(words) && run.stderr().contains("already exists"), "{}", run.transcript());
        assert_eq!(target.value("SELECT i FROM public.y"), "5");
        assert_eq!(target.value("SELECT public.f(1) + one FROM public.z"), "2");
        assert_eq!(target.value("SELECT to_regnamespace('app') IS NULL AND to_regproc('pause') IS NULL"), "t");
    });
}

/// The rows differ only at the end: a check writes to another table.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_failed_restore_puts_everything_back() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = samples::database(server, "everything");
        source.psql(
            "CREATE TABLE public.noted (what text); CREATE FUNCTION public.note(integer) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO public.noted VALUES ('checked'); RETURN true; END$$;
             CREATE TABLE public.noting (id integer CHECK (public.note(id))); INSERT INTO public.noting VALUES (1);
             CREATE TABLE public.circle (i integer); CREATE FUNCTION public.of_row(public.circle) RETURNS boolean
                 LANGUAGE sql IMMUTABLE AS 'SELECT true';
             ALTER TABLE public.circle ADD CHECK (public.of_row(circle.*));
             ALTER SCHEMA public OWNER TO lifeboat_writer; COMMENT ON SCHEMA public IS 'changed';
             GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA public TO lifeboat_reader WITH GRANT OPTION;
             ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
             ALTER DEFAULT PRIVILEGES FOR ROLE lifeboat_writer IN SCHEMA public GRANT SELECT ON TABLES TO lifeboat_reader",
        );
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("put_back");
        // The owner and the privileges differ from those of a new database.
        target.psql("GRANT USAGE ON SCHEMA public TO lifeboat_writer; COMMENT ON SCHEMA public IS 'as it was'");
        let public = "SELECT nspowner::regrole, obj_description(oid, 'pg_namespace'),
                             ARRAY(SELECT unnest(coalesce(nspacl, acldefault('n', nspowner)))::text ORDER BY 1)
                        FROM pg_namespace WHERE nspname = 'public'";
        let before = rows(&target, public);
        let run = setup.run(&["restore", &id, "--to", &target.url()]).code(3).says("public.noted");
        assert!(run.stderr().contains("is empty again"), "{}", run.transcript());
        assert_eq!(rows(&target, public), before);
        let schemas = "SELECT nspname FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'";
        assert_eq!(rows(&target, schemas), [""; 0]);
        for catalog in
            ["class", "proc", "type", "operator", "cast", "transform", "opfamily", "ts_config", "event_trigger"]
        {
            // A session that is ending may still have temporary objects.
            let left = format!(
                "SELECT count(*) FROM pg_{catalog} WHERE oid >= 16384 AND NOT EXISTS (
                     SELECT FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
                      WHERE d.classid = 'pg_{catalog}'::regclass AND d.objid = pg_{catalog}.oid
                        AND d.refclassid = 'pg_namespace'::regclass AND n.nspname ~ '^pg_temp_')"
            );
            assert_eq!(target.value(&left), "0", "pg_{catalog}\n{}", run.transcript());
        }
        for catalog in ["default_acl", "largeobject_metadata", "publication", "foreign_server"] {
            assert_eq!(target.value(&format!("SELECT count(*) FROM pg_{catalog}")), "0", "{catalog}");
        }
    });
}

/// A table whose check makes the rows of another one differ from those of the snapshot, at the end of a restore.
const DIFFERS: &str =
    "CREATE TABLE public.noted (what text); CREATE FUNCTION public.note(integer) RETURNS boolean LANGUAGE plpgsql
         AS $$BEGIN INSERT INTO public.noted VALUES ('checked'); RETURN true; END$$;
     CREATE TABLE public.noting (id integer CHECK (public.note(id))); INSERT INTO public.noting VALUES (1);";

#[test]
#[ignore = "needs PostgreSQL"]
fn a_failed_restore_puts_back_the_privileges_of_what_existed() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let [reader, writer] = ["back_reader", "back_writer"].map(|name| TestRole::create(server, name, ""));
        let [source, target] = ["back", "back_target"].map(|name| {
            let database = server.create_database(name);
            database.psql(format!(
                "CREATE SCHEMA ext AUTHORIZATION {writer}; CREATE EXTENSION citext SCHEMA ext;
                 GRANT USAGE ON SCHEMA ext TO PUBLIC"
            ));
            database
        });
        source.psql(DIFFERS);
        source.psql(format!(
            "GRANT CREATE ON SCHEMA ext TO {reader} WITH GRANT OPTION; REVOKE USAGE ON SCHEMA ext FROM PUBLIC;
             REVOKE EXECUTE ON FUNCTION ext.citext_eq(ext.citext, ext.citext) FROM PUBLIC;
             GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO {reader};
             GRANT SELECT, UPDATE ON pg_catalog.pg_authid TO {reader};
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO {reader};
             REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"
        ));
        let id = setup.snapshot(&source, &[]);
        target.psql(format!(
            "GRANT SELECT ON pg_catalog.pg_authid TO {reader}; GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO {writer}"
        ));
        let privileges = "WITH lists (object, acl) AS (
                SELECT nspname::text, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
                 WHERE nspname IN ('ext', 'public')
                UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
                UNION ALL SELECT lanname::text, coalesce(lanacl, acldefault('l', lanowner)) FROM pg_language
                UNION ALL SELECT relname::text, relacl FROM pg_class WHERE relname = 'pg_authid'
                UNION ALL SELECT attname::text, attacl FROM pg_attribute WHERE attrelid = 'pg_authid'::regclass)
            SELECT object || ' ' || item::text FROM lists, unnest(acl) AS item WHERE object !~ 'lifeboat_run' ORDER BY 1";
        let before = rows(&target, privileges);
        let run = setup.run(&["restore", &id, "--to", &target.url()]).code(3).says("public.noted");
        assert!(run.stderr().contains("is empty again"), "{}", run.transcript());
        assert_eq!(rows(&target, privileges), before);
    });
}

/// Another program creates a large object with the same oid, and the session that waits for it is ended.
#[test]
#[ignore = "needs PostgreSQL"]
fn an_object_of_which_nobody_knows_who_created_it_leaves_the_database_incomplete() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("unsure");
        source.psql("SELECT lo_create(47110); CREATE TABLE public.one (i integer); INSERT INTO public.one VALUES (1)");
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("unsure_target");
        let mut holder = connect(&target);
        holder.execute("BEGIN").unwrap();
        holder.rows("SELECT lo_create(47110)").unwrap();
        let mut blocker = connect(&target);
        let command = setup.command(&["restore", &id, "--to", &target.url(), "-j", "1"]);
        let running = setup.sandbox.start_command(command);
        let value = |query: &str| setup.server.value("postgres", query);
        let waiting = |what: &str| {
            format!(
                "FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock' AND query ~ '{what}'",
                target.name
            )
        };
        let [creating, locking] = ["lo_create", "^LOCK TABLE"].map(waiting);
        let is_waiting = |what: &str| value(&format!("SELECT count(*) {what}")) == "1";
        wait_until("the program waits for the other session", || is_waiting(&creating));
        // Until the object is there, nobody else reads the catalog.
        blocker.execute("BEGIN").unwrap();
        std::thread::scope(|scope| {
            let lock = "LOCK TABLE pg_catalog.pg_largeobject_metadata IN ACCESS EXCLUSIVE MODE";
            let locked = scope.spawn(|| blocker.execute(lock).unwrap());
            wait_until("the other session waits for the program", || is_waiting(&locking));
            value(&format!("SELECT pg_terminate_backend(pid) {creating}"));
            locked.join().unwrap();
        });
        holder.execute("COMMIT").unwrap();
        blocker.execute("ROLLBACK").unwrap();
        let run = running.finish();
        for words in ["is left incomplete", "47110", "it may be that of another program"] {
            assert!(run.stderr().contains(words), "stderr lacks '{words}'\n{}", run.transcript());
        }
        assert_eq!(target.value("SELECT count(*) FROM pg_largeobject_metadata"), "1");
        let comment =
            format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'", target.name);
        assert!(target.value(&comment).starts_with("lifeboat: not finished"));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_in_a_database_that_others_use_meanwhile_leaves_their_objects() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "drilled_beside");
        source.psql(
            "CREATE FUNCTION public.pause(integer) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(77); RETURN true; END$$;
             CREATE TABLE public.paused (i integer CHECK (public.pause(i))); INSERT INTO public.paused VALUES (1);
             DROP TABLE orders CASCADE; DROP TABLE users CASCADE",
        );
        let id = setup.snapshot(&source, &[]);
        let role = TestRole::create(server, "drill_beside", "LOGIN");
        let target = server.create_database("drill_beside");
        target.psql(format!("ALTER DATABASE \"{}\" OWNER TO {role}", target.name));
        let user = format!("postgres://{}@", server.user);
        let url = target.socket_url().replacen(&user, &format!("postgres://{role}@"), 1);
        let run = run_paused(&setup, &target, &["drill", &id, "--to", &url, "--no-owner", "-j", "1"], || {
            target.psql("CREATE SCHEMA theirs; CREATE TABLE theirs.kept (i) AS SELECT 5");
        })
        .code(0);
        assert!(run.stderr().contains("theirs.kept"), "{}", run.transcript());
        assert_eq!(target.value("SELECT i FROM theirs.kept"), "5");
        assert_eq!(target.value("SELECT to_regclass('log') IS NULL AND to_regproc('pause') IS NULL"), "t");
    });
}
