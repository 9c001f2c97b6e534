//! Every command that the README shows is run, in its order, by a shell.

use std::path::Path;
use std::process::Command;

use crate::support::postgres::{self, Server};
use crate::support::{LIFEBOAT, Sandbox, content, sample};

#[path = "../../examples/trading.rs"]
#[allow(dead_code)]
mod trading;

/// The content of the fenced blocks that start with "```" and `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The PostgreSQL database that the README speaks of.
struct Shop {
    server: Server,
}

impl Shop {
    fn open() -> Self {
        let shop = Shop { server: postgres::server(15) };
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

    /// Makes a command find the server as the README's reader has it: on localhost, with nothing to say.
    fn reach<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let Server { port, user, password, .. } = &self.server;
        command.env("PGPORT", port.to_string()).env("PGUSER", user).env("PGPASSWORD", password)
    }

    fn databases(&self) -> Vec<String> {
        let rows = self.server.query("postgres", "SELECT datname FROM pg_database WHERE datname ~ '^shop(_|$)|^tdx$'");
        rows.into_iter().flatten().collect()
    }

    /// The name that an exchanged database is kept under.
    fn old(&self) -> String {
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

#[test]
#[ignore = "needs PostgreSQL 15 and S3 servers"]
fn every_command_in_the_readme_works() {
    let readme = include_str!("../../README.md");
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 10, "wal");
    let before = content(sandbox.path("data/app.db"));
    let shop = Shop::open();
    let path = format!("{}:{}", Path::new(LIFEBOAT).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let bucket = crate::support::s3::s3_server("seaweedfs");
    let prefix = crate::support::s3::fresh_prefix();
    let Server { port, user, password, .. } = &shop.server;
    let variables = format!(
        "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={port}\nTDX_DB_NAME=tdx\nTDX_DB_USER={user}\nTDX_DB_PASSWORD='{password}'\n"
    );
    let moving =
        "env_file = \".env\"\n[[store]]\nurl = \"moved\"\n[[source]]\nname = \"tdx\"\nenv_prefix = \"TDX_DB_\"\n";
    let blocks = blocks(readme, "sh");
    assert!(blocks.len() >= 7, "the README has lost its commands");
    for command in blocks.iter().flat_map(|block| block.lines()) {
        // The day in the README is long past; here all snapshots are of today.
        let command = &command.replace("2026-11-21T18:00", "2099-01-01");
        // A bucket of one's own is a place in the one that all tests share.
        let command = &command.replace("s3://my-bucket", &format!("s3://{}/{prefix}", bucket.bucket));
        // Nobody waits so long for files that no one else knows.
        let command = &command.replace("--watch 10s", "--watch 1s");
        if command.contains("inventory") && !sandbox.path(".env").exists() {
            // Not before: 'init' would find them.
            trading::make_in(&sandbox.path("trading"), 2_000).unwrap();
            std::fs::write(sandbox.path(".env"), &variables).unwrap();
            std::fs::write(sandbox.path("moving.toml"), moving).unwrap();
        }
        if command.starts_with("lifeboat serve") {
            let path = sandbox.path("lifeboat.toml");
            let config = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, format!("{config}\n[serve]\ntoken = \"${{LIFEBOAT_TOKEN:-}}\"\npublic = true\n"))
                .unwrap();
        }
        let mut run = Command::new("sh");
        run.env("LIFEBOAT_TOKEN", "a-token-of-the-reader");
        bucket.identify(&mut run);
        run.env("AWS_ENDPOINT_URL", &bucket.endpoint);
        run.args(["-c", command]).current_dir(sandbox.root()).env("PATH", &path);
        let run = shop.reach(&mut run).output().unwrap();
        let is_plan = command.contains("migrate plan");
        if is_plan {
            // Two files have notifications, with the same keys: a person gives one of them another name.
            assert_eq!(run.status.code(), Some(3), "{}", String::from_utf8_lossy(&run.stderr));
            let plan = std::fs::read_to_string(sandbox.path("plan.toml")).unwrap();
            let (before, after) = plan.split_once("file = \"portfolio\"\nsource = \"notifications\"").unwrap();
            let after = after.replacen("name = \"notifications\"", "name = \"notifications_2\"", 1);
            let plan = format!("{before}file = \"portfolio\"\nsource = \"notifications\"{after}");
            std::fs::write(sandbox.path("plan.toml"), plan).unwrap();
        }
        assert!(
            is_plan || run.status.success(),
            "$ {command}\n{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
    }
    assert_eq!(content(sandbox.path("data/app.db")), before);
    for copy in ["copy.db", "older.db", "files/data/app.db", "from-s3.db", "opened.db"] {
        assert_eq!(content(sandbox.path(copy)), before, "{copy}");
    }
    assert_eq!(std::fs::read_to_string(sandbox.path("orders.copy")).unwrap().lines().count(), 1000);
    for (database, table) in [("shop", "public.orders"), ("shop", "yesterday.orders"), ("shop_new", "public.orders")] {
        // The exchanged database is the snapshot's: what was brought back beside is in the old one.
        let database = if table == "yesterday.orders" { shop.old() } else { database.to_owned() };
        assert_eq!(
            shop.server.value(&database, &format!("SELECT count(*) FROM {table}")),
            "1000",
            "{database} {table}"
        );
    }
    assert!(std::fs::read_to_string(sandbox.path("balances.sql")).unwrap().contains("INSERT INTO"));
}

#[test]
fn every_script_in_the_readme_is_there() {
    let readme = include_str!("../../README.md");
    for command in blocks(readme, "text").iter().flat_map(|block| block.lines()) {
        let script = command.split_whitespace().next().unwrap();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(script).exists(), "{script}");
    }
}
