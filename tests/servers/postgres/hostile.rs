//! Archives that somebody has changed, every hash in them right: what they say of tables is no SQL to be run.

use crate::support::postgres::oldest_and_newest;
use serde_json::Value;

use super::helpers::{Place, lasting, refused, rows, shop, text};
use crate::support::compare::data;
use crate::support::craft::{self, Layout};

/// The statements that somebody would have run.
const HARM: &str = "DROP TABLE public.orders CASCADE";

/// A snapshot whose archive is made anew with another manifest, the one outside agreeing with it.
struct Forger {
    archive: std::path::PathBuf,
    good: Vec<u8>,
}

impl Forger {
    fn new(place: &Place, id: &str) -> Self {
        let shown = place.json(&["show", id]);
        let source = place.sandbox.path("backups").join(text(&shown["source"]));
        let archive = source.join(text(&shown["archive"]));
        let good = std::fs::read(&archive).unwrap();
        Forger { archive, good }
    }

    fn put(&self, id: &str, change: &dyn Fn(&mut Value)) {
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

/// What the manifest says of one table.
fn table<'a>(manifest: &'a mut Value, name: &str) -> &'a mut Value {
    let tables = manifest["tables"].as_array_mut().unwrap();
    tables.iter_mut().find(|table| table["name"] == name).unwrap()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_type_that_is_more_than_a_type_is_not_run() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = shop(server, "hostile_type");
        let (id, url) = (place.snapshot(&database, &[]), database.url());
        let forger = Forger::new(&place, &id);
        let types = [
            format!("timestamptz); {HARM}; CREATE TABLE old.more (a integer"),
            format!("timestamptz); COMMIT; {HARM}; --"),
            "timestamptz, more integer".to_owned(),
            "timestamptz DEFAULT now()".to_owned(),
            "timestamptz CHECK (pg_catalog.pg_terminate_backend(0))".to_owned(),
            "timestamptz GENERATED ALWAYS AS (now()) STORED".to_owned(),
            "timestamptz) INHERITS (public.orders".to_owned(),
            "nothing.such".to_owned(),
            String::new(),
        ];
        let before = (lasting(&database), data(&database), place.sandbox.ids());
        for declared in types {
            forger.put(&id, &|manifest| table(manifest, "public.log")["columns"][0]["type"] = declared.as_str().into());
            place.ok(&["verify", &id]);
            for (more, words) in [
                (&["--beside", "old"][..], "the type "),
                // Where the table is there, its own types count.
                (&["--replace", "--no-safety"], "the columns of public.log have changed"),
            ] {
                let restore = [&["restore", &id, "--table", "log", "--to", &url], more].concat();
                place.run(&restore).code(1).says(words).says("nothing was changed");
                let there = rows(&database, "SELECT to_regnamespace('old') IS NULL, to_regclass('orders') IS NOT NULL");
                assert_eq!(there, ["t|t"], "{declared}");
            }
        }
        assert_eq!((lasting(&database), data(&database), place.sandbox.ids()), before);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_condition_that_the_database_does_not_know_is_not_run() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = shop(server, "hostile_where");
        let (id, url) = (place.snapshot(&database, &[]), database.url());
        let forger = Forger::new(&place, &id);
        for condition in [format!("WHERE false; {HARM}; SELECT 1"), "WHERE false".to_owned()] {
            forger.put(&id, &|manifest| {
                table(manifest, "public.log")["relation"]["condition"] = condition.as_str().into()
            });
            place.ok(&["verify", &id]);
            for more in [&["--table", "log"][..], &["--table", "log", "--no-safety"], &["--no-safety"]] {
                let replace = [&["restore", &id, "--replace", "--to", &url], more].concat();
                refused(&place, &database, &replace, 1, &["the extension of public.log has other rows of its own now"]);
            }
            // Beside, all rows come that the archive has.
            let before = (lasting(&database), data(&database));
            place.ok(&["restore", &id, "--beside", "old", "--table", "log", "--to", &url]);
            assert_eq!(rows(&database, "SELECT count(*) FROM old.log"), ["0"]);
            database.psql("SET client_min_messages = error; DROP SCHEMA old CASCADE");
            assert_eq!((lasting(&database), data(&database)), before);
        }
    });
}
