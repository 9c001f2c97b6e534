//! `init`: the databases and stores that it finds, and the config that it writes.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use lifeboat::config::{Config, ConfiguredSource};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::{SECRET, lifeboat, snapshot_sources};
use crate::support::{Run, Sandbox, open, sample};

/// Returns kind, name and origin of everything that a run has found.
#[track_caller]
fn found(run: &Run) -> Vec<(String, String, String)> {
    let document = run.json();
    let text = |found: &Value, name: &str| found[name].as_str().unwrap().to_owned();
    let list = document["found"].as_array().unwrap_or_else(|| panic!("{}", run.transcript()));
    list.iter().map(|found| (text(found, "kind"), text(found, "name"), text(found, "from"))).collect()
}

/// Runs `init --dry-run` with these variables. Returns what it has found, and the text of the config, which must not
/// contain the secret.
#[track_caller]
fn dry_run(sandbox: &Sandbox, variables: &[(&str, &str)]) -> (Vec<(String, String, String)>, String) {
    let before = sandbox.state();
    let run = lifeboat(sandbox, &["init", "--dry-run", "--json"], variables).code(0);
    assert_eq!(sandbox.state(), before, "{}", run.transcript());
    assert!(!run.stdout().contains(SECRET) && !run.stderr().contains(SECRET), "{}", run.transcript());
    let text = run.json()["text"].as_str().unwrap().to_owned();
    (found(&run), text)
}

fn finding(kind: &str, name: &str, from: &str) -> (String, String, String) {
    (kind.to_owned(), name.to_owned(), from.to_owned())
}

#[test]
fn the_config_that_init_writes_is_ready_for_snapshot_and_restore() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 30, "wal");
    let run = lifeboat(&sandbox, &["init"], &[]).code(0);
    assert!(
        run.stdout().contains("lifeboat doctor") && run.stdout().contains("lifeboat snapshot"),
        "{}",
        run.transcript()
    );
    let config = fs::metadata(sandbox.path("lifeboat.toml")).unwrap();
    assert_eq!(config.permissions().mode() & 0o777, 0o600);
    let run = lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    assert!(run.stdout().starts_with("app-"), "{}", run.transcript());
    fs::remove_file(sandbox.path("data/app.db")).unwrap();
    lifeboat(&sandbox, &["restore", "latest", "--yes"], &[]).code(0);
    assert_eq!(crate::support::count(sandbox.path("data/app.db"), "accounts"), 30);
    // The folder contains only the config, the store and the database.
    let entries: Vec<_> = sandbox.state().into_keys().filter(|path| path.components().count() == 1).collect();
    assert_eq!(entries, ["backups", "data", "lifeboat.toml"].map(std::path::PathBuf::from));
}

#[test]
fn an_existing_config_is_not_changed_and_its_missing_stores_are_created() {
    let sandbox = super::with_config("[[store]]\nurl = \"one\"\n[[store]]\nurl = \"two\"\nname = \"second\"\n");
    let text = fs::read(sandbox.path("lifeboat.toml")).unwrap();
    let run = lifeboat(&sandbox, &["init", "--json"], &[]).code(0).json();
    assert_eq!(run["created"], false);
    let created: Vec<_> = run["stores"].as_array().unwrap().iter().map(|store| store["created"].clone()).collect();
    assert_eq!(created, [true, true]);
    fs::remove_dir_all(sandbox.path("two")).unwrap();
    let before = fs::read(sandbox.path("one/lifeboat.json")).unwrap();
    let run = lifeboat(&sandbox, &["init"], &[]).code(0).says("created a new store");
    assert!(run.stdout().contains("already exists, and was not changed"), "{}", run.transcript());
    assert!(sandbox.path("two/lifeboat.json").exists());
    assert_eq!(fs::read(sandbox.path("one/lifeboat.json")).unwrap(), before);
    assert_eq!(fs::read(sandbox.path("lifeboat.toml")).unwrap(), text);
    // A folder with other files is not made a store. The other missing store is still created.
    fs::remove_dir_all(sandbox.path("one")).unwrap();
    fs::remove_dir_all(sandbox.path("two")).unwrap();
    fs::create_dir(sandbox.path("one")).unwrap();
    fs::write(sandbox.path("one/letter.txt"), "dear").unwrap();
    lifeboat(&sandbox, &["init"], &[]).code(2).says("not empty");
    assert!(sandbox.path("two/lifeboat.json").exists() && !sandbox.path("one/lifeboat.json").exists());
}

#[test]
fn a_broken_config_is_reported_and_not_replaced() {
    for broken in ["colour = 1\n", "x = \n"] {
        let sandbox = super::with_config(broken);
        lifeboat(&sandbox, &["init"], &[]).code(2).says("lifeboat.toml:1");
        assert_eq!(fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap(), broken);
    }
    let sandbox = Sandbox::new();
    symlink("elsewhere/lifeboat.toml", sandbox.path("lifeboat.toml")).unwrap();
    lifeboat(&sandbox, &["init"], &[]).code(2);
    assert!(fs::symlink_metadata(sandbox.path("lifeboat.toml")).unwrap().is_symlink());
}

#[test]
fn a_database_url_of_every_form_is_found_and_written_as_its_variable() {
    for (value, kind, name) in [
        ("sqlite:///./data/app.db", "sqlite", "app"),
        ("sqlite:////nowhere/at/all/abs.db", "sqlite", "abs"),
        ("sqlite+aiosqlite:///data/app.db", "sqlite", "app"),
        ("file:./data/app.db", "sqlite", "app"),
        ("./data/app.db", "sqlite", "app"),
        ("postgres://u:hunter2-sesame@db.example/shop", "postgres", "shop"),
        ("postgresql+psycopg2://u:hunter2-sesame@db.example:5433/shop.v2", "postgres", "shop.v2"),
        ("postgresql+asyncpg://u:hunter2-sesame@db.example/shop?ssl=require", "postgres", "shop"),
        ("host=db.example dbname=shop password=hunter2-sesame", "postgres", "shop"),
    ] {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path("data")).unwrap();
        sample(sandbox.path("data/app.db"), 2, "delete");
        let (found, text) = dry_run(&sandbox, &[("DATABASE_URL", value)]);
        assert_eq!(found[0], finding(kind, name, "DATABASE_URL"), "{value}");
        assert!(text.contains("url = \"${DATABASE_URL}\""), "{value}\n{text}");
        // The file is not found a second time by its content.
        let files = usize::from(name == "app");
        assert_eq!(text.matches("\n[[source]]").count(), 2 - files, "{value}\n{text}");
        lifeboat(&sandbox, &["init"], &[("DATABASE_URL", value)]).code(0);
        Config::load(&sandbox.path("lifeboat.toml")).unwrap();
    }
}

#[test]
fn a_variable_without_a_supported_database_is_reported_by_its_name() {
    for value in
        ["mysql://u:hunter2-sesame@h/d", "postgres://u:5/hunter2-sesame@h/d", "hunter2-sesame", "sqlite:///:memory:"]
    {
        let sandbox = Sandbox::new();
        let (found, _) = dry_run(&sandbox, &[("DATABASE_URL", value)]);
        assert_eq!(found, []);
        lifeboat(&sandbox, &["init"], &[("DATABASE_URL", value)]).code(0).says("DATABASE_URL");
    }
}

#[test]
fn databases_are_found_in_related_variables_and_in_the_env_file() {
    let sandbox = Sandbox::new();
    let env = format!(
        "SHOP_DATABASE_URL=postgres://u:{SECRET}@db/shop\nSQLALCHEMY_DATABASE_URI=sqlite:///stock.db\n\
         POSTGRES_URL=postgres://other:{SECRET}@db:5432/shop\nOLD_DATABASE_URL=mysql://u:{SECRET}@db/old\n\
         TEST_DATABASE_URL=sqlite:///:memory:\nMONGODB_URL=postgres://x/y\nEMPTY_DATABASE_URL=\n\
         TDX_DB_HOST=h\nTDX_DB_PORT=5433\nTDX_DB_NAME=tdx\nTDX_DB_USER=u\nTDX_DB_PASSWORD={SECRET}\n\
         REDIS_HOST=r\nREDIS_DB=0\nREDIS_USER=u\nMY_HOST=m\nMY_PORT=3306\nMY_NAME=my\nMY_USER=u\n\
         POSTGRES_HOST=pg\nPOSTGRES_DB=stock\nPOSTGRES_PASSWORD={SECRET}\n"
    );
    fs::write(sandbox.path(".env"), env).unwrap();
    sample(sandbox.path("stock.db"), 2, "delete");
    let (found, text) = dry_run(&sandbox, &[("PGHOST", "db2"), ("PGDATABASE", "metrics"), ("PGPASSWORD", SECRET)]);
    assert_eq!(
        found,
        [
            finding("postgres", "shop", "SHOP_DATABASE_URL"),
            finding("sqlite", "stock", "SQLALCHEMY_DATABASE_URI"),
            finding("postgres", "metrics", "PG*"),
            finding("postgres", "stock-2", "POSTGRES_*"),
            finding("postgres", "tdx", "TDX_DB_*"),
        ]
    );
    assert!(text.contains("\nenv_file = \".env\"\n"), "{text}");
    for prefix in ["TDX_DB_", "POSTGRES_", "PG"] {
        assert!(text.contains(&format!("\nenv_prefix = \"{prefix}\"\n")), "{text}");
    }
    // The value comes from the env file if the variable is not set in the environment.
    lifeboat(&sandbox, &["init"], &[("PGHOST", "db2"), ("PGDATABASE", "metrics")]).code(0);
    let run = lifeboat(&sandbox, &["snapshot", "stock", "--json"], &[("PGDATABASE", "metrics")]).code(0);
    assert_eq!(snapshot_sources(&run), ["stock"]);
}

#[test]
fn a_service_alone_or_a_host_alone_is_a_source() {
    let sandbox = Sandbox::new();
    let (found, text) = dry_run(&sandbox, &[("PGSERVICE", "mine")]);
    assert_eq!(found, [finding("postgres", "mine", "PGSERVICE")]);
    assert!(text.contains("\nservice = \"${PGSERVICE}\"\n"), "{text}");
    let (found, text) = dry_run(&sandbox, &[("PGHOST", "db"), ("PGUSER", "ada")]);
    assert_eq!(found, [finding("postgres", "ada", "PG*")]);
    assert!(text.contains("\nhost = \"${PGHOST}\"\ndbname = \"${PGUSER}\"\n"), "{text}");
}

#[test]
fn a_broken_env_file_is_reported_and_not_used() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path(".env"), format!("A=1\n{SECRET}\n")).unwrap();
    let run = lifeboat(&sandbox, &["init"], &[]).code(0).says(".env:2");
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    let text = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    assert!(text.contains("\n#env_file = \".env\"\n") && !text.contains(SECRET), "{text}");
    lifeboat(&sandbox, &["list"], &[]).code(0);
}

#[test]
fn sqlite_files_are_found_by_their_content_except_in_excluded_folders() {
    let sandbox = Sandbox::new();
    for folder in [
        "a/b/c/d",
        ".hidden",
        "node_modules/x",
        "target",
        ".git",
        "venv",
        "__pycache__",
        "locked",
        "lifeboat-scratch-1",
    ] {
        fs::create_dir_all(sandbox.path(folder)).unwrap();
    }
    for file in [
        "app.db",
        "a/app.db",
        "a/noending",
        "a/b/c/deep.sqlite3",
        "a/b/c/d/deeper.db",
        ".hidden/x.db",
        "node_modules/x/y.db",
        "target/t.db",
        ".git/g.db",
        "venv/v.db",
        "__pycache__/p.db",
        "locked/l.db",
        "lifeboat-scratch-1/s.db",
        ".lifeboat-0123-x",
        "app.db.bak",
        "APP.sqlite",
    ] {
        let connection = open(sandbox.path(file));
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    }
    fs::write(sandbox.path("text.db"), "no database").unwrap();
    fs::write(sandbox.path("empty.db"), "").unwrap();
    symlink("app.db", sandbox.path("link.db")).unwrap();
    symlink("..", sandbox.path("a/loop")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        sandbox.path("pipe.db"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::set_permissions(sandbox.path("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    // A database whose WAL is in use, and a store that contains a database file.
    let writer = open(sandbox.path("a/wal.db"));
    writer.pragma_update(None, "journal_mode", "wal").unwrap();
    writer.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    sandbox.snapshot("app.db");
    fs::copy(sandbox.path("app.db"), sandbox.path("backups/x.db")).unwrap();
    let run = lifeboat(&sandbox, &["init", "--dry-run", "--json"], &[]).code(0);
    fs::set_permissions(sandbox.path("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut files: Vec<_> = found(&run).into_iter().map(|(_, name, from)| (from, name)).collect();
    // Root can read this file.
    files.retain(|(from, _)| from != "./locked/l.db");
    let expected = [
        ("./APP.sqlite", "APP"),
        ("./app.db", "app"),
        ("./a/app.db", "a-app"),
        ("./a/noending", "noending"),
        ("./a/wal.db", "wal"),
        ("./a/b/c/deep.sqlite3", "deep"),
    ];
    let names: Vec<&str> = files.iter().map(|(from, _)| from.as_str()).collect();
    assert_eq!(names, expected.map(|(from, _)| from), "{}", run.transcript());
    let mut unique: Vec<String> = files.iter().map(|(_, name)| name.to_lowercase()).collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), files.len(), "{files:?}");
    // A file whose name is that of a copy is only an example, as a comment.
    let text = run.json()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("\n#url = \"./app.db.bak\"\n"), "{text}");
}

#[test]
fn unusual_file_names_are_written_so_that_they_are_read_back() {
    let sandbox = Sandbox::new();
    let names = [
        "quo\"te.db",
        "back\\slash.db",
        "new\nline.db",
        "${HOME}.db",
        "$${x}.db",
        "ünï.db",
        "日本.db",
        "tab\t.db",
        "#hash.db",
        "host=x.db",
        "a'b.db",
        "\u{7f}\u{85}\u{2028}\u{202e}.db",
        "file:x.db",
        "sqlite:y.db",
        " .db",
        "q?mode=ro.db",
        "100%.db",
        "]]\n[[store]]\nurl = \"x\".db",
    ];
    for name in names {
        open(sandbox.path(name))
            .execute_batch("CREATE TABLE \"t\n\"\"${X}\" (a); INSERT INTO \"t\n\"\"${X}\" VALUES (1)")
            .unwrap();
    }
    open(sandbox.path(std::ffi::OsStr::from_bytes(b"\xff.db"))).execute_batch("CREATE TABLE t (a)").unwrap();
    let run = lifeboat(&sandbox, &["init"], &[]).code(0).says("whose name cannot be written into a config");
    assert!(!run.stdout().contains("\nline"), "{}", run.transcript());
    let config = Config::load(&sandbox.path("lifeboat.toml")).unwrap();
    let mut read: Vec<_> = config.sources().unwrap().iter().map(file_of).collect();
    read.sort();
    let mut expected: Vec<_> = names.iter().map(|name| sandbox.path(name)).collect();
    expected.sort();
    assert_eq!(read, expected);
    let run = lifeboat(&sandbox, &["snapshot", "--json"], &[]).code(0);
    assert_eq!(snapshot_sources(&run).len(), names.len());
    examples_are_valid(&fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap());
}

#[test]
fn a_config_with_random_file_names_is_read_back() {
    let names = proptest::collection::btree_set("[^/\u{0}]{1,40}|[${}\"'\\\\#=:\n\r\t.\\[\\]-]{1,20}", 1..20);
    let mut runner = TestRunner::new(proptest::test_runner::Config::with_cases(4));
    let checked = runner.run(&names, |names| {
        let sandbox = Sandbox::new();
        open(sandbox.path("scratch.db")).execute_batch("CREATE TABLE t (a)").unwrap();
        let image = fs::read(sandbox.path("scratch.db")).unwrap();
        let is_reserved = |name: &str| name == "." || name == ".." || name == ".env" || name.starts_with(".lifeboat-");
        let mut expected = vec![sandbox.path("scratch.db")];
        for name in names.iter().filter(|name| !is_reserved(name) && name.len() <= 255) {
            fs::write(sandbox.path(name), &image).unwrap();
            expected.push(sandbox.path(name));
        }
        lifeboat(&sandbox, &["init", "--config", "lifeboat.toml"], &[]).code(0);
        let config = Config::load(&sandbox.path("lifeboat.toml")).unwrap();
        let mut read: Vec<_> = config.sources().unwrap().iter().map(file_of).collect();
        // A file whose name ends like that of a copy is only an example.
        expected.retain(|path| read.contains(path) || !path.to_string_lossy().ends_with('~'));
        expected.sort();
        read.sort();
        prop_assert_eq!(read, expected);
        Ok(())
    });
    checked.unwrap();
}

fn file_of(source: &ConfiguredSource) -> PathBuf {
    source.source.file().unwrap_or_else(|| panic!("{}", source.source.shown())).to_owned()
}

/// Requires that the config is still valid when all its commented examples are uncommented.
#[track_caller]
fn examples_are_valid(text: &str) {
    let sandbox = Sandbox::new();
    let is_example =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| !c.is_whitespace()));
    let text: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("env_file"))
        .map(|line| if is_example(line) { &line[1..] } else { line })
        .collect();
    fs::write(sandbox.path("lifeboat.toml"), text.join("\n")).unwrap();
    let config = Config::load(&sandbox.path("lifeboat.toml"))
        .unwrap_or_else(|error| panic!("{}\n{}", error.full_message(), text.join("\n")));
    config.preflight().unwrap();
    config.backups().unwrap();
    config.retention().unwrap();
    config.notices().unwrap();
    config.guard().unwrap();
}

#[test]
fn if_nothing_is_found_the_config_consists_of_valid_examples() {
    let sandbox = Sandbox::new();
    let run = lifeboat(&sandbox, &["init"], &[]).code(0);
    assert!(run.stdout().contains("no source was found"), "{}", run.transcript());
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("has no source");
    lifeboat(&sandbox, &["list"], &[]).code(0);
    let text = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    // DATABASE_URL is not set here, so its example gets a value.
    examples_are_valid(&text.replace("${DATABASE_URL}", "postgres://h/d"));
}

#[test]
fn rules_are_suggested_for_the_tables_of_a_database() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 77, "delete");
    let (_, text) = dry_run(&sandbox, &[]);
    assert!(text.contains("#[[source.rule]]\n#table = \"logs\"\n#min_rows = 300\n"), "{text}");
}

#[test]
fn a_rule_is_suggested_for_a_full_text_table_and_not_for_its_storage() {
    let sandbox = Sandbox::new();
    let insert = "INSERT INTO notes SELECT 'word' || value FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8]');";
    crate::helpers::sql(
        sandbox.path("app.db"),
        &format!(
            "CREATE TABLE few (a); INSERT INTO few VALUES (1); CREATE VIRTUAL TABLE notes USING fts5(body); {}",
            insert.repeat(20)
        ),
    );
    let (_, text) = dry_run(&sandbox, &[]);
    assert!(text.contains("#[[source.rule]]\n#table = \"notes\"\n#min_rows = 80\n"), "{text}");
}

#[test]
fn a_bucket_variable_gives_a_store_and_aws_variables_alone_give_an_example() {
    let sandbox = Sandbox::new();
    let (_, text) = dry_run(&sandbox, &[("AWS_REGION", "eu-1"), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    assert!(text.contains("AWS_REGION: set") && text.contains("\n#url = \"s3://my-bucket/lifeboat\"\n"), "{text}");
    let variables =
        [("S3_BUCKET", "kept"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let (found, text) = dry_run(&sandbox, &variables);
    assert_eq!(found, [finding("s3", "kept", "S3_BUCKET")]);
    assert!(text.contains("\nurl = \"s3://kept/lifeboat\"\nendpoint = \"${AWS_ENDPOINT_URL:-}\"\n"), "{text}");
    // The service cannot be reached. The config is still written.
    let run = lifeboat(&sandbox, &["init", "--json"], &variables).code(5).json();
    assert_eq!((run["created"].clone(), run["problems"][0]["kind"].clone()), (true.into(), "unreachable".into()));
    assert!(sandbox.path("lifeboat.toml").exists());
}

#[test]
fn a_volume_becomes_a_mount_and_a_database_outside_of_it_gives_a_warning() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("vol")).unwrap();
    sample(sandbox.path("app.db"), 1, "delete");
    let volume = sandbox.path("vol");
    let variables = [("RAILWAY_VOLUME_MOUNT_PATH", volume.to_str().unwrap())];
    let run = lifeboat(&sandbox, &["init", "--dry-run"], &variables).code(0);
    assert!(run.stdout().contains(&format!("\nmounts = [\"{}\"]\n", volume.display())), "{}", run.transcript());
    assert!(run.stdout().contains("# WARNING: it is not below"), "{}", run.transcript());
    run.says("RAILWAY_VOLUME_MOUNT_PATH");
    // A database on the volume gives no warning. It is also found if the config is in another folder.
    fs::rename(sandbox.path("app.db"), volume.join("app.db")).unwrap();
    fs::create_dir(sandbox.path("project")).unwrap();
    let run =
        lifeboat(&sandbox, &["init", "--config", "project/lifeboat.toml", "--store", "vol/kept"], &variables).code(0);
    let text = fs::read_to_string(sandbox.path("project/lifeboat.toml")).unwrap();
    assert!(text.contains(&format!("\nurl = \"{}\"\n", volume.join("app.db").display())), "{text}");
    // There may be other warnings, because the volume is an ordinary folder here, but not this one.
    assert!(!text.contains("it is not below"), "{text}");
    assert!(run.stdout().contains("lifeboat snapshot --config project/lifeboat.toml"), "{}", run.transcript());
    assert!(volume.join("kept/lifeboat.json").exists());
    lifeboat(&sandbox, &["snapshot", "--config", "project/lifeboat.toml"], &variables).code(0);
}

#[test]
fn the_command_line_sets_the_host_the_stores_and_the_path_of_the_config() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("sub")).unwrap();
    let arguments = ["init", "--config", "sub/x.toml", "--host", "m\"${y}", "--store", "sub/one", "--store", "two"];
    lifeboat(&sandbox, &arguments, &[]).code(0);
    let config = Config::load(&sandbox.path("sub/x.toml")).unwrap();
    assert_eq!(config.host().unwrap(), Some("m\"${y}"));
    let stores: Vec<String> = config.stores().unwrap().iter().map(|store| store.store.to_string()).collect();
    assert_eq!(stores, ["sub/one", "two"].map(|name| sandbox.path(name).display().to_string()));
    assert!(sandbox.path("sub/one/lifeboat.json").exists() && sandbox.path("two/lifeboat.json").exists());
    assert!(!sandbox.path("sub/backups").exists());
    // The path is from LIFEBOAT_CONFIG, and the host is the name of the folder if no host is given.
    fs::create_dir(sandbox.path("my.app 1")).unwrap();
    lifeboat(&sandbox, &["init"], &[("LIFEBOAT_CONFIG", "my.app 1/c.toml")]).code(0);
    assert_eq!(Config::load(&sandbox.path("my.app 1/c.toml")).unwrap().host().unwrap(), Some("my.app-1"));
    lifeboat(&sandbox, &["init", "--config", "nowhere/c.toml"], &[]).code(2).says("does not exist");
}
