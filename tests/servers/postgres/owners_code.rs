//! Functions of a role without rights, which tables call when a superuser restores or drills them: they must not get the
//! rights of the superuser.

use std::os::unix::fs::PermissionsExt as _;

use super::helpers::{Setup, rows, text};
use crate::support::compare::assert_equal;
use crate::support::postgres::{Server, TestDatabase, each_server, oldest_and_newest, some_server};

/// A role without rights that owns everything in a database. It is dropped at the end.
struct Low<'a> {
    server: &'a Server,
    name: String,
}

impl<'a> Low<'a> {
    fn new(server: &'a Server, database: &TestDatabase) -> Self {
        // Comparisons replace the name of the database, wherever it is.
        let number = database.name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let name = format!("without_rights_{number}");
        server.psql("postgres", format!("CREATE ROLE {name}; ALTER DATABASE {} OWNER TO {name}", database.name));
        Low { server, name }
    }

    #[track_caller]
    fn require_no_rights(&self, when: &str) {
        let query = format!("SELECT rolsuper::text FROM pg_roles WHERE rolname = '{}'", self.name);
        assert_eq!(self.server.value("postgres", &query), "false", "{when}: the role became a superuser");
    }
}

impl Drop for Low<'_> {
    fn drop(&mut self) {
        let owned = format!("SELECT datname FROM pg_database WHERE datdba = '{}'::regrole", self.name);
        for database in self.server.query("postgres", &owned) {
            self.server.psql("postgres", format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", database[0]));
        }
        self.server.psql("postgres", format!("DROP ROLE {}", self.name));
    }
}

/// A function that takes the rights of a superuser if it can.
fn evil(role: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION s.evil(anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN others THEN NULL; END;
             BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN others THEN NULL; END;
             PERFORM pg_catalog.set_config('search_path', 's, pg_catalog', false);
             IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
                 EXECUTE 'ALTER ROLE {role} SUPERUSER';
             END IF;
             RETURN true;
         END $$;"
    )
}

/// Tables whose expressions call the functions in every way. The rows are inserted by the role.
const TABLES: &str = r#"
    CREATE SCHEMA s;
    CREATE FUNCTION s.evil(anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE FUNCTION s.wrap(v integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN PERFORM s.evil(v); RETURN v; END';
    CREATE TABLE s.checked (i integer CHECK (s.evil(i)), b text DEFAULT 'x');
    CREATE DOMAIN s.number AS integer CHECK (s.evil(VALUE));
    CREATE TYPE s.pair AS (a s.number, b text);
    CREATE TABLE s.domains (i s.number, l s.number[], p s.pair, "Odd name" "char", n numeric(5,2), j jsonb);
    CREATE TABLE s.generated (id integer GENERATED ALWAYS AS IDENTITY, i integer, g integer GENERATED ALWAYS AS (s.wrap(i)) STORED);
    CREATE TABLE s.parts (i integer, t text) PARTITION BY RANGE (s.wrap(i));
    CREATE TABLE s.part PARTITION OF s.parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE s.parent (i integer CHECK (s.evil(i)));
    CREATE TABLE s.child (t text) INHERITS (s.parent);
    CREATE TABLE s.indexed (i integer);
    CREATE INDEX ON s.indexed (s.wrap(i)) WHERE s.wrap(i) > 0;
    CREATE TABLE s.built_in (i integer CHECK (query_to_xml('select s.evil(1)', true, true, '') IS NOT NULL));
    CREATE MATERIALIZED VIEW s.materialized AS SELECT s.evil(1) AS e;
    CREATE TABLE s.plain (i integer CHECK (i > 0), g integer GENERATED ALWAYS AS (i + 1) STORED);
    INSERT INTO s.checked VALUES (1), (2);
    INSERT INTO s.domains VALUES (1, '{1,2}', '(3,"a\\b")', 'x', 1.5, '{"a": "\\n"}'), (NULL, NULL, NULL, '', NULL, NULL);
    INSERT INTO s.generated (i) VALUES (1), (2);
    INSERT INTO s.parts VALUES (1, E'a\tb\\');
    INSERT INTO s.parent VALUES (1);
    INSERT INTO s.child VALUES (1, 'x');
    INSERT INTO s.indexed VALUES (1);
    INSERT INTO s.built_in VALUES (1);
    INSERT INTO s.plain VALUES (1);
"#;

fn database<'a>(server: &'a Server, name: &str) -> (TestDatabase, Low<'a>) {
    let database = server.create_database(name);
    let low = Low::new(server, &database);
    database.psql(format!("SET ROLE {}; {TABLES} {}", low.name, evil(&low.name)));
    low.require_no_rights("after the setup");
    (database, low)
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_superuser_does_not_lend_its_rights_to_the_code_of_restored_tables() {
    each_server(|server| {
        let setup = Setup::new(server);
        let (source, low) = database(server, "owners_code");
        let id = setup.snapshot(&source, &[]);
        low.require_no_rights("a snapshot");
        setup.ok(&["drill", &id]);
        low.require_no_rights("a drill");
        let new = setup.restore_new(&id, &[]);
        low.require_no_rights("a new database");
        assert_equal(&source, &new, "owners_code");
        assert_eq!(setup.json(&["diff", &id, &new.url()])["equal"], true);

        setup.ok(&["restore", &id, "--to", &new.url(), "--replace", "--yes"]);
        low.require_no_rights("replaced rows");
        assert_equal(&source, &new, "owners_code replaced");
        setup.ok(&["restore", &id, "--to", &new.url(), "--beside", "old"]);
        low.require_no_rights("tables beside others");
        assert_eq!(rows(&new, "SELECT count(*)::text FROM old.domains"), ["2"]);
        new.psql("DROP SCHEMA old CASCADE; DROP TABLE s.checked, s.domains");
        setup.ok(&["restore", &id, "--to", &new.url(), "--table", "s.checked", "--table", "s.domains"]);
        low.require_no_rights("chosen tables");
        assert_equal(&source, &new, "owners_code of chosen tables");
        setup.ok(&["restore", &id, "--to", &new.url(), "--swap", "--yes"]);
        low.require_no_rights("an exchanged database");
        assert_equal(&source, &new, "owners_code exchanged");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_deferred_trigger_that_a_table_creates_is_not_run_by_a_superuser() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("deferred");
        let low = Low::new(server, &source);
        let role = &low.name;
        source.psql(format!(
            "SET ROLE {role}; CREATE SCHEMA s;
             CREATE FUNCTION s.later() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
                     EXECUTE 'ALTER ROLE {role} SUPERUSER';
                 ELSE
                     SET CONSTRAINTS ALL DEFERRED;
                     IF (SELECT count(*) FROM s.queue) < 3 THEN INSERT INTO s.queue VALUES (1); END IF;
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TABLE s.queue (i integer);
             CREATE FUNCTION s.evil(integer) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF to_regclass('s.queue') IS NOT NULL
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 's.queue'::regclass) THEN
                     CREATE CONSTRAINT TRIGGER later AFTER INSERT ON s.queue DEFERRABLE INITIALLY DEFERRED
                         FOR EACH ROW EXECUTE FUNCTION s.later();
                     INSERT INTO s.queue VALUES (1);
                 END IF;
                 RETURN true;
             END $$;
             CREATE TABLE s.t (i integer CHECK (s.evil(i)));
             ALTER TABLE s.t DISABLE TRIGGER ALL;
             CREATE TABLE s.rows AS SELECT 1 AS i;
             CREATE CONSTRAINT TRIGGER kept AFTER INSERT ON s.queue DEFERRABLE FOR EACH ROW EXECUTE FUNCTION s.later();
             INSERT INTO s.t VALUES (1);
             DROP TRIGGER kept ON s.queue;"
        ));
        let id = setup.snapshot(&source, &[]);
        let run = setup.run(&["drill", &id]);
        low.require_no_rights("a drill");
        assert!(run.exit() != 0 && run.stderr().contains("deferred triggers"), "{}", run.transcript());
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_owner_without_the_use_of_a_schema_gets_it_only_for_the_restore() {
    each_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("lent");
        let low = Low::new(server, &source);
        let role = &low.name;
        source.psql(format!(
            "CREATE SCHEMA locked;
             CREATE FUNCTION locked.f(integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE FUNCTION locked.g(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i';
             CREATE DOMAIN locked.d AS integer CHECK (locked.f(VALUE));
             CREATE TABLE locked.t (i integer CHECK (locked.f(i)), d locked.d, g integer GENERATED ALWAYS AS (locked.g(i)) STORED);
             INSERT INTO locked.t VALUES (1, 2);
             ALTER TABLE locked.t OWNER TO {role};
             CREATE SCHEMA given; GRANT ALL ON SCHEMA given TO {role} WITH GRANT OPTION;
             REVOKE USAGE ON SCHEMA given FROM {role}"
        ));
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["drill", &id]);
        let new = setup.restore_new(&id, &[]);
        assert_equal(&source, &new, "lent");
        let diff = setup.json(&["diff", &id, &new.url()]);
        assert_eq!((&diff["equal"], &diff["schema_equal"]), (&true.into(), &true.into()), "{diff}");
    });
}

/// The code of a table calls functions and reads tables that its owner may use because of a grant.
#[test]
#[ignore = "needs PostgreSQL"]
fn code_that_needs_grants_runs_with_them() {
    each_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("granted");
        let low = Low::new(server, &source);
        let role = &low.name;
        source.psql(format!(
            "CREATE SCHEMA util; CREATE TABLE util.limits (most integer); INSERT INTO util.limits VALUES (100);
             CREATE FUNCTION util.most() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT most FROM util.limits); END';
             CREATE FUNCTION util.ok(i integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN i <= util.most(); END';
             REVOKE ALL ON FUNCTION util.most() FROM PUBLIC;
             GRANT USAGE ON SCHEMA util TO {role}; GRANT SELECT ON util.limits TO {role};
             GRANT EXECUTE ON FUNCTION util.most() TO {role};
             CREATE SCHEMA app AUTHORIZATION {role};
             CREATE TABLE app.orders (total integer CHECK (util.ok(total)), tenant integer DEFAULT 1);
             ALTER TABLE app.orders OWNER TO {role}; INSERT INTO app.orders SELECT generate_series(1, 100);
             ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY; ALTER TABLE app.orders FORCE ROW LEVEL SECURITY;
             CREATE POLICY own ON app.orders USING (tenant = 2); REVOKE INSERT ON app.orders FROM {role}"
        ));
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["drill", &id]);
        let new = setup.restore_new(&id, &[]);
        assert_equal(&source, &new, "granted");
        new.psql("UPDATE app.orders SET total = 1");
        setup.ok(&["restore", &id, "--to", &new.url(), "--replace", "--yes"]);
        assert_equal(&source, &new, "granted");
        let diff = setup.json(&["diff", &id, &new.url()]);
        assert_eq!((&diff["equal"], &diff["schema_equal"]), (&true.into(), &true.into()), "{diff}");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_without_owners_warns_that_code_gets_the_rights_of_a_superuser() {
    some_server(|server| {
        let setup = Setup::new(server);
        let (source, low) = database(server, "no_owner_code");
        let id = setup.snapshot(&source, &[]);
        // Nothing here takes rights: what is shown is the message.
        source.psql(format!("ALTER ROLE {} NOLOGIN", low.name));
        let run = setup.run(&["drill", &id, "--no-owner"]);
        assert!(run.stderr().contains("with the rights of the superuser postgres"), "{}", run.transcript());
        server.psql("postgres", format!("ALTER ROLE {} NOSUPERUSER", low.name));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn functions_and_operators_of_a_database_are_not_called_by_commands_that_inspect_it() {
    each_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("inspected");
        let low = Low::new(server, &source);
        source.psql(format!(
            "GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role};
             CREATE TABLE mine AS SELECT 1 AS i;
             CREATE FUNCTION public.evil(name, name) RETURNS boolean LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'the operator was called'; END $$;
             CREATE OPERATOR public.!~ (LEFTARG = name, RIGHTARG = name, FUNCTION = public.evil);
             CREATE OPERATOR public.<> (LEFTARG = name, RIGHTARG = name, FUNCTION = public.evil);
             CREATE FUNCTION public.fail() RETURNS bigint LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'the function was called'; END $$;
             CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT public.fail() IS NULL; SELECT NULL::timestamptz';
             ALTER DATABASE {database} SET search_path = public, pg_catalog;",
            role = low.name,
            database = source.name
        ));
        let config = format!(
            "[[store]]\nurl = \"backups\"\n[[source]]\nname = \"app\"\nurl = \"{}\"\n[[source.rule]]\n\
             query = \"select now() is not null and exists (select from mine)\"\n",
            source.url()
        );
        let path = setup.sandbox.path("lifeboat.toml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        setup.ok(&["snapshot", "app"]);
        for command in ["check", "doctor", "predeploy"] {
            let run = setup.ok(&[command, "app"]);
            assert!(!run.transcript().contains("was called"), "{}", run.transcript());
        }
    });
}

/// The server evaluates functions with constant arguments when it creates a table with a generated column, when a check is
/// added, and when a query of a table is planned whose indexes call them.
#[test]
#[ignore = "needs PostgreSQL"]
fn code_with_constant_arguments_does_not_run_with_the_rights_of_a_superuser() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("constant_code");
        let low = Low::new(server, &source);
        source.psql(format!(
            "SET ROLE {};
             CREATE SCHEMA s;
             CREATE FUNCTION s.evil(anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE FUNCTION s.wrap(v integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
                 'BEGIN PERFORM s.evil(v); RETURN v; END';
             CREATE DOMAIN s.number AS integer CHECK (s.wrap(1) > 0);
             CREATE TABLE s.generated (i s.number, g integer GENERATED ALWAYS AS (s.wrap(1)) STORED, CHECK (s.wrap(2) > 0));
             CREATE TABLE s.indexed (i integer, g integer GENERATED ALWAYS AS (i + 1) STORED);
             CREATE INDEX ON s.indexed ((s.wrap(3) + i));
             INSERT INTO s.generated VALUES (1); INSERT INTO s.indexed VALUES (1);
             CREATE TABLE s.target (i integer PRIMARY KEY); CREATE INDEX ON s.target ((s.wrap(5) + i));
             CREATE TABLE s.refers (i integer REFERENCES s.target); CREATE INDEX ON s.refers ((s.wrap(6) + i));
             INSERT INTO s.target VALUES (1); INSERT INTO s.refers VALUES (1);
             CREATE MATERIALIZED VIEW s.one AS SELECT s.wrap(i) AS w FROM s.indexed; CREATE INDEX ON s.one ((s.wrap(4) + w));
             CREATE MATERIALIZED VIEW s.two AS SELECT w FROM s.one; {}",
            low.name,
            evil(&low.name)
        ));
        let id = setup.snapshot(&source, &[]);
        low.require_no_rights("a snapshot");
        setup.ok(&["drill", &id]);
        low.require_no_rights("a drill");
        let new = setup.restore_new(&id, &[]);
        low.require_no_rights("a new database");
        assert_equal(&source, &new, "constant_code");
        setup.ok(&["restore", &id, "--to", &new.url(), "--replace", "--yes"]);
        low.require_no_rights("replaced rows");
        setup.ok(&["diff", &id, &new.url()]);
        low.require_no_rights("a comparison");
        new.psql("DROP TABLE s.generated");
        setup.ok(&["restore", &id, "--to", &new.url(), "--table", "s.generated"]);
        low.require_no_rights("chosen tables");
    });
}

/// A table is tried again with the `search_path` of the database, where operators of its owner are found.
#[test]
#[ignore = "needs PostgreSQL"]
fn operators_of_the_owner_are_not_called_by_the_statements_of_a_restore() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("planted");
        let low = Low::new(server, &source);
        source.psql(format!(
            "SET ROLE {role};
             CREATE SCHEMA s;
             CREATE FUNCTION s.evil(anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'; {evil}
             CREATE FUNCTION s.not_like(n name, m name) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN s.evil(n); END';
             CREATE OPERATOR s.!~ (LEFTARG = name, RIGHTARG = name, FUNCTION = s.not_like);
             SET search_path = s;
             CREATE FUNCTION s.helper() RETURNS integer LANGUAGE sql AS 'SELECT 7';
             CREATE FUNCTION s.code() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN helper(); END';
             CREATE TABLE s.t (i integer, g integer GENERATED ALWAYS AS (s.code()) STORED);
             INSERT INTO s.t VALUES (1);
             RESET ROLE; ALTER DATABASE {database} SET search_path = s",
            role = low.name,
            evil = evil(&low.name),
            database = source.name
        ));
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["drill", &id]);
        low.require_no_rights("a drill");
        let new = setup.restore_new(&id, &[]);
        low.require_no_rights("a new database");
        assert_equal(&source, &new, "planted");
    });
}

/// The owner of the table may not create it, because its parent belongs to another role. Its columns call functions of the
/// server alone, so the superuser creates it.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_generated_column_of_a_table_that_inherits_from_a_table_of_another_role_comes_back() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("inherits");
        let low = Low::new(server, &source);
        source.psql(format!(
            "CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO {role}; CREATE TABLE s.parent (i integer);
             CREATE TABLE s.child (t text, g integer GENERATED ALWAYS AS (length(t)) STORED) INHERITS (s.parent);
             ALTER TABLE s.child OWNER TO {role}; INSERT INTO s.child VALUES (1, 'abc');
             CREATE TABLE s.looks (t text DEFAULT E'x\nINHERITS (', g integer GENERATED ALWAYS AS (length(t)) STORED)
                 INHERITS (s.parent);
             ALTER TABLE s.looks OWNER TO {role}; INSERT INTO s.looks VALUES (1, 'abc')",
            role = low.name
        ));
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["drill", &id]);
        assert_equal(&source, &setup.restore_new(&id, &[]), "inherits");
        // Code of the owner never runs with the rights of the superuser, even if it then cannot be restored.
        source.psql(format!(
            "GRANT ALL ON SCHEMA s TO {role}; SET ROLE {role};
             CREATE FUNCTION s.evil(anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE FUNCTION s.wrap(v integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
                 'BEGIN PERFORM s.evil(v); RETURN v; END'; {evil} RESET ROLE;
             CREATE TABLE s.evil (t text DEFAULT E'x\nINHERITS (', CHECK (s.wrap(1) > 0)) INHERITS (s.parent);
             ALTER TABLE s.evil ADD g integer GENERATED ALWAYS AS (s.wrap(1)) STORED; ALTER TABLE s.evil OWNER TO {role}",
            role = low.name,
            evil = evil(&low.name)
        ));
        server.psql("postgres", format!("ALTER ROLE {} NOSUPERUSER", low.name));
        let id = setup.snapshot(&source, &[]);
        setup.run(&["drill", &id]).code(1);
        low.require_no_rights("a drill");
    });
}

/// A query of the table would run the code of its index with the rights of the superuser, so the owner reads it.
#[test]
#[ignore = "needs PostgreSQL"]
fn generated_columns_of_a_table_whose_index_calls_a_function_are_compared() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("indexed_values");
        let low = Low::new(server, &source);
        let role = &low.name;
        source.psql(format!(
            "ALTER ROLE {role} LOGIN; SET ROLE {role}; CREATE SCHEMA s;
             CREATE FUNCTION s.evil(anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE FUNCTION s.wrap(v integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
                 'BEGIN PERFORM s.evil(v); RETURN v; END';
             CREATE FUNCTION s.times(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
             CREATE TABLE s.t (i integer, g integer GENERATED ALWAYS AS (s.times(i)) STORED);
             CREATE INDEX ON s.t ((s.wrap(3) + i)); INSERT INTO s.t VALUES (1), (2); {evil}",
            evil = evil(role)
        ));
        // Only the owner saves the values of the generated column.
        let owners_url = source.socket_url().replacen("postgres://postgres@", &format!("postgres://{role}@"), 1);
        let id = text(&setup.json(&["snapshot", &owners_url])["snapshots"][0]["id"]);
        let new = setup.restore_new(&id, &[]);
        let replace = ["restore", &id, "--to", &new.url(), "--replace", "--yes"];
        let run = setup.ok(&replace);
        assert!(!run.stderr().contains("not compared"), "{}", run.transcript());
        new.psql(
            "CREATE OR REPLACE FUNCTION s.times(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i * 3'",
        );
        setup.run(&replace).code(3).says("the generated column g of the table s.t");
        low.require_no_rights("replaced rows");
        // If the owner may not read them, that is said.
        new.psql(format!("REVOKE SELECT ON s.t FROM {role}"));
        let run = setup.ok(&replace);
        assert!(
            run.stderr().contains("the generated columns g of the table s.t were not compared"),
            "{}",
            run.transcript()
        );
        low.require_no_rights("rows that were not compared");
    });
}

/// The function is created with the table, with its own privileges.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_chosen_table_brings_the_privileges_of_the_functions_that_it_needs() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("needed_grants");
        let low = Low::new(server, &source);
        let role = &low.name;
        source.psql(format!(
            "CREATE SCHEMA util; GRANT USAGE ON SCHEMA util TO {role};
             CREATE FUNCTION util.ok(i integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN i > 0; END';
             REVOKE ALL ON FUNCTION util.ok(integer) FROM PUBLIC; GRANT EXECUTE ON FUNCTION util.ok(integer) TO {role};
             CREATE SCHEMA app AUTHORIZATION {role}; CREATE TABLE app.t (i integer CHECK (util.ok(i)));
             ALTER TABLE app.t OWNER TO {role}; INSERT INTO app.t VALUES (1)"
        ));
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("needed_grants_target");
        target.psql("CREATE TABLE other (i integer)");
        setup.ok(&["restore", &id, "--to", &target.url(), "--table", "app.t"]);
        assert_eq!(rows(&target, "SELECT i FROM app.t"), ["1"]);
        let privileges =
            "SELECT proacl, (SELECT nspacl FROM pg_namespace WHERE nspname = 'util') FROM pg_proc WHERE proname = 'ok'";
        assert_eq!(rows(&target, privileges), rows(&source, privileges));
    });
}
