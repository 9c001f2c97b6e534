//! `init` in projects of many kinds: the config that it writes is one that `snapshot` accepts.

use std::fs;
use std::path::Path;

use super::{SECRET, lifeboat, snapshot_sources};
use crate::support::{Sandbox, open, sample};

/// Creates an SQLite file with one row, and its folder.
fn database(sandbox: &Sandbox, path: &str) {
    let path = sandbox.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    open(path).execute_batch("CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1)").unwrap();
}

fn write(sandbox: &Sandbox, path: &str, text: &str) {
    let path = sandbox.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Runs `init` and then `snapshot`, which must succeed. Returns the files of the snapshots' origins, relative to the
/// sandbox, and the config.
#[track_caller]
fn saved(sandbox: &Sandbox) -> (Vec<String>, String) {
    let init = lifeboat(sandbox, &["init"], &[]).code(0);
    let text = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    assert!(!text.contains(SECRET) && !init.stderr().contains(SECRET), "{text}{}", init.transcript());
    let run = lifeboat(sandbox, &["snapshot", "--json"], &[]).code(0);
    let root = sandbox.root().canonicalize().unwrap();
    let document = run.json();
    let origins = document["snapshots"].as_array().unwrap().iter().map(|snapshot| {
        let path = Path::new(snapshot["origin"]["path"].as_str().unwrap());
        path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()
    });
    let mut origins: Vec<String> = origins.collect();
    origins.sort();
    (origins, text)
}

const PRISMA: &str = "generator client {\n  provider = \"prisma-client-js\"\n}\n\ndatasource db {\n  provider = \"sqlite\"\n  \
                      url      = env(\"DATABASE_URL\")\n}\n";

#[test]
fn paths_of_prisma_begin_beside_the_schema() {
    let sandbox = Sandbox::new();
    write(&sandbox, "prisma/schema.prisma", PRISMA);
    write(&sandbox, ".env", "DATABASE_URL=\"file:./dev.db\"\n");
    database(&sandbox, "prisma/dev.db");
    let (files, text) = saved(&sandbox);
    assert_eq!(files, ["prisma/dev.db"]);
    assert!(text.contains("\nurl = \"./prisma/dev.db\"\n") && text.contains("# DATABASE_URL names it"), "{text}");

    // A file of the same name in the project's folder is another database.
    let sandbox = Sandbox::new();
    write(&sandbox, "packages/db/prisma/schema.prisma", PRISMA);
    write(&sandbox, ".env", "DATABASE_URL=file:../data/app.db?connection_limit=1\n");
    database(&sandbox, "packages/db/data/app.db");
    database(&sandbox, "data/app.db");
    assert_eq!(saved(&sandbox).0, ["data/app.db", "packages/db/data/app.db"]);

    // Prisma 7 names the variable in prisma.config.ts, and its paths begin beside that file.
    for file in ["dev.db", "prisma/dev.db"] {
        let sandbox = Sandbox::new();
        write(&sandbox, "prisma/schema.prisma", "datasource db {\n  provider = \"sqlite\"\n}\n");
        write(
            &sandbox,
            "prisma.config.ts",
            "export default defineConfig({ datasource: { url: env('DATABASE_URL') } })",
        );
        write(&sandbox, ".env", "DATABASE_URL=\"file:./dev.db\"\n");
        database(&sandbox, file);
        assert_eq!(saved(&sandbox).0, [file]);
    }

    // A schema for PostgreSQL says nothing about the paths of SQLite files.
    let sandbox = Sandbox::new();
    write(&sandbox, "prisma/schema.prisma", &PRISMA.replace("\"sqlite\"", "\"postgresql\""));
    write(&sandbox, ".env", "DATABASE_URL=file:./dev.db\n");
    database(&sandbox, "dev.db");
    assert_eq!(saved(&sandbox).0, ["dev.db"]);
}

#[test]
fn a_relative_path_is_the_only_file_that_it_can_mean() {
    // Flask's paths begin in the folder `instance`.
    let sandbox = Sandbox::new();
    write(&sandbox, ".env", "SQLALCHEMY_DATABASE_URI=sqlite:///shop.db\n");
    database(&sandbox, "instance/shop.db");
    let (files, text) = saved(&sandbox);
    assert_eq!((files, text.matches("\n[[source]]").count()), (vec!["instance/shop.db".to_owned()], 1), "{text}");
    // Of two files none is chosen, and both are found by their content.
    let sandbox = Sandbox::new();
    write(&sandbox, ".env", "A_DATABASE_URL=sqlite:///shop.db\n");
    database(&sandbox, "a/shop.db");
    database(&sandbox, "b/shop.db");
    let run = lifeboat(&sandbox, &["init", "--dry-run"], &[]).code(0);
    assert!(run.stdout().contains("url = \"${A_DATABASE_URL}\""), "{}", run.transcript());
}

#[test]
fn databases_of_rails_that_are_no_data_are_left_out_and_named() {
    let sandbox = Sandbox::new();
    let config = "default: &default\n  adapter: sqlite3\n  pool: <%= ENV.fetch(\"RAILS_MAX_THREADS\") { 5 } %>\n\n\
                  development:\n  <<: *default\n  database: storage/development.sqlite3\n\ntest:\n  <<: *default\n  database: \
                  storage/test.sqlite3\n\nproduction:\n  primary:\n    <<: *default\n    database: storage/production.sqlite3\n  \
                  cache:\n    <<: *default\n    database: storage/production_cache.sqlite3\n    migrations_paths: db/cache_migrate\n";
    write(&sandbox, "config/database.yml", config);
    let names = ["development", "test", "production_cache", "production_queue", "production_cable"];
    for name in names {
        database(&sandbox, &format!("storage/{name}.sqlite3"));
    }
    database(&sandbox, "storage/production.sqlite3");
    let init = lifeboat(&sandbox, &["init", "--dry-run"], &[]).code(0);
    for name in names {
        let named = format!("storage/{name}.sqlite3 is not made a source");
        assert!(init.stderr().contains(&named), "{}", init.transcript());
        assert!(init.stdout().contains(&format!("\n#url = \"./storage/{name}.sqlite3\"\n")), "{}", init.transcript());
    }
    assert_eq!(saved(&sandbox).0, ["storage/production.sqlite3"]);
    // On a developer's machine, the database for development is the only one with data.
    for file in ["lifeboat.toml", "storage/production.sqlite3"] {
        fs::remove_file(sandbox.path(file)).unwrap();
    }
    fs::remove_dir_all(sandbox.path("backups")).unwrap();
    assert_eq!(saved(&sandbox).0, ["storage/development.sqlite3"]);
}

/// A kind of project: its name, its text files, the databases that are sources, and those that are not.
type Project =
    (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str], &'static [&'static str]);

#[test]
fn the_databases_of_many_kinds_of_projects_are_saved_at_once() {
    let projects: [Project; 9] = [
        ("Django", &[("manage.py", ""), (".env", "DEBUG=1\n")], &["db.sqlite3"], &["venv/lib/x.db"]),
        (
            "Laravel",
            &[("artisan", ""), (".env", "DB_CONNECTION=sqlite\nDB_DATABASE=database/database.sqlite\n")],
            &["database/database.sqlite"],
            &["database/testing.sqlite", "vendor/a/b.sqlite"],
        ),
        ("SQLAlchemy", &[(".env", "DATABASE_URL=sqlite+aiosqlite:///./data/app.db\n")], &["data/app.db"], &[]),
        (
            "Drizzle",
            &[
                ("drizzle.config.ts", "export default { dbCredentials: { url: 'file:local.db' } }"),
                (".env", "DB_FILE_NAME=file:local.db\n"),
            ],
            &["local.db"],
            &["node_modules/better-sqlite3/x.db"],
        ),
        ("Go", &[("go.mod", "module x\n"), (".env", "DB_PATH=./data/go.db\n")], &["data/go.db"], &["testdata/t.db"]),
        ("PocketBase", &[], &["pb_data/auxiliary.db", "pb_data/data.db"], &[]),
        (
            "Node",
            &[("package.json", "{}")],
            &["data/app.sqlite"],
            &["tests/fixture.sqlite", "__tests__/a.db", ".git/g.db"],
        ),
        ("Python with another venv", &[("env/pyvenv.cfg", "home = /usr\n")], &["app.db"], &["env/lib/x.db"]),
        ("a file that is not used yet", &[(".env", "DATABASE_FILE=./empty.db\n"), ("empty.db", "")], &["app.db"], &[]),
    ];
    for (kind, texts, expected, others) in projects {
        let sandbox = Sandbox::new();
        texts.iter().for_each(|(path, text)| write(&sandbox, path, text));
        expected.iter().chain(others).for_each(|path| database(&sandbox, path));
        let (files, text) = saved(&sandbox);
        assert_eq!(files, expected, "{kind}: {text}");
    }
}

#[test]
fn what_snapshot_would_refuse_is_only_a_comment() {
    let sandbox = Sandbox::new();
    database(&sandbox, "app.db");
    // A database without tables, and one in WAL mode that has a second name.
    open(sandbox.path("new.db")).execute_batch("PRAGMA user_version = 3").unwrap();
    sample(sandbox.path("wal.db"), 2, "wal");
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    fs::hard_link(sandbox.path("wal.db"), sandbox.path("elsewhere/.second")).unwrap();
    let (files, text) = saved(&sandbox);
    assert_eq!(files, ["app.db"], "{text}");
    assert!(text.contains("\n#url = \"./new.db\"\n") && text.contains("\n#url = \"./wal.db\"\n"), "{text}");
}

#[test]
fn the_postgresql_server_of_a_compose_file_is_found_without_its_password() {
    let compose = |environment: &str, ports: &str| {
        format!(
            "services:\n  web:\n    image: shop\n  db:\n    image: postgres:16-alpine\n    environment:\n{environment}    {ports}\n"
        )
    };
    let mapping = format!("      POSTGRES_USER: shop\n      POSTGRES_DB: orders\n      POSTGRES_PASSWORD: {SECRET}\n");
    let list =
        "      - POSTGRES_USER=shop\n      - POSTGRES_DB=orders\n      - POSTGRES_PASSWORD=${DB_PASSWORD:-changeme}\n";
    let ports = "ports: [\"127.0.0.1:5433:5432\"]";
    for (file, text, variable) in [
        ("docker-compose.yml", compose(&mapping, ports), "POSTGRES_PASSWORD"),
        ("compose.yaml", compose(list, ports), "DB_PASSWORD"),
    ] {
        let sandbox = Sandbox::new();
        database(&sandbox, "app.db");
        write(&sandbox, file, &text);
        // Without the password, the source is a comment, so that the others can be saved.
        let (files, config) = saved(&sandbox);
        assert_eq!(files, ["app.db"]);
        let expected = format!(
            "#[[source]]\n#name = \"orders\"\n#host = \"127.0.0.1\"\n#port = \"5433\"\n#dbname = \"orders\"\n#user = \"shop\"\n\
             #password = \"${{{variable}}}\"\n"
        );
        assert!(config.contains(&expected) && !config.contains("changeme"), "{config}");
        assert!(config.contains(&format!("# set {variable}")), "{config}");
        fs::remove_file(sandbox.path("lifeboat.toml")).unwrap();
        let variables = [(variable, "a-password-of-a-test")];
        let run = lifeboat(&sandbox, &["init", "--json"], &variables).code(0).json();
        let found = run["found"].as_array().unwrap().iter().find(|found| found["kind"] == "postgres").unwrap().clone();
        assert_eq!((&found["name"], &found["from"]), (&"orders".into(), &format!("{file}: db").into()));
        let config = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
        assert!(config.contains(&expected.replace('#', "")) && !config.contains("a-password-of-a-test"), "{config}");
        let run = lifeboat(&sandbox, &["snapshot", "app", "--json"], &variables).code(0);
        assert_eq!(snapshot_sources(&run), ["app"]);
    }
    // A server that only other services can reach, and one that a variable names already.
    let sandbox = Sandbox::new();
    write(&sandbox, "compose.yml", &compose(&mapping, "volumes: []"));
    let run = lifeboat(&sandbox, &["init", "--dry-run"], &[("POSTGRES_PASSWORD", "x")]).code(0);
    assert!(run.stdout().contains("# the service db publishes no port"), "{}", run.transcript());
    let variables = [("DATABASE_URL", "postgres://shop:x@db:5432/orders")];
    let run = lifeboat(&sandbox, &["init", "--dry-run"], &variables).code(0);
    assert!(!run.stdout().contains("publishes no port"), "{}", run.transcript());
    assert_eq!(run.stdout().matches("\n[[source]]").count(), 1, "{}", run.transcript());
}

#[test]
fn the_name_of_the_machine_is_that_of_the_snapshots_that_are_there() {
    let sandbox = Sandbox::new();
    database(&sandbox, "app.db");
    lifeboat(&sandbox, &["snapshot", "app.db", "--store", "./backups", "--host", "workstation"], &[]).code(0);
    let (files, text) = saved(&sandbox);
    assert_eq!(files, ["app.db"]);
    assert!(text.contains("\nhost = \"workstation\"\n"), "{text}");
    // A refusal names the cause.
    let run = lifeboat(&sandbox, &["snapshot", "--host", "other"], &[]).code(2);
    let hint = "only the machine's name differs: it was workstation and is other now";
    assert!(run.stderr().contains(hint), "{}", run.transcript());
}
