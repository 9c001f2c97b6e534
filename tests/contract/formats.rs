//! Reads archives of format 1 without Lifeboat's code: with a second reader that is written from the specification in
//! `lifeboat::archive` alone and uses only primitives (inflate, zstd, SHA-256, XXH3, JSON), and with common tools.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::craft::{self, CODECS, Codec, sha256};
use crate::support::{Sandbox, copy_folder, have, open};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};

// --- an independent reader

/// The content of an archive that matches the specification.
struct Reading {
    codec: Codec,
    mtime: u64,
    tar: Vec<u8>,
    block_lengths: Vec<usize>,
    /// The paths and contents of the entries, in order.
    entries: Vec<(String, Vec<u8>)>,
}

/// Reads an archive and requires everything that the specification states.
#[track_caller]
fn read(archive: &[u8]) -> Reading {
    // The footer: the last bytes, which have one form for each codec.
    let codec =
        if archive[archive.len() - 72..].starts_with(&[0x5b, 0x2a, 0x4d, 0x18]) { Codec::Zstd } else { Codec::Gzip };
    let (before, after): (&[u8], &[u8]) = match codec {
        Codec::Gzip => (
            &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 0x44, 0x00, b'L', b'B', 0x40, 0x00],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        Codec::Zstd => (&[0x5b, 0x2a, 0x4d, 0x18, 0x40, 0, 0, 0], &[]),
    };
    let footer_at = archive.len() - before.len() - 64 - after.len();
    let footer = archive[footer_at..].strip_prefix(before).expect("the footer's frame");
    let payload = footer.strip_suffix(after).expect("the footer's end");
    assert_eq!(&payload[..8], b"LIFEBOAT");
    assert_eq!(payload[8..12], 1u32.to_le_bytes(), "the format version");
    assert_eq!(payload[12..16], [0; 4]);
    let number = |at: usize| usize::try_from(u64::from_le_bytes(payload[at..at + 8].try_into().unwrap())).unwrap();
    let (index_at, index_bytes) = (number(16), number(24));
    assert_eq!(index_at + index_bytes, footer_at, "the index ends where the footer begins");
    let index = &archive[index_at..footer_at];
    assert_eq!(hex::encode(&payload[32..64]), sha256(index));
    assert_eq!(unpack_footer(codec, &archive[footer_at..]), b"", "the footer decompresses to nothing");

    // The index: one member with a JSON document in each line.
    let text = String::from_utf8(one_member(codec, index)).expect("UTF-8");
    assert!(text.ends_with('\n'));
    let mut lines =
        text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).expect("each line is a JSON object"));
    let head = lines.next().expect("the index has a head line");
    assert_eq!(fields(&head), ["blocks", "codec", "entries", "format", "mtime", "tar_bytes"]);
    assert_eq!((head["format"].as_u64(), head["codec"].as_str()), (Some(1), Some(codec.name())));
    let integer = |line: &Map<String, Value>, name: &str| usize::try_from(line[name].as_u64().unwrap()).unwrap();

    // The blocks: one after the other from offset 0, each compressed by itself.
    let (mut offset, mut tar, mut block_lengths) = (0, Vec::new(), Vec::new());
    for _ in 0..integer(&head, "blocks") {
        let line = lines.next().expect("a line for each block");
        assert_eq!(fields(&line), ["bytes", "offset", "sha256", "tar_bytes", "tar_offset"]);
        assert_eq!((integer(&line, "offset"), integer(&line, "tar_offset")), (offset, tar.len()));
        let block = &archive[offset..offset + integer(&line, "bytes")];
        assert_eq!(line["sha256"], sha256(block));
        let content = block_content(codec, block);
        assert_eq!(integer(&line, "tar_bytes"), content.len());
        assert!((1..=4_194_304).contains(&content.len()));
        block_lengths.push(content.len());
        offset += block.len();
        tar.extend(content);
    }
    assert_eq!(offset, index_at, "the index follows the last block");
    assert_eq!(integer(&head, "tar_bytes"), tar.len());

    // The tar stream: the index determines each of its bytes except for the contents.
    let mtime = head["mtime"].as_u64().unwrap();
    let (mut at, mut entries) = (0, Vec::new());
    for _ in 0..integer(&head, "entries") {
        let line = lines.next().expect("a line for each entry");
        assert_eq!(fields(&line), ["bytes", "path", "sha256", "tar_offset"]);
        let path = line["path"].as_str().unwrap();
        assert!(path.split('/').all(|part| !["", ".", ".."].contains(&part)), "{path}");
        assert!(entries.iter().all(|(other, _)| other != path), "{path} occurs twice");
        let header = craft::full_header(path, line["bytes"].as_u64().unwrap(), mtime);
        assert_eq!(integer(&line, "tar_offset"), at + header.len());
        assert!(tar[at..].starts_with(&header), "the header of {path}");
        at += header.len();
        let content = &tar[at..at + integer(&line, "bytes")];
        assert_eq!(line["sha256"], sha256(content));
        at += content.len();
        let padding = at.next_multiple_of(512) - at;
        assert!(tar[at..at + padding].iter().all(|byte| *byte == 0));
        at += padding;
        entries.push((path.to_owned(), content.to_vec()));
    }
    assert!(lines.next().is_none(), "nothing follows the last entry's line");
    assert_eq!(&tar[at..], [0; 1024], "two blocks of zeros end the stream");
    Reading { codec, mtime, tar, block_lengths, entries }
}

fn fields(line: &Map<String, Value>) -> Vec<&str> {
    let mut names: Vec<&str> = line.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn block_content(codec: Codec, block: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let body = block.strip_prefix(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]).expect("the member's header");
            let (deflated, trailer) = body.split_at(body.len() - 8);
            let mut content = Vec::with_capacity((4 << 20) + 1);
            let mut inflate = flate2::Decompress::new(false);
            let status = inflate.decompress_vec(deflated, &mut content, flate2::FlushDecompress::Finish).unwrap();
            assert_eq!((status, inflate.total_in()), (flate2::Status::StreamEnd, deflated.len() as u64));
            let mut crc = flate2::Crc::new();
            crc.update(&content);
            assert_eq!(trailer[..4], crc.sum().to_le_bytes());
            assert_eq!(trailer[4..], u32::try_from(content.len()).unwrap().to_le_bytes());
            content
        }
        Codec::Zstd => {
            assert!(block.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
            assert_eq!(block[4] & 0x04, 0x04, "the frame has no checksum");
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(block), Ok(block.len()), "not a single frame");
            let size =
                zstd::zstd_safe::get_frame_content_size(block).ok().flatten().expect("a frame has a content size");
            let content = zstd::bulk::decompress(block, 4 << 20).unwrap();
            assert_eq!(content.len() as u64, size);
            content
        }
    }
}

fn one_member(codec: Codec, mut bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let mut content = Vec::new();
            flate2::bufread::GzDecoder::new(&mut bytes).read_to_end(&mut content).unwrap();
            assert!(bytes.is_empty(), "there are bytes after the member");
            content
        }
        Codec::Zstd => {
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(bytes), Ok(bytes.len()), "not a single frame");
            zstd::stream::decode_all(bytes).unwrap()
        }
    }
}

fn unpack_footer(codec: Codec, footer: &[u8]) -> Vec<u8> {
    craft::unpack(codec, footer)
}

/// Requires what the specification states about the entries and manifests of an SQLite snapshot. Returns the manifest
/// inside.
#[track_caller]
fn check_sqlite(reading: &Reading, archive: &[u8], outside: &[u8]) -> Value {
    let paths: Vec<&str> = reading.entries.iter().map(|(path, _)| path.as_str()).collect();
    let [first, image, last] = paths[..] else { panic!("{paths:?}") };
    assert_eq!((first, last), ("README.txt", "manifest.json"));
    let inside: Value = serde_json::from_slice(&reading.entries[2].1).unwrap();
    let mut outside: Value = serde_json::from_slice(outside).unwrap();
    assert_eq!(outside["archive_bytes"], archive.len());
    assert_eq!(outside["sha256"], sha256(archive));
    let fields = outside.as_object_mut().unwrap();
    fields.remove("archive_bytes");
    fields.remove("sha256");
    assert_eq!(outside, inside, "the manifest outside repeats the one inside");
    assert_eq!(inside["format"], 1);
    assert_eq!(inside["codec"], reading.codec.name());
    assert_eq!(inside["sqlite"]["image"], image);
    assert!(image.starts_with("data/") && image.matches('/').count() == 1, "{image}");
    let pages = inside["sqlite"]["pages"].as_u64().unwrap() * inside["sqlite"]["page_bytes"].as_u64().unwrap();
    assert_eq!((inside["raw_bytes"].as_u64(), pages), (Some(pages), reading.entries[1].1.len() as u64));
    let taken = inside["created_at"].as_str().unwrap();
    let taken: chrono::DateTime<chrono::Utc> = taken.parse().unwrap();
    assert_eq!(reading.mtime, taken.timestamp().unsigned_abs());
    // <source>-<YYYYMMDD>T<HHMMSS>Z-<4 letters or digits>
    let (id, source) = (inside["id"].as_str().unwrap(), inside["source"].as_str().unwrap());
    let stamp = id.strip_prefix(source).and_then(|rest| rest.strip_prefix('-')).unwrap();
    let suffix =
        stamp.strip_prefix(&taken.format("%Y%m%dT%H%M%SZ-").to_string()).unwrap_or_else(|| panic!("{id} {taken}"));
    assert!(suffix.len() == 4 && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{id}");
    assert_eq!(inside["archive"], format!("{id}{}", reading.codec.extension()));
    inside
}

// --- an independent row digest

/// A table as read from the database.
struct TableContent {
    /// The description that the manifest must have: `name`, `rows`, `bytes`, `digest` and `columns`.
    description: Value,
    /// Every row as text.
    rows: Vec<String>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the number of rows of a query, their bytes, their digest, and every row as text. The digest is the sum
/// modulo 2^128 of the XXH3-128 of each row's encoding, as `lifeboat::platform::digest` describes it.
fn digest_of(connection: &Connection, sql: &str) -> (u64, u64, String, Vec<String>) {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let (mut count, mut bytes, mut sum, mut texts) = (0, 0, 0u128, Vec::new());
    while let Some(row) = rows.next().unwrap() {
        let (mut encoded, mut row_text) = (Vec::new(), Vec::new());
        for column in 0..columns {
            match row.get_ref(column).unwrap() {
                ValueRef::Null => {
                    encoded.push(0);
                    row_text.push("null".to_owned());
                }
                ValueRef::Integer(value) => {
                    encoded.push(1);
                    encoded.extend(value.to_le_bytes());
                    bytes += 8;
                    row_text.push(format!("integer {value}"));
                }
                ValueRef::Real(value) => {
                    encoded.push(2);
                    encoded.extend(value.to_le_bytes());
                    bytes += 8;
                    row_text.push(format!("real {:016x}", value.to_bits()));
                }
                ValueRef::Text(value) => {
                    encoded.push(3);
                    encoded.extend((value.len() as u64).to_le_bytes());
                    encoded.extend(value);
                    bytes += value.len() as u64;
                    row_text.push(match std::str::from_utf8(value) {
                        _ if value.len() > 200 => format!("text of {} bytes, {}", value.len(), sha256(value)),
                        Ok(text) => format!("text {text:?}"),
                        Err(_) => format!("broken text {}", hex::encode(value)),
                    });
                }
                ValueRef::Blob(value) => {
                    encoded.push(4);
                    encoded.extend((value.len() as u64).to_le_bytes());
                    encoded.extend(value);
                    bytes += value.len() as u64;
                    row_text.push(match value.len() {
                        0..=200 => format!("blob {}", hex::encode(value)),
                        bytes => format!("blob of {bytes} bytes, {}", sha256(value)),
                    });
                }
            }
        }
        sum = sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(&encoded));
        count += 1;
        texts.push(row_text.join(", "));
    }
    texts.sort();
    (count, bytes, format!("xxh3-128-sum:{sum:032x}"), texts)
}

/// Reads every table of a database, and the digest of its schema.
fn read_database(path: &Path) -> (BTreeMap<String, TableContent>, String) {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut tables = BTreeMap::new();
    for name in names {
        let mut columns = connection.prepare("SELECT name, type, hidden FROM pragma_table_xinfo(?1)").unwrap();
        let columns: Vec<(String, String, i64)> = columns
            .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .filter(|(_, _, hidden)| *hidden != 1)
            .collect();
        // The digest does not include generated columns.
        let stored: Vec<String> =
            columns.iter().filter(|column| column.2 == 0).map(|column| quoted(&column.0)).collect();
        let (rows, bytes, digest, texts) =
            digest_of(&connection, &format!("SELECT {} FROM {}", stored.join(", "), quoted(&name)));
        let columns: Vec<Value> = columns
            .iter()
            .map(|(name, declared, hidden)| match hidden {
                0 => json!({"name": name, "type": declared}),
                _ => json!({"name": name, "type": declared, "generated": true}),
            })
            .collect();
        let description = json!({"name": name, "rows": rows, "bytes": bytes, "digest": digest, "columns": columns});
        tables.insert(name, TableContent { description, rows: texts });
    }
    let schema = digest_of(&connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema").2;
    (tables, schema)
}

/// Requires that a manifest describes every table of the database in `image` correctly.
#[track_caller]
fn check_tables(manifest: &Value, image: &Path) {
    let (tables, schema) = read_database(image);
    assert_eq!(manifest["sqlite"]["schema_digest"], schema);
    let described: BTreeMap<&str, &Value> =
        manifest["tables"].as_array().unwrap().iter().map(|table| (table["name"].as_str().unwrap(), table)).collect();
    assert_eq!(described.keys().copied().collect::<Vec<_>>(), tables.keys().map(String::as_str).collect::<Vec<_>>());
    let mut rows = 0;
    for (name, table) in &tables {
        let mut description = described[name.as_str()].clone();
        let kind = description.as_object_mut().unwrap().remove("type").unwrap();
        if kind != "virtual" && !name.starts_with("sqlite_") {
            rows += table.description["rows"].as_u64().unwrap();
        }
        assert_eq!(description, table.description, "{name}");
    }
    assert_eq!(manifest["rows"], rows, "the number of rows without virtual tables and SQLite's own");
}

// --- the samples

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(samples().join("expected.json")).unwrap()).unwrap()
}

/// Returns archive, manifest and id of a sample.
fn sample(codec: Codec) -> (Vec<u8>, Vec<u8>, String) {
    let id = expected()[codec.name()]["id"].as_str().unwrap().to_owned();
    let folder = samples().join(codec.name()).join("odd");
    let archive = fs::read(folder.join(format!("{id}{}", codec.extension()))).unwrap();
    (archive, fs::read(folder.join(format!("{id}.json"))).unwrap(), id)
}

/// Creates a sandbox with a copy of a sample store as `backups`.
fn sample_store(codec: Codec) -> Sandbox {
    let sandbox = Sandbox::new();
    copy_folder(&samples().join(codec.name()), &sandbox.path("backups"));
    sandbox
}

/// Creates a small database with all kinds of unusual names, types, values and objects.
fn create_unusual_database(path: &Path, pragmas: &str) {
    let connection = open(path);
    connection
        .execute_batch(&format!(
            "{pragmas}
             CREATE TABLE accounts (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, balance REAL, note);
             INSERT INTO accounts (name, balance, note) VALUES ('first', 1.5, NULL), ('zero', -0.0, 'text'), ('数据', 1e308, x'00ff00'),
                 ('big', 9.0, 9223372036854775807), ('small', -1e-308, -9223372036854775808), ('empty', 0.0, ''), ('blob', 0.5, x'');
             DELETE FROM accounts WHERE name = 'small';
             CREATE TABLE keyed (a TEXT, b INTEGER, c BLOB, PRIMARY KEY (b DESC, a)) WITHOUT ROWID;
             INSERT INTO keyed VALUES ('x', 1, x'01'), ('x', 2, NULL), ('y', 1, zeroblob(300));
             CREATE TABLE exact (i INT NOT NULL, r REAL, t TEXT, b BLOB, a ANY) STRICT;
             INSERT INTO exact VALUES (1, 2, '3', x'04', 5), (6, 7.5, '', x'', 'any'), (8, NULL, NULL, NULL, NULL);
             CREATE TABLE computed (n INTEGER, twice INTEGER GENERATED ALWAYS AS (n * 2) VIRTUAL, word TEXT AS ('n' || n) STORED, last);
             INSERT INTO computed (n, last) VALUES (1, 'a'), (2, 'b'), (NULL, 'c');
             CREATE TABLE \"we\"\"ird; 'name\n%/..\" (\"a \"\"b\" TEXT, \"\u{1f6df}\", [select] DEFAULT 'x');
             INSERT INTO \"we\"\"ird; 'name\n%/..\" VALUES ('a' || char(0) || 'b', char(0), char(10, 13, 9)), ('', 'ü', NULL);
             CREATE TABLE \"a.b\" (c); CREATE TABLE \"a/b\" (c); CREATE TABLE \"日记\" (c);
             INSERT INTO \"a.b\" VALUES (1), (1), (1), ('1'), (1.0), (x'31');
             CREATE TABLE hollow (a, b);
             CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES accounts(id));
             INSERT INTO child VALUES (1, 1), (2, 999);
             CREATE VIEW overview AS SELECT name, balance FROM accounts WHERE balance > 0;
             CREATE VIEW broken AS SELECT * FROM not_there;
             CREATE TRIGGER on_delete AFTER DELETE ON accounts BEGIN INSERT INTO hollow VALUES (old.id, 'gone'); END;
             CREATE INDEX by_balance ON accounts (balance DESC) WHERE note IS NOT NULL;
             CREATE INDEX by_expression ON accounts (lower(name), abs(balance));
             CREATE VIRTUAL TABLE words USING fts5(title, body);
             INSERT INTO words VALUES ('one', 'the quick brown fox'), ('two', 'jumps over the lazy dog'), ('three', '数据 ü');
             CREATE TABLE long (body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO long SELECT printf('%.*c', i * 100, 'o') FROM n;
             ANALYZE;
             PRAGMA user_version = 17; PRAGMA application_id = 1279412815;"
        ))
        .unwrap();
    if !pragmas.contains("UTF-16") {
        connection
            .execute_batch("INSERT INTO \"日记\" VALUES (cast(x'ff41fe' AS TEXT)), (cast(x'c0' AS TEXT))")
            .unwrap();
    }
}

/// Writes `tests/data/v1`; see `tests/data/README.md`. Samples of a released version are never written again.
#[test]
#[ignore = "writes tests/data/v1, once"]
fn generate_samples() {
    assert!(!samples().exists(), "{} exists already, and samples are never replaced", samples().display());
    let mut expected = Map::new();
    for (codec, pragmas) in [
        (Codec::Gzip, "PRAGMA journal_mode = wal; PRAGMA page_size = 4096;"),
        (Codec::Zstd, "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 1024; PRAGMA journal_mode = delete;"),
    ] {
        let sandbox = Sandbox::new();
        let source = sandbox.path("odd %_database.db");
        // The last row is only in the WAL, which belongs to the database.
        create_unusual_database(&source, pragmas);
        let connection = open(&source);
        connection.execute_batch("INSERT INTO hollow VALUES ('last', 'words')").unwrap();
        let document = sandbox.json(&[
            "snapshot",
            "odd %_database.db",
            "--store",
            "backups",
            "--name",
            "odd",
            "--host",
            "example",
            "--tag",
            "sample",
            "--compression",
            codec.name(),
        ]);
        let (tables, schema) = read_database(&source);
        let tables: Map<String, Value> = tables
            .into_iter()
            .map(|(name, table)| (name, json!({"facts": table.description, "rows": table.rows})))
            .collect();
        expected.insert(
            codec.name().to_owned(),
            json!({"id": document["snapshots"][0]["id"], "schema_digest": schema, "tables": tables}),
        );
        fs::create_dir_all(samples()).unwrap();
        copy_folder(&sandbox.path("backups"), &samples().join(codec.name()));
    }
    fs::write(samples().join("expected.json"), serde_json::to_vec_pretty(&expected).unwrap()).unwrap();
}

#[test]
fn the_samples_match_the_specification() {
    for codec in CODECS {
        let (archive, outside, _) = sample(codec);
        assert!(archive.len() < 100_000);
        let reading = read(&archive);
        assert_eq!(reading.codec, codec);
        let manifest = check_sqlite(&reading, &archive, &outside);
        let sandbox = Sandbox::new();
        fs::write(sandbox.path("image.db"), &reading.entries[1].1).unwrap();
        check_tables(&manifest, &sandbox.path("image.db"));
        let store: Value =
            serde_json::from_slice(&fs::read(samples().join(codec.name()).join("lifeboat.json")).unwrap()).unwrap();
        assert_eq!(store, json!({"lifeboat_store": 1}));
        assert_eq!(reading.entries[1].0, "data/odd %25_database.db");
    }
}

#[test]
fn the_samples_contain_the_rows_of_their_sources() {
    for codec in CODECS {
        let expected = &expected()[codec.name()];
        let sandbox = Sandbox::new();
        fs::write(sandbox.path("image.db"), &read(&sample(codec).0).entries[1].1).unwrap();
        let (tables, schema) = read_database(&sandbox.path("image.db"));
        assert_eq!(expected["schema_digest"], schema);
        let found: Map<String, Value> = tables
            .into_iter()
            .map(|(name, table)| (name, json!({"facts": table.description, "rows": table.rows})))
            .collect();
        assert_eq!(expected["tables"], Value::Object(found));
        assert_eq!(crate::support::integrity(sandbox.path("image.db")), "ok");
    }
}

#[test]
fn the_program_lists_verifies_drills_restores_and_extracts_the_samples() {
    for codec in CODECS {
        let sandbox = sample_store(codec);
        let (archive, _, id) = sample(codec);
        let reading = read(&archive);
        assert_eq!(sandbox.ids(), [id.as_str()]);
        let listed = &sandbox.json(&["list", "--store", "backups"])["snapshots"][0];
        assert_eq!(
            (&listed["proof"], &listed["tags"], &listed["kind"]),
            (&json!("none"), &json!(["sample"]), &json!("full"))
        );
        let shown = sandbox.json(&["show", "latest", "--store", "backups"]);
        assert_eq!(shown["sha256"], sha256(&archive));
        for command in ["verify", "drill"] {
            let document = sandbox.json(&[command, &id, "--store", "backups"]);
            assert_eq!(document["ok"], true, "{document}");
        }
        sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
        assert!(fs::read(sandbox.path("copy.db")).unwrap() == reading.entries[1].1, "other bytes were restored");
        let expected = &expected()[codec.name()]["tables"];
        let (tables, _) = read_database(&sandbox.path("copy.db"));
        for (name, table) in &tables {
            assert_eq!(expected[name]["rows"], json!(table.rows), "{name}");
        }
        sandbox.ok(&["extract", &id, "--to", "folder", "--store", "backups"]);
        for (path, content) in &reading.entries {
            assert!(&fs::read(sandbox.path("folder").join(path)).unwrap() == content, "{path}");
        }
        let stream = sandbox.ok(&["extract", &id, "--to", "-", "--store", "backups"]);
        assert!(stream.output.stdout == reading.tar, "the stream on stdout differs from the tar stream of the archive");
        for (path, content) in &reading.entries {
            let one = sandbox.ok(&["extract", &id, "--entry", path, "--to", "-", "--store", "backups"]);
            assert!(&one.output.stdout == content, "{path}");
        }
        // A restore over another database gives the same rows.
        crate::support::sample(sandbox.path("live.db"), 2, "delete");
        if codec == Codec::Gzip {
            sandbox.ok(&["restore", &id, "--to", "live.db", "--replace", "--yes", "--store", "backups"]);
            let (tables, _) = read_database(&sandbox.path("live.db"));
            for (name, table) in &tables {
                assert_eq!(expected[name]["rows"], json!(table.rows), "{name}");
            }
        }
    }
}

// --- common tools

fn run(command: &mut Command) -> Output {
    let output = command.env("LC_ALL", "C").output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

const PYTHON: &str = "
import hashlib, json, sys, tarfile
with tarfile.open(sys.argv[2], sys.argv[1]) as archive:
    for entry in archive:
        content = archive.extractfile(entry).read()
        print(json.dumps([entry.name, entry.isreg(), entry.size, entry.mode, entry.mtime, entry.uid, hashlib.sha256(content).hexdigest()]))
";

/// Requires that GNU tar, gzip, zstd and Python read the same content as the independent reader, without warnings.
#[track_caller]
fn check_with_tools(sandbox: &Sandbox, archive: &Path, reading: &Reading) {
    let (test, unpack, list): (&[&str], &[&str], &[&str]) = match reading.codec {
        Codec::Gzip => (&["gzip", "-t"], &["tar", "xzf"], &["tar", "tzf"]),
        Codec::Zstd => (&["zstd", "-q", "-t"], &["tar", "--zstd", "-xf"], &["tar", "--zstd", "-tf"]),
    };
    let command = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(archive);
        command
    };
    run(&mut command(test));
    let folder = tempfile::tempdir_in(sandbox.root()).unwrap();
    run(command(unpack).current_dir(folder.path()));
    for (path, content) in &reading.entries {
        let found = fs::read(folder.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(&found == content, "tar: {path}");
    }
    let names = run(command(list).arg("--quoting-style=literal")).stdout;
    let names = String::from_utf8(names).unwrap();
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        reading.entries.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>()
    );

    // gzip and zstd decompress to the tar stream and the index after it, which tar ignores.
    let all = craft::unpack(reading.codec, &fs::read(archive).unwrap());
    assert!(all.starts_with(&reading.tar) && all[reading.tar.len()..].starts_with(b"{\"format\":1,"));
    // Python reads gzip, but zstd only in its newest versions. The mode `r|gz` is not used, because it reads only one
    // member.
    let (input, mode) = match reading.codec {
        Codec::Gzip => (archive.to_owned(), "r:gz"),
        Codec::Zstd => {
            let tar = sandbox.path("stream.tar");
            run(Command::new("zstd").args(["-q", "-d", "-f", "-o"]).arg(&tar).arg(archive));
            assert!(fs::read(&tar).unwrap() == all);
            (tar, "r:")
        }
    };
    let output = run(Command::new("python3").args(["-c", PYTHON, mode]).arg(input));
    let found: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<Value> = reading
        .entries
        .iter()
        .map(|(path, content)| json!([path, true, content.len(), 0o600, reading.mtime, 0, sha256(content)]))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn tar_gzip_zstd_and_python_read_the_samples() {
    if !have(&["tar", "gzip", "zstd", "python3", "sqlite3"]) {
        return;
    }
    for codec in CODECS {
        let sandbox = sample_store(codec);
        let (archive, _, id) = sample(codec);
        let path = sandbox.path(format!("backups/odd/{id}{}", codec.extension()));
        check_with_tools(&sandbox, &path, &read(&archive));
    }
}

/// Takes a snapshot and compares it with the specification, the results of common tools, and its source.
fn check_snapshot(sandbox: &Sandbox, source: &str, codec: Codec) -> Reading {
    let document =
        sandbox.json(&["snapshot", source, "--store", "backups", "--name", "x", "--compression", codec.name()]);
    let id = document["snapshots"][0]["id"].as_str().unwrap();
    let path = sandbox.path(format!("backups/x/{id}{}", codec.extension()));
    let archive = fs::read(&path).unwrap();
    let reading = read(&archive);
    let manifest = check_sqlite(&reading, &archive, &fs::read(sandbox.path(format!("backups/x/{id}.json"))).unwrap());
    let image = sandbox.path("image.db");
    fs::write(&image, &reading.entries[1].1).unwrap();
    check_tables(&manifest, &image);
    assert_eq!(crate::support::content(&image), crate::support::content(sandbox.path(source)));
    fs::remove_file(image).unwrap();
    check_with_tools(sandbox, &path, &reading);
    reading
}

#[test]
fn all_readers_read_an_archive_of_many_incompressible_blocks() {
    if !have(&["tar", "gzip", "zstd", "python3", "sqlite3"]) {
        return;
    }
    for codec in CODECS {
        let sandbox = Sandbox::new();
        let connection = open(sandbox.path("noise.db"));
        connection
            .execute_batch(
                "CREATE TABLE noise (body BLOB);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 13) INSERT INTO noise SELECT randomblob(1048576) FROM n",
            )
            .unwrap();
        let reading = check_snapshot(&sandbox, "noise.db", codec);
        // The last block holds the manifest, and the one before it the rest of the image.
        let [full @ .., rest, last] = reading.block_lengths.as_slice() else { panic!("{:?}", reading.block_lengths) };
        assert_eq!(full, [4 << 20; 3], "and {rest}, {last}");
    }
}

#[test]
fn all_readers_read_entries_with_long_and_unusual_names() {
    if !have(&["tar", "gzip", "zstd", "python3", "sqlite3"]) {
        return;
    }
    // The paths, with `data/`, have 99, 100 and 101 bytes, and the longest one still allows the suffix `-journal`. The
    // other names have characters that are special for a shell.
    let long = |bytes: usize| "n".repeat(bytes - 8) + ".db";
    let names = [long(99), long(100), long(101), long(252), "a b'c\"$(d);.db".to_owned(), "-rf.db".to_owned()];
    for name in &names {
        let sandbox = Sandbox::new();
        crate::support::sample(sandbox.path(name), 1, "delete");
        let reading = check_snapshot(&sandbox, &format!("./{name}"), Codec::Gzip);
        assert_eq!(reading.entries[1].0, format!("data/{}", name.replace('"', "%22")));
        sandbox.ok(&["restore", "latest", "--to", "copy.db", "--store", "backups"]);
        assert_eq!(crate::support::content(sandbox.path("copy.db")), crate::support::content(sandbox.path(name)));
    }
    let sandbox = Sandbox::new();
    crate::support::sample(sandbox.path(long(200)), 1, "delete");
    check_snapshot(&sandbox, &long(200), Codec::Zstd);
}

#[test]
fn all_readers_read_entries_with_long_names_in_other_scripts() {
    if !have(&["tar", "gzip", "zstd", "python3", "sqlite3"]) {
        return;
    }
    for name in
        ["日记.db".to_owned(), "🛟.db".to_owned(), format!("{}.db", "日".repeat(80)), format!("{}.db", "%".repeat(240))]
    {
        for codec in CODECS {
            let sandbox = Sandbox::new();
            crate::support::sample(sandbox.path(&name), 1, "delete");
            check_snapshot(&sandbox, &name, codec);
            sandbox.ok(&["extract", "latest", "--to", "folder", "--store", "backups"]);
        }
    }
}

#[test]
fn a_database_with_the_longest_possible_name_is_restored_to_its_origin() {
    let name = "n".repeat(244) + ".db";
    let sandbox = Sandbox::new();
    crate::support::sample(sandbox.path(&name), 1, "delete");
    let content = crate::support::content(sandbox.path(&name));
    sandbox.ok(&["snapshot", &name, "--store", "backups", "--name", "x"]);
    fs::remove_file(sandbox.path(&name)).unwrap();
    sandbox.ok(&["restore", "latest", "--store", "backups"]);
    assert_eq!(crate::support::content(sandbox.path(&name)), content);
}

#[test]
fn all_readers_read_unusual_databases() {
    if !have(&["tar", "gzip", "zstd", "python3", "sqlite3"]) {
        return;
    }
    for codec in CODECS {
        for pragmas in [
            "PRAGMA page_size = 512;",
            "PRAGMA page_size = 65536; PRAGMA journal_mode = wal;",
            "PRAGMA encoding = 'UTF-16be';",
            "PRAGMA auto_vacuum = full;",
        ] {
            let sandbox = Sandbox::new();
            create_unusual_database(&sandbox.path("odd.db"), pragmas);
            check_snapshot(&sandbox, "odd.db", codec);
        }
    }
}

/// Adds the rows of a piece to a count and a digest, as the specification describes it.
fn add_rows(piece: &[u8], rows: &mut u64, digest: &mut u128) {
    let lines = piece.strip_suffix(b"\n").expect("a piece ends with a whole row");
    for line in lines.split(|byte| *byte == b'\n') {
        *rows += 1;
        *digest = digest.wrapping_add(xxhash_rust::xxh3::xxh3_128(line));
    }
}

/// Encodes a short name as one part of a path, as the specification describes it.
fn part_of_path(name: &str) -> String {
    let encode = |character: char| match character.is_control() || "%/\\:\"*?<>|".contains(character) {
        true => character.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        false => character.to_string(),
    };
    name.chars().map(encode).collect()
}

#[test]
fn the_postgresql_sample_matches_the_specification() {
    let folder = samples().join("postgres/shop");
    let name = "shop-20261125T234032Z-5i2c";
    let archive = fs::read(folder.join(format!("{name}.tar.gz"))).unwrap();
    let reading = read(&archive);
    let outside: Value = serde_json::from_slice(&fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
    let (first, last) = (&reading.entries[0], reading.entries.last().unwrap());
    assert_eq!((first.0.as_str(), last.0.as_str()), ("README.txt", "manifest.json"));
    let manifest: Value = serde_json::from_slice(&last.1).unwrap();
    assert_eq!((&manifest["id"], &manifest["tables"]), (&outside["id"], &outside["tables"]));
    assert_eq!(manifest["engine"], "postgres");

    let paths: Vec<&str> = reading.entries.iter().map(|(path, _)| path.as_str()).collect();
    let pieces = 3..paths.len() - 4;
    assert_eq!(paths[1..3], ["schema/objects.json", "schema/pre-data.sql"]);
    assert_eq!(paths[pieces.end..paths.len() - 1], ["schema/sequences.sql", "schema/post-data.sql", "restore.sql"]);

    let mut sums: BTreeMap<&str, (u32, u64, u128)> = BTreeMap::new();
    let mut bytes = 0;
    for (path, content) in &reading.entries[pieces] {
        let (folder, file) = path.rsplit_once('/').unwrap();
        let (number, rows, digest) = sums.entry(folder).or_default();
        *number += 1;
        assert_eq!(file, format!("{number:06}.copy"));
        add_rows(content, rows, digest);
        bytes += content.len();
    }
    assert_eq!(manifest["raw_bytes"], bytes);
    let mut tables = 0;
    for table in manifest["tables"].as_array().unwrap() {
        let name = |field: &str| table["relation"][field].as_str().unwrap().to_owned();
        let folder = format!("data/{}/{}", part_of_path(&name("schema")), part_of_path(&name("table")));
        let (_, rows, digest) = sums.remove(folder.as_str()).unwrap_or_default();
        assert_eq!((&table["rows"], &table["digest"]), (&json!(rows), &json!(format!("xxh3-128-sum:{digest:032x}"))));
        tables += 1;
    }
    assert!(tables > 3, "{tables}");
    if let Some((_, rows, digest)) = sums.remove("large-objects") {
        let facts = &manifest["postgres"]["large_objects"];
        assert_eq!((&facts["rows"], &facts["digest"]), (&json!(rows), &json!(format!("xxh3-128-sum:{digest:032x}"))));
    }
    assert!(sums.is_empty(), "pieces of no table: {sums:?}");

    let steps: Vec<Value> = serde_json::from_slice(&reading.entries[1].1).unwrap();
    let script = |at: usize| String::from_utf8(reading.entries[at].1.clone()).unwrap();
    let (pre_data, post_data) = (script(2), script(paths.len() - 3));
    for (place, step) in steps.iter().enumerate() {
        assert_eq!(step["id"], place);
        let needs = step["needs"].as_array().into_iter().flatten();
        assert!(needs.map(|need| need.as_u64().unwrap()).all(|need| need < place as u64), "{step}");
        let script = if step["section"] == "pre" { &pre_data } else { &post_data };
        for statement in step["create"].as_array().into_iter().flatten() {
            assert!(script.contains(statement.as_str().unwrap()), "{statement}");
        }
        for field in step.as_object().unwrap().keys() {
            let page = include_str!("../../src/archive/format.md");
            assert!(page.contains(&format!("`{field}`")), "the specification does not describe {field}");
        }
    }
}

#[test]
fn the_specification_contains_the_values_that_the_second_reader_uses() {
    // A change of the specification needs a change of this test, and samples of the new version.
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/archive/format.md")).unwrap();
    for words in [
        "`1f 8b 08 00 00000000 00 ff`",
        "1 to 4,194,304 bytes",
        "`1f 8b 08 04 00000000 00 ff 4400 'L' 'B' 4000`, the payload, `03 00`, 8 zero bytes",
        "`5b 2a 4d 18 40000000`, the payload",
        "| 8 | 4 | format version, 1 |",
        "{\"format\":1,\"codec\":\"gzip\",\"mtime\":1795280701,\"tar_bytes\":4201984,\"blocks\":2,\"entries\":3}",
        "`tests/data/v1/`",
    ] {
        assert!(page.contains(words), "{words}");
    }
}
