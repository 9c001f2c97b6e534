//! Managed servers: databases with schemas, event triggers and privileges of their provider, and a role that owns the
//! database and little else. Each test has servers of its own, because roles belong to the whole server.

use super::helpers::{Setup, rows, text};
use crate::support::postgres::{self, PrivateServer, Server, TestDatabase, schema_differences};

/// Runs a test on a server of the oldest version and on one of the newest.
fn on_own_servers(check: impl Fn(&Server)) {
    for major in [13, 18] {
        check(&PrivateServer::start(major));
    }
}

/// Returns the URL of a database for a role that needs no password.
fn url(server: &Server, role: &str, database: &str) -> String {
    server.socket_url(database).replacen(&format!("postgres://{}@", server.user), &format!("postgres://{role}@"), 1)
}

/// Creates what Supabase creates in every database: schemas of its own roles, tables that others may not read, an event
/// trigger and default privileges.
fn like_supabase(server: &Server, database: &TestDatabase, app: &str) {
    server.psql(
        "postgres",
        "SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['supabase_admin', 'supabase_auth_admin', 'anon']) AS name
          WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \\gexec",
    );
    server.psql("postgres", format!("ALTER DATABASE \"{}\" OWNER TO {app}", database.name));
    database.psql(format!(
        "CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin; GRANT USAGE ON SCHEMA auth TO {app};
         CREATE TABLE auth.users (id uuid PRIMARY KEY, email text); INSERT INTO auth.users VALUES
             ('00000000-0000-0000-0000-000000000001', 'a@example.org');
         CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
             $$SELECT nullif(current_setting('request.sub', true), '')::uuid$$;
         GRANT REFERENCES, SELECT, TRIGGER ON auth.users TO {app};
         ALTER TABLE auth.users OWNER TO supabase_auth_admin;
         CREATE TABLE auth.secrets (a integer); ALTER TABLE auth.secrets OWNER TO supabase_auth_admin;
         CREATE SEQUENCE auth.hidden; ALTER SEQUENCE auth.hidden OWNER TO supabase_auth_admin;
         CREATE SCHEMA internal AUTHORIZATION supabase_admin; CREATE TABLE internal.t (a integer);
         CREATE SCHEMA extensions AUTHORIZATION {app}; CREATE FUNCTION extensions.grant_access() RETURNS integer LANGUAGE sql AS 'SELECT 1';
         ALTER FUNCTION extensions.grant_access() OWNER TO supabase_admin; GRANT CREATE ON SCHEMA auth TO {app};
         CREATE PUBLICATION supabase_realtime; ALTER PUBLICATION supabase_realtime OWNER TO {app};
         CREATE PUBLICATION of_messages FOR TABLE internal.t; ALTER PUBLICATION of_messages OWNER TO supabase_admin;
         ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT SELECT ON TABLES TO anon;
         CREATE FUNCTION internal.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION internal.watch();
         ALTER EVENT TRIGGER watch OWNER TO postgres; CREATE SCHEMA mine AUTHORIZATION {app}"
    ));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn objects_of_a_provider_are_left_out_and_named() {
    on_own_servers(|server| {
        let setup = Setup::new(server);
        server.psql("postgres", "CREATE ROLE provided_app LOGIN CREATEDB");
        let app = "provided_app";
        let [source, target] = ["provided", "provided_target"].map(|name| server.create_database(name));
        like_supabase(server, &source, app);
        like_supabase(server, &target, app);
        target.psql("DROP SCHEMA mine");
        source.psql(format!(
            "SET ROLE {app}; CREATE TABLE mine.profiles (id uuid PRIMARY KEY REFERENCES auth.users,
                 by uuid DEFAULT auth.uid(), name text); INSERT INTO mine.profiles VALUES
                 ('00000000-0000-0000-0000-000000000001', NULL, 'a');
             ALTER TABLE mine.profiles ENABLE ROW LEVEL SECURITY;
             CREATE FUNCTION auth.claim() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'a'::text$$;
             CREATE POLICY own ON mine.profiles USING (id = auth.uid() AND name = auth.claim());
             ALTER PUBLICATION supabase_realtime ADD TABLE mine.profiles;
             CREATE VIEW mine.emails AS SELECT email FROM auth.users;
             CREATE FUNCTION mine.on_user() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
             CREATE TRIGGER on_user AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION mine.on_user()"
        ));
        let source_url = url(server, app, &source.name);
        let run = setup.run(&["snapshot", &source_url]).code(1).says("auth.secrets: the role may not read it");
        assert!(run.stderr().contains("provider = \"supabase\""), "{}", run.transcript());

        let run = setup.ok(&["snapshot", &source_url, "--provider", "supabase", "--json"]);
        let saved = &run.json()["snapshots"][0];
        assert_eq!((&saved["kind"], &saved["rows"]), (&"full".into(), &1.into()), "{}", run.transcript());
        let id = text(&saved["id"]);
        let shown = setup.ok(&["show", &id]).stdout();
        let of_users = ["TRIGGER on_user ON auth.users", "FUNCTION auth.claim()", "; rows of auth.users"];
        for named in ["of the provider supabase: schemas auth, internal; "].iter().chain(&of_users) {
            assert!(shown.contains(named), "{named}: {shown}");
        }
        assert!(!shown.contains("grant_access") && !shown.contains("of_messages"), "{shown}");
        assert!(!shown.contains("supabase_a") && !shown.contains("users  "), "{shown}");

        // A drill in a new database has stand-ins for what the objects use.
        let run = setup.ok(&["drill", &id]);
        assert!(
            run.stderr().contains("auth.users") && run.stderr().contains("profiles_id_fkey"),
            "{}",
            run.transcript()
        );
        let new = server.reserve_database("provided_new");
        let new_url = url(server, app, &new.name);
        setup.run(&["restore", &id, "--to", &new_url, "--create"]).code(2).says("--allow-partial");
        setup.ok(&["restore", &id, "--to", &new_url, "--create", "--allow-partial"]);
        assert_eq!(new.value("SELECT count(*) FROM mine.profiles"), "1");

        // On another server, a schema of such a name belongs to a user, and counts as contents.
        let plain = postgres::server(15).create_database("provided_elsewhere");
        plain.psql("CREATE SCHEMA auth; CREATE TABLE auth.mine (a integer)");
        setup.run(&["restore", &id, "--to", &plain.url()]).code(2).says("is not empty").says("auth.mine");

        // There, rows are replaced and single tables are restored without the provider, with a safety snapshot.
        let other = postgres::server(15).create_database("provided_other");
        let to_other = ["restore", &id, "--to", &other.url(), "--no-owner"];
        let run = setup.ok(&[&to_other[..], &["--table", "mine.profiles"]].concat());
        for left_out in ["function auth.uid()", "profiles_id_fkey"] {
            assert!(run.stderr().contains(left_out), "{left_out}: {}", run.transcript());
        }
        assert!(run.stdout().contains("publication supabase_realtime does not exist"), "{}", run.transcript());
        assert_eq!(other.value("SELECT auth.uid() IS NULL"), "t");
        other.psql("UPDATE mine.profiles SET name = 'b'");
        setup.ok(&[&to_other[..], &["--replace", "--yes"]].concat());
        assert_eq!(other.value("SELECT name FROM mine.profiles"), "a");

        // In a database of the provider, the objects find those of the provider.
        let target_url = url(server, app, &target.name);
        setup.run(&["restore", &id, "--to", &target_url, "--swap", "--yes"]).code(2).says("of the provider supabase");
        // But not what a user has created in a schema of the provider.
        let run = setup.run(&["restore", &id, "--to", &target_url]).code(2).says("lacks objects of the provider");
        assert!(run.stderr().contains("auth.claim()") && !run.stderr().contains("auth.uid()"), "{}", run.transcript());
        target.psql(format!(
            "SET ROLE {app}; CREATE FUNCTION auth.claim() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'b'::text$$"
        ));
        setup.ok(&["restore", &id, "--to", &target_url]);
        assert_eq!(target.value("SELECT auth.claim()"), "b");
        assert_eq!(
            target.value("SELECT tablename FROM pg_publication_tables WHERE pubname = 'supabase_realtime'"),
            "profiles"
        );
        assert_eq!(rows(&target, "SELECT email FROM mine.emails"), ["a@example.org"]);
        assert_eq!(target.value("SELECT count(*) FROM pg_constraint WHERE conname = 'profiles_id_fkey'"), "1");
        target.psql("UPDATE mine.profiles SET name = 'b'");
        setup.ok(&["restore", &id, "--to", &target_url, "--replace", "--yes"]);
        assert_eq!(target.value("SELECT name FROM mine.profiles"), "a");

        // A single table finds what it uses too, although the role may create nothing in the schema of the provider.
        target.psql(format!("DROP TABLE mine.profiles CASCADE; REVOKE CREATE ON SCHEMA auth FROM {app}"));
        setup.ok(&["restore", &id, "--to", &target_url, "--table", "mine.profiles"]);
        assert_eq!(target.value("SELECT count(*) FROM mine.profiles"), "1");
        assert_eq!(target.value("SELECT count(*) FROM pg_constraint WHERE conname = 'profiles_id_fkey'"), "1");

        // The target's own provider says what its database has: a snapshot without objects of a provider is restored into
        // one that only the provider has prepared.
        let (own, prepared) = (server.create_database("provided_own"), server.create_database("provided_prepared"));
        own.psql(format!(
            "CREATE SCHEMA mine; CREATE TABLE mine.notes (a integer); INSERT INTO mine.notes VALUES (1); \
             ALTER SCHEMA mine OWNER TO {app}; ALTER TABLE mine.notes OWNER TO {app}"
        ));
        like_supabase(server, &prepared, app);
        prepared.psql("DROP SCHEMA mine");
        let own_id = text(&setup.ok(&["snapshot", &own.url(), "--json"]).json()["snapshots"][0]["id"]);
        let prepared_url = url(server, app, &prepared.name);
        let config = format!("[[source]]\nname = \"prepared\"\nurl = \"{prepared_url}\"\nprovider = \"supabase\"\n");
        std::fs::write(setup.sandbox.path("lifeboat.toml"), config).unwrap();
        setup.run(&["restore", &own_id, "--to", &prepared_url]).code(2).says("is not empty");
        setup.ok(&["restore", &own_id, "--to", "prepared"]);
        assert_eq!(prepared.value("SELECT a FROM mine.notes"), "1");

        // The config names the provider for every command.
        let config = format!(
            "[[store]]\nname = \"main\"\nurl = \"backups\"\n[[source]]\nname = \"shop\"\nurl = \"{source_url}\"\nprovider = \"supabase\"\n"
        );
        std::fs::write(setup.sandbox.path("lifeboat.toml"), config).unwrap();
        let ok = |arguments: &[&str]| setup.sandbox.ok(arguments);
        ok(&["snapshot", "shop"]);
        ok(&["check", "shop"]);
        ok(&["diff", "latest", "shop", "--source", "shop", "--exit-code"]);
        ok(&["drill", "latest", "--source", "shop"]);
        std::fs::remove_file(setup.sandbox.path("lifeboat.toml")).unwrap();
    });
}

/// The check makes the rows of another table differ from those of the snapshot, at the end of a restore.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_failed_restore_leaves_the_default_privileges_that_a_database_of_a_provider_had() {
    on_own_servers(|server| {
        let setup = Setup::new(server);
        let app = "default_app";
        server.psql("postgres", format!("CREATE ROLE {app} LOGIN CREATEDB"));
        let [source, target] = ["defaults", "defaults_target"].map(|name| server.create_database(name));
        for database in [&source, &target] {
            like_supabase(server, database, app);
            database.psql(format!(
                "DROP SCHEMA mine; GRANT CREATE ON SCHEMA public TO {app};
                 ALTER DEFAULT PRIVILEGES FOR ROLE {app} IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO anon;
                 ALTER DEFAULT PRIVILEGES FOR ROLE {app} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
            ));
        }
        source.psql(format!(
            "SET ROLE {app}; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT UPDATE ON TABLES TO anon;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO anon;
             ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO anon;
             CREATE TABLE public.noted (what text); CREATE FUNCTION public.note(integer) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO public.noted VALUES ('checked'); RETURN true; END$$;
             CREATE TABLE public.noting (id integer CHECK (public.note(id))); INSERT INTO public.noting VALUES (1)"
        ));
        let source_url = url(server, app, &source.name);
        let run = setup.ok(&["snapshot", &source_url, "--provider", "supabase", "--json"]);
        let id = text(&run.json()["snapshots"][0]["id"]);
        let defaults = "SELECT defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype,
                               ARRAY(SELECT unnest(defaclacl)::text ORDER BY 1) FROM pg_default_acl ORDER BY 1, 2, 3";
        let before = rows(&target, defaults);
        let run = setup.run(&["restore", &id, "--to", &url(server, app, &target.name)]).code(3).says("public.noted");
        assert!(run.stderr().contains("is empty again"), "{}", run.transcript());
        assert_eq!(rows(&target, defaults), before);
    });
}

/// Creates objects of a user: tables with rows, a sequence, a view, a function and privileges, in `public` and in a schema.
const OBJECTS: &str = "CREATE SCHEMA shop; CREATE TABLE shop.orders (id serial PRIMARY KEY, note text);
     INSERT INTO shop.orders (note) SELECT 'order ' || n FROM generate_series(1, 50) AS n;
     CREATE TABLE public.prices (item text PRIMARY KEY, cents integer); INSERT INTO public.prices VALUES ('a', 1), ('b', 2);
     CREATE VIEW shop.newest AS SELECT max(id) AS id FROM shop.orders;
     CREATE FUNCTION shop.double(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2';";

/// Saves, drills and restores a database of `app` into an empty one that the provider has prepared in the same way. The role
/// may not create databases.
fn round_trip(setup: &Setup, app: &str, provider: &str, source: &TestDatabase, target: &TestDatabase) {
    let before = target.schema_dump();
    let [source_url, target_url] = [source, target].map(|database| url(&setup.server, app, &database.name));
    let run = setup.run(&["snapshot", &source_url]).code(1);
    assert!(run.stderr().contains(&format!("--provider {provider}")), "{}", run.transcript());
    let run = setup.ok(&["snapshot", &source_url, "--provider", provider, "--json"]);
    let saved = &run.json()["snapshots"][0];
    assert_eq!((&saved["kind"], &saved["rows"]), (&"full".into(), &52.into()), "{}", run.transcript());
    let id = text(&saved["id"]);
    setup.ok(&["verify", &id]);
    setup.run(&["drill", &id]).code(2).says("--to");
    setup.ok(&["drill", &id, "--to", &target_url]);
    schema_differences(&before, &target.schema_dump()).assert_none();
    setup.ok(&["restore", &id, "--to", &target_url]);
    schema_differences(&source.schema_dump(), &target.schema_dump()).assert_none();
    assert_eq!(target.value("SELECT count(*) FROM shop.orders"), "50");
    let config = format!("[[source]]\nname = \"target\"\nurl = \"{target_url}\"\nprovider = \"{provider}\"\n");
    std::fs::write(setup.sandbox.path("lifeboat.toml"), config).unwrap();
    setup.ok(&["diff", &id, "target", "--exit-code"]);
    target.psql("UPDATE prices SET cents = 3; DELETE FROM shop.orders");
    setup.ok(&["restore", &id, "--to", &target_url, "--replace", "--yes"]);
    assert_eq!(target.value("SELECT sum(cents) FROM prices"), "3");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_owner_of_a_database_on_rds_saves_drills_and_restores_it() {
    on_own_servers(|server| {
        let setup = Setup::new(server);
        server.psql(
            "postgres",
            "CREATE ROLE rdsadmin SUPERUSER; CREATE ROLE rds_superuser; CREATE ROLE rds_replication; CREATE ROLE app LOGIN;
             CREATE ROLE master LOGIN CREATEDB CREATEROLE; GRANT rds_superuser TO master; GRANT app TO master",
        );
        let [source, target] = ["source", "target"].map(|name| {
            let database = server.create_database(name);
            server.psql("postgres", format!("ALTER DATABASE \"{}\" OWNER TO app", database.name));
            database.psql(
                "ALTER SCHEMA public OWNER TO rdsadmin; GRANT ALL ON SCHEMA public TO PUBLIC; SET ROLE rdsadmin;
                 CREATE SCHEMA rds_tools; CREATE TABLE rds_tools.state (a integer); INSERT INTO rds_tools.state VALUES (1);
                 CREATE FUNCTION rds_tools.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
                 CREATE EVENT TRIGGER rds_watch ON ddl_command_end EXECUTE FUNCTION rds_tools.watch();
                 GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO rds_superuser;
                 ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO rds_superuser;
                 CREATE EXTENSION hstore SCHEMA public",
            );
            database
        });
        source.psql(format!("SET ROLE app; {OBJECTS} ALTER TABLE prices ADD more hstore"));
        round_trip(&setup, "app", "rds", &source, &target);
        let source_url = url(server, "app", &source.name);
        // The schema public is left to the provider, on servers without its roles too.
        let id = text(&setup.json(&["list"])["snapshots"][0]["id"]);
        let elsewhere = PrivateServer::start(server.major);
        elsewhere.psql("postgres", "CREATE ROLE app; CREATE ROLE rds_superuser");
        setup.ok(&["drill", &id, "--to", &elsewhere.socket_url("postgres")]);
        // A role of another provider, as a database that has moved brings one, changes nothing.
        server.psql("postgres", "CREATE ROLE supabase_auth_admin");
        setup.ok(&["snapshot", &source_url, "--provider", "rds"]);
        setup
            .run(&["snapshot", &source_url, "--provider", "neon"])
            .code(2)
            .says("it has none of the roles cloud_admin");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_owner_of_a_database_on_neon_saves_drills_and_restores_it() {
    on_own_servers(|server| {
        let setup = Setup::new(server);
        server.psql(
            "postgres",
            "CREATE ROLE cloud_admin SUPERUSER; CREATE ROLE neon_superuser; CREATE ROLE neon_auth;
             CREATE ROLE neondb_owner LOGIN; GRANT neon_superuser TO neondb_owner",
        );
        let [source, target] = ["source", "target"].map(|name| {
            let database = server.create_database(name);
            server.psql("postgres", format!("ALTER DATABASE \"{}\" OWNER TO neondb_owner", database.name));
            database.psql(
                "ALTER SCHEMA public OWNER TO neondb_owner; SET ROLE cloud_admin;
                 CREATE SCHEMA neon; CREATE TABLE neon.state (a integer);
                 CREATE SCHEMA neon_auth AUTHORIZATION neon_auth; GRANT USAGE ON SCHEMA neon_auth TO neondb_owner;
                 CREATE TABLE neon_auth.people (id integer PRIMARY KEY); INSERT INTO neon_auth.people VALUES (1);
                 ALTER TABLE neon_auth.people OWNER TO neon_auth; GRANT REFERENCES ON neon_auth.people TO neondb_owner;
                 ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO neon_superuser WITH GRANT OPTION",
            );
            database
        });
        source.psql(format!(
            "SET ROLE neondb_owner; {OBJECTS}
             ALTER TABLE shop.orders ADD person integer DEFAULT 1 REFERENCES neon_auth.people"
        ));
        round_trip(&setup, "neondb_owner", "neon", &source, &target);
        let id = text(&setup.json(&["list"])["snapshots"][0]["id"]);
        let shown = setup.ok(&["show", &id]).stdout();
        assert!(shown.contains("schemas neon, neon_auth; rows of neon_auth.people"), "{shown}");
    });
}
