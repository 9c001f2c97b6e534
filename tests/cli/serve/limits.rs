//! Many clients, slow clients and large requests, which must not delay or stop the server for others.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::helpers::{ServeProcess, TOKEN, app, make_database_large, read_answer, wait_for};

#[test]
fn every_endpoint_answers_200_concurrent_requests_while_a_snapshot_runs() {
    let sandbox = app();
    make_database_large(&sandbox);
    let serve = Arc::new(ServeProcess::start(&sandbox));
    serve.wait_for_health(200, |_| true);
    let snapshot = std::thread::spawn({
        let serve = Arc::clone(&serve);
        move || serve.post("")
    });
    wait_for("the snapshot to begin", || serve.get("/metrics").body.contains("lifeboat_snapshot_running 1\n"));
    // A second request during the snapshot is refused and takes no snapshot.
    let second = serve.post("");
    assert_eq!(second.status, 409, "{second:?}");
    assert!(second.head.contains("retry-after: 5") && second.body.contains("already being taken"));
    let id = serve.get("/snapshots").json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let paths = [
        "/health".to_owned(),
        "/health/data".to_owned(),
        "/metrics".to_owned(),
        "/".to_owned(),
        "/snapshots".to_owned(),
        format!("/snapshots/{id}"),
    ];
    for path in &paths {
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    let answer = serve.get(path);
                    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
                    answered.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(answered.into_inner(), 200, "{path}");
    }
    let answer = snapshot.join().unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let id = answer.json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    sandbox.ok(&["verify", &id]);
}

#[test]
fn slow_clients_are_disconnected_and_delay_no_others() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let start = Instant::now();
    let mut slow: Vec<_> = (0..300).map(|_| serve.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
    }
    // Two idle connections: one sends no request, and one sends no second request.
    let mut idle = serve.connect();
    let mut kept_alive = serve.connect();
    kept_alive.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(serve.get("/health").status, 200);
    // A request whose body never comes.
    let mut without_body = serve.connect();
    let head = format!(
        "POST /snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
    );
    without_body.write_all(head.as_bytes()).unwrap();
    for stream in &mut slow {
        let _ = stream.write_all(b"x");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    for stream in [&mut idle, &mut kept_alive] {
        let _ = read_answer(stream);
    }
    assert_eq!(read_answer(&mut without_body).map(|answer| answer.status), Some(408), "it is late, not large");
    assert!(start.elapsed() < Duration::from_secs(60), "the connections stayed open for {:?}", start.elapsed());
    assert_eq!(serve.get("/health").status, 200);
    assert_eq!(sandbox.json(&["list", "--store", "backups"])["snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn too_large_and_invalid_requests_are_refused() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    let large = " ".repeat(200 << 10);
    assert_eq!(serve.post(&large).status, 413);
    // The declared length is enough; the body need not come.
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    let head = format!("POST /snapshots HTTP/1.1\r\nHost: x\r\n{authorization}");
    let large = serve.send(format!("{head}Content-Length: 99999999\r\n\r\n").as_bytes());
    assert_eq!(large.map(|answer| answer.status), Some(413));
    let invalid = serve.send(format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n").as_bytes());
    assert_eq!(invalid.map(|answer| answer.status), Some(400));
    let head = format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(serve.send(head.as_bytes()).map(|answer| answer.status), Some(431));
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(12 << 10));
    assert_eq!(serve.send(path.as_bytes()).map(|answer| answer.status), Some(404));
    for garbage in
        [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let answer = serve.send(garbage);
        assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{answer:?}");
    }
    for body in [
        "{",
        "[]",
        "{\"path\": \"/etc/passwd\"}",
        "{\"sources\": [\"/etc/passwd\"]}",
        "{\"sources\": [\"./app.db\"]}",
        "{\"sources\": [\"postgres://x/y\"]}",
        "{\"gate\": \"other\"}",
        "{\"tags\": [\"suspect\"]}",
        "{\"wait_seconds\": -1}",
        "{\"wait_seconds\": 4294967295}",
        "{\"gate\": \"predeploy\", \"commit\": \"suspect\"}",
    ] {
        let answer = serve.post(body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert_eq!(answer.json()["error"]["kind"], "usage", "{}", answer.body);
    }
    assert_eq!(serve.get("/snapshots?limit=many").status, 400);
    assert_eq!(serve.get("/snapshots?limit=0").json()["snapshots"].as_array().unwrap().len(), 0);
    assert_eq!(serve.get("/snapshots?source=other").json()["snapshots"].as_array().unwrap().len(), 0);
    assert_eq!(serve.get("/snapshots/app-20200101T000000Z-0000").status, 404);
    assert_eq!(serve.get("/health").status, 200);
}

/// Tests a store of ten thousand snapshots. The page must be served before their manifests are read, and must be
/// complete afterwards.
#[test]
fn the_page_of_ten_thousand_snapshots_is_served_before_all_are_read() {
    let sandbox = app();
    let folder = sandbox.path("backups").join("app");
    let manifest = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let manifest = manifest.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "json")).unwrap();
    let text = std::fs::read_to_string(&manifest).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (id, archive) = (document["id"].as_str().unwrap(), document["archive"].as_str().unwrap());
    let created = document["created_at"].as_str().unwrap();
    let newest: chrono::DateTime<chrono::Utc> = created.parse().unwrap();
    for number in 1..10_000_i64 {
        let time = newest - chrono::Duration::minutes(10 * number);
        let other = format!("app-{}-{:04}", time.format("%Y%m%dT%H%M%SZ"), number % 10_000);
        let changed =
            text.replace(id, &other).replace(created, &time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true));
        std::fs::hard_link(folder.join(archive), folder.join(archive.replace(id, &other))).unwrap();
        std::fs::write(folder.join(format!("{other}.json")), changed).unwrap();
    }
    let serve = ServeProcess::start(&sandbox);
    let start = Instant::now();
    let first = serve.get("/");
    println!("the first page was served after {:?}", start.elapsed());
    assert_eq!(first.status, 200);
    wait_for("all manifests to be read", || {
        let page = serve.get("/").body;
        page.contains("The newest 30 of 10000 snapshots") && !page.contains("are still being read")
    });
    println!("all manifests were read after {:?}", start.elapsed());
    let start = Instant::now();
    let page = serve.get("/").body;
    println!("the complete page was served after {:?}", start.elapsed());
    assert!(page.contains("300 of ") && page.matches("<rect class=\"day good\"").count() >= 69, "{page}");
    assert_eq!(serve.get("/snapshots?limit=10000").json()["snapshots"].as_array().unwrap().len(), 1000);
    assert!(serve.get("/metrics").body.contains("lifeboat_snapshots{source=\"app\"} 10000\n"));
}
