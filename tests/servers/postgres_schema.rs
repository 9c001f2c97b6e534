//! Tests of the schema that is read from the catalogs: pg_dump prints the same for the source and for a database that
//! was created from that schema.

use crate::support::compare::differences;
use crate::support::postgres::{Server, TestDatabase, each_server, oldest_and_newest, some_server};
use crate::support::samples;
use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::schema::{self, Item, SETTINGS, Schema, Section};
use lifeboat::engine::postgres::wire::session::Session;

/// The sections of the scripts in an archive, in the order in which they run.
const SECTIONS: [Section; 3] = [Section::Pre, Section::Post, Section::Last];

#[test]
#[ignore = "needs PostgreSQL"]
fn a_schema_with_every_kind_of_object_is_restored_unchanged() {
    each_server(|server| require_restored_unchanged(server, "everything"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn tables_that_inherit_from_or_refer_to_each_other_are_restored_unchanged() {
    each_server(|server| require_restored_unchanged(server, "kin"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn every_type_is_restored_unchanged() {
    oldest_and_newest(|server| require_restored_unchanged(server, "types"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn three_hundred_tables_are_restored_unchanged() {
    oldest_and_newest(|server| require_restored_unchanged(server, "many"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_database_with_unusual_settings_is_restored_unchanged() {
    oldest_and_newest(|server| require_restored_unchanged(server, "odd_settings"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_schema_of_zabbix_is_restored_unchanged() {
    oldest_and_newest(|server| require_restored_unchanged(server, "zabbix"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn objects_that_pg_dump_cannot_restore_are_restored_unchanged() {
    each_server(|server| require_restored_unchanged(server, "beyond_pg_dump"));
}

/// Runs the scripts with psql, as a person without Lifeboat would do.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_scripts_restore_the_schema_with_psql() {
    oldest_and_newest(|server| {
        let source = samples::database(server, "everything");
        let schema = read(&source);
        let target = server.create_database("by_psql");
        for section in SECTIONS {
            target.psql(schema::render(&schema.items, section, true).unwrap());
        }
        require_equal(&source, &target, "everything by psql");
    });
}

/// Compares what pg_dump does not print, or prints only in part.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_catalogs_of_source_and_target_are_equal() {
    const QUERIES: &[&str] = &[
        "SELECT c.oid::regclass, c.relkind, c.relpersistence, c.reloptions, c.relispopulated, c.relrowsecurity,
                c.relforcerowsecurity, c.relreplident, c.relispartition, c.relowner::regrole,
                pg_get_expr(c.relpartbound, c.oid), (SELECT array_agg(x::text ORDER BY x::text)
                   FROM unnest(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) AS x)
           FROM pg_class c WHERE c.relname <> 'left_behind'",
        "SELECT c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attislocal, a.attinhcount, a.attnotnull,
                a.attstorage, a.attstattarget, a.attidentity, a.attgenerated, a.attcollation::regcollation,
                array_remove(a.attoptions, (SELECT o FROM unnest(a.attoptions) AS o WHERE o LIKE 'pg_attver=%')),
                a.attfdwoptions, pg_get_expr(d.adbin, d.adrelid)
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped AND c.relname <> 'left_behind'
           LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum",
        "SELECT conrelid::regclass, contypid::regtype, conname, contype, condeferrable, condeferred, convalidated, conislocal,
                coninhcount, connoinherit AND contype IN ('c', 'n'), conindid::regclass, conparentid <> 0, pg_get_constraintdef(c.oid)
           FROM pg_constraint c",
        "SELECT indexrelid::regclass, indisunique, indisprimary, indisexclusion, indimmediate, indisclustered, indisvalid,
                indisready, indislive, indisreplident, pg_get_indexdef(indexrelid)
           FROM pg_index JOIN pg_class c ON c.oid = indexrelid AND c.relname <> 'left_behind'",
        "SELECT inhrelid::regclass, inhparent::regclass, inhseqno FROM pg_inherits c",
        "SELECT tgrelid::regclass, tgname, tgenabled, tgparentid <> 0, tgdeferrable, tginitdeferred, pg_get_triggerdef(c.oid)
           FROM pg_trigger c WHERE NOT tgisinternal",
        "SELECT ev_class::regclass, rulename, ev_enabled, is_instead, pg_get_ruledef(c.oid) FROM pg_rewrite c",
        "SELECT c.oid::regprocedure, proowner::regrole, prokind, prosecdef, proleakproof, proisstrict, provolatile, proparallel,
                procost, prorows, prosupport, proconfig, protrftypes::regtype[], prosrc, prosqlbody IS NOT NULL,
                (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(c.proacl) AS x)
           FROM pg_proc c",
        "SELECT extname, extversion, extnamespace::regnamespace FROM pg_extension c",
        "SELECT subname, subenabled FROM pg_subscription c JOIN pg_database d ON d.oid = subdbid
          WHERE datname = current_database()",
        "SELECT deptype, pg_describe_object(classid, objid, objsubid), pg_describe_object(refclassid, refobjid, refobjsubid)
           FROM pg_depend c WHERE deptype = 'x'",
        "SELECT pg_describe_object(classoid, objoid, objsubid), description FROM pg_description c",
        "SELECT subclass.*, t.typowner::regrole, t.typcategory, t.typispreferred, t.typdelim, t.typalign, t.typstorage, t.typnotnull,
                t.typdefault, t.typcollation::regcollation
           FROM pg_type t, LATERAL (SELECT t.oid::regtype, t.typtype) AS subclass",
    ];
    each_server(|server| {
        let source = samples::database(server, "everything");
        let target = server.create_database("catalogs");
        apply(&target, &read(&source).items);
        let mut differing = String::new();
        for query in QUERIES {
            // Functions have an SQL body since PostgreSQL 14.
            let query =
                if server.major < 14 { query.replace("prosqlbody IS NOT NULL", "false") } else { (*query).to_owned() };
            // Names that the server generates contain object numbers, which differ.
            let text = format!(
                "SELECT regexp_replace(facts::text, '(pg_toast_|_)[0-9]+(_index)?|[0-9]+_not_null', 'N', 'g')
                   FROM ({query}) AS facts ORDER BY 1"
            );
            let rows = |database: &TestDatabase| -> Vec<String> {
                let text = format!("SET search_path = ''; SET TimeZone = 'UTC'; SET DateStyle = ISO; {text}");
                database.query(&text).concat()
            };
            let (before, after) = (rows(&source), rows(&target));
            differing.extend(before.iter().filter(|row| !after.contains(row)).map(|row| format!("- {row}\n")));
            differing.extend(after.iter().filter(|row| !before.contains(row)).map(|row| format!("+ {row}\n")));
        }
        assert!(differing.is_empty(), "{differing}");
    });
}

/// Tests the comparison itself: it must find objects that are missing in the target.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_comparison_of_schemas_finds_missing_objects() {
    some_server(|server| {
        let source = server.create_database("measure");
        source.psql(
            "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE INDEX i ON t (v); COMMENT ON INDEX i IS 'x'",
        );
        let target = server.create_database("measure");
        let items = read(&source).items;
        apply(&target, &items);
        assert!(differences(&source, &target).is_empty());
        target.psql("DROP INDEX i; ALTER TABLE t ALTER v SET NOT NULL");
        let differences = differences(&source, &target);
        let kinds: Vec<&str> = differences.kinds.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["COMMENT", "INDEX", "TABLE"], "{differences}");
    });
}

/// No sequence of statements creates these columns in their order, so a note must say that the order changes.
#[test]
#[ignore = "needs PostgreSQL"]
fn columns_that_are_restored_in_another_order_are_noted() {
    some_server(|server| {
        let source = server.create_database("order");
        source.psql(
            "SET client_min_messages = error; CREATE TABLE grown (a integer);
             CREATE TABLE had_it (z integer, b integer) INHERITS (grown); ALTER TABLE grown ADD COLUMN b integer",
        );
        let schema = read(&source);
        let target = server.create_database("order");
        apply(&target, &schema.items);
        assert!(
            schema.notes.iter().any(|note| note.contains("had_it") && note.contains("order")),
            "{:?}",
            schema.notes
        );
    });
}

/// Reads the schema of the restored database, which must give the same SQL as the source.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_restored_schema_renders_to_the_same_sql() {
    oldest_and_newest(|server| {
        let source = samples::database(server, "everything");
        let first = read(&source);
        let target = server.create_database("again");
        apply(&target, &first.items);
        let second = read(&target);
        let text = |schema: &Schema| -> Vec<String> {
            let sections = SECTIONS.iter().map(|section| schema::render(&schema.items, *section, true).unwrap());
            // The order of the statements may depend on oids. Comments name the tablespaces, which the statements do not set.
            let without_tablespace = |line: &str| line.split("; Tablespace (not set): ").next().unwrap().to_owned();
            let mut lines: Vec<String> =
                sections.flat_map(|text| text.lines().map(without_tablespace).collect::<Vec<_>>()).collect();
            lines.sort();
            lines
        };
        let (first, second) = (text(&first), text(&second));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| those.binary_search(line).is_err()).cloned().collect()
        };
        let (gone, new) = (only(&first, &second), only(&second, &first));
        assert!(gone.is_empty() && new.is_empty(), "- {}\n+ {}", gone.join("\n- "), new.join("\n+ "));
    });
}

#[track_caller]
fn require_restored_unchanged(server: &Server, sample: &str) {
    let source = samples::database(server, sample);
    let schema = read(&source);
    let target = server.create_database("restored");
    apply(&target, &schema.items);
    require_equal(&source, &target, sample);
    assert!(schema.refused.is_empty(), "{sample}: refused\n{}", schema.refused.join("\n"));
}

#[track_caller]
fn read(database: &TestDatabase) -> Schema {
    let mut session = Session::connect(&Params::parse(&database.url()).unwrap()).unwrap();
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
    schema::read(&mut session).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Creates all items in order on one connection. It continues after errors, and reports all of them at the end.
#[track_caller]
fn apply(target: &TestDatabase, items: &[Item]) {
    let mut session = Session::connect(&Params::parse(&target.url()).unwrap()).unwrap();
    session.execute(SETTINGS).unwrap();
    let mut failed = Vec::new();
    let mut run = |item: &Item, statements: &[String]| {
        for statement in statements {
            if let Err(error) = session.execute(statement) {
                failed.push(format!("{:?} {}: {error}\n    {statement}", item.kind, item.name));
            }
        }
    };
    for section in SECTIONS {
        if section == Section::Last {
            items.iter().for_each(|item| run(item, &item.grants));
        }
        for item in items.iter().filter(|item| item.section == section) {
            run(item, &item.create);
            run(item, &item.set_owner);
            run(item, &item.comments);
        }
    }
    assert!(failed.is_empty(), "{} statements failed\n{}", failed.len(), failed.join("\n"));
}

/// Prints the number of differing lines for each kind of object, and fails if there are any.
#[track_caller]
fn require_equal(source: &TestDatabase, target: &TestDatabase, context: &str) {
    let differences = differences(source, target);
    println!("PostgreSQL {}, {context}: {} differing lines", source.server.version, differences.total());
    for (kind, counts) in &differences.kinds {
        println!("    {kind}: {} lines, {} moved", counts.lines, counts.moved);
    }
    assert!(differences.is_empty(), "{context}\n{differences}");
}
