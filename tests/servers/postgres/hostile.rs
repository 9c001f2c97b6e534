//! Archives that somebody has changed, with correct hashes: SQL in the description of a table must not be run.

use crate::support::postgres::oldest_and_newest;
use serde_json::Value;

use super::helpers::{Setup, definitions_and_oids, require_refused, rows, shop, text};
use crate::support::compare::data;
use crate::support::craft::{self, Layout};

/// The statement that the attacker wants to run.
const HARMFUL_SQL: &str = "DROP TABLE public.orders CASCADE";

/// Rewrites the archive of a snapshot with another manifest, and the manifest beside the archive so that it agrees.
struct Forger {
    archive: std::path::PathBuf,
    good: Vec<u8>,
}

impl Forger {
    fn new(setup: &Setup, id: &str) -> Self {
        let shown = setup.json(&["show", id]);
        let source = setup.sandbox.path("backups").join(text(&shown["source"]));
        let archive = source.join(text(&shown["archive"]));
        let good = std::fs::read(&archive).unwrap();
        Forger { archive, good }
    }

    fn change_manifest(&self, id: &str, change: &dyn Fn(&mut Value)) {
        let map = craft::map(&self.good);
        let mut files = map.files;
        let last = files.last_mut().unwrap();
        let mut manifest: Value = serde_json::from_slice(&last.content).unwrap();
        let before = manifest.clone();
        change(&mut manifest);
        assert_ne!(manifest, before);
        last.content = manifest.to_string().into_bytes();
        let archive = Layout::of(map.codec, &files, craft::BLOCK).bytes();
        manifest["archive_bytes"] = archive.len().into();
        manifest["sha256"] = craft::sha256(&archive).into();
        std::fs::write(&self.archive, archive).unwrap();
        std::fs::write(self.archive.with_file_name(format!("{id}.json")), manifest.to_string()).unwrap();
    }
}

/// Returns the description of a table in the manifest.
fn table<'a>(manifest: &'a mut Value, name: &str) -> &'a mut Value {
    let tables = manifest["tables"].as_array_mut().unwrap();
    tables.iter_mut().find(|table| table["name"] == name).unwrap()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_column_type_that_contains_other_sql_is_refused() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "hostile_type");
        let (id, url) = (setup.snapshot(&database, &[]), database.url());
        let forger = Forger::new(&setup, &id);
        let types = [
            format!("timestamptz); {HARMFUL_SQL}; CREATE TABLE old.more (a integer"),
            format!("timestamptz); COMMIT; {HARMFUL_SQL}; --"),
            "timestamptz, more integer".to_owned(),
            "timestamptz DEFAULT now()".to_owned(),
            "timestamptz CHECK (pg_catalog.pg_terminate_backend(0))".to_owned(),
            "timestamptz GENERATED ALWAYS AS (now()) STORED".to_owned(),
            "timestamptz) INHERITS (public.orders".to_owned(),
            "nothing.such".to_owned(),
            String::new(),
        ];
        let before = (definitions_and_oids(&database), data(&database), setup.sandbox.ids());
        for declared in types {
            forger.change_manifest(&id, &|manifest| {
                table(manifest, "public.log")["columns"][0]["type"] = declared.as_str().into();
            });
            setup.ok(&["verify", &id]);
            for (more, words) in [
                (&["--beside", "old"][..], "the type "),
                // If the table exists, its columns must have the types of the manifest.
                (&["--replace", "--no-safety"], "the columns of public.log have changed"),
            ] {
                let restore = [&["restore", &id, "--table", "log", "--to", &url], more].concat();
                setup.run(&restore).code(1).says(words).says("nothing was changed");
                let query = "SELECT to_regnamespace('old') IS NULL, to_regclass('orders') IS NOT NULL";
                assert_eq!(rows(&database, query), ["t|t"], "{declared}");
            }
        }
        assert_eq!((definitions_and_oids(&database), data(&database), setup.sandbox.ids()), before);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_condition_that_is_not_the_extensions_own_is_refused() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "hostile_where");
        let (id, url) = (setup.snapshot(&database, &[]), database.url());
        let forger = Forger::new(&setup, &id);
        for condition in [format!("WHERE false; {HARMFUL_SQL}; SELECT 1"), "WHERE false".to_owned()] {
            forger.change_manifest(&id, &|manifest| {
                table(manifest, "public.log")["relation"]["condition"] = condition.as_str().into()
            });
            setup.ok(&["verify", &id]);
            for more in [&["--table", "log"][..], &["--table", "log", "--no-safety"], &["--no-safety"]] {
                let replace = [&["restore", &id, "--replace", "--to", &url], more].concat();
                let words = ["the extension that owns public.log now selects its rows by another condition"];
                require_refused(&setup, &database, &replace, 1, &words);
            }
            // --beside restores all rows of the archive, and does not use the condition.
            let before = (definitions_and_oids(&database), data(&database));
            setup.ok(&["restore", &id, "--beside", "old", "--table", "log", "--to", &url]);
            assert_eq!(rows(&database, "SELECT count(*) FROM old.log"), ["0"]);
            database.psql("SET client_min_messages = error; DROP SCHEMA old CASCADE");
            assert_eq!((definitions_and_oids(&database), data(&database)), before);
        }
    });
}
