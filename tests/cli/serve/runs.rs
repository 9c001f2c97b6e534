//! Snapshots that are asked for over HTTP, by hand and by `predeploy --remote`.

use super::helpers::{Served, TOKEN, app, grow, sql, wait_for};
use crate::support::{Run, Sandbox};

fn remote(sandbox: &Sandbox, served: &Served, token: &str, more: &[&str]) -> Run {
    let url = format!("http://{}", served.address);
    let mut arguments = vec!["predeploy", "--remote", &url, "--json", "--config", "/dev/null"];
    arguments.extend(more);
    let mut command = sandbox.command(&arguments);
    command.env("LIFEBOAT_TOKEN", token);
    sandbox.finish(command)
}

#[test]
fn a_pipeline_reaches_a_file_inside_a_container() {
    let sandbox = app();
    let served = Served::start(&sandbox);
    // From another folder, as from another machine.
    let pipeline = Sandbox::new();
    let run = remote(&pipeline, &served, TOKEN, &["--commit", "abc1234"]).code(0);
    let document = run.json();
    assert_eq!(document["ok"], true, "{document:#}");
    let snapshot = &document["snapshots"][0];
    assert_eq!(snapshot["proof"], "verified");
    assert!(snapshot["tags"].as_array().unwrap().contains(&"abc1234".into()), "{document:#}");
    assert!(document["rollback"][0].as_str().unwrap().contains("restore"));
    let listed = sandbox.json(&["list", "--tag", "predeploy"]);
    assert_eq!(listed["snapshots"][0]["id"], snapshot["id"]);

    // The gate closes here, too, and nothing is taken.
    sql(&sandbox, "app.db", "DELETE FROM accounts");
    let run = remote(&pipeline, &served, TOKEN, &[]).code(3);
    assert_eq!(run.json()["ok"], false);
    assert!(run.stdout().contains("min_rows of accounts"), "{}", run.transcript());
    let mut command = pipeline.command(&["predeploy", "--remote", &format!("http://{}", served.address)]);
    let run = pipeline.finish({
        command.env("LIFEBOAT_TOKEN", TOKEN);
        command
    });
    assert!(run.code(3).stdout().contains("the gate is CLOSED"));
    assert_eq!(sandbox.json(&["list"])["snapshots"].as_array().unwrap().len(), 2);
    wait_for("the page to tell of it", || served.get("/").body.contains("predeploy ended with 3"));
}

#[test]
fn a_gate_that_cannot_be_reached_or_passed_is_closed() {
    let sandbox = app();
    let mut served = Served::start(&sandbox);
    let pipeline = Sandbox::new();
    let run = remote(&pipeline, &served, "wrong-token-of-some-length", &[]).code(2);
    assert!(
        run.stderr().contains("not the right one") && !run.stderr().contains("wrong-token"),
        "{}",
        run.transcript()
    );
    let run = remote(&pipeline, &served, "", &[]).code(2);
    assert!(run.stderr().contains("LIFEBOAT_TOKEN"), "{}", run.transcript());
    let run = remote(&pipeline, &served, TOKEN, &["other"]).code(2);
    assert!(run.stderr().contains("no source 'other'") && run.stderr().contains("app"), "{}", run.transcript());
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.wait(), Some(0));
    let run = remote(&pipeline, &served, TOKEN, &[]).code(5);
    assert_eq!(run.json()["error"]["kind"], "unreachable", "{}", run.transcript());
    // Something else listens there; or it says that all went well, and has taken nothing.
    for (head, body, words) in [
        ("", "ok", "no answer of lifeboat's"),
        ("Lifeboat-Exit-Code: 0\r\n", "{\"ok\":true,\"checks\":[],\"snapshots\":[]}", "names no snapshot"),
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
fn a_stop_in_the_middle_of_a_snapshot_leaves_nothing_half() {
    let sandbox = app();
    grow(&sandbox);
    let mut served = Served::start(&sandbox);
    served.wait_for_health(200, |_| true);
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| served.post(""));
        wait_for("the snapshot to begin", || served.get("/metrics").body.contains("lifeboat_snapshot_running 1\n"));
        served.signal(rustix::process::Signal::TERM);
        asked.join().unwrap()
    });
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["error"]["kind"], "interrupted");
    assert_eq!(served.wait(), Some(0), "{}", served.log());
    assert_eq!(sandbox.json(&["list"])["snapshots"].as_array().unwrap().len(), 1);
}
