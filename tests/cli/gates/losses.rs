//! What has lost its rows never becomes what the next is compared with, and only what was seen to be lost is brought back.

use super::helpers::{App, only, with_env};

#[test]
fn a_cron_job_that_saves_a_loss_says_so_and_prunes_nothing_and_the_gate_stays_closed() {
    let app = App::new("[retention]\nkeep_last = 1\nafter_snapshot = true\n");
    app.sandbox.ok(&["snapshot"]);
    let good = app.ids()[0].clone();
    app.sql("DELETE FROM balances WHERE id > 100");
    for _ in 0..3 {
        let run = app.sandbox.run(&["snapshot"]).code(3);
        assert!(run.stderr().contains("no measure") && run.stderr().contains("--accept"), "{}", run.transcript());
    }
    assert_eq!(app.ids().len(), 4, "it is saved all the same");
    only(&app.closed(&["predeploy"]).0, &["balances", "100", "200"]);
    let run = app.sandbox.ok(&["prune", "--yes"]);
    assert!(app.ids().contains(&good) && run.stdout().contains("no suspect"), "{}", run.transcript());
    app.sandbox.ok(&["snapshot", "--accept"]);
    app.passes(&["predeploy"]);
    app.sandbox.ok(&["snapshot"]);
}

#[test]
fn a_rule_that_fails_makes_a_suspect_too_and_its_tag_is_nobodys_to_give() {
    let app = App::new("[[source.rule]]\nquery = \"select count(*) > 500 from balances\"\n");
    let run = app.sandbox.run(&["snapshot", "--json"]).code(3);
    assert_eq!(run.json()["snapshots"][0]["tags"], serde_json::json!(["suspect"]));
    for tag in ["suspect", "predeploy"] {
        app.sandbox.run(&["snapshot", "--tag", tag]).code(2);
    }
}

#[test]
fn a_rule_that_fails_after_the_deploy_restores_nothing_over_new_rows() {
    let app = App::new("[[source.rule]]\nquery = \"select max(id) < 300 from balances\"\n");
    app.passes(&["predeploy"]);
    app.sql("INSERT INTO balances (id, amount) SELECT id + 1000, 1 FROM balances");
    let (lines, document) = app.closed(&["postdeploy", "--rollback"]);
    only(&lines, &["query", "false"]);
    assert!(document.get("restored").is_none(), "{document:#}");
    assert_eq!(app.number("SELECT count(*) FROM balances"), 400);
}

#[test]
fn of_an_encrypted_snapshot_that_no_key_opens_a_gate_does_not_say_that_nothing_was_lost() {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    app.passes(&["predeploy"]);
    app.sql("DROP TABLE accounts");
    app.sql("CREATE TABLE accounts (id); INSERT INTO accounts SELECT 1 FROM balances LIMIT 40");
    app.sql("DROP TABLE balances; CREATE TABLE other AS SELECT * FROM accounts; INSERT INTO other SELECT o.id FROM other o, other p LIMIT 170");
    let (lines, document) = app.closed(&["postdeploy", "--rollback"]);
    only(&lines, &["encrypted", "--identity"]);
    assert!(document.get("restored").is_none(), "{document:#}");
    let (lines, _) = app.closed(&["postdeploy", "--identity", "key.txt"]);
    only(&lines, &["balances", "gone"]);
}

#[test]
fn nothing_is_restored_below_a_mount_that_is_gone_by_whatever_way_it_is_named() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    std::fs::create_dir(app.sandbox.path("deep")).unwrap();
    std::os::unix::fs::symlink("../app/app.db", app.sandbox.path("deep/link.db")).unwrap();
    std::os::unix::fs::symlink("app", app.sandbox.path("other")).unwrap();
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    for (url, mount) in [("./deep/../app/app.db", "./app"), ("./deep/link.db", "./app"), ("./app/app.db", "./other")] {
        let changed = config.replace("./app/app.db", url) + &format!("[preflight]\nmounts = [\"{mount}\"]\n");
        std::fs::write(app.sandbox.path("lifeboat.toml"), changed).unwrap();
        app.remove();
        let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
        assert!(run.stderr().contains("is not mounted"), "{url}\n{}", run.transcript());
        assert!(!app.sandbox.path("app/app.db").exists(), "{url}");
    }
}

#[test]
fn two_names_for_one_database_are_refused() {
    let app = App::new("");
    app.config("[[source]]\nname = \"users\"\nurl = \"app/../app/app.db\"\n");
    let run = app.sandbox.run(&["predeploy"]).code(2);
    assert!(run.stderr().contains("app and users are one database"), "{}", run.transcript());
}

#[test]
fn a_stores_name_that_is_misspelt_makes_no_folder() {
    let app = App::new("[[store]]\nname = \"second\"\nurl = \"./two\"\n");
    let run = app.sandbox.run(&["snapshot", "--store", "secnd"]).code(2);
    assert!(run.stderr().contains("it has second"), "{}", run.transcript());
    assert!(!app.sandbox.path("secnd").exists());
    app.sandbox.ok(&["snapshot", "--store", "second"]);
}

#[test]
fn a_variable_that_is_empty_does_not_switch_the_guard_off() {
    let app = App::new("");
    app.config("[guard]\nsnapshot_at_end = \"${SNAP}\"\nrestore_if_missing = \"${RESTORE:-}\"\n");
    let variables = [("SNAP", "")];
    with_env(&app.sandbox, &["guard", "--", "true"], &variables).code(0);
    assert_eq!(app.ids().len(), 1);
    app.remove();
    with_env(&app.sandbox, &["guard", "--", "true"], &variables).code(0);
    assert_eq!(app.number("SELECT count(*) FROM balances"), 200);
}

#[test]
fn what_stands_in_the_wrong_place_of_a_config_is_not_repeated() {
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
fn a_day_that_is_today_is_fresh() {
    let app =
        App::new("[[source.rule]]\ntable = \"balances\"\nfresh = { column = \"created_at\", within = \"24h\" }\n");
    app.sandbox.ok(&["snapshot"]);
    app.sql("UPDATE balances SET created_at = date('now')");
    app.passes(&["check"]);
}
