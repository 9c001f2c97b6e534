//! The commands in the README: a shell runs all of them in their order.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::postgres::{self, Server};
use crate::support::{LIFEBOAT, Sandbox, content, have, sample, skip};

#[path = "../../examples/trading.rs"]
#[allow(dead_code)]
mod trading;

/// Returns the content of the fenced code blocks in this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The PostgreSQL databases that the README uses, which are dropped at the end.
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

    /// Sets the environment variables with which a command reaches the server, because the URLs in the README name
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

#[test]
#[ignore = "needs PostgreSQL 15 and S3 servers"]
fn every_command_in_the_readme_works() {
    let readme = include_str!("../../README.md");
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 10, "wal");
    let before = content(sandbox.path("data/app.db"));
    let shop = Shop::open(15);
    let path = format!("{}:{}", Path::new(LIFEBOAT).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let bucket = crate::support::s3::s3_server("seaweedfs");
    let prefix = crate::support::s3::fresh_prefix();
    let Server { port, user, password, .. } = &shop.server;
    let variables = format!(
        "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={port}\nTDX_DB_NAME=tdx\nTDX_DB_USER={user}\nTDX_DB_PASSWORD='{password}'\n"
    );
    let migration_config =
        "env_file = \".env\"\n[[store]]\nurl = \"moved\"\n[[source]]\nname = \"tdx\"\nenv_prefix = \"TDX_DB_\"\n";
    let blocks = blocks(readme, "sh");
    assert!(blocks.len() >= 7, "the README has too few commands");
    for command in blocks.iter().flat_map(|block| block.lines()) {
        // The time in the README is in the past, but all snapshots of this test are of today.
        let command = &command.replace("2026-11-21T18:00", "2099-01-01");
        // All tests share one bucket, so this test uses its own prefix.
        let command = &command.replace("s3://my-bucket", &format!("s3://{}/{prefix}", bucket.bucket));
        // A shorter wait is enough, because no other program uses these files.
        let command = &command.replace("--watch 10s", "--watch 1s");
        if command.contains("inventory") && !sandbox.path(".env").exists() {
            // These files are created only now, because `init` would have found them before.
            trading::make_in(&sandbox.path("trading"), 2_000).unwrap();
            std::fs::write(sandbox.path(".env"), &variables).unwrap();
            std::fs::set_permissions(sandbox.path(".env"), std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::write(sandbox.path("moving.toml"), migration_config).unwrap();
        }
        if command.starts_with("lifeboat serve") {
            let path = sandbox.path("lifeboat.toml");
            let config = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, format!("{config}\n[serve]\ntoken = \"${{LIFEBOAT_TOKEN:-}}\"\npublic = true\n"))
                .unwrap();
        }
        let mut run = Command::new("sh");
        run.env("LIFEBOAT_TOKEN", "a-token-of-the-reader");
        bucket.set_credentials(&mut run);
        run.env("AWS_ENDPOINT_URL", &bucket.endpoint);
        run.args(["-c", command]).current_dir(sandbox.root()).env("PATH", &path);
        let run = shop.set_connection(&mut run).output().unwrap();
        let is_plan = command.contains("migrate plan");
        if is_plan {
            // Two files have a table `notifications` with the same keys, so the plan must be edited: one of the tables
            // gets another name.
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
        // After the swap, `shop` is the database of the snapshot. The schema `yesterday` is in the database that was
        // kept.
        let database = if table == "yesterday.orders" { shop.kept_database() } else { database.to_owned() };
        assert_eq!(
            shop.server.value(&database, &format!("SELECT count(*) FROM {table}")),
            "1000",
            "{database} {table}"
        );
    }
    assert!(std::fs::read_to_string(sandbox.path("balances.sql")).unwrap().contains("INSERT INTO"));
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

#[test]
fn every_script_in_the_readme_exists() {
    let readme = include_str!("../../README.md");
    for command in blocks(readme, "text").iter().flat_map(|block| block.lines()) {
        let script = command.split_whitespace().next().unwrap();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(script).exists(), "{script}");
    }
}
