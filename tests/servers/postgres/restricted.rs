//! Roles with few rights, as on managed servers: such a role owns a database, and nothing else.

use super::helpers::{Setup, rows, text, wait_until};
use crate::support::postgres::{Server, TestDatabase, TestRole, oldest_and_newest, schema_differences, server};

/// Creates roles whose names no other test uses.
fn roles<const COUNT: usize>(server: &Server, names: [(&str, &str); COUNT]) -> [TestRole; COUNT] {
    names.map(|(name, options)| TestRole::create(server, name, options))
}

/// Returns the URL of a database for a role that needs no password.
fn url(server: &Server, role: &str, database: &str) -> String {
    server.socket_url(database).replacen(&format!("postgres://{}@", server.user), &format!("postgres://{role}@"), 1)
}

/// Takes a snapshot as a role, and returns its id.
#[track_caller]
fn snapshot(setup: &Setup, url: &str) -> String {
    text(&setup.json(&["snapshot", url])["snapshots"][0]["id"])
}

/// Drills and restores a snapshot as a role. The restored database must have the schema of the source.
#[track_caller]
fn require_restorable(setup: &Setup, id: &str, role: &str, source: &TestDatabase) {
    setup.ok(&["drill", id]);
    let new = setup.server.reserve_database("restricted_new");
    setup.ok(&["restore", id, "--to", &url(&setup.server, role, &new.name), "--create"]);
    schema_differences(&source.schema_dump(), &new.schema_dump()).assert_none();
    let owner = |name: &str| format!("SELECT datdba::regrole FROM pg_database WHERE datname = '{name}'");
    let owners = [source, &new].map(|database| setup.server.value("postgres", &owner(&database.name)));
    assert_eq!(owners[0], owners[1]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_that_only_receives_privileges_must_exist_and_nothing_more() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let [app, reader] = roles(server, [("grant_app", "LOGIN CREATEDB"), ("grant_reader", "")]);
        let source = server.create_database("granted");
        source.psql(format!("ALTER DATABASE \"{}\" OWNER TO {app}", source.name));
        source.psql(format!(
            "SET ROLE {app}; CREATE SCHEMA s; CREATE TABLE s.t (a integer); INSERT INTO s.t VALUES (1);
             GRANT USAGE ON SCHEMA s TO {reader}; GRANT SELECT ON s.t TO {reader};
             ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO {reader};
             CREATE POLICY p ON s.t TO {reader} USING (true)"
        ));
        let id = snapshot(&setup, &url(server, &app, &source.name));
        require_restorable(&setup, &id, &app, &source);
        // Objects that belong to a role, or are granted by it, need the membership.
        source.psql(format!("CREATE TABLE s.theirs (); ALTER TABLE s.theirs OWNER TO {reader}"));
        source.psql(format!("GRANT SELECT ON s.theirs TO {app}"));
        let id = snapshot(&setup, &url(server, &app, &source.name));
        setup.run(&["drill", &id]).code(1).says(&format!("the role {app} is not a member of {reader}"));
        if server.major >= 16 {
            server.psql("postgres", format!("GRANT {reader} TO {app} WITH SET FALSE"));
            setup
                .run(&["drill", &id])
                .code(1)
                .says("without the option SET")
                .says(&format!("GRANT {reader} TO {app} WITH SET TRUE"));
            server.psql("postgres", format!("GRANT {reader} TO {app} WITH SET TRUE, INHERIT FALSE"));
            setup.run(&["drill", &id]).code(1).says(&format!("GRANT {reader} TO {app} WITH INHERIT TRUE"));
            server.psql("postgres", format!("GRANT {reader} TO {app} WITH INHERIT TRUE"));
        } else {
            server.psql("postgres", format!("GRANT {reader} TO {app}"));
        }
        require_restorable(&setup, &id, &app, &source);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_member_of_the_group_that_owns_the_database_restores_it() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let [group, app] = roles(server, [("own_group", ""), ("own_member", "LOGIN CREATEDB")]);
        let source = server.create_database("of_group");
        server.psql("postgres", format!("GRANT {group} TO {app}; ALTER DATABASE \"{}\" OWNER TO {group}", source.name));
        source.psql(format!(
            "SET ROLE {group}; CREATE TABLE public.ours (a integer PRIMARY KEY); INSERT INTO ours VALUES (1), (2);
             CREATE SCHEMA shared; SET ROLE {app}; CREATE SCHEMA mine; GRANT USAGE ON SCHEMA mine TO {group};
             CREATE TABLE mine.t (a integer REFERENCES ours); INSERT INTO mine.t VALUES (1);
             CREATE TABLE mine.given (a serial); CREATE FUNCTION mine.f() RETURNS integer LANGUAGE sql AS 'SELECT 1';
             RESET ROLE; ALTER TABLE mine.given OWNER TO {group}; ALTER FUNCTION mine.f OWNER TO {group}"
        ));
        let id = snapshot(&setup, &url(server, &app, &source.name));
        require_restorable(&setup, &id, &app, &source);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_that_acts_as_another_is_recorded_by_the_name_of_its_login() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let [owner, login] = roles(server, [("acts_owner", "CREATEDB"), ("acts_login", "LOGIN")]);
        let source = server.create_database("acts");
        server.psql(
            "postgres",
            format!(
                "GRANT {owner} TO {login}; ALTER ROLE {login} SET role = {owner};
                 ALTER DATABASE \"{}\" OWNER TO {owner}",
                source.name
            ),
        );
        source.psql(format!(
            "SET ROLE {owner}; CREATE SCHEMA s; CREATE TABLE s.t (a integer); INSERT INTO s.t VALUES (1)"
        ));
        let id = snapshot(&setup, &url(server, &login, &source.name));
        let shown = setup.ok(&["show", &id]);
        assert!(shown.stdout().contains(&format!("read by the role {login}")), "{}", shown.transcript());
        require_restorable(&setup, &id, &login, &source);
    });
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn extensions_that_an_administrator_has_created_are_left_as_they_are() {
    let server = server(15);
    let setup = Setup::new(&server);
    let [app] = roles(&server, [("prepared_app", "LOGIN")]);
    let [source, target] = ["prepared", "prepared_target"].map(|name| {
        let database = server.create_database(name);
        database.psql(format!(
            "ALTER DATABASE \"{}\" OWNER TO {app}; CREATE SCHEMA ext; GRANT USAGE ON SCHEMA ext TO public;
             CREATE EXTENSION \"uuid-ossp\" SCHEMA ext; CREATE EXTENSION pg_stat_statements SCHEMA ext",
            database.name
        ));
        database
    });
    source.psql(format!(
        "COMMENT ON EXTENSION \"uuid-ossp\" IS 'of the source'; REVOKE EXECUTE ON FUNCTION ext.uuid_nil() FROM public;
         CREATE SCHEMA s AUTHORIZATION {app}; SET ROLE {app}; GRANT CREATE ON SCHEMA public TO public;
         COMMENT ON SCHEMA public IS 'of the source'; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO public;
         CREATE TABLE s.t (a uuid DEFAULT ext.uuid_generate_v4(), b integer); INSERT INTO s.t (b) VALUES (1), (2);"
    ));
    let (source_url, target_url) = (url(&server, &app, &source.name), url(&server, &app, &target.name));
    let id = snapshot(&setup, &source_url);
    let before = target.schema_dump();

    // A role without CREATEDB drills in an empty database that it names.
    setup.run(&["drill", &id]).code(2).says("may not create a database").says("name an empty database with --to");
    setup.run(&["drill", &id, "--to", &source_url]).code(2).says("name an empty database with --to");
    let run = setup.ok(&["drill", &id, "--to", &target_url]);
    assert!(run.stderr().contains("the drill leaves out default privileges"), "{}", run.transcript());
    assert_eq!(target.schema_dump(), before);

    // A database that another run has left incomplete is not used, and is named.
    let comment = |text: &str| server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS {text}", target.name));
    let mark = r#"{"purpose": "fill", "snapshot": "s", "host": "h", "process": 1, "since": "2026-01-02T03:04:05Z"}"#;
    comment(&format!("'lifeboat: not finished {mark}'"));
    setup.run(&["drill", &id, "--to", &target_url]).code(2).says("is incomplete").says(&target.name);
    comment("NULL");

    // Everything but extensions and their schemas is content.
    target.psql("CREATE TABLE public.other ()");
    setup.run(&["restore", &id, "--to", &target_url]).code(2).says("is not empty");
    target.psql("DROP TABLE public.other");
    let run = setup.ok(&["restore", &id, "--to", &target_url]);
    assert!(run.stderr().contains("no privileges could be revoked"), "{}", run.transcript());
    assert_eq!(rows(&target, "SELECT b FROM s.t ORDER BY b"), ["1", "2"]);
    assert_eq!(
        target.value("SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'uuid-ossp'"),
        "generate universally unique identifiers (UUIDs)"
    );
    // A role that may create databases, but not the extension, can name a prepared database too.
    server.psql("postgres", format!("ALTER ROLE {app} CREATEDB"));
    setup.run(&["drill", &id, "--no-owner"]).code(1).says("let an administrator create the extension");
    target.psql(format!(
        "DROP SCHEMA s CASCADE; SET ROLE {app}; ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM public"
    ));
    setup.ok(&["drill", &id, "--to", &target_url]);
    assert_eq!(target.value("SELECT to_regnamespace('s') IS NULL"), "t");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_extension_in_another_schema_is_named_before_anything_is_restored() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let [app] = roles(server, [("moved_app", "LOGIN CREATEDB")]);
        let source = server.create_database("moved");
        source.psql(format!(
            "ALTER DATABASE \"{}\" OWNER TO {app}; CREATE EXTENSION citext; CREATE EXTENSION hstore;
             CREATE TABLE t (a citext); INSERT INTO t VALUES ('x'); ALTER TABLE t OWNER TO {app}",
            source.name
        ));
        let id = setup.snapshot(&source, &[]);
        let target = server.create_database("moved_target");
        target.psql(
            "CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions;
             CREATE EXTENSION hstore SCHEMA extensions",
        );
        let before = target.schema_dump();
        let run = setup.run(&["restore", &id, "--to", &target.url()]).code(2);
        for words in [
            "citext is in the schema extensions, and in public in the snapshot; hstore is in",
            "ALTER EXTENSION citext SET SCHEMA public; ALTER EXTENSION hstore SET SCHEMA public;",
        ] {
            assert!(run.stderr().contains(words), "stderr lacks '{words}'\n{}", run.transcript());
        }
        assert_eq!(target.schema_dump(), before);
        target.psql(format!("ALTER DATABASE \"{}\" OWNER TO {app}", target.name));
        let run = setup.run(&["drill", &id, "--no-owner", "--to", &url(server, &app, &target.name)]).code(2);
        assert!(run.stderr().contains("as postgres, to whom it belongs"), "{}", run.transcript());
        target.psql(
            "ALTER EXTENSION citext SET SCHEMA public; ALTER EXTENSION hstore SET SCHEMA public; DROP SCHEMA extensions",
        );
        setup.ok(&["restore", &id, "--to", &target.url()]);
        assert_eq!(rows(&target, "SELECT a FROM t"), ["x"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_with_one_connection_can_set_options_of_its_sessions() {
    let server = server(15);
    let setup = Setup::new(&server);
    let [app] = roles(&server, [("single_app", "LOGIN CONNECTION LIMIT 1")]);
    let source = server.create_database("single");
    source.psql(format!("CREATE TABLE t (a) AS SELECT 1; GRANT SELECT ON t TO {app}"));
    let url = url(&server, &app, &source.name);
    for _ in 0..3 {
        let mut command = setup.command(&["snapshot", &url, "-j", "1"]);
        command.env("PGOPTIONS", "-c geqo=off");
        setup.sandbox.finish(command).code(0);
        // For a short time, the server still counts the session of a program that has ended.
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{app}'");
        wait_until("the session has ended", || server.value("postgres", &sessions) == "0");
    }
}
