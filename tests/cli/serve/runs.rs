//! Snapshots that are requested over HTTP, with `POST /snapshots` and with `predeploy --remote`.

use super::helpers::{ServeProcess, TOKEN, app, make_database_large, sql, wait_for};
use crate::support::{Run, Sandbox};

/// Runs `predeploy --remote` with this token.
fn predeploy_remote(sandbox: &Sandbox, serve: &ServeProcess, token: &str, more: &[&str]) -> Run {
    let url = format!("http://{}", serve.address);
    let mut arguments = vec!["predeploy", "--remote", &url, "--json", "--config", "/dev/null"];
    arguments.extend(more);
    let mut command = sandbox.command(&arguments);
    command.env("LIFEBOAT_TOKEN", token);
    sandbox.finish(command)
}

#[test]
fn predeploy_remote_saves_a_database_that_only_the_server_can_read() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    // The pipeline runs in another folder, like on another machine.
    let pipeline = Sandbox::new();
    let run = predeploy_remote(&pipeline, &serve, TOKEN, &["--commit", "abc1234"]).code(0);
    let document = run.json();
    assert_eq!(document["ok"], true, "{document:#}");
    let snapshot = &document["snapshots"][0];
    assert_eq!(snapshot["proof"], "verified");
    assert!(snapshot["tags"].as_array().unwrap().contains(&"abc1234".into()), "{document:#}");
    assert!(document["rollback"][0].as_str().unwrap().contains("restore"));
    let list = sandbox.json(&["list", "--tag", "predeploy"]);
    assert_eq!(list["snapshots"][0]["id"], snapshot["id"]);

    // After a loss, the gate is closed and no snapshot is taken.
    sql(&sandbox, "app.db", "DELETE FROM accounts");
    let run = predeploy_remote(&pipeline, &serve, TOKEN, &[]).code(3);
    assert_eq!(run.json()["ok"], false);
    assert!(run.stdout().contains("min_rows of accounts"), "{}", run.transcript());
    let mut command = pipeline.command(&["predeploy", "--remote", &format!("http://{}", serve.address)]);
    let run = pipeline.finish({
        command.env("LIFEBOAT_TOKEN", TOKEN);
        command
    });
    assert!(run.code(3).stdout().contains("the gate is CLOSED"));
    assert_eq!(sandbox.json(&["list"])["snapshots"].as_array().unwrap().len(), 2);
    wait_for("the page to show the run", || serve.get("/").body.contains("predeploy ended with exit code 3"));
}

#[test]
fn predeploy_remote_passes_before_the_first_deploy() {
    let sandbox = app();
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(sandbox.path(name));
    }
    std::fs::remove_dir_all(sandbox.path("backups/app")).unwrap();
    let serve = ServeProcess::start(&sandbox);
    let pipeline = Sandbox::new();
    let run = predeploy_remote(&pipeline, &serve, TOKEN, &[]).code(0);
    assert_eq!(run.json()["first_deploy"], serde_json::json!(["app"]), "{}", run.transcript());
    // The database is no problem. That there are no backups is one.
    wait_for("an inspection", || serve.get("/health/data").body.contains("there is no full snapshot"));
    let health = serve.get("/health/data").body;
    assert!(!health.contains("cannot find the database"), "{health}");
}

#[test]
fn predeploy_remote_fails_without_a_valid_answer() {
    let sandbox = app();
    let mut serve = ServeProcess::start(&sandbox);
    let pipeline = Sandbox::new();
    let run = predeploy_remote(&pipeline, &serve, "wrong-token-of-some-length", &[]).code(2);
    assert!(run.stderr().contains("missing or wrong") && !run.stderr().contains("wrong-token"), "{}", run.transcript());
    let run = predeploy_remote(&pipeline, &serve, "", &[]).code(2);
    assert!(run.stderr().contains("LIFEBOAT_TOKEN"), "{}", run.transcript());
    let run = predeploy_remote(&pipeline, &serve, TOKEN, &["other"]).code(2);
    assert!(run.stderr().contains("no source 'other'") && run.stderr().contains("app"), "{}", run.transcript());
    serve.signal(rustix::process::Signal::TERM);
    assert_eq!(serve.wait(), Some(0));
    let run = predeploy_remote(&pipeline, &serve, TOKEN, &[]).code(5);
    assert_eq!(run.json()["error"]["kind"], "unreachable", "{}", run.transcript());
    // Answers of another program, and of a server that reports success without a snapshot.
    for (head, body, words) in [
        ("", "ok", "the answer is not from lifeboat"),
        ("Lifeboat-Exit-Code: 0\r\n", "{\"ok\":true,\"checks\":[],\"snapshots\":[]}", "0, but no snapshot"),
    ] {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", other.local_addr().unwrap());
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n{head}\r\n{body}");
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = other.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        });
        let mut command = pipeline.command(&["predeploy", "--remote", &url]);
        command.env("LIFEBOAT_TOKEN", TOKEN);
        let run = pipeline.finish(command).code(1);
        assert!(run.stderr().contains(words), "{}", run.transcript());
    }
}

#[test]
fn a_stop_during_a_snapshot_leaves_no_partial_snapshot() {
    let sandbox = app();
    make_database_large(&sandbox);
    let mut serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(200, |_| true);
    let answer = std::thread::scope(|scope| {
        let request = scope.spawn(|| serve.post(""));
        wait_for("the snapshot to begin", || serve.get("/metrics").body.contains("lifeboat_snapshot_running 1\n"));
        serve.signal(rustix::process::Signal::TERM);
        request.join().unwrap()
    });
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["error"]["kind"], "interrupted");
    assert_eq!(serve.wait(), Some(0), "{}", serve.log());
    assert_eq!(sandbox.json(&["list"])["snapshots"].as_array().unwrap().len(), 1);
}
