//! Text from a server or from an archive that psql would run as a command, such as `\!`, which starts a shell.

use std::process::Output;

use serde_json::{Value, json};

use super::helpers::{Setup, shop, text};
use crate::support::craft::{self, Layout};
use crate::support::postgres::{TestDatabase, each_server, oldest_and_newest, some_server};

/// A statement of an honest server, and then what psql runs if it reads a command there.
const HONEST: &str = "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS 'select 1'";

/// Makes a database whose server prints `definition` for every function, as a hostile superuser can.
fn lying_database(setup: &Setup, name: &str, definition: &str) -> TestDatabase {
    let database = setup.server.create_database(name);
    database.psql("CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'select 1'; CREATE TABLE t (i integer)");
    // The server inlines a function of language SQL; of any other, it would call the built-in one.
    let quoted = definition.replace('\\', "\\\\").replace('\'', "''");
    database.psql(format!(
        "SET allow_system_table_mods = on;
         CREATE OR REPLACE FUNCTION pg_catalog.pg_get_functiondef(oid) RETURNS text LANGUAGE sql STABLE AS
         $body$ SELECT E'{quoted}' $body$"
    ));
    database
}

/// Runs a file of an extracted archive with psql, in its folder.
fn run_by_psql(target: &TestDatabase, folder: &std::path::Path, file: &str, arguments: &[&str]) -> Output {
    let mut command = target.server.command(&target.server.psql, &target.name);
    command.env("PATH", std::env::var("PATH").unwrap()).args(["-X"]).args(arguments).args(["-f", file]);
    command.current_dir(folder).output().unwrap()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_definition_with_a_command_of_psql_is_not_saved() {
    let definitions = [
        format!("{HONEST};\n\\! touch pwned\n"),
        format!("{HONEST} \\g |touch pwned"),
        format!("{HONEST} \\; select 2"),
        format!("{HONEST};\nCOPY t FROM stdin;\n'\n\\.\n\\! touch pwned\n'"),
        format!("{HONEST} /* ' */ \\! touch pwned -- '"),
        "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS 'select 1".to_owned(),
    ];
    oldest_and_newest(|server| {
        for (number, definition) in definitions.iter().enumerate() {
            let setup = Setup::new(server);
            let database = lying_database(&setup, &format!("lies_{number}"), definition);
            let run = setup.run(&["snapshot", &database.url()]).code(1);
            let message = run.stderr();
            assert!(message.contains("the definition of FUNCTION public.f() is not SQL"), "{message}");
            assert_eq!(setup.sandbox.ids(), [""; 0], "{definition}");
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn backslashes_in_quotes_are_loaded_by_psql_with_any_setting_of_strings() {
    each_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("backslashes");
        source.psql(
            r"CREATE FUNCTION f(a text DEFAULT 'x\y') RETURNS text LANGUAGE sql AS $_$ select E'\\! touch $$ \'' $_$;
              CREATE VIEW v AS SELECT 'C:\'::text AS a, '\! touch ''pwned'::text AS b, e'\\\'' AS c;
              CREATE TABLE t (a text CHECK (a <> '\'), b text DEFAULT '\' || ' \! ', \x22c\\d\x22 integer);
              CREATE RULE r AS ON UPDATE TO t DO ALSO (DELETE FROM t WHERE a = '\'; INSERT INTO t VALUES ('\\'));
              COMMENT ON TABLE t IS E'a\n\\! touch pwned\n';"
                .replace(r"\x22", "\""),
        );
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["extract", &id, "--to", "files"]);
        let folder = setup.sandbox.path("files");
        let target = server.create_database("backslashes");
        // A function that is called while the file is loaded can turn the setting off.
        for file in ["pre-data", "post-data"] {
            let path = folder.join(format!("schema/{file}.sql"));
            let script = std::fs::read_to_string(&path).unwrap();
            std::fs::write(
                path,
                script.replace("standard_conforming_strings = on", "standard_conforming_strings = off"),
            )
            .unwrap();
        }
        let output = run_by_psql(&target, &folder, "restore.sql", &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!folder.join("pwned").exists());
        assert_eq!(server.schema_dump(&target.name), server.schema_dump(&source.name));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn names_that_psql_takes_for_a_block_are_saved_and_loaded() {
    each_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("begins");
        source.psql(
            "CREATE SCHEMA begin; CREATE TYPE begin.begin AS (begin date, \"end\" date);
             CREATE TABLE events (begin integer, i integer); INSERT INTO events VALUES (1, 2);
             CREATE FUNCTION ranges() RETURNS TABLE(begin date, \"end\" date) LANGUAGE sql AS
                 $$select current_date, current_date$$;
             CREATE FUNCTION f(begin integer) RETURNS integer LANGUAGE sql AS $$select $1$$;
             CREATE FUNCTION begin() RETURNS integer LANGUAGE sql AS $$select 1$$;
             CREATE FUNCTION begin.begin(begin begin.begin, OUT a begin.begin) LANGUAGE sql AS $$select $1$$;
             CREATE FUNCTION several() RETURNS SETOF begin.begin LANGUAGE sql AS $$select null::begin.begin$$;
             CREATE VIEW v AS SELECT ev.begin AS begin, xmlelement(name begin, '') AS x FROM events ev;",
        );
        let major: u32 = server.version.split('.').next().unwrap().parse().unwrap();
        if major >= 14 {
            source.psql(
                "CREATE FUNCTION atomic() RETURNS SETOF integer LANGUAGE sql BEGIN ATOMIC
                     INSERT INTO events (begin) VALUES (CASE WHEN true THEN 3 END);
                     SELECT CASE WHEN ev.begin = 1 THEN begin() END AS begin FROM events ev; END;
                 CREATE FUNCTION alias() RETURNS SETOF integer LANGUAGE sql BEGIN ATOMIC
                     SELECT begin.i FROM events begin ORDER BY begin.begin; END;
                 CREATE FUNCTION field(s begin.begin) RETURNS date LANGUAGE sql RETURN (s).begin;
                 CREATE FUNCTION element() RETURNS xml LANGUAGE sql RETURN xmlelement(name begin, 'a');",
            );
        }
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["extract", &id, "--to", "files"]);
        let by_psql = server.create_database("begins_by_psql");
        let output = run_by_psql(&by_psql, &setup.sandbox.path("files"), "restore.sql", &["-v", "ON_ERROR_STOP=1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let restored = server.create_database("begins_restored");
        setup.ok(&["restore", &id, "--to", &restored.url()]);
        for target in [&by_psql, &restored] {
            assert_eq!(server.schema_dump(&target.name), server.schema_dump(&source.name));
            assert_eq!(setup.json(&["diff", &id, &target.url()])["equal"], true);
        }
    });
}

/// Rewrites a snapshot with other files in its archive, whose hashes are right.
fn forge(setup: &Setup, id: &str, change: &dyn Fn(&str, &str) -> String) {
    let shown = setup.json(&["show", id]);
    let archive = setup.sandbox.path("backups").join(text(&shown["source"])).join(text(&shown["archive"]));
    let mut map = craft::map(&std::fs::read(&archive).unwrap());
    for file in map.files.iter_mut().filter(|file| !file.path.starts_with("data/")) {
        file.content = change(&file.path, std::str::from_utf8(&file.content).unwrap()).into_bytes();
        file.header = None;
    }
    let mut manifest: Value = serde_json::from_slice(&map.files.last().unwrap().content).unwrap();
    let bytes = Layout::of(map.codec, &map.files, craft::BLOCK).bytes();
    manifest["archive_bytes"] = json!(bytes.len());
    manifest["sha256"] = json!(craft::sha256(&bytes));
    std::fs::write(archive.with_file_name(format!("{id}.json")), manifest.to_string()).unwrap();
    std::fs::write(archive, bytes).unwrap();
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_files_for_psql_are_made_anew_from_the_objects_of_an_archive() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "forged_files");
        let id = setup.snapshot(&source, &[]);
        forge(&setup, &id, &|path, content| {
            if path.ends_with(".sql") { format!("\\! touch pwned\n{content}") } else { content.to_owned() }
        });
        setup.ok(&["verify", &id]);
        setup.ok(&["extract", &id, "--to", "files"]);
        let folder = setup.sandbox.path("files");
        let target = server.create_database("forged_files");
        let output = run_by_psql(&target, &folder, "restore.sql", &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!folder.join("pwned").exists());
        assert_eq!(setup.json(&["diff", &id, &target.url()])["equal"], true);
        for entry in ["schema/pre-data.sql", "schema/post-data.sql", "schema/sequences.sql", "restore.sql"] {
            let script = setup.ok(&["extract", &id, "--entry", entry]).stdout();
            assert!(!script.contains("\\!"), "{script}");
        }
        let tar = setup.ok(&["extract", &id, "--to", "-"]).stdout();
        assert!(!tar.contains("\\!"));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_archive_with_a_command_of_psql_in_an_object_is_not_extracted() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "forged_objects");
        let id = setup.snapshot(&source, &[]);
        forge(&setup, &id, &|path, content| match path {
            "schema/objects.json" => {
                content.replacen("CREATE TABLE public.orders", "\\\\! touch pwned\\nCREATE TABLE public.orders", 1)
            }
            _ => content.to_owned(),
        });
        for arguments in [&["--to", "files"][..], &["--to", "-"], &["--entry", "restore.sql"]] {
            let run = setup.run(&[&["extract", &id][..], arguments].concat()).code(1);
            assert!(run.stderr().contains("the definition of TABLE public.orders is not SQL"), "{}", run.stderr());
            assert_eq!(run.stdout(), "");
        }
        assert!(!setup.sandbox.path("files").exists());
        setup.ok(&["extract", &id, "--entry", "schema/objects.json"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn psql_restricts_itself_while_it_reads_statements() {
    each_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "restricted");
        let id = setup.snapshot(&source, &[]);
        setup.ok(&["extract", &id, "--to", "files"]);
        let folder = setup.sandbox.path("files");
        let path = folder.join("schema/post-data.sql");
        let script = std::fs::read_to_string(&path).unwrap();
        let key = script.split_once("'\\\\restrict ").unwrap().1.split('\'').next().unwrap().to_owned();
        assert!(key.len() >= 32 && key.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{script}");
        let again = setup.ok(&["extract", &id, "--entry", "schema/post-data.sql"]).stdout();
        assert!(!again.contains(&key), "the key is not random");
        // As if a check had been evaded.
        std::fs::write(&path, script.replacen("SET lock_timeout", "\\! touch pwned\nSET lock_timeout", 1)).unwrap();
        let target = server.create_database("restricted");
        let output = run_by_psql(&target, &folder, "restore.sql", &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains("restricted"), "{message}");
        assert!(!folder.join("pwned").exists());
        // A psql that does not know the command loads the files all the same. Only the variable tells the version.
        std::fs::write(&path, script).unwrap();
        for version in ["130021", "140018", "150013", "160009", "170005", "100023"] {
            let target = server.create_database("unrestricted");
            let output = run_by_psql(&target, &folder, "restore.sql", &["-v", &format!("VERSION_NUM={version}")]);
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !message.contains("restrict"), "{version}: {message}");
            assert_eq!(setup.json(&["diff", &id, &target.url()])["equal"], true, "{version}");
        }
    });
}
