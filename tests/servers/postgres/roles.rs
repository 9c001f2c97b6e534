//! The roles and tablespaces that a snapshot needs: they are named, and roles can be made where they are missing.

use super::helpers::{Setup, rows};
use crate::support::postgres::{Server, TestDatabase, oldest_and_newest, some_server};

/// The roles of one test. They are dropped at the end, with their memberships.
struct Roles<'a> {
    server: &'a Server,
    prefix: String,
}

impl<'a> Roles<'a> {
    fn new(server: &'a Server, word: &str) -> Self {
        Roles { server, prefix: format!("lifeboat_{word}_{}_{}", std::process::id(), server.major) }
    }

    /// Replaces `@` with the prefix of the names.
    fn named(&self, text: &str) -> String {
        text.replace('@', &self.prefix)
    }

    /// Returns the roles with their attributes, settings and memberships.
    fn all(&self) -> Vec<String> {
        let query = self.named(
            "SELECT r.rolname, r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolinherit, r.rolconnlimit, r.rolconfig,
                    (SELECT string_agg(o.rolname || m.admin_option::text, ' ' ORDER BY o.rolname) FROM pg_auth_members m
                       JOIN pg_roles o ON o.oid = m.roleid WHERE m.member = r.oid)
               FROM pg_roles r WHERE starts_with(r.rolname, '@') ORDER BY 1",
        );
        let rows = self.server.query("postgres", &query);
        rows.into_iter().map(|row| row.join("|").replace(&self.prefix, "@")).collect()
    }

    /// Drops the roles. Nothing may belong to them any more.
    fn drop_all(&self) {
        let query = self.named("SELECT rolname FROM pg_roles WHERE starts_with(rolname, '@')");
        let names = self.server.query("postgres", &query).concat();
        if !names.is_empty() {
            // Roles that depend on each other are dropped by one statement.
            self.server.psql("postgres", format!("DROP ROLE \"{}\"", names.join("\", \"")));
        }
    }
}

impl Drop for Roles<'_> {
    fn drop(&mut self) {
        // A second panic would hide the message of the first one.
        if std::thread::panicking() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.drop_all()));
        } else {
            self.drop_all();
        }
    }
}

/// Creates roles, and a database that needs them. `@_apart` is not needed.
fn database_with_roles(server: &Server, roles: &Roles<'_>) -> TestDatabase {
    server.psql(
        "postgres",
        roles.named(
            "CREATE ROLE \"@_Owner's\" LOGIN CREATEDB CONNECTION LIMIT 7 PASSWORD 'topsecret';
             CREATE ROLE @_group NOINHERIT; CREATE ROLE @_boss LOGIN SUPERUSER CREATEROLE REPLICATION;
             CREATE ROLE @_apart; CREATE ROLE @_reader;
             GRANT @_group TO \"@_Owner's\" WITH ADMIN OPTION; GRANT @_reader TO @_group; GRANT @_apart TO @_reader;
             ALTER ROLE @_reader SET search_path = 'a b', public; ALTER ROLE @_reader SET my.key = 'it''s'",
        ),
    );
    let source = server.create_database("roles");
    source.psql(roles.named(
        "CREATE TABLE t (id integer); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO \"@_Owner's\";
         GRANT SELECT ON t TO @_group; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO @_reader USING (true);
         ALTER DEFAULT PRIVILEGES FOR ROLE @_boss GRANT SELECT ON TABLES TO @_reader",
    ));
    source
}

/// The roles as a restore makes them.
const MADE: [&str; 4] = [
    "@_Owner's|f|f|t|t|7|\\N|@_grouptrue",
    "@_boss|f|f|f|t|-1|\\N|\\N",
    "@_group|f|f|f|f|-1|\\N|@_readerfalse",
    "@_reader|f|f|f|t|-1|{\"search_path=\\\"a b\\\", public\",my.key=it's}|\\N",
];

#[test]
#[ignore = "needs PostgreSQL"]
fn missing_roles_are_named_and_made_without_login() {
    oldest_and_newest(|server| {
        let (setup, roles) = (Setup::new(server), Roles::new(server, "made"));
        let source = database_with_roles(server, &roles);
        let id = setup.snapshot(&source, &[]);
        let shown = setup.ok(&["show", &id]).stdout();
        assert!(shown.contains(&roles.named("@_boss, @_group, @_reader")) && !shown.contains("_apart"), "{shown}");
        setup.ok(&["extract", &id, "--to", "files"]);
        let script = std::fs::read_to_string(setup.sandbox.path("files/schema/roles.sql")).unwrap();
        assert!(
            script.contains("CREATE ROLE") && !script.contains("topsecret") && !script.contains("_apart"),
            "{script}"
        );
        assert!(
            script.contains(&roles.named("-- not restored: LOGIN, SUPERUSER, CREATEROLE, REPLICATION of @_boss")),
            "{script}"
        );
        // Settings may be secrets: they are in the archive, and nowhere else.
        assert!(script.contains("it''s"), "{script}");
        assert!(!setup.json(&["show", &id]).to_string().contains("it's"));
        let manifest = std::fs::read_to_string(setup.sandbox.path("files/manifest.json")).unwrap();
        assert!(manifest.contains("role_definitions") && !manifest.contains("it's"), "{manifest}");
        drop(source);
        roles.drop_all();

        // Without the roles, a restore is refused, a dry run names what it would do, and diff names what is missing.
        let new = server.reserve_database("roles_new");
        let create = ["restore", &id, "--to", &new.url(), "--create"];
        let with = |more: &[&'static str]| [&create[..], more].concat();
        for arguments in [with(&[]), with(&["--dry-run"])] {
            setup.run(&arguments).code(1).says(&roles.named("the role @_boss is missing")).says("--create-roles");
        }
        let planned = setup.json(&with(&["--create-roles", "--dry-run"]));
        assert!(planned["notes"].to_string().contains(&roles.named("@_reader")), "{planned}");
        assert_eq!(roles.all(), [""; 0]);
        let other = server.create_database("roles_other");
        let difference = setup.run(&["diff", &id, &other.url()]).code(0).stdout();
        assert!(difference.contains(&roles.named("missing on the server: role @_boss")), "{difference}");
        // A failed restore leaves no role behind.
        other.psql("CREATE TABLE blocks (id integer)");
        setup.run(&["restore", &id, "--to", &other.url(), "--create-roles"]).code(2);
        assert_eq!(roles.all(), [""; 0]);
        // No roles are created if owners are not restored.
        for option in
            [["--replace", "--create-roles"], ["--beside=s", "--create-roles"], ["--beside=s", "--no-tablespaces"]]
        {
            setup
                .run(&[&["restore", &id, "--to", &other.url()], &option[..]].concat())
                .code(2)
                .says("cannot be used with");
        }
        // One table needs some of the roles.
        setup.ok(&["restore", &id, "--to", &other.url(), "--table", "t", "--create-roles"]);
        assert_eq!(roles.all(), [MADE[0], MADE[2], MADE[3]]);
        drop(other);
        roles.drop_all();

        let run = setup.ok(&with(&["--create-roles"]));
        run.says(&roles.named("the role @_boss was made without SUPERUSER, CREATEROLE, REPLICATION"));
        assert_eq!(roles.all(), MADE);
        assert_eq!(rows(&new, "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), [roles.named("@_Owner's")]);
        assert_eq!(setup.json(&["diff", &id, &new.url()])["equal"], true);
        server.psql("postgres", format!("DROP DATABASE \"{}\"", new.name));
        roles.drop_all();

        // No role becomes a member of one that exists, which may have any rights on this server.
        server.psql("postgres", roles.named("CREATE ROLE @_reader SUPERUSER"));
        let grant = roles.named("because @_reader was not made by this restore: GRANT @_reader TO @_group does it");
        setup.ok(&with(&["--create-roles"])).says(&grant);
        assert_eq!(roles.all()[2], "@_group|f|f|f|f|-1|\\N|\\N");
        drop(new);
        roles.drop_all();

        // The script makes the same roles by hand, and changes none that exists.
        assert!(script.contains(&roles.named("-- not done if @_reader existed before: GRANT @_reader TO @_group\n")));
        server.psql("postgres", roles.named("CREATE ROLE @_reader LOGIN"));
        for _ in 0..2 {
            let mut command = server.command(&server.psql, "postgres");
            let output = command
                .args(["-X", "-v", "ON_ERROR_STOP=1", "-f"])
                .arg(setup.sandbox.path("files/schema/roles.sql"))
                .output();
            assert!(output.as_ref().unwrap().status.success(), "{output:?}");
        }
        let mut expected = MADE.to_vec();
        expected[2] = "@_group|f|f|f|f|-1|\\N|\\N";
        expected[3] = "@_reader|t|f|f|t|-1|\\N|\\N";
        assert_eq!(roles.all(), expected);
    });
}

/// A role that may make roles and databases, but is no superuser.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_that_is_no_superuser_makes_the_roles_that_are_missing() {
    oldest_and_newest(|server| {
        let (setup, roles) = (Setup::new(server), Roles::new(server, "plain"));
        let admin = roles.named("@_admin");
        server
            .psql("postgres", format!("CREATE ROLE {admin} LOGIN CREATEDB CREATEROLE PASSWORD '{}'", server.password));
        server.psql(
            "postgres",
            roles.named("CREATE ROLE @_app LOGIN BYPASSRLS; CREATE ROLE @_group; GRANT @_group TO @_app"),
        );
        let source = server.create_database("plain_roles");
        source.psql(roles.named(
            "CREATE SCHEMA app AUTHORIZATION @_app; CREATE TABLE app.t (id integer); INSERT INTO app.t VALUES (1);
             ALTER TABLE app.t OWNER TO @_app; GRANT SELECT ON app.t TO @_group",
        ));
        let url = |name: &str| server.url(name).replacen("//postgres:", &format!("//{admin}:"), 1);
        server.psql("postgres", format!("ALTER DATABASE \"{}\" OWNER TO {admin}", source.name));
        let id = setup.snapshot(&source, &[]);
        drop(source);
        server.psql("postgres", roles.named("DROP ROLE @_app; DROP ROLE @_group"));
        let new = server.reserve_database("plain_roles_new");
        let run = setup.run(&["restore", &id, "--to", &url(&new.name), "--create", "--create-roles"]);
        let run = run.code(0);
        assert!(
            run.stdout().contains(&roles.named("is a member of the new roles @_app, because")),
            "{}",
            run.transcript()
        );
        assert!(run.stderr().contains("BYPASSRLS"), "{}", run.transcript());
        assert_eq!(rows(&new, "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), [roles.named("@_app")]);
        assert_eq!(new.value("SELECT count(*) FROM app.t"), "1");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn tables_return_to_their_tablespaces_where_the_server_has_them() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        crate::support::samples::create_roles(server);
        let source = server.create_database("spaces");
        source.psql(
            "CREATE TABLE t (id integer PRIMARY KEY USING INDEX TABLESPACE lifeboat_space, v text) TABLESPACE lifeboat_space;
             CREATE INDEX by_v ON t (v) TABLESPACE lifeboat_space; CREATE TABLE plain (id integer PRIMARY KEY);
             CREATE MATERIALIZED VIEW m TABLESPACE lifeboat_space AS SELECT id FROM t",
        );
        let id = setup.snapshot(&source, &[]);
        assert!(setup.ok(&["show", &id]).stdout().contains("spaces    lifeboat_space\n"));
        let stored = |database: &TestDatabase| {
            let query = "SELECT relname FROM pg_class WHERE reltablespace <> 0 AND oid >= 16384
                            AND relname !~ '^pg_toast' ORDER BY 1";
            rows(database, query)
        };
        let new = setup.restore_new(&id, &[]);
        assert_eq!(stored(&new), ["by_v", "m", "t", "t_pkey"]);
        let new = setup.restore_new(&id, &["--no-tablespaces"]);
        assert_eq!(stored(&new), [""; 0]);
        assert_eq!(setup.json(&["drill", &id])["ok"], true);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_failed_restore_drops_the_roles_that_it_has_made() {
    some_server(|server| {
        let (setup, roles) = (Setup::new(server), Roles::new(server, "failed"));
        let source = server.create_database("role_fails");
        // The check constraint depends on the name of the database, so the row cannot be restored into another one.
        source.psql(
            roles.named("CREATE ROLE @_owner LOGIN; CREATE TABLE t (id integer); ALTER TABLE t OWNER TO @_owner"),
        );
        source.psql(format!(
            "CREATE FUNCTION here() RETURNS boolean LANGUAGE sql AS $$SELECT current_database() = '{}'$$;
             CREATE TABLE b (id integer, CONSTRAINT only_here CHECK (public.here())); INSERT INTO b VALUES (1)",
            source.name
        ));
        let id = setup.snapshot(&source, &[]);
        drop(source);
        roles.drop_all();
        let new = server.reserve_database("role_fails_new");
        setup.run(&["restore", &id, "--to", &new.url(), "--create", "--create-roles"]).code(1).says("only_here");
        assert_eq!(roles.all(), [""; 0]);
    });
}
