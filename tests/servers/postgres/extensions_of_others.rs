//! Extensions that keep rows of users in tables of their own. They are those of Debian's packages for PostgreSQL 15.
//!
//! `scripts/test` installs the packages postgresql-15-postgis-3, postgresql-15-cron, postgresql-15-partman, postgresql-15-pgq3,
//! postgresql-15-hll, postgresql-15-semver and postgresql-15-periods.

use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::helpers::{Setup, rows, text, wait_until};
use crate::support::postgres::{PrivateServer, TestDatabase, TestRole, server};
use crate::support::skip;

/// Returns true if the extensions are installed. Otherwise, the test is skipped.
fn have(extensions: &[&str]) -> bool {
    for name in extensions {
        if !Path::new(&format!("/usr/share/postgresql/15/extension/{name}.control")).exists() {
            skip(&format!("the extension {name} is not installed"));
            return false;
        }
    }
    true
}

/// Takes a snapshot, drills it with one session and with several, and restores it as a new database.
fn round_trip(setup: &Setup, source: &TestDatabase) -> TestDatabase {
    let id = setup.snapshot(source, &[]);
    for jobs in ["1", "4"] {
        setup.ok(&["drill", &id, "-j", jobs]);
    }
    let new = setup.restore_new(&id, &[]);
    assert_eq!(new.schema_dump().replace(&new.name, "NAME"), source.schema_dump().replace(&source.name, "NAME"));
    assert_eq!(setup.json(&["diff", &id, &new.url()])["equal"], true);
    new
}

/// The layers of a topology refer to the topology by a foreign key.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_database_with_postgis_and_a_topology_comes_back() {
    if !have(&["postgis", "postgis_raster", "postgis_topology"]) {
        return;
    }
    let setup = Setup::new(&server(15));
    let source = setup.server.create_database("postgis");
    source.psql(
        "CREATE EXTENSION postgis; CREATE EXTENSION postgis_raster; CREATE EXTENSION postgis_topology;
         SELECT topology.CreateTopology('mt', 4326);
         CREATE TABLE places (id integer PRIMARY KEY, point geometry(Point, 990001),
             metres geometry GENERATED ALWAYS AS (ST_Transform(point, 3857)) STORED);
         SELECT topology.AddTopoGeometryColumn('mt', 'public', 'places', 'tg', 'POINT');
         INSERT INTO spatial_ref_sys VALUES (990001, 'own', 990001, NULL, '+proj=longlat +datum=WGS84 +no_defs');
         INSERT INTO places (id, point) SELECT i, ST_SetSRID(ST_MakePoint(i, i), 990001) FROM generate_series(1, 20) AS i;
         CREATE INDEX ON places USING gist (point);
         CREATE TABLE tiles (raster raster); INSERT INTO tiles VALUES (ST_MakeEmptyRaster(2, 2, 0, 0, 1))",
    );
    let new = round_trip(&setup, &source);
    for query in [
        "SELECT id, name, srid FROM topology.topology",
        "SELECT topology_id, layer_id, table_name FROM topology.layer",
        "SELECT id, ST_AsText(metres) FROM places ORDER BY id",
    ] {
        assert_eq!(rows(&new, query), rows(&source, query), "{query}");
    }
}

/// The tables of a queue inherit from a table of the extension.
#[test]
#[ignore = "needs PostgreSQL"]
fn databases_with_pgq_partman_hll_and_semver_come_back() {
    if !have(&["pgq", "pg_partman", "hll", "semver", "periods"]) {
        return;
    }
    let setup = Setup::new(&server(15));
    let source = setup.server.create_database("queues");
    source.psql(
        "CREATE EXTENSION pgq; SELECT pgq.create_queue('q'); SELECT pgq.register_consumer('q', 'c');
         SELECT pgq.insert_event('q', 'type', 'data'); SELECT pgq.ticker();
         CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
         CREATE TABLE events (id integer, at timestamptz NOT NULL) PARTITION BY RANGE (at);
         SELECT partman.create_parent('public.events', 'at', 'native', 'yearly');
         INSERT INTO events VALUES (1, '2026-01-01');
         CREATE EXTENSION hll; CREATE EXTENSION semver;
         CREATE TABLE versions (v semver PRIMARY KEY, visitors hll);
         INSERT INTO versions VALUES ('1.2.3-rc.1', hll_add(hll_empty(), hll_hash_integer(1)));
         CREATE EXTENSION btree_gist; CREATE EXTENSION periods;
         CREATE TABLE contract (id integer, since date, until date);
         SELECT periods.add_period('contract', 'valid', 'since', 'until');
         SELECT periods.add_unique_key('contract', ARRAY['id'], 'valid');
         INSERT INTO contract VALUES (1, '2026-01-01', '2026-02-01')",
    );
    let new = round_trip(&setup, &source);
    assert_eq!(rows(&new, "SELECT queue_name FROM pgq.queue"), ["q"]);
    new.psql("SELECT pgq.insert_event('q', 'type', 'more')");
    assert_eq!(rows(&new, "SELECT count(*) FROM pgq.event_template"), ["2"]);
    assert_eq!(rows(&new, "SELECT parent_table FROM partman.part_config"), ["public.events"]);
    assert_eq!(rows(&new, "SELECT v, hll_cardinality(visitors) FROM versions"), ["1.2.3-rc.1|1"]);
    assert_eq!(rows(&new, "SELECT table_name, period_name FROM periods.periods"), ["contract|valid"]);
}

/// The owner of a database may not grant privileges on the functions of an extension that an administrator has created.
#[test]
#[ignore = "needs PostgreSQL"]
fn one_warning_counts_the_privileges_that_the_owner_may_not_grant() {
    if !have(&["pg_partman"]) {
        return;
    }
    let setup = Setup::new(&server(15));
    let app = TestRole::create(&setup.server, "partman_app", "LOGIN");
    let databases = ["partman", "partman_target"].map(|name| setup.server.create_database(name));
    for database in &databases {
        setup.server.psql("postgres", format!("ALTER DATABASE \"{}\" OWNER TO {app}", database.name));
        database.psql(format!(
            "CREATE SCHEMA partman AUTHORIZATION {app}; CREATE EXTENSION pg_partman SCHEMA partman;
             GRANT ALL ON ALL TABLES IN SCHEMA partman TO {app}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partman TO {app}"
        ));
    }
    let [source, target] = databases.map(|database| {
        let url = database.socket_url();
        (url.replacen(&format!("postgres://{}@", setup.server.user), &format!("postgres://{app}@"), 1), database)
    });
    let id = text(&setup.json(&["snapshot", &source.0])["snapshots"][0]["id"]);
    let run = setup.ok(&["restore", &id, "--to", &target.0, "-v"]).says(" more, which -v shows");
    let count = |level: &str| run.stderr().matches(&format!(" {level} while privileges were set")).count();
    assert_eq!(count("WARN"), 1, "{}", run.transcript());
    assert!(count("INFO") > 20, "{}", run.transcript());
}

/// The server allows pg_cron only in the database that `cron.database_name` names, and pg_cron keeps a session in it.
#[test]
#[ignore = "needs PostgreSQL"]
fn jobs_of_pg_cron_come_back_after_the_database_has_its_name() {
    if !have(&["pg_cron"]) {
        return;
    }
    let private = PrivateServer::start(15);
    private.configure("shared_preload_libraries = 'pg_cron'\ncron.database_name = 'app'");
    let setup = Setup::new(&private);
    let app = TestDatabase { server: (*private).clone(), name: "app".to_owned() };
    private.psql("postgres", "CREATE DATABASE app");
    app.psql(
        "CREATE EXTENSION pg_cron; SELECT cron.schedule('nightly', '0 3 * * *', 'SELECT 1');
         CREATE TABLE t AS SELECT generate_series(1, 10) AS a;
         CREATE VIEW jobs AS SELECT jobname FROM cron.job;
         CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION on_ddl()",
    );
    let id = setup.snapshot(&app, &[]);
    let definitions = app.schema_dump();
    let drill = setup.ok(&["drill", &id]);
    assert!(drill.stderr().contains("the drill does without the extension pg_cron"), "{}", drill.transcript());
    let url = app.url();
    let swap = setup.json(&["restore", &id, "--to", &url, "--swap", "--disconnect", "--yes"]);
    assert_eq!(rows(&app, "SELECT jobname FROM jobs"), ["nightly"]);
    assert_eq!(app.schema_dump(), definitions);
    assert_eq!(app.value("SELECT nextval('cron.jobid_seq')"), "2");
    assert_eq!(setup.json(&["diff", &id, &url])["equal"], true);
    let swapped_in = setup.undo_swap(&swap);
    assert_eq!(rows(&app, "SELECT jobname FROM jobs"), ["nightly"]);
    private.psql(
        "postgres",
        format!("DROP DATABASE \"{}\" WITH (FORCE); DROP DATABASE app WITH (FORCE)", swapped_in.name),
    );
    std::mem::forget(swapped_in);
    setup.ok(&["restore", &id, "--to", &url, "--create"]);
    assert_eq!(rows(&app, "SELECT jobname FROM jobs"), ["nightly"]);
    assert_eq!(app.schema_dump(), definitions);

    // Another database cannot have it.
    let other = private.url("other");
    let refused = setup.run(&["restore", &id, "--to", &other, "--create"]).code(2);
    for words in ["pg_cron", "cron.database_name", "--allow-partial"] {
        assert!(refused.stderr().contains(words), "{}", refused.transcript());
    }
    let allowed = setup.run(&["restore", &id, "--to", &other, "--create", "--allow-partial", "--json"]).code(3).json();
    assert_eq!(allowed["left_out"][0]["name"], "pg_cron");
    assert_eq!(private.value("other", "SELECT count(*) FROM t"), "10");
    std::mem::forget(app);
}

/// Waits until the swapped-in database `app` is closed to all sessions but that of the restore.
fn wait_until_closed(setup: &Setup, swap: &mut Child) {
    wait_until("the restore has exchanged the databases, and goes on", || {
        assert_eq!(swap.try_wait().unwrap(), None, "the restore ended before it could be stopped");
        setup.databases_where("datname = 'app' AND NOT datallowconn").len() == 1
    });
}

/// The rest of the restore, a materialized view over the jobs, takes as long as a setting of the role says.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_swap_that_ends_before_pg_cron_is_there_gives_the_old_database_its_name_back() {
    if !have(&["pg_cron"]) {
        return;
    }
    let private = PrivateServer::start(15);
    private.configure("shared_preload_libraries = 'pg_cron'\ncron.database_name = 'app'");
    let setup = Setup::new(&private);
    let app = TestDatabase { server: (*private).clone(), name: "app".to_owned() };
    private.psql("postgres", "CREATE DATABASE app CONNECTION LIMIT 17");
    app.psql(
        "CREATE EXTENSION pg_cron; SELECT cron.schedule('nightly', '0 3 * * *', 'SELECT 1');
         CREATE FUNCTION slow() RETURNS integer LANGUAGE plpgsql AS $$BEGIN
             PERFORM pg_catalog.pg_sleep(coalesce(current_setting('test.seconds', true), '0')::float8); RETURN 1; END$$;
         CREATE MATERIALIZED VIEW jobs AS SELECT jobname, public.slow() FROM cron.job;
         CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false);
         ALTER SUBSCRIPTION sub SET (slot_name = NONE)",
    );
    let id = setup.snapshot(&app, &[]);
    app.psql("CREATE TABLE newer AS SELECT 1 AS a");
    private.psql("postgres", "ALTER ROLE postgres SET test.seconds = '100'");
    let url = app.url();
    let swap = || {
        let mut command = setup.command(&["restore", &id, "--to", &url, "--swap", "--disconnect", "--yes"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let require_old = || {
        assert_eq!(app.value("SELECT count(*) FROM newer"), "1");
        let state = "SELECT datallowconn, datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database";
        assert_eq!(rows(&app, &format!("{state} WHERE datname = 'app'")), ["t|17|\\N"]);
    };

    let mut interrupted = swap();
    wait_until_closed(&setup, &mut interrupted);
    kill_process(Pid::from_child(&interrupted), Signal::INT).unwrap();
    let output = interrupted.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    require_old();
    assert_eq!(setup.databases_where("datname LIKE 'app_%' OR datname LIKE 'lifeboat%'"), [""; 0]);

    let mut killed = swap();
    wait_until_closed(&setup, &mut killed);
    killed.kill().unwrap();
    let output = killed.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (_, undo) = stderr.split_once("comes back with: ").expect("the undo is printed before the exchange");
    let refused = setup.run(&["restore", &id, "--to", &url, "--swap", "--disconnect", "--yes"]).code(1);
    let undo = undo.lines().next().unwrap();
    assert!(refused.stderr().contains(undo), "{}", refused.transcript());
    setup.paste(undo);
    require_old();

    private.psql("postgres", "ALTER ROLE postgres RESET test.seconds");
    let report = setup.json(&["restore", &id, "--to", &url, "--swap", "--disconnect", "--yes"]);
    assert_eq!(rows(&app, "SELECT jobname FROM jobs"), ["nightly"]);
    let state = "SELECT datallowconn, datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database";
    assert_eq!(rows(&app, &format!("{state} WHERE datname = 'app'")), ["t|17|\\N"]);
    assert!(report["undo"].is_string(), "{report}");
    // A new database has the limit of the snapshot.
    private.psql("postgres", "ALTER DATABASE app RENAME TO away");
    setup.ok(&["restore", &id, "--to", &url, "--create"]);
    assert_eq!(rows(&app, &format!("{state} WHERE datname = 'app'")), ["t|17|\\N"]);
    std::mem::forget(app);
}

/// A table of a type of pg_cron is created with the extension, once the database has its name.
#[test]
#[ignore = "needs PostgreSQL"]
fn other_values_in_a_table_that_needs_pg_cron_can_be_accepted() {
    if !have(&["pg_cron"]) {
        return;
    }
    let private = PrivateServer::start(15);
    private.configure("shared_preload_libraries = 'pg_cron'\ncron.database_name = 'app'");
    let setup = Setup::new(&private);
    let app = TestDatabase { server: (*private).clone(), name: "app".to_owned() };
    private.psql("postgres", "CREATE DATABASE app");
    app.psql(
        "CREATE EXTENSION pg_cron; CREATE FUNCTION f(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
         CREATE TABLE t (job cron.job, i integer, g integer GENERATED ALWAYS AS (public.f(i)) STORED);
         INSERT INTO t (i) VALUES (1), (2);
         CREATE OR REPLACE FUNCTION f(i integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT i * 3'",
    );
    let id = setup.snapshot(&app, &[]);
    private.psql("postgres", "DROP DATABASE app WITH (FORCE)");
    let url = app.url();
    setup.run(&["restore", &id, "--to", &url, "--create"]).code(3).says("the generated column g of the table public.t");
    assert!(setup.databases_where("datname = 'app'").is_empty());
    let allowed = setup.run(&["restore", &id, "--to", &url, "--create", "--allow-partial", "--json"]).code(3).json();
    assert_eq!(allowed["left_out"][0]["kind"], "generated values", "{allowed}");
    assert_eq!(allowed["left_out"][0]["table"], "public.t", "{allowed}");
    assert_eq!(rows(&app, "SELECT i, g FROM t ORDER BY i"), ["1|3", "2|6"]);
    std::mem::forget(app);
}
