//! `guard` before the program starts: the judgement of the database, the restore, and the cases in which a person must
//! decide.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::helpers::{App, create_store};
use crate::support::web::{Web, answer};
use crate::support::{Run, Sandbox, open};

/// The arguments of a guard whose program creates the file `started`.
const GUARD: [&str; 4] = ["guard", "--", "touch", "started"];

impl App {
    /// Runs the guard, and requires that the program starts.
    #[track_caller]
    pub(crate) fn starts(&self, options: &[&str]) -> Run {
        let run = self.guard(options).code(0);
        assert!(self.sandbox.path("started").exists(), "the program did not start\n{}", run.transcript());
        run
    }

    /// Runs the guard, and requires that the program does not start.
    #[track_caller]
    pub(crate) fn refuses(&self, options: &[&str], code: i32) -> Run {
        let run = self.guard(options).code(code);
        assert!(!self.sandbox.path("started").exists(), "the program started\n{}", run.transcript());
        run.says("the program was not started")
    }

    pub(crate) fn guard(&self, options: &[&str]) -> Run {
        let _ = fs::remove_file(self.sandbox.path("started"));
        let arguments: Vec<&str> = [&GUARD[..1], options, &GUARD[1..]].concat();
        self.sandbox.run(&arguments)
    }

    /// Replaces the database by a new one with the same tables, in which this SQL is run.
    pub(crate) fn make_anew(&self, sql: &str) {
        self.remove_database();
        self.sql(&format!(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT);
             CREATE TABLE balances (id INTEGER PRIMARY KEY, account INTEGER, amount REAL, created_at TEXT); {sql}"
        ));
    }

    pub(crate) fn rows(&self) -> (i64, i64) {
        (self.integer("SELECT count(*) FROM accounts"), self.integer("SELECT count(*) FROM balances"))
    }

    /// Saves the app, then a state with 50 more accounts and next to no balances. Returns the ids: the good snapshot,
    /// and the newer one, which is suspect.
    pub(crate) fn save_suspect(&self) -> (String, String) {
        self.sandbox.ok(&["snapshot"]);
        self.sql(
            "INSERT INTO accounts SELECT id + 1000, 'new' FROM balances WHERE id <= 50;
             DELETE FROM balances WHERE id > 5;",
        );
        self.sandbox.run(&["snapshot"]).code(3);
        let ids = self.ids();
        (ids[1].clone(), ids[0].clone())
    }
}

/// Returns the `lifeboat` commands in single quotes.
pub(crate) fn commands(text: &str) -> Vec<String> {
    text.split('\'').skip(1).step_by(2).filter(|part| part.starts_with("lifeboat ")).map(str::to_owned).collect()
}

/// Runs a command that a message has printed.
#[track_caller]
pub(crate) fn run_printed(sandbox: &Sandbox, command: &str) {
    let program = sandbox.command(&["--version"]).get_program().to_owned();
    let script = command.replacen("lifeboat", "\"$LIFEBOAT\"", 1);
    let output = Command::new("sh").args(["-c", &script]).env("LIFEBOAT", program).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_new_schema_with_nothing_but_the_record_of_a_migration_is_replaced_by_the_snapshot() {
    for rule in ["", "[[source.rule]]\ntable = \"balances\"\nmin_rows = 1\n"] {
        let app = App::new(rule);
        app.sql("CREATE TABLE alembic_version (v TEXT); INSERT INTO alembic_version VALUES ('a1')");
        app.sandbox.ok(&["snapshot"]);
        let id = app.ids()[0].clone();
        app.make_anew("CREATE TABLE alembic_version (v TEXT); INSERT INTO alembic_version VALUES ('b2')");
        let run = app.starts(&[]).says("holds nothing that the snapshot lacks");
        assert_eq!(app.rows(), (40, 200), "{}", run.transcript());
        for part in [&id, "0s ago (20", "241 rows", "is saved as app-"] {
            assert!(run.stderr().contains(part), "'{part}' is missing\n{}", run.transcript());
        }
    }
}

#[test]
fn a_new_schema_with_rows_that_the_snapshot_has_too_is_replaced_and_with_others_refused() {
    let app = App::new("");
    app.sql(
        "CREATE TABLE roles (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO roles VALUES (1, 'admin'), (2, 'user')",
    );
    app.sandbox.ok(&["snapshot"]);
    let seed = "CREATE TABLE roles (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO roles VALUES (1, 'admin'), (2, ";
    app.make_anew(&format!("{seed}'user')"));
    app.starts(&[]);
    assert_eq!(app.rows(), (40, 200));
    app.make_anew(&format!("{seed}'guest')"));
    let run = app.refuses(&[], 3).says("roles may have rows that the snapshot lacks");
    assert!(run.stderr().contains("rows of accounts: 0 rows, 40 before"), "{}", run.transcript());
    assert_eq!(app.rows(), (0, 0));
}

#[test]
fn lost_rows_prevent_the_start_and_each_printed_command_settles_it() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    let lose = || app.sql("DELETE FROM balances WHERE id > 100");
    lose();
    let run = app.refuses(&[], 3).says("rows of balances: 100 rows, 200 before: 100 are gone");
    assert!(run.stderr().contains(&id) && run.stderr().contains("at most 10% lost"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1, "a refused start leaves a snapshot");
    let printed = commands(&run.stderr());
    assert!(printed[0].contains("restore") && printed[1].contains("--accept"), "{printed:#?}");
    run_printed(&app.sandbox, &printed[0]);
    assert_eq!(app.rows(), (40, 200));
    app.starts(&[]);
    lose();
    app.starts(&["--on-doubt", "start"]).says("the program is started all the same");
    assert_eq!(app.rows(), (40, 100));
    run_printed(&app.sandbox, &printed[1]);
    app.starts(&[]);
    app.sql("DELETE FROM balances WHERE id > 95");
    app.starts(&[]);
}

#[test]
fn a_table_that_is_gone_or_renamed_prevents_the_start_and_growth_does_not() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("CREATE TABLE more AS SELECT * FROM balances; INSERT INTO balances (amount) SELECT 1 FROM more");
    app.starts(&[]);
    app.sql("ALTER TABLE balances RENAME TO amounts");
    app.refuses(&[], 3).says("rows of balances: the table is gone");
}

#[test]
fn a_table_whose_name_is_written_in_another_case_is_not_gone() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("ALTER TABLE balances RENAME TO interim; ALTER TABLE interim RENAME TO Balances");
    app.starts(&[]);
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM Balances WHERE id > 50");
    app.refuses(&[], 3).says("rows of Balances: 50 rows, 200 before");
}

#[test]
fn a_failed_rule_prevents_the_start_unless_no_snapshot_has_ever_passed_it() {
    let rule = "[[source.rule]]\nquery = \"select count(*) < 300 from balances\"\n";
    let app = App::new(rule);
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO balances (amount) SELECT 1 FROM balances");
    app.refuses(&[], 3).says("query select count(*) < 300 from balances: false");
    app.starts(&["--on-doubt", "start"]);
    // Old data is not missing data, and the table of a rule may be one that the program has yet to create.
    let app = App::new(
        "[[source.rule]]\ntable = \"balances\"\nfresh = { column = \"created_at\", within = \"1s\" }\n\
         [[source.rule]]\ntable = \"invoices\"\nmin_rows = 1\n",
    );
    app.sandbox.run(&["snapshot"]).code(3);
    app.sql("UPDATE balances SET created_at = '2020-01-01 00:00:00'");
    app.starts(&[]);
    // The only snapshots are suspect: the newest one is restored, and what is wrong with it is said.
    let app = App::new("[[source.rule]]\nquery = \"select count(*) > 500 from balances\"\n");
    app.starts(&[]);
    app.remove_database();
    let run = app.starts(&[]).says("was restored, but a rule fails");
    assert_eq!(app.rows(), (40, 200), "{}", run.transcript());
}

#[test]
fn a_newer_snapshot_that_is_suspect_is_named_and_a_person_decides() {
    let app = App::new("");
    let (good, suspect) = app.save_suspect();
    app.remove_database();
    let run = app.refuses(&[], 3);
    for part in [good.as_str(), &suspect, "'suspect'", "90 rows of accounts (40)", "5 rows of balances (200)"] {
        assert!(run.stderr().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    assert!(!app.sandbox.path("app/app.db").exists());
    app.starts(&["--on-doubt", "start"]);
    assert!(!app.sandbox.path("app/app.db").exists());
    app.starts(&["--on-doubt", "restore-older"]).says(&suspect);
    assert_eq!(app.rows(), (40, 200));
    app.remove_database();
    let printed = commands(&run.stderr());
    run_printed(&app.sandbox, &printed[0]);
    assert_eq!(app.rows(), (90, 5));
    run_printed(&app.sandbox, &printed[1]);
    app.remove_database();
    app.starts(&[]);
    assert_eq!(app.rows(), (90, 5));
    // The config decides in the same way.
    app.sql("DELETE FROM accounts WHERE id > 1");
    app.sandbox.run(&["snapshot"]).code(3);
    app.write_config("[guard]\non_doubt = \"restore-older\"\n");
    app.remove_database();
    app.starts(&[]);
    assert_eq!(app.rows(), (90, 5));
}

#[test]
fn a_suspect_snapshot_without_rows_of_its_own_is_passed_over() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM balances");
    app.sandbox.run(&["snapshot"]).code(3);
    let suspect = app.ids()[0].clone();
    app.remove_database();
    app.starts(&[]).says(&format!("passing over {suspect}"));
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn a_database_that_is_as_the_newest_snapshot_starts_and_its_loss_is_reported() {
    let app = App::new("");
    let (good, suspect) = app.save_suspect();
    let run = app.starts(&[]).says("rows of balances: 5 rows, 200 before");
    assert!(run.stderr().contains(&good) && run.stderr().contains(&suspect), "{}", run.transcript());
    // The state before that loss is as the last good snapshot, and less than the newest one.
    app.make_anew("");
    app.remove_database();
    app.create_database();
    app.starts(&[]).says("has fewer rows than app-");
}

#[test]
fn a_newer_snapshot_that_cannot_be_restored_prevents_the_start_of_an_older_state() {
    let app = App::new("[guard]\nsnapshot_at_end = false\n");
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO accounts SELECT id + 1000, 'new' FROM balances WHERE id <= 50");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    let folder = app.sandbox.path("backups/app");
    for (kind, reason) in [
        ("newer", "made by a newer lifeboat"),
        ("damaged", "damaged"),
        ("without a manifest", "its manifest is missing"),
        ("encrypted", "no key here opens it"),
    ] {
        match kind {
            "encrypted" => app.sandbox.run(&["snapshot", "--encrypt-to", &public]),
            _ => app.sandbox.ok(&["snapshot"]),
        };
        let id = app.ids()[0].clone();
        let (manifest, archive) = (folder.join(format!("{id}.json")), folder.join(format!("{id}.tar.gz")));
        match kind {
            "newer" => {
                let text = fs::read_to_string(&manifest).unwrap().replace("\"format\": 1", "\"format\": 99");
                fs::write(&manifest, text).unwrap();
            }
            "damaged" => fs::write(&archive, &fs::read(&archive).unwrap()[..1000]).unwrap(),
            "without a manifest" => fs::remove_file(&manifest).unwrap(),
            _ => {}
        }
        app.remove_database();
        let run = app.refuses(&[], 3).says(&id);
        assert!(run.stderr().contains(reason), "{kind}: {}", run.transcript());
        app.starts(&["--on-doubt", "restore-older"]).says(reason);
        assert_eq!(app.rows(), (40, 200), "{kind}");
        app.remove_database();
        if kind == "without a manifest" {
            assert!(run.stderr().contains("it has more rows than"), "{}", run.transcript());
            run_printed(&app.sandbox, &commands(&run.stderr())[0]);
            app.starts(&[]);
            assert_eq!(app.rows(), (90, 200));
        }
        if kind == "encrypted" {
            app.starts(&["--identity", "key.txt"]);
            assert_eq!(app.rows(), (90, 200));
        }
        for name in fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()) {
            if name.to_string_lossy().contains(&id) {
                fs::remove_file(name).unwrap();
            }
        }
        app.remove_database();
        app.create_database();
        app.sql("INSERT INTO accounts SELECT id + 1000, 'new' FROM balances WHERE id <= 50");
    }
}

#[test]
fn an_older_state_of_one_store_does_not_start_while_another_store_is_away() {
    let app = App::new("[[store]]\nurl = \"./second\"\n");
    app.sandbox.ok(&["snapshot", "--store", "second"]);
    fs::rename(app.sandbox.path("backups"), app.sandbox.path("away")).unwrap();
    app.remove_database();
    let run = app.refuses(&[], 5).says("is perhaps not its newest state");
    assert!(run.stderr().contains("backups"), "{}", run.transcript());
    app.starts(&["--on-doubt", "restore-older"]);
    assert_eq!(app.rows(), (40, 200));
    fs::rename(app.sandbox.path("away"), app.sandbox.path("backups")).unwrap();
    app.remove_database();
    app.starts(&[]);
}

#[test]
fn nothing_is_changed_for_one_source_before_another_is_refused() {
    let app = App::new("[[source]]\nname = \"other\"\nurl = \"./app/other.db\"\n");
    let other = app.sandbox.path("app/other.db");
    open(&other).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1), (2), (3), (4)").unwrap();
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    open(&other).execute_batch("DELETE FROM a WHERE b > 1").unwrap();
    app.refuses(&[], 3).says("rows of a: 1 rows, 4 before");
    assert!(!app.sandbox.path("app/app.db").exists(), "a source was restored before the other was refused");
    fs::write(&other, "SQLite format 3\0 and then damage").unwrap();
    app.refuses(&[], 3);
    assert!(!app.sandbox.path("app/app.db").exists());
    fs::remove_file(&other).unwrap();
    app.starts(&[]);
    assert_eq!(app.rows(), (40, 200));
}

/// Writes the config of an environment that shares the store in `shared`.
fn environment(app: &App, host: &str) -> String {
    let config = app.sandbox.path(format!("{host}.toml")).display().to_string();
    let text = format!(
        "host = \"{host}\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./{host}/app.db\"\n"
    );
    fs::create_dir_all(app.sandbox.path(host)).unwrap();
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn an_environment_that_shares_a_store_does_not_start_with_the_data_of_another() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    let config = environment(&app, "staging");
    let run = app.refuses(&["--config", &config], 2).says("is of another database, test:");
    assert!(run.stderr().contains("--moved") && run.stderr().contains("another name"), "{}", run.transcript());
    assert!(!run.stderr().contains("host = "), "the paths differ, too\n{}", run.transcript());
    let target = app.sandbox.path("staging/app.db");
    app.sandbox.run(&["restore", "latest", "--config", &config]).code(2).says("is of another database");
    app.sandbox.run(&["postdeploy", "--rollback", "--config", &config]).code(2).says("is of another database");
    assert!(!target.exists());
    // The database of staging is there: it would not be saved, and the start is the time to say so.
    open(&target).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)").unwrap();
    app.refuses(&["--config", &config], 2);
    fs::remove_file(&target).unwrap();
    // A user who names the target decides. After --moved, it is the same database.
    app.sandbox.ok(&["restore", "latest", "--to", "app", "--config", &config]);
    app.sandbox.ok(&["snapshot", "--moved", "--config", &config]);
    fs::remove_file(&target).unwrap();
    app.starts(&["--config", &config]);
    assert_eq!(crate::support::count(&target, "balances"), 200);
    // An earlier snapshot from before the move can be restored in place.
    fs::remove_file(&target).unwrap();
    app.sandbox.ok(&["restore", app.ids().last().unwrap(), "--config", &config]);
}

#[test]
fn a_host_name_of_a_container_is_refused() {
    let app = App::new("");
    let config = fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap().replace("host = \"test\"\n", "");
    fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
    for host in ["app-5d8f9c7b6d-x2x7k", "148ed127a33d89", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "localhost"] {
        let run = app.guard(&["--host", host]).code(2).says(host);
        assert!(run.stderr().contains("host = \"...\""), "{}", run.transcript());
        assert!(!app.sandbox.path("started").exists());
        let doctor = app.sandbox.run(&["doctor", "--host", host]).code(3);
        assert!(doctor.stdout().contains(host), "{}", doctor.transcript());
    }
    app.starts(&["--host", "web-1"]);
}

#[test]
fn another_name_of_the_same_machine_is_named_in_the_hint() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    let run = app.refuses(&["--host", "web-9"], 2).says("is of another database");
    assert!(run.stderr().contains("set host = \"test\""), "{}", run.transcript());
}

#[test]
fn a_store_that_does_not_exist_yet_is_named_with_the_command_that_creates_it() {
    let app = App::new("");
    app.remove_database();
    fs::remove_dir_all(app.sandbox.path("backups")).unwrap();
    app.refuses(&[], 5).says("'lifeboat init' creates it");
    fs::create_dir(app.sandbox.path("backups")).unwrap();
    app.refuses(&[], 5).says("'lifeboat init' creates it");
    create_store(&app.sandbox);
    app.starts(&[]).says("this is its first start");
}

#[test]
fn a_store_that_hangs_delays_a_sound_database_for_the_configured_time_only() {
    let (store, hook) = (Web::hanging(), Web::answering(&[answer("200 OK", "text/plain", "ok")]));
    let app = App::new("");
    let config = |more: &str| {
        format!(
            "host = \"test\"\n[[store]]\nurl = \"s3://bucket/p?endpoint={}\"\naccess_key_id = \"a\"\n\
             secret_access_key = \"b\"\n[[source]]\nname = \"app\"\nurl = \"./app/app.db\"\n\
             [notify]\nwebhook = \"{}\"\n[guard]\nsnapshot_at_end = false\n{more}",
            store.url(""),
            hook.url("/hook")
        )
    };
    fs::write(app.sandbox.path("lifeboat.toml"), config("store_wait = \"1s\"\n")).unwrap();
    let begun = Instant::now();
    let script = "touch started; while :; do sleep 0.05; done";
    let mut running = app.sandbox.start(&["guard", "--", "sh", "-c", script]);
    while !app.sandbox.path("started").exists() {
        assert!(!running.has_ended() && begun.elapsed() < Duration::from_secs(10), "the program did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The notice comes at once, not when the program ends.
    hook.wait_for_request();
    assert!(hook.requests()[0].body.contains("has not answered within"), "{}", hook.requests()[0].body);
    running.signal(Signal::TERM);
    running.finish().says("is not compared with the snapshots of every store");
    // A missing database is not started empty, however long the store takes.
    app.remove_database();
    let mut running = app.sandbox.start(&GUARD);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1300) {
        assert!(!running.has_ended(), "the guard does not wait");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::TERM);
    let run = running.finish().code(130);
    assert!(!run.stderr().contains("has not answered within"), "{}", run.transcript());
}

#[test]
fn a_database_that_cannot_be_read_prevents_the_start_and_stays_as_it_is() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    let file = app.sandbox.path("app/app.db");
    fs::write(&file, "this is the text of a person").unwrap();
    app.refuses(&[], 3).says("moves the damaged file aside");
    assert_eq!(fs::read_to_string(&file).unwrap(), "this is the text of a person");
    let mut damaged = b"SQLite format 3\0".to_vec();
    damaged.resize(4096, 0xff);
    fs::write(&file, &damaged).unwrap();
    let run = app.refuses(&[], 3).says("lifeboat restore latest");
    assert_eq!(fs::read(&file).unwrap(), damaged, "{}", run.transcript());
}

#[test]
fn the_first_start_needs_no_snapshot() {
    let app = App::new("");
    app.remove_database();
    create_store(&app.sandbox);
    app.starts(&[]).says("this is its first start");
    app.make_anew("CREATE TABLE alembic_version (v TEXT); INSERT INTO alembic_version VALUES ('a1')");
    app.starts(&[]).says("min_rows of accounts");
}

#[test]
fn a_machine_without_the_secret_key_compares_the_totals_and_says_which_key_is_missing() {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    app.sandbox.ok(&["snapshot"]);
    let run = app.starts(&[]);
    assert!(!run.stderr().contains("not compared"), "{}", run.transcript());
    app.make_anew("CREATE TABLE alembic_version (v TEXT); INSERT INTO alembic_version VALUES ('a1')");
    app.refuses(&[], 3).says("1 rows, 240 before");
    app.remove_database();
    app.refuses(&[], 3).says("no key here opens it");
    app.starts(&["--identity", "key.txt"]);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn a_new_schema_does_not_start_while_the_store_that_could_have_its_rows_is_away() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    fs::rename(app.sandbox.path("backups"), app.sandbox.path("away")).unwrap();
    app.make_anew("CREATE TABLE alembic_version (v TEXT); INSERT INTO alembic_version VALUES ('a1')");
    app.refuses(&[], 5).says("no snapshot of it can be restored");
    app.sql("INSERT INTO balances (amount) VALUES (1)");
    app.refuses(&[], 5).says("fails a rule");
    app.sql("INSERT INTO accounts (name) VALUES ('a')");
    app.starts(&[]).says("is not compared with the snapshots of every store");
}

#[test]
fn a_snapshot_from_the_future_is_dated_so() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let time = chrono::Utc::now() + chrono::Duration::minutes(185);
    crate::helpers::copy_with_time(&app.sandbox.path("backups"), &app.ids()[0], time);
    app.remove_database();
    let run = app.refuses(&[], 3).says(", dated 3h in the future (");
    assert!(!run.stderr().contains("future ago"), "{}", run.transcript());
}
