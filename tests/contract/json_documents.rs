//! The fields of every JSON document and their types. Programs of users read the documents, so nothing may change by
//! accident. For an intended change, replace `tests/data/json_documents.txt` by the text that the failure prints.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::postgres::server;
use crate::support::{Sandbox, sample};

/// Collects the types of a value, of the fields of an object, and of the elements of a list.
fn describe(path: &str, value: &Value, found: &mut BTreeMap<String, Vec<&'static str>>) {
    let mut note = |kind| {
        let kinds = found.entry(path.to_owned()).or_default();
        if !kinds.contains(&kind) {
            kinds.push(kind);
            kinds.sort_unstable();
        }
    };
    match value {
        Value::Null => note("null"),
        Value::Bool(_) => note("bool"),
        Value::Number(number) if number.is_f64() => note("number"),
        Value::Number(_) => note("integer"),
        Value::String(_) => note("text"),
        Value::Array(elements) => {
            note("list");
            elements.iter().for_each(|element| describe(&format!("{path}[]"), element, found));
        }
        Value::Object(fields) => {
            note("object");
            fields.iter().for_each(|(name, field)| describe(&format!("{path}.{name}"), field, found));
        }
    }
}

/// Runs commands and describes their JSON documents, each under its title.
struct Documents<'a> {
    sandbox: &'a Sandbox,
    text: String,
}

impl Documents<'_> {
    /// Runs a command with `--json`, describes its document and returns it.
    fn add(&mut self, title: &str, arguments: &[&str], code: i32) -> Value {
        let run = self.sandbox.run(&[arguments, &["--json"]].concat()).code(code);
        let document = run.json();
        let mut found = BTreeMap::new();
        describe("", &document, &mut found);
        self.text.push_str(&format!("{title}, exit {code}\n"));
        for (path, kinds) in found {
            let path = if path.is_empty() { "the document" } else { &path };
            self.text.push_str(&format!("    {path}: {}\n", kinds.join(" or ")));
        }
        document
    }

    /// Compares all descriptions with a file in `tests/data`.
    fn compare(self, file: &str) {
        let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != self.text {
            let added: Vec<&str> =
                self.text.lines().filter(|line| !expected.lines().any(|other| other == *line)).collect();
            let removed: Vec<&str> =
                expected.lines().filter(|line| !self.text.lines().any(|other| other == *line)).collect();
            panic!("{path} differs. New: {added:#?}\nRemoved: {removed:#?}\nThe complete new text:\n{}", self.text);
        }
    }
}

const CONFIG: &str = r#"
host = "web-1"
[[store]]
name = "here"
url = "backups"
[[source]]
name = "app"
url = "app.db"
[[source.rule]]
table = "accounts"
min_rows = 1
[backups]
max_age = "1d"
[retention]
keep_last = 3
"#;

#[test]
fn json_documents_of_every_command_keep_their_fields_and_types() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "wal");
    let mut documents = Documents { sandbox: &sandbox, text: String::new() };
    documents.add("init", &["init", "--config", "new.toml", "--store", "./other"], 0);
    documents.add("keygen", &["keygen", "--output", "key.txt"], 0);
    documents.add("keygen --public", &["keygen", "--public", "key.txt"], 0);
    fs::write(sandbox.path("lifeboat.toml"), CONFIG).unwrap();
    fs::create_dir(sandbox.path("backups")).unwrap();
    documents.add("check without a store", &["check"], 3);
    fs::remove_dir(sandbox.path("backups")).unwrap();
    sandbox.ok(&["init"]);
    let saved = documents.add("snapshot", &["snapshot", "--tag", "one"], 0);
    let id = saved["snapshots"][0]["id"].as_str().unwrap();
    documents.add("list", &["list"], 0);
    documents.add("show", &["show", id], 0);
    documents.add("verify", &["verify", id], 0);
    documents.add("drill", &["drill", id], 0);
    documents.add("extract", &["extract", id, "--to", "files"], 0);
    documents.add("diff", &["diff", id, "app.db"], 0);
    documents.add("restore", &["restore", id, "--to", "new.db"], 0);
    documents.add("restore --replace", &["restore", id, "--to", "app.db", "--replace", "--yes"], 0);
    documents.add("restore of nothing", &["restore", "nothing", "--to", "x.db"], 4);
    documents.add("prune", &["prune"], 0);
    documents.add("copy", &["copy", id, "--from", "here", "--to", "./second", "--create"], 0);
    documents.add("delete", &["delete", id], 0);
    documents.add("check", &["check"], 0);
    documents.add("inventory", &["inventory", "app.db"], 0);
    documents.add("inventory of nothing", &["inventory", "files"], 0);
    documents.add("predeploy", &["predeploy", "--commit", "abc"], 0);
    documents.add("postdeploy", &["postdeploy", "--commit", "abc"], 0);
    documents.add("doctor", &["doctor"], 0);
    documents.add("report", &["report", "--html", "page.html"], 0);
    documents.add("a mistake", &["snapshot", "app.db", "--store", "ftp://x"], 2);
    documents.add("an unknown option", &["list", "--nothing"], 2);
    sandbox.ok(&["snapshot", "--prune"]);
    documents.add("snapshot --prune", &["snapshot", "--prune"], 0);
    let connection = rusqlite::Connection::open(sandbox.path("app.db")).unwrap();
    connection.execute_batch("DELETE FROM balances; DELETE FROM accounts").unwrap();
    drop(connection);
    documents.add("check of a loss", &["check"], 3);
    documents.add("snapshot of a loss", &["snapshot"], 3);
    documents.add("predeploy of a loss", &["predeploy", "--commit", "def"], 3);
    documents.add("postdeploy of a loss", &["postdeploy", "--commit", "abc"], 3);
    // A trigger of the sample writes a row for each row that is deleted.
    documents.add("postdeploy --rollback of new rows", &["postdeploy", "--commit", "abc", "--rollback"], 3);
    documents.add("postdeploy --rollback", &["postdeploy", "--commit", "abc", "--rollback", "--discard-new"], 3);
    documents.compare("json_documents.txt");
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn json_documents_of_postgresql_commands_keep_their_fields_and_types() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 1, "delete");
    let database = server(17).create_database("json");
    database.psql("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'one'), (2, 'two')");
    let url = database.socket_url();
    let mut documents = Documents { sandbox: &sandbox, text: String::new() };
    let saved = documents.add("snapshot", &["snapshot", &url, "--store", "backups", "--name", "pg"], 0);
    let id = saved["snapshots"][0]["id"].as_str().unwrap();
    documents.add("show", &["show", id, "--store", "backups"], 0);
    documents.add("drill", &["drill", id, "--store", "backups"], 0);
    documents.add("diff", &["diff", id, &url, "--store", "backups"], 0);
    documents.add("restore", &["restore", id, "--to", &url, "--replace", "--yes", "--store", "backups"], 0);
    documents.add("migrate plan", &["migrate", "plan", "app.db", "--to", &url], 0);
    let flags = ["--to", &url, "--store", "backups"];
    documents.add("migrate run", &[&["migrate", "run", "plan.toml"], &flags[..]].concat(), 0);
    documents.add("migrate verify", &[&["migrate", "verify", "plan.toml"], &flags[..]].concat(), 0);
    documents.add("migrate rollback", &[&["migrate", "rollback", "plan.toml"], &flags[..]].concat(), 0);
    documents.compare("json_documents_postgres.txt");
}
