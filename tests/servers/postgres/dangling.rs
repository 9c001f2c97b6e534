//! Rows of the catalogs that refer to what does not exist, as crashes, failed upgrades and changes by hand leave them. A
//! snapshot notes and skips them, as pg_dump does.

use super::helpers::{Setup, rows};
use crate::support::postgres::{each_server, oldest_and_newest, some_server};
use crate::support::samples;

/// Comments and labels on what does not exist, and rows that dropped objects left. The role `@role@` was dropped, too.
const LEFTOVERS: &str = "
CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
COMMENT ON TABLE t IS 'kept'; COMMENT ON COLUMN t.v IS 'kept too'; COMMENT ON CONSTRAINT t_pkey ON t IS 'a key';
ALTER TABLE t ADD gone integer; ALTER TABLE t DROP gone;
CREATE TABLE member (id integer); INSERT INTO member VALUES (1), (2), (3);
SELECT lo_from_bytea(4711, 'x'); COMMENT ON LARGE OBJECT 4711 IS 'invoice ''5''';
SELECT lo_from_bytea(0, 'y');
CREATE TABLE owned (id integer); ALTER TABLE owned OWNER TO @role@;
GRANT SELECT, INSERT ON t TO @role@ WITH GRANT OPTION; GRANT UPDATE (v) ON t TO @role@;
SET ROLE @role@; GRANT SELECT ON t TO lifeboat_reader; RESET ROLE;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_gone ON t TO @role@ USING (true); CREATE POLICY some_gone ON t TO @role@, lifeboat_reader USING (id > 1);
ALTER DEFAULT PRIVILEGES FOR ROLE @role@ GRANT SELECT ON TABLES TO lifeboat_reader;
ALTER DEFAULT PRIVILEGES GRANT UPDATE ON TABLES TO @role@;
CREATE SCHEMA gone_schema; ALTER DEFAULT PRIVILEGES IN SCHEMA gone_schema GRANT DELETE ON TABLES TO lifeboat_reader;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR @role@ SERVER s;
CREATE PUBLICATION p FOR TABLE t; CREATE PUBLICATION q FOR TABLE member;
CREATE TABLE gone_table (id serial PRIMARY KEY, v text DEFAULT 'x' CHECK (v <> ''));
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noted AFTER INSERT ON gone_table FOR EACH ROW EXECUTE FUNCTION noted();
CREATE POLICY of_gone ON gone_table USING (true);
CREATE FUNCTION gone_function() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE TYPE gone_type AS ENUM ('a'); CREATE FUNCTION gone_cast(regclass) RETURNS date LANGUAGE sql AS 'SELECT NULL::date';
CREATE CAST (regclass AS date) WITH FUNCTION gone_cast(regclass);
CREATE TEXT SEARCH DICTIONARY gone_words (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION c (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION c ALTER MAPPING FOR asciiword WITH gone_words, simple;
CREATE EVENT TRIGGER of_gone ON sql_drop EXECUTE FUNCTION gone_function(); ALTER EVENT TRIGGER of_gone DISABLE;
SET allow_system_table_mods = on;
INSERT INTO pg_description VALUES ('t'::regclass, 'pg_class'::regclass, 77, 'x'), ('t'::regclass, 'pg_class'::regclass, 3, 'x'),
    (424242, 424242, 0, 'x'),
    (424242, 'pg_index'::regclass, 0, 'x'), (424242, 'pg_largeobject'::regclass, 0, 'x');
INSERT INTO pg_description SELECT 424242, c::regclass, 0, 'x' FROM unnest(ARRAY['pg_class', 'pg_proc', 'pg_type',
    'pg_namespace', 'pg_trigger', 'pg_constraint', 'pg_extension', 'pg_publication', 'pg_rewrite', 'pg_policy', 'pg_cast',
    'pg_collation', 'pg_conversion', 'pg_operator', 'pg_opclass', 'pg_opfamily', 'pg_language', 'pg_event_trigger',
    'pg_foreign_server', 'pg_foreign_data_wrapper', 'pg_statistic_ext', 'pg_am', 'pg_ts_dict', 'pg_ts_config']) AS c;
INSERT INTO pg_seclabel VALUES (424242, 'pg_class'::regclass, 0, 'selinux', 'x');
UPDATE pg_publication_rel SET prpubid = 424242 WHERE prrelid = 't'::regclass;
UPDATE pg_publication_rel SET prrelid = 424242 WHERE prrelid = 'member'::regclass;
INSERT INTO pg_depend VALUES ('pg_class'::regclass, 'member'::regclass, 0, 'pg_extension'::regclass, 424242, 0, 'e'),
    ('pg_proc'::regclass, 424242, 0, 'pg_class'::regclass, 't'::regclass, 0, 'n'),
    ('pg_class'::regclass, 't'::regclass, 0, 'pg_proc'::regclass, 424242, 0, 'n');
INSERT INTO pg_init_privs VALUES (424242, 'pg_class'::regclass, 0, 'e', '{postgres=r/postgres}');
ALTER ROLE @role@ IN DATABASE \"@database@\" SET work_mem = '7MB'; GRANT CONNECT ON DATABASE \"@database@\" TO @role@;
DELETE FROM pg_namespace WHERE nspname = 'gone_schema';
DELETE FROM pg_class WHERE relname IN ('gone_table', 'gone_table_pkey');
DELETE FROM pg_proc WHERE proname IN ('gone_function', 'gone_cast');
DELETE FROM pg_type WHERE typname = 'gone_type'; DELETE FROM pg_ts_dict WHERE dictname = 'gone_words';
DELETE FROM pg_authid WHERE rolname = '@role@';
";

#[test]
#[ignore = "needs PostgreSQL"]
fn rows_of_the_catalogs_that_refer_to_nothing_are_noted_and_skipped() {
    each_server(|server| {
        let setup = Setup::new(server);
        samples::create_roles(server);
        let role = format!("lifeboat_dropped_{}_{}", std::process::id(), server.major);
        let source = server.create_database("dangling");
        server.psql("postgres", format!("CREATE ROLE {role}"));
        let number = server.value("postgres", &format!("SELECT oid FROM pg_roles WHERE rolname = '{role}'"));
        source.psql(LEFTOVERS.replace("@role@", &role).replace("@database@", &source.name));
        // A lock timeout of a second: nothing is tried again.
        let id = setup.snapshot(&source, &["--lock-timeout", "1"]);
        let shown = setup.ok(&["show", &id]).stdout();
        for note in [
            "a comment on an object that does not exist (pg_proc 424242) was left out",
            ", column 3) was left out",
            ", column 77) was left out",
            "a comment on an object that does not exist (catalog 424242 424242) was left out",
            "a security label on an object that does not exist (pg_class 424242) was left out",
            &format!(" more name the role {number}, which does not exist"),
            &format!("the owner of TABLE public.owned is the role {number}, which does not exist"),
            "the policy only_gone on public.t names a role that does not exist: the policy was left out",
            "the policy some_gone on public.t names a role that does not exist: that was left out",
            "the user mapping for the server s was left out",
            "the database's settings of the role",
            "the text search configuration public.c names a dictionary for asciiword that does not exist",
        ] {
            assert!(shown.contains(note), "PostgreSQL {}: no note '{note}' in\n{shown}", server.version);
        }
        let rest = " was left out: it is the rest of an object that was dropped";
        for catalog in ["publication_rel", "trigger", "attrdef", "event_trigger", "default_acl", "cast"] {
            let is_row = |line: &str| line.contains(&format!("pg_{catalog} ")) && line.contains(rest);
            assert!(shown.lines().any(is_row), "PostgreSQL {}: no note for {catalog} in\n{shown}", server.version);
        }
        let new = setup.restore_new(&id, &[]);
        assert_eq!(
            rows(
                &new,
                "SELECT 't', count(*) FROM t UNION ALL SELECT 'member', count(*) FROM member UNION ALL
            SELECT 'owned', count(*) FROM owned"
            ),
            ["t|2", "member|3", "owned|0"]
        );
        assert_eq!(rows(&new, "SELECT obj_description(4711, 'pg_largeobject')"), ["invoice '5'"]);
        let comments = "SELECT description FROM pg_description WHERE objoid >= 16384 ORDER BY 1";
        assert_eq!(rows(&new, comments), ["a key", "kept", "kept too"]);
        // The privileges that the role granted to others are still in effect, so they are kept.
        let privileges = "SELECT privilege_type FROM aclexplode((SELECT relacl FROM pg_class WHERE relname = 't'))
             WHERE grantee = 'lifeboat_reader'::regrole";
        assert_eq!(rows(&new, privileges), ["SELECT"]);
        assert_eq!(new.value("SELECT count(*) FROM pg_default_acl"), "0");
        let policies = "SELECT policyname || ' ' || roles::text FROM pg_policies";
        assert_eq!(rows(&new, policies), ["some_gone {lifeboat_reader}"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn objects_whose_schema_is_lost_are_refused() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("lost_schema");
        source.psql(
            "CREATE TABLE kept (id integer); CREATE SCHEMA lost;
             CREATE TABLE lost.orders (id integer PRIMARY KEY, CHECK (id > 0)); INSERT INTO lost.orders VALUES (1);
             CREATE RULE quiet AS ON DELETE TO lost.orders DO INSTEAD NOTHING; CREATE POLICY p ON lost.orders;
             COMMENT ON TABLE lost.orders IS 'c'; COMMENT ON COLUMN lost.orders.id IS 'c';
             COMMENT ON CONSTRAINT orders_id_check ON lost.orders IS 'c'; COMMENT ON RULE quiet ON lost.orders IS 'c';
             COMMENT ON POLICY p ON lost.orders IS 'c'; COMMENT ON COLUMN kept.id IS 'c';
             CREATE FUNCTION lost.total() RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE TYPE lost.mood AS ENUM ('a');
             CREATE EXTENSION pgcrypto SCHEMA lost;
             CREATE OPERATOR lost.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
             SET allow_system_table_mods = on; DELETE FROM pg_namespace WHERE nspname = 'lost'",
        );
        let run = setup.run(&["snapshot", &source.url()]).code(1);
        for name in ["orders", "total", "mood", "pgcrypto", "==="] {
            assert!(run.stderr().contains(&format!(" ({name}): its schema, ")), "{name}\n{}", run.transcript());
        }
        let id = setup.snapshot(&source, &["--allow-partial"]);
        let shown = setup.ok(&["show", &id]).stdout();
        assert!(shown.contains("(orders): its schema, "), "{shown}");
        // All servers crash if they are asked for the name of a part of such an object.
        let is_part = |line: &str| {
            line.contains("a comment on an object that does not exist (pg_class ") && line.contains(", column 1)")
        };
        assert!(shown.lines().any(is_part), "{shown}");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn code_that_runs_as_a_role_that_does_not_exist_is_given_to_no_other_role() {
    some_server(|server| {
        let setup = Setup::new(server);
        let role = format!("lifeboat_definer_{}", std::process::id());
        let source = server.create_database("definer");
        server.psql("postgres", format!("CREATE ROLE {role}"));
        let number = server.value("postgres", &format!("SELECT oid FROM pg_roles WHERE rolname = '{role}'"));
        source.psql(format!(
            "CREATE TABLE t (id integer); CREATE FUNCTION wide() RETURNS integer LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
             CREATE VIEW v AS SELECT 1 AS one; ALTER FUNCTION wide OWNER TO {role}; ALTER VIEW v OWNER TO {role};
             DELETE FROM pg_authid WHERE rolname = '{role}'"
        ));
        let id = setup.snapshot(&source, &[]);
        let shown = setup.ok(&["show", &id]).stdout();
        let note = format!("and 1 more is the role {number}, which does not exist, and others act with its rights");
        assert!(shown.contains(&note), "{shown}");
        let new = server.reserve_database("definer_new");
        let restore = ["restore", &id, "--to", &new.url(), "--create"];
        let missing = format!("the role unknown (OID={number}) is missing");
        setup.run(&restore).code(1).says(&missing);
        setup.run(&[&restore[..], &["--create-roles"]].concat()).code(1).says(&missing);
        setup.restore_new(&id, &["--no-owner"]);
    });
}
