//! `show`: one snapshot, and the commands that restore it.

use crate::helpers::{SNAPSHOT_FIELDS, assert_has_fields, shell_ok, silent};
use crate::support::{Sandbox, content, sample};

#[test]
fn show_prints_the_manifest_and_the_commands_that_restore() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    let run = silent(sandbox.ok(&["show", &id, "--store", "backups"]));
    for word in [&id[..], "accounts", "balances", "logs", "full", "lifeboat restore", "--replace", "sha256"] {
        assert!(run.stdout().contains(word), "{word}\n{}", run.transcript());
    }
}

#[test]
fn show_json_has_every_field_of_a_snapshot() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let snapshot = sandbox.json(&["snapshot", "app.db", "--tag", "a b", "--store", "backups", "--host", "box"]);
    let shown = sandbox.json(&["show", "--store", "backups"]);
    assert_has_fields(&shown, SNAPSHOT_FIELDS);
    for field in SNAPSHOT_FIELDS.iter().chain(&["tables"]) {
        assert_eq!(shown[*field], snapshot["snapshots"][0][*field], "{field}");
    }
    assert_eq!(shown["origin"]["host"], "box");
    assert_eq!(shown["origin"]["path"], sandbox.path("app.db").canonicalize().unwrap().to_str().unwrap());
    assert_eq!(shown["tags"], serde_json::json!(["a b"]));
    let tables = shown["tables"].as_array().unwrap();
    for table in tables {
        assert_has_fields(table, &["name", "rows", "bytes", "digest"]);
    }
    let accounts = tables.iter().find(|table| table["name"] == "accounts").unwrap();
    assert_eq!(accounts["rows"], 3);
    let digest = accounts["digest"].as_str().unwrap();
    let (name, digits) = digest.split_once(':').unwrap();
    assert!(!name.is_empty() && digits.len() == 32, "the digest is not a name and 128 bits: {digest}");
}

#[test]
fn the_commands_that_show_prints_restore_the_database() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox.ok(&["snapshot", "app.db", "--store", "my 'odd' store"]);
    let saved = content(sandbox.path("app.db"));
    let shown = sandbox.json(&["show", "--store", "my 'odd' store"]);
    crate::helpers::sql(sandbox.path("app.db"), "DELETE FROM accounts");
    let commands = shown["restore"].as_array().unwrap();
    assert_eq!(commands.len(), 2, "{shown:#}");
    for command in commands {
        shell_ok(&sandbox, command.as_str().unwrap());
    }
    assert_eq!(content(sandbox.path("app.db")), saved);
    assert_eq!(content(sandbox.path("app-restored.db")), saved);
}
