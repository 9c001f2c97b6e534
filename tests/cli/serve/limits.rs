//! What a crowd, a slow client and a large request do: nothing to others.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::helpers::{Served, TOKEN, app, grow, read_answer, wait_for};

#[test]
fn every_endpoint_answers_two_hundred_at_once_while_a_snapshot_runs() {
    let sandbox = app();
    grow(&sandbox);
    let served = Arc::new(Served::start(&sandbox));
    served.wait_for_health(200, |_| true);
    let snapshot = std::thread::spawn({
        let served = Arc::clone(&served);
        move || served.post("")
    });
    wait_for("the snapshot to begin", || served.get("/metrics").body.contains("lifeboat_snapshot_running 1\n"));
    // A second one at once is told so, and takes none.
    let second = served.post("");
    assert_eq!(second.status, 409, "{second:?}");
    assert!(second.head.contains("retry-after: 5") && second.body.contains("being taken already"));
    let id = served.get("/snapshots").json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let paths = [
        "/health".to_owned(),
        "/health/data".to_owned(),
        "/metrics".to_owned(),
        "/".to_owned(),
        "/snapshots".to_owned(),
        format!("/snapshots/{id}"),
    ];
    for path in &paths {
        let good = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    let answer = served.get(path);
                    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
                    good.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(good.into_inner(), 200, "{path}");
    }
    let taken = snapshot.join().unwrap();
    assert_eq!(taken.status, 201, "{}", taken.body);
    let id = taken.json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    sandbox.ok(&["verify", &id]);
}

#[test]
fn who_sends_slowly_is_sent_away_and_keeps_nobody_waiting() {
    let sandbox = app();
    let served = Served::start(&sandbox);
    let begun = Instant::now();
    let mut slow: Vec<_> = (0..300).map(|_| served.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
    }
    // Two that are quiet: one from the start, one behind its first answer.
    let mut quiet = served.connect();
    let mut kept = served.connect();
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(served.get("/health").status, 200);
    // A body that never comes.
    let mut body = served.connect();
    let head = format!(
        "POST /snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
    );
    body.write_all(head.as_bytes()).unwrap();
    for stream in &mut slow {
        let _ = stream.write_all(b"x");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    for stream in [&mut quiet, &mut kept] {
        let _ = read_answer(stream);
    }
    assert_eq!(read_answer(&mut body).map(|answer| answer.status), Some(413));
    assert!(begun.elapsed() < Duration::from_secs(60), "they were kept for {:?}", begun.elapsed());
    assert_eq!(served.get("/health").status, 200);
    assert_eq!(sandbox.json(&["list", "--store", "backups"])["snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn requests_that_are_too_large_or_none_at_all_are_refused() {
    let sandbox = app();
    let served = Served::start(&sandbox);
    let large = " ".repeat(200 << 10);
    assert_eq!(served.post(&large).status, 413);
    let head = format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(served.send(head.as_bytes()).map(|answer| answer.status), Some(431));
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(12 << 10));
    assert_eq!(served.send(path.as_bytes()).map(|answer| answer.status), Some(404));
    for garbage in
        [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let answer = served.send(garbage);
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
        let answer = served.post(body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert_eq!(answer.json()["error"]["kind"], "usage", "{}", answer.body);
    }
    assert_eq!(served.get("/snapshots?limit=many").status, 400);
    assert_eq!(served.get("/snapshots?limit=0").json()["snapshots"].as_array().unwrap().len(), 0);
    assert_eq!(served.get("/snapshots?source=other").json()["snapshots"].as_array().unwrap().len(), 0);
    assert_eq!(served.get("/snapshots/app-20200101T000000Z-0000").status, 404);
    assert_eq!(served.get("/health").status, 200);
}

/// Ten thousand snapshots: the page comes at once, and grows as they are read.
#[test]
fn the_page_of_ten_thousand_snapshots_comes_at_once() {
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
        let at = newest - chrono::Duration::minutes(10 * number);
        let other = format!("app-{}-{:04}", at.format("%Y%m%dT%H%M%SZ"), number % 10_000);
        let changed =
            text.replace(id, &other).replace(created, &at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true));
        std::fs::hard_link(folder.join(archive), folder.join(archive.replace(id, &other))).unwrap();
        std::fs::write(folder.join(format!("{other}.json")), changed).unwrap();
    }
    let served = Served::start(&sandbox);
    let begun = Instant::now();
    let first = served.get("/");
    println!("the first page came within {:?}", begun.elapsed());
    assert_eq!(first.status, 200);
    wait_for("all to be read", || {
        let page = served.get("/").body;
        page.contains("The newest 30 of 10000 snapshots") && !page.contains("are still being read")
    });
    println!("all was read after {:?}", begun.elapsed());
    let begun = Instant::now();
    let page = served.get("/").body;
    println!("the page of all came within {:?}", begun.elapsed());
    assert!(page.contains("300 of ") && page.matches("<rect class=\"day good\"").count() >= 69, "{page}");
    assert_eq!(served.get("/snapshots?limit=10000").json()["snapshots"].as_array().unwrap().len(), 1000);
    assert!(served.get("/metrics").body.contains("lifeboat_snapshots{source=\"app\"} 10000\n"));
}
