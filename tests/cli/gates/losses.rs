//! Snapshots with lost rows, which must never become the baseline for later ones, and rollbacks, which must restore
//! only what was certainly lost.

use super::helpers::{App, assert_one_failed, run_with_env};

#[test]
fn a_snapshot_with_lost_rows_is_saved_but_prunes_nothing_and_is_not_a_baseline() {
    let app = App::new("[retention]\nkeep_last = 1\nafter_snapshot = true\n");
    app.sandbox.ok(&["snapshot"]);
    let good_id = app.ids()[0].clone();
    app.sql("DELETE FROM balances WHERE id > 100");
    for _ in 0..3 {
        let run = app.sandbox.run(&["snapshot"]).code(3);
        assert!(
            run.stderr().contains("is not used as the baseline") && run.stderr().contains("--accept"),
            "{}",
            run.transcript()
        );
    }
    assert_eq!(app.ids().len(), 4, "a snapshot with lost rows was not saved");
    let shown = app.sandbox.ok(&["show", "latest", "--json"]).says("skipping");
    assert_eq!(shown.json()["id"], good_id.as_str(), "a suspect snapshot is the latest");
    let suspect = app.sandbox.json(&["show", "latest", "--tag", "suspect"]);
    assert_eq!(suspect["tags"], serde_json::json!(["suspect"]));
    app.sandbox.ok(&["restore", "latest", "--to", "latest.db"]);
    assert_eq!(crate::support::count(app.sandbox.path("latest.db"), "balances"), 200);
    assert_one_failed(&app.fails(&["predeploy"]).0, &["balances", "100", "200"]);
    let run = app.sandbox.ok(&["prune", "--yes"]);
    assert!(app.ids().contains(&good_id) && run.stdout().contains("newest not suspect"), "{}", run.transcript());
    app.sandbox.ok(&["snapshot", "--accept"]);
    app.passes(&["predeploy"]);
    app.sandbox.ok(&["snapshot"]);
}

#[test]
fn a_failed_rule_marks_a_snapshot_suspect_and_users_cannot_set_that_tag() {
    let app = App::new("[[source.rule]]\nquery = \"select count(*) > 500 from balances\"\n");
    let run = app.sandbox.run(&["snapshot", "--json"]).code(3);
    assert_eq!(run.json()["snapshots"][0]["tags"], serde_json::json!(["suspect"]));
    for tag in ["suspect", "predeploy"] {
        app.sandbox.run(&["snapshot", "--tag", tag]).code(2);
    }
}

#[test]
fn a_failed_rule_after_the_deploy_does_not_restore_over_new_rows() {
    let app = App::new("[[source.rule]]\nquery = \"select max(id) < 300 from balances\"\n");
    app.passes(&["predeploy"]);
    app.sql("INSERT INTO balances (id, amount) SELECT id + 1000, 1 FROM balances");
    let (lines, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_one_failed(&lines, &["query", "false"]);
    assert!(document.get("restored").is_none(), "{document:#}");
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 400);
}

#[test]
fn without_the_key_of_an_encrypted_snapshot_the_gate_is_closed() {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    app.passes(&["predeploy"]);
    app.sql("DROP TABLE accounts");
    app.sql("CREATE TABLE accounts (id); INSERT INTO accounts SELECT 1 FROM balances LIMIT 40");
    app.sql("DROP TABLE balances; CREATE TABLE other AS SELECT * FROM accounts; INSERT INTO other SELECT o.id FROM other o, other p LIMIT 170");
    let (lines, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_one_failed(&lines, &["encrypted", "--identity"]);
    assert!(document.get("restored").is_none(), "{document:#}");
    let (lines, _) = app.fails(&["postdeploy", "--identity", "key.txt"]);
    assert_one_failed(&lines, &["balances", "gone"]);
}

#[test]
fn nothing_is_restored_below_a_missing_mount_by_any_path() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    std::fs::create_dir(app.sandbox.path("deep")).unwrap();
    std::os::unix::fs::symlink("../app/app.db", app.sandbox.path("deep/link.db")).unwrap();
    std::os::unix::fs::symlink("app", app.sandbox.path("other")).unwrap();
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    for (url, mount) in [("./deep/../app/app.db", "./app"), ("./deep/link.db", "./app"), ("./app/app.db", "./other")] {
        let changed = config.replace("./app/app.db", url) + &format!("[preflight]\nmounts = [\"{mount}\"]\n");
        std::fs::write(app.sandbox.path("lifeboat.toml"), changed).unwrap();
        app.remove_database();
        let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
        assert!(run.stderr().contains("is not mounted"), "{url}\n{}", run.transcript());
        assert!(!app.sandbox.path("app/app.db").exists(), "{url}");
    }
}

#[test]
fn two_names_for_one_database_are_refused() {
    let app = App::new("");
    app.write_config("[[source]]\nname = \"users\"\nurl = \"app/../app/app.db\"\n");
    let run = app.sandbox.run(&["predeploy"]).code(2);
    assert!(run.stderr().contains("app and users are the same database"), "{}", run.transcript());
}

#[test]
fn a_misspelt_store_name_creates_no_folder() {
    let app = App::new("[[store]]\nname = \"second\"\nurl = \"./two\"\n");
    let run = app.sandbox.run(&["snapshot", "--store", "secnd"]).code(2);
    assert!(run.stderr().contains("its stores are second"), "{}", run.transcript());
    assert!(!app.sandbox.path("secnd").exists());
    app.sandbox.ok(&["snapshot", "--store", "second"]);
}

#[test]
fn an_empty_variable_does_not_disable_the_guard() {
    let app = App::new("");
    app.write_config("[guard]\nsnapshot_at_end = \"${SNAP}\"\nrestore_if_missing = \"${RESTORE:-}\"\n");
    let variables = [("SNAP", "")];
    run_with_env(&app.sandbox, &["guard", "--", "true"], &variables).code(0);
    assert_eq!(app.ids().len(), 1);
    app.remove_database();
    run_with_env(&app.sandbox, &["guard", "--", "true"], &variables).code(0);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
}

#[test]
fn errors_in_the_config_do_not_repeat_its_values() {
    let app = App::new("");
    for config in [
        "source = [\"postgres://u:S3CRET@h/db\"]\n",
        "source = \"postgres://u:S3CRET@h/db\"\n",
        "notify = \"https://hooks/S3CRET\"\n",
        "[encryption]\nidentity_files = \"AGE-SECRET-KEY-1S3CRET\"\n",
        "[encryption]\nrecipients = \"AGE-SECRET-KEY-1S3CRET\"\n",
        "[preflight]\nhttp = [\"https://h/S3CRET\"]\n",
    ] {
        std::fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
        let run = app.sandbox.run(&["snapshot"]).code(2);
        assert!(!run.stderr().contains("S3CRET") && !run.stderr().contains("Raw"), "{config}\n{}", run.transcript());
        assert!(run.stderr().contains("lifeboat.toml:"), "{}", run.transcript());
    }
}

#[test]
fn a_date_of_today_is_fresh() {
    let app =
        App::new("[[source.rule]]\ntable = \"balances\"\nfresh = { column = \"created_at\", within = \"24h\" }\n");
    app.sandbox.ok(&["snapshot"]);
    app.sql("UPDATE balances SET created_at = date('now')");
    app.passes(&["check"]);
}

/// The commands that the gate and the snapshot print accept the loss of that source, from any folder.
#[test]
fn the_printed_command_that_accepts_a_loss_works() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    for step in ["predeploy", "snapshot"] {
        app.sql("DELETE FROM balances WHERE id IN (SELECT id FROM balances LIMIT (SELECT count(*) / 2 FROM balances))");
        let run = app.sandbox.run(&[step]).code(3);
        let text = run.transcript();
        let command = text.split("run 'lifeboat ").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        let words: Vec<&str> = command.split(' ').collect();
        assert!(words.starts_with(&["snapshot", "app", "--accept"]) && words.contains(&"--config"), "{text}");
        let mut accept = app.sandbox.command(&words);
        app.sandbox
            .finish({
                accept.current_dir("/");
                accept
            })
            .code(0);
        app.passes(&["predeploy"]);
    }
}
