//! The memory that commands use: bounded, and independent of the size of the database.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::bank::{create_bank, require_invariant};
use crate::common::{program, transcript};
use crate::support::craft::{self, Codec, Layout};
use crate::support::vault::manifest_for;
use crate::support::{Sandbox, open};

/// Runs the program, which must succeed, and returns its peak memory in KiB.
fn peak_kib(sandbox: &Sandbox, arguments: &[&str]) -> u64 {
    let (output, peak) = run_measured(sandbox, arguments);
    assert!(output.status.success(), "{}", transcript(&arguments.join(" "), sandbox.root(), &output));
    peak
}

/// Runs the program and returns its output and its peak memory in KiB.
fn run_measured(sandbox: &Sandbox, arguments: &[&str]) -> (Output, u64) {
    let (output, peak) = run_command_measured(program(sandbox.root(), arguments));
    eprintln!("{peak} KiB: {}", arguments.join(" "));
    (output, peak)
}

fn run_command_measured(mut command: Command) -> (Output, u64) {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // VmHWM never decreases, so the last value before the end is the peak.
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(peak > 1000, "the memory was not measured: {peak}");
    (output, peak)
}

#[test]
fn memory_stays_below_100_mib_for_a_large_database() {
    const MAX_KIB: u64 = 100 << 10;
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "delete", 4096, "a", 150_000);
    let set_journal_mode = |journal: &str| {
        let mode: String = open(sandbox.path("app.db"))
            .query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(mode, journal);
    };
    let mut peaks = Vec::new();
    let mut measure = |name: &str, arguments: &[&str]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups", "-j", "2"]);
        peaks.push((peak_kib(&sandbox, &arguments), name.to_owned()));
    };
    measure("snapshot, delete, gzip", &["snapshot", "app.db", "--compression", "gzip:1"]);
    set_journal_mode("wal");
    measure("snapshot, wal, zstd", &["snapshot", "app.db", "--compression", "zstd"]);
    measure("verify", &["verify", "latest"]);
    measure("restore, new", &["restore", "latest", "--to", "copy.db"]);
    fs::remove_file(sandbox.path("copy.db")).unwrap();
    open(sandbox.path("app.db")).execute_batch("DELETE FROM ballast WHERE id % 2; ").unwrap();
    measure("restore --replace, wal", &["restore", "latest", "--to", "app.db", "--replace", "--no-safety"]);
    measure(
        "restore --table",
        &["restore", "latest", "--to", "app.db", "--replace", "--no-safety", "--table", "ballast"],
    );
    set_journal_mode("delete");
    measure("restore --replace, delete", &["restore", "latest", "--to", "app.db", "--replace", "--no-safety"]);
    assert_eq!(require_invariant(&sandbox.path("app.db"), "restored").0, "a");
    let too_much: Vec<_> = peaks.iter().filter(|(kib, _)| *kib > MAX_KIB).collect();
    assert!(too_much.is_empty(), "over {MAX_KIB} KiB: {too_much:?}\nof {peaks:?}");
    assert!(peaks.iter().all(|(kib, _)| *kib > 1000), "the memory was not measured: {peaks:?}");
}

#[test]
fn a_large_value_is_in_memory_only_once() {
    const VALUE_KIB: u64 = 200 << 10;
    let sandbox = Sandbox::new();
    let sql = format!(
        "CREATE TABLE files (id INTEGER PRIMARY KEY, content); INSERT INTO files (content) VALUES (zeroblob({}))",
        VALUE_KIB << 10
    );
    open(sandbox.path("app.db")).execute_batch(&sql).unwrap();
    let commands = [
        &["snapshot", "app.db", "--store", "backups"][..],
        &["drill", "latest", "--store", "backups"],
        &["restore", "latest", "--to", "copy.db", "--store", "backups"],
    ];
    for command in commands {
        let peak = peak_kib(&sandbox, command);
        assert!(
            peak < VALUE_KIB + (100 << 10),
            "{} KiB beside the value: {}",
            peak.saturating_sub(VALUE_KIB),
            command.join(" ")
        );
    }
}

/// The most memory that a command needs if somebody else tries to fill it, in KiB.
const HOSTILE_KIB: u64 = 300 << 10;

/// Whoever answers at the address of a server can send notices before anybody has logged in.
#[test]
fn notices_before_the_login_fill_no_memory() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut start = [0; 1024];
            assert!(stream.read(&mut start).unwrap() > 0);
            // The login is complete, but the server never says that it waits for commands.
            let mut message = b"R\0\0\0\x08\0\0\0\0".to_vec();
            let body = [b"SNOTICE\0VNOTICE\0C00000\0M".as_slice(), &[b'A'; 20_000], b"\0\0"].concat();
            while stream.write_all(&message).is_ok() {
                message = [b"N", &(body.len() as u32 + 4).to_be_bytes()[..], &body].concat();
            }
        }
    });
    let url = format!("postgres://user@127.0.0.1:{port}/shop?sslmode=disable&connect_timeout=20");
    let (output, peak) = run_measured(&sandbox, &["snapshot", &url, "--store", "backups"]);
    assert_eq!(output.status.code(), Some(5));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("messages before the end of the login of more than 1048576 bytes"), "{message}");
    assert!(peak < HOSTILE_KIB, "{peak} KiB");
}

/// A store may hold manifests of the greatest size that is read, with as many tables as fit.
#[test]
fn large_manifests_fill_no_memory() {
    let sandbox = Sandbox::new();
    open(sandbox.path("app.db")).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
    let folder = sandbox.path("backups/app");
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    let manifest = files.iter().find(|path| path.extension().is_some_and(|ending| ending == "json")).unwrap();
    let manifest = fs::read_to_string(manifest).unwrap();
    let archive = files.iter().find(|path| path.extension().is_some_and(|ending| ending == "gz")).unwrap();
    let old = archive.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    let (head, rest) = manifest.split_once("\"tables\": [").unwrap();
    let row = r#"{"name":"","rows":null,"bytes":null,"digest":null,"type":"","columns":[]},"#;
    // One has many tables, and the other ones fewer with longer names.
    for (number, name) in
        (0..8).zip(std::iter::once("").chain(std::iter::repeat("a-name-of-a-table-as-people-write-them")))
    {
        let row = row.replacen("\"\"", &format!("\"{name}\""), 1);
        let id = format!("app-20260101T00000{number}Z-aaaa");
        let manifest = format!("{head}\"tables\": [{}{rest}", row.repeat((60 << 20) / row.len()));
        fs::write(folder.join(format!("{id}.json")), manifest.replace(old, &id)).unwrap();
        fs::copy(archive, folder.join(format!("{id}.tar.gz"))).unwrap();
    }
    let (output, peak) = run_measured(&sandbox, &["list", "--store", "backups", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems: Vec<_> = document["snapshots"].as_array().unwrap().iter().map(|it| it["problem"].as_str()).collect();
    assert_eq!(problems.len(), 9, "{document:#}");
    assert!(problems[8].unwrap().contains("more than 4000000 values"), "{problems:?}");
    assert!(peak < HOSTILE_KIB + (150 << 10), "{peak} KiB");
}

/// An owner of a database can write a constraint that computes a value of a gigabyte from nothing.
#[test]
fn expressions_of_a_schema_fill_no_memory() {
    let sandbox = Sandbox::new();
    // SQLite knows up to 1,000 arguments of a function.
    let arguments = vec!["1"; 200].join(", ");
    open(sandbox.path("app.db"))
        .execute_batch(&format!(
            "CREATE TABLE ok (x); INSERT INTO ok VALUES (1);
             CREATE TABLE audit (x); CREATE TRIGGER of_audit AFTER INSERT ON ok BEGIN
                 INSERT INTO audit VALUES (json_array({arguments})); END;
             CREATE TABLE big (a CHECK (length(hex(zeroblob(20000000))) > 0)); INSERT INTO big VALUES (1);
             CREATE TABLE partial (a); INSERT INTO partial VALUES (1);
             CREATE INDEX of_partial ON partial (a) WHERE length(hex(zeroblob(20000000))) > 0;"
        ))
        .unwrap();
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
    // The same with values that would take a gigabyte, without the time to write them.
    open(sandbox.path("app.db"))
        .execute_batch(
            "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, '20000000', '450000000');",
        )
        .unwrap();
    for (command, named) in [
        (&["check", "app.db", "--store", "backups"][..], "integrity of big: string or blob too big"),
        (&["snapshot", "app.db", "--full-check", "--store", "backups"], "integrity of partial: string or blob too big"),
        (&["drill", "latest", "--store", "backups"], "drilled"),
    ] {
        let (output, peak) = run_measured(&sandbox, command);
        assert!(peak < HOSTILE_KIB, "{peak} KiB: {}", command.join(" "));
        let message = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && message.contains(named), "{command:?}: {message}");
    }
}

/// Whoever may write to a store can write a schema of as many short values as fit, or a very long one.
#[test]
fn the_objects_of_a_schema_fill_no_memory() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/postgres/shop");
    let old = "shop-20261125T234032Z-5i2c";
    let manifest = fs::read_to_string(sample.join(format!("{old}.json"))).unwrap();
    let archive = craft::map(&fs::read(sample.join(format!("{old}.tar.gz"))).unwrap());
    let object = r#"[{"id":0,"oid":0,"kind":"table","name":"","section":"pre","create":["#;
    for (values, named) in
        [(200 << 20, "more than 8000000 values"), (300 << 20, "at most 268435456 are allowed"), (20 << 20, "")]
    {
        let sandbox = Sandbox::new();
        fs::create_dir_all(sandbox.path("backups/shop")).unwrap();
        fs::copy(sample.parent().unwrap().join("lifeboat.json"), sandbox.path("backups/lifeboat.json")).unwrap();
        for name in [format!("{old}.json"), format!("{old}.tar.gz")] {
            fs::copy(sample.join(&name), sandbox.path("backups/shop").join(&name)).unwrap();
        }
        let new = "shop-20261126T000000Z-aaaa";
        let mut changed: serde_json::Value = serde_json::from_str(&manifest.replace(old, new)).unwrap();
        changed["created_at"] = "2026-11-26T00:00:00Z".into();
        changed["postgres"]["schema_digest"] = format!("xxh3-128-sum:{}", "0".repeat(32)).into();
        let mut files = archive.files.clone();
        for file in &mut files {
            match file.path.as_str() {
                "schema/objects.json" => {
                    file.content = format!("{object}{}\"\"]}}]", "\"\",".repeat(values / 3)).into_bytes();
                }
                "manifest.json" => file.content = changed.to_string().into_bytes(),
                _ => {}
            }
        }
        let bytes = Layout::of(Codec::Gzip, &files, craft::BLOCK).bytes();
        fs::write(sandbox.path(format!("backups/shop/{new}.json")), manifest_for(changed, &bytes)).unwrap();
        fs::write(sandbox.path(format!("backups/shop/{new}.tar.gz")), &bytes).unwrap();
        let (output, peak) = run_measured(&sandbox, &["diff", old, new, "--store", "backups"]);
        let message = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(message.contains(named) && message.contains("schema differs"), "{message}");
        assert!(peak < HOSTILE_KIB + (250 << 10), "{peak} KiB: {named}");
    }
}

/// Whoever answers at the address of a store can answer every request with an endless error, or an endless listing.
#[test]
fn answers_of_a_store_fill_no_memory() {
    for status in ["500 Internal Server Error", "403 Forbidden", "200 OK"] {
        let is_listing = status == "200 OK";
        let sandbox = Sandbox::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut start = vec![0; 4096];
                    let length = stream.read(&mut start).unwrap();
                    let request = String::from_utf8_lossy(&start[..length]).into_owned();
                    if is_listing && !request.contains("list-type=2") {
                        let body = "<Error><Code>NoSuchKey</Code></Error>";
                        let length = body.len();
                        write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
                        return;
                    }
                    let root = if is_listing { "<ListBucketResult><Name>" } else { "<Error><Message>" };
                    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\n\r\n{root}");
                    let mut text = head.into_bytes();
                    while stream.write_all(&text).is_ok() {
                        text = vec![b'a'; 64 << 10];
                    }
                });
            }
        });
        let mut command = program(sandbox.root(), &["list", "--store", "s3://bucket/lifeboat"]);
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        let (output, peak) = run_command_measured(command);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{status}: {message}");
        assert!(peak < HOSTILE_KIB, "{status}: {peak} KiB");
    }
}
