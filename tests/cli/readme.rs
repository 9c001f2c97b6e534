//! The commands in the README and in the pages of `docs`: a shell runs all of them in their order.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::helpers::sql;
use crate::support::postgres::{self, Server};
use crate::support::s3::{clear_aws_settings, fresh_prefix, s3_server};
use crate::support::{LIFEBOAT, Sandbox, content, have, sample, skip};

#[path = "../../examples/trading.rs"]
#[allow(dead_code)]
mod trading;

/// Returns the content of the fenced code blocks in this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The PostgreSQL databases that the pages use, which are dropped at the end.
struct Shop {
    server: Server,
}

impl Shop {
    /// Creates the databases on a server of this major version. No two tests may use the same one.
    fn open(major: u32) -> Self {
        let shop = Shop { server: postgres::server(major) };
        shop.clear();
        shop.server.psql("postgres", "CREATE DATABASE shop");
        shop.server.psql("postgres", "CREATE DATABASE tdx");
        shop.server.psql(
            "shop",
            "CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL);
             INSERT INTO orders SELECT n, 'item ' || n FROM generate_series(1, 1000) n;
             CREATE TABLE returns (id int PRIMARY KEY, note text);",
        );
        shop
    }

    /// Sets the environment variables with which a command reaches the server, because the URLs in the page name
    /// neither a port nor a password.
    fn set_connection<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let Server { port, user, password, .. } = &self.server;
        command.env("PGPORT", port.to_string()).env("PGUSER", user).env("PGPASSWORD", password)
    }

    fn databases(&self) -> Vec<String> {
        let rows = self.server.query("postgres", "SELECT datname FROM pg_database WHERE datname ~ '^shop(_|$)|^tdx$'");
        rows.into_iter().flatten().collect()
    }

    /// Returns the name of the database that was kept by `restore --swap`.
    fn kept_database(&self) -> String {
        self.databases().into_iter().find(|name| name.starts_with("shop_before_")).unwrap()
    }

    fn clear(&self) {
        for name in self.databases() {
            self.server.psql("postgres", format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A folder in which a shell runs the commands of the README and of the pages in `docs`.
struct Reader {
    sandbox: Sandbox,
    variables: Vec<(String, String)>,
    /// The database as it was at the beginning.
    before: BTreeMap<String, Vec<String>>,
}

impl Reader {
    /// Follows the README, as people do before they read another page.
    fn new() -> Self {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("data")).unwrap();
        sql(sandbox.path("data/app.db"), DATABASE);
        let before = content(sandbox.path("data/app.db"));
        let path = format!("{}:{}", Path::new(LIFEBOAT).parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut reader = Reader { sandbox, variables: Vec::new(), before };
        reader.set("PATH", path);
        reader.follow("README.md");
        assert_eq!(content(reader.sandbox.path("copy.db")), reader.before);
        reader
    }

    /// Follows the README, and then this page.
    fn of(page: &str) -> Self {
        let reader = Reader::new();
        reader.follow(page);
        reader
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Sets the variables with which programs reach the server, because the pages name neither a port nor a password.
    fn use_server(&mut self, server: &Server) {
        let path = format!("{}:{}", self.variables[0].1, server.psql.parent().unwrap().display());
        let variables = [
            ("PATH", path),
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", server.port.to_string()),
            ("PGUSER", server.user.clone()),
            ("PGPASSWORD", server.password.clone()),
        ];
        variables.into_iter().for_each(|(name, value)| self.set(name, value));
    }

    /// Runs all `sh` blocks of a page in their order. A `text` block that follows one shows its output. Finally, the
    /// database must be as it was at the beginning.
    fn follow(&self, page: &str) {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let blocks: Vec<&str> = text.split("\n```sh\n").skip(1).collect();
        assert!(!blocks.is_empty(), "{page} has no commands");
        for block in blocks {
            let (script, after) = block.split_once("\n```\n").unwrap();
            let output = self.run(page, script);
            if let Some(shown) = after.strip_prefix("\n```text\n") {
                let shown = shown.split_once("\n```").unwrap().0;
                assert_eq!(normalized(shown, "/srv/shop"), normalized(&output, &self.folder()), "{page}\n{script}");
            }
        }
        assert_eq!(content(self.sandbox.path("data/app.db")), self.before, "{page}");
    }

    fn folder(&self) -> String {
        self.sandbox.root().display().to_string()
    }

    /// Runs the commands of a block, and returns their output.
    fn run(&self, page: &str, script: &str) -> String {
        // The time in the pages is in the past, but all snapshots of this test are of today. A shorter wait is enough,
        // because no other program uses these files.
        let mut script = script.replace("2026-11-21T18:00", "2099-01-01").replace("--watch 10s", "--watch 1s");
        if let Some((_, bucket)) = self.variables.iter().find(|(name, _)| name == "BUCKET") {
            script = script.replace("s3://my-bucket", bucket);
        }
        let script: String = script.lines().map(line_with_exit_code).collect();
        let mut command = self.sandbox.command_of("sh");
        clear_aws_settings(&mut command);
        for name in ["COLUMNS", "DATABASE_URL", "LIFEBOAT_TOKEN"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().cloned());
        let run = command.args(["-euxc", &script]).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{page}: {}\n{stdout}\n{stderr}", run.status);
        stdout.into_owned()
    }
}

/// Ends a server that the commands have started, also if one of them failed.
impl Drop for Reader {
    fn drop(&mut self) {
        if let Ok(id) = std::fs::read_to_string(self.sandbox.path("serve.pid")) {
            let _ = Command::new("kill").arg(id.trim()).stderr(std::process::Stdio::null()).status();
        }
    }
}

/// Returns a line of a script. A comment at its end can say that the command exits with another code than 0.
fn line_with_exit_code(line: &str) -> String {
    match line.split_once(" # exits with ") {
        Some((command, code)) => format!("code=0; {command} || code=$?; [ $code = {code} ]\n"),
        None => format!("{line}\n"),
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Replaces everything that differs between two runs: the folder, words with digits, months, units of sizes, and the width
/// of columns.
fn normalized(output: &str, folder: &str) -> Vec<String> {
    let word = |word: &str| match word.trim_end_matches("/s,") {
        "B" | "KiB" | "MiB" | "GiB" => "(unit)".to_owned(),
        _ if MONTHS.contains(&word) => "(month)".to_owned(),
        _ if word.contains(|character: char| character.is_ascii_digit()) => "0".to_owned(),
        _ => word.to_owned(),
    };
    let output = output.replace(folder, "(folder)");
    output.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")).collect()
}

/// The database of the README.
const DATABASE: &str = "
    PRAGMA journal_mode = wal;
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE balances (id INTEGER PRIMARY KEY, account_id INTEGER NOT NULL REFERENCES accounts, amount REAL, created_at TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
        INSERT INTO accounts SELECT i, 'account ' || i FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
        INSERT INTO balances SELECT i, i % 10 + 1, i / 3.0, '2026-11-21T12:00:00' FROM n;";

/// Pages whose commands need only SQLite files and folders.
const PLAIN_PAGES: [&str; 5] =
    ["docs/config.md", "docs/cron.md", "docs/guard.md", "docs/on-call.md", "docs/pipeline.md"];
/// Pages whose commands need servers or other programs. Each has a test of its own.
const OTHER_PAGES: [&str; 5] =
    ["docs/format.md", "docs/postgresql.md", "docs/serve.md", "docs/stores.md", "docs/timescaledb.md"];
/// Pages without commands.
const PAGES_TO_READ: [&str; 1] = ["docs/limits.md"];

#[test]
fn the_commands_of_the_readme_print_what_it_shows() {
    Reader::new();
}

#[test]
fn the_commands_of_every_page_are_run() {
    for page in PLAIN_PAGES {
        let reader = Reader::of(page);
        if page == "docs/on-call.md" {
            for copy in ["inspect.db", "older.db", "files/data/app.db"] {
                assert_eq!(content(reader.sandbox.path(copy)), reader.before, "{copy}");
            }
            let table = std::fs::read_to_string(reader.sandbox.path("balances.sql")).unwrap();
            assert!(table.contains("INSERT INTO"), "{table}");
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    found.sort();
    let mut known = [&PLAIN_PAGES[..], &OTHER_PAGES, &PAGES_TO_READ].concat();
    known.sort_unstable();
    assert_eq!(found, known, "a page of docs is in none of the lists of this test");
    for page in PAGES_TO_READ {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        assert!(!text.contains("```sh"), "{page} has commands");
    }
}

#[test]
fn the_commands_of_the_page_on_serve_work() {
    if !have(&["curl"]) {
        return skip("curl is not installed");
    }
    let reader = Reader::of("docs/serve.md");
    let page = std::fs::read_to_string(reader.sandbox.path("page.html")).unwrap();
    assert!(page.contains("app"), "{page}");
}

#[test]
#[ignore = "needs S3 servers"]
fn the_commands_of_the_page_on_stores_work() {
    let mut reader = Reader::new();
    let bucket = s3_server("seaweedfs");
    reader.set("AWS_ACCESS_KEY_ID", &bucket.access_key);
    reader.set("AWS_SECRET_ACCESS_KEY", &bucket.secret_key);
    reader.set("AWS_ENDPOINT_URL", &bucket.endpoint);
    // All tests share one bucket, so this test uses its own prefix.
    reader.set("BUCKET", format!("s3://{}/{}", bucket.bucket, fresh_prefix()));
    reader.follow("docs/stores.md");
    for copy in ["from-s3.db", "opened.db", "rotated.db"] {
        assert_eq!(content(reader.sandbox.path(copy)), reader.before, "{copy}");
    }
}

#[test]
#[ignore = "needs PostgreSQL 14"]
fn the_commands_of_the_page_on_the_format_work() {
    if !have(&["age", "tar"]) {
        return skip("age or tar is not installed");
    }
    let shop = Shop::open(14);
    let mut reader = Reader::new();
    reader.use_server(&shop.server);
    reader.follow("docs/format.md");
    for copy in ["by-hand/data/app.db", "opened/data/app.db"] {
        assert_eq!(content(reader.sandbox.path(copy)), reader.before, "{copy}");
    }
    assert_eq!(shop.server.value("shop_by_hand", "SELECT count(*) FROM orders"), "1000");
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn the_commands_of_the_page_on_postgresql_work() {
    let shop = Shop::open(15);
    let mut reader = Reader::new();
    reader.use_server(&shop.server);
    reader.follow("docs/postgresql.md");
    assert_eq!(std::fs::read_to_string(reader.sandbox.path("orders.copy")).unwrap().lines().count(), 1000);
    // After the swap, `shop` is the database of the snapshot. The schema `yesterday` is in the database that was kept.
    let kept = shop.kept_database();
    for (database, table) in [("shop", "public.orders"), (&kept, "yesterday.orders"), ("shop_new", "public.orders")] {
        let count = shop.server.value(database, &format!("SELECT count(*) FROM {table}"));
        assert_eq!(count, "1000", "{database} {table}");
    }
}

/// The program of the page that stands for the migrations of an app.
const APP_MIGRATIONS: &str = "#!/bin/sh
psql --quiet --dbname tdx --command '
    CREATE SCHEMA desk
        CREATE TABLE trade_records (trade_id text PRIMARY KEY, symbol varchar(10) NOT NULL, side varchar(4) NOT NULL,
            price numeric(18,4) NOT NULL, quantity integer NOT NULL, amount numeric(18,4), fee numeric(10,4), order_id bigint,
            exchange_us bigint, traded_at timestamptz NOT NULL, remark text)'
";

/// `servers::timescale::runbook` does the same steps with hypertables.
#[test]
#[ignore = "needs PostgreSQL 17"]
fn the_commands_of_the_page_on_timescaledb_work() {
    let shop = Shop::open(17);
    let mut reader = Reader::new();
    reader.use_server(&shop.server);
    let Server { port, user, password, .. } = &shop.server;
    let file = |name: &str, mode: u32, text: String| {
        std::fs::write(reader.sandbox.path(name), text).unwrap();
        std::fs::set_permissions(reader.sandbox.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let target = format!("TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={port}\nTDX_DB_NAME=tdx\nTDX_DB_USER={user}\n");
    file(".env", 0o600, format!("{target}TDX_DB_PASSWORD='{password}'\n"));
    file("app-migrations", 0o700, APP_MIGRATIONS.to_owned());
    trading::make_in(&reader.sandbox.path("trading"), 2_000).unwrap();
    reader.follow("docs/timescaledb.md");
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname IN ('app', 'desk', 'lifeboat_migrate')";
    assert_eq!(shop.server.query("tdx", schemas), [["desk"]]);
    assert_eq!(shop.server.value("tdx", "SELECT count(*) FROM desk.trade_records"), "0");
}

/// A line that begins with `!` is a command that must fail.
#[test]
#[ignore = "needs PostgreSQL 16"]
fn every_command_of_the_security_page_shows_what_the_page_says() {
    if !have(&["ssh-keygen", "curl"]) {
        return skip("ssh-keygen or curl is not installed");
    }
    let page = include_str!("../../SECURITY.md");
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 10, "wal");
    sample(sandbox.path("forged.db"), 11, "wal");
    let config = blocks(page, "toml");
    std::fs::write(sandbox.path("lifeboat.toml"), config.first().unwrap()).unwrap();
    let shop = Shop::open(16);
    let mut script = "set -eu\n".to_owned();
    let mut lines = 0;
    for line in blocks(page, "sh").iter().flat_map(|block| block.lines()) {
        lines += 1;
        match line.strip_prefix("! ") {
            Some(command) => script += &format!("if {command}; then echo 'this succeeded:' >&2; exit 99; fi\n"),
            None => script += &format!("{line}\n"),
        }
    }
    assert!(lines > 30, "the page has too few commands");
    let path = format!("{}:{}", Path::new(LIFEBOAT).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut run = Command::new("sh");
    run.args(["-xc", &script]).current_dir(sandbox.root()).env("PATH", &path);
    let run = shop.set_connection(&mut run).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{stdout}\n{stderr}", run.status);
    assert_eq!(content(sandbox.path("copy.db")), content(sandbox.path("data/app.db")));
}
