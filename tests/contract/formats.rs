//! Format 1, read by another hand: from the specification in `lifeboat::archive` alone, with nothing of it but the
//! primitives (inflate, zstd, SHA-256, XXH3, JSON), and by the tools that a rescue shell has.

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

/// An archive that is in every point what the specification says.
struct Reading {
    codec: Codec,
    mtime: u64,
    tar: Vec<u8>,
    block_lengths: Vec<usize>,
    /// Paths and contents, in order.
    entries: Vec<(String, Vec<u8>)>,
}

/// Reads an archive and requires of it all that the specification says.
#[track_caller]
fn read(archive: &[u8]) -> Reading {
    // The footer: the last bytes, of one possible form.
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

    // The index: one member, a document a line.
    let text = String::from_utf8(one_member(codec, index)).expect("UTF-8");
    assert!(text.ends_with('\n'));
    let mut lines =
        text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).expect("an object a line"));
    let head = lines.next().expect("a head");
    assert_eq!(fields(&head), ["blocks", "codec", "entries", "format", "mtime", "tar_bytes"]);
    assert_eq!((head["format"].as_u64(), head["codec"].as_str()), (Some(1), Some(codec.name())));
    let whole = |line: &Map<String, Value>, name: &str| usize::try_from(line[name].as_u64().unwrap()).unwrap();

    // The blocks: one after the other from offset 0, each by itself.
    let (mut offset, mut tar, mut block_lengths) = (0, Vec::new(), Vec::new());
    for _ in 0..whole(&head, "blocks") {
        let line = lines.next().expect("a line for each block");
        assert_eq!(fields(&line), ["bytes", "offset", "sha256", "tar_bytes", "tar_offset"]);
        assert_eq!((whole(&line, "offset"), whole(&line, "tar_offset")), (offset, tar.len()));
        let block = &archive[offset..offset + whole(&line, "bytes")];
        assert_eq!(line["sha256"], sha256(block));
        let content = block_content(codec, block);
        assert_eq!(whole(&line, "tar_bytes"), content.len());
        assert!((1..=4_194_304).contains(&content.len()));
        block_lengths.push(content.len());
        offset += block.len();
        tar.extend(content);
    }
    assert_eq!(offset, index_at, "the index follows the last block");
    assert_eq!(whole(&head, "tar_bytes"), tar.len());

    // The tar stream: wholly determined by the index, byte for byte.
    let mtime = head["mtime"].as_u64().unwrap();
    let (mut at, mut entries) = (0, Vec::new());
    for _ in 0..whole(&head, "entries") {
        let line = lines.next().expect("a line for each entry");
        assert_eq!(fields(&line), ["bytes", "path", "sha256", "tar_offset"]);
        let path = line["path"].as_str().unwrap();
        assert!(path.split('/').all(|part| !["", ".", ".."].contains(&part)), "{path}");
        assert!(entries.iter().all(|(other, _)| other != path), "{path} occurs once");
        let header = craft::full_header(path, line["bytes"].as_u64().unwrap(), mtime);
        assert_eq!(whole(&line, "tar_offset"), at + header.len());
        assert!(tar[at..].starts_with(&header), "the header of {path}");
        at += header.len();
        let content = &tar[at..at + whole(&line, "bytes")];
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
            assert_eq!(block[4] & 0x04, 0x04, "it holds its checksum");
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(block), Ok(block.len()), "it is one frame");
            let size =
                zstd::zstd_safe::get_frame_content_size(block).ok().flatten().expect("it holds its content size");
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
            assert!(bytes.is_empty(), "one member, and nothing behind it");
            content
        }
        Codec::Zstd => {
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(bytes), Ok(bytes.len()), "one frame");
            zstd::stream::decode_all(bytes).unwrap()
        }
    }
}

fn unpack_footer(codec: Codec, footer: &[u8]) -> Vec<u8> {
    craft::unpack(codec, footer)
}

/// What the specification says of an SQLite snapshot's entries and manifests; the manifest inside.
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

/// A table as its manifest should describe it: `rows`, `bytes`, `digest`, `columns`; and every row in words.
struct Surveyed {
    facts: Value,
    rows: Vec<String>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The sum modulo 2^128 of the XXH3-128 of each row's encoding, as `lifeboat::platform::digest` describes it.
fn digest_of(connection: &Connection, sql: &str) -> (u64, u64, String, Vec<String>) {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let (mut count, mut bytes, mut sum, mut words) = (0, 0, 0u128, Vec::new());
    while let Some(row) = rows.next().unwrap() {
        let (mut encoded, mut said) = (Vec::new(), Vec::new());
        for column in 0..columns {
            match row.get_ref(column).unwrap() {
                ValueRef::Null => {
                    encoded.push(0);
                    said.push("null".to_owned());
                }
                ValueRef::Integer(value) => {
                    encoded.push(1);
                    encoded.extend(value.to_le_bytes());
                    bytes += 8;
                    said.push(format!("integer {value}"));
                }
                ValueRef::Real(value) => {
                    encoded.push(2);
                    encoded.extend(value.to_le_bytes());
                    bytes += 8;
                    said.push(format!("real {:016x}", value.to_bits()));
                }
                ValueRef::Text(value) => {
                    encoded.push(3);
                    encoded.extend((value.len() as u64).to_le_bytes());
                    encoded.extend(value);
                    bytes += value.len() as u64;
                    said.push(match std::str::from_utf8(value) {
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
                    said.push(match value.len() {
                        0..=200 => format!("blob {}", hex::encode(value)),
                        bytes => format!("blob of {bytes} bytes, {}", sha256(value)),
                    });
                }
            }
        }
        sum = sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(&encoded));
        count += 1;
        words.push(said.join(", "));
    }
    words.sort();
    (count, bytes, format!("xxh3-128-sum:{sum:032x}"), words)
}

/// Every table of a database, and the digest of its schema.
fn survey(path: &Path) -> (BTreeMap<String, Surveyed>, String) {
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
        // Generated columns are no part of the digest.
        let own: Vec<String> = columns.iter().filter(|column| column.2 == 0).map(|column| quoted(&column.0)).collect();
        let (rows, bytes, digest, words) =
            digest_of(&connection, &format!("SELECT {} FROM {}", own.join(", "), quoted(&name)));
        let columns: Vec<Value> = columns
            .iter()
            .map(|(name, declared, hidden)| match hidden {
                0 => json!({"name": name, "type": declared}),
                _ => json!({"name": name, "type": declared, "generated": true}),
            })
            .collect();
        let facts = json!({"name": name, "rows": rows, "bytes": bytes, "digest": digest, "columns": columns});
        tables.insert(name, Surveyed { facts, rows: words });
    }
    let schema = digest_of(&connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema").2;
    (tables, schema)
}

/// Requires that a manifest says of every table what is true of the database in `image`.
#[track_caller]
fn check_tables(manifest: &Value, image: &Path) {
    let (tables, schema) = survey(image);
    assert_eq!(manifest["sqlite"]["schema_digest"], schema);
    let told: BTreeMap<&str, &Value> =
        manifest["tables"].as_array().unwrap().iter().map(|table| (table["name"].as_str().unwrap(), table)).collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), tables.keys().map(String::as_str).collect::<Vec<_>>());
    let mut rows = 0;
    for (name, table) in &tables {
        let mut told = told[name.as_str()].clone();
        let kind = told.as_object_mut().unwrap().remove("type").unwrap();
        if kind != "virtual" && !name.starts_with("sqlite_") {
            rows += table.facts["rows"].as_u64().unwrap();
        }
        assert_eq!(told, table.facts, "{name}");
    }
    assert_eq!(manifest["rows"], rows, "rows of all tables but virtual ones and SQLite's own");
}

// --- the samples

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(samples().join("expected.json")).unwrap()).unwrap()
}

/// A sample's archive and manifest, and the id.
fn sample(codec: Codec) -> (Vec<u8>, Vec<u8>, String) {
    let id = expected()[codec.name()]["id"].as_str().unwrap().to_owned();
    let folder = samples().join(codec.name()).join("odd");
    let archive = fs::read(folder.join(format!("{id}{}", codec.extension()))).unwrap();
    (archive, fs::read(folder.join(format!("{id}.json"))).unwrap(), id)
}

/// A sandbox with a copy of a sample store as `backups`.
fn sample_store(codec: Codec) -> Sandbox {
    let sandbox = Sandbox::new();
    copy_folder(&samples().join(codec.name()), &sandbox.path("backups"));
    sandbox
}

/// A small database of all that is odd.
fn odd_database(path: &Path, pragmas: &str) {
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

/// Makes `tests/data/v1`; see `tests/data/README.md`. Samples of a released version are never made again.
#[test]
#[ignore = "writes tests/data/v1, once"]
fn generate_samples() {
    assert!(!samples().exists(), "{} is there already, and samples are for ever", samples().display());
    let mut expected = Map::new();
    for (codec, pragmas) in [
        (Codec::Gzip, "PRAGMA journal_mode = wal; PRAGMA page_size = 4096;"),
        (Codec::Zstd, "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 1024; PRAGMA journal_mode = delete;"),
    ] {
        let sandbox = Sandbox::new();
        let source = sandbox.path("odd %_database.db");
        // A WAL that was not yet checkpointed belongs to the database.
        odd_database(&source, pragmas);
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
        let (tables, schema) = survey(&source);
        let tables: Map<String, Value> =
            tables.into_iter().map(|(name, table)| (name, json!({"facts": table.facts, "rows": table.rows}))).collect();
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
fn the_samples_are_in_every_point_what_the_specification_says() {
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
fn the_samples_hold_the_rows_that_were_put_into_them() {
    for codec in CODECS {
        let expected = &expected()[codec.name()];
        let sandbox = Sandbox::new();
        fs::write(sandbox.path("image.db"), &read(&sample(codec).0).entries[1].1).unwrap();
        let (tables, schema) = survey(&sandbox.path("image.db"));
        assert_eq!(expected["schema_digest"], schema);
        let found: Map<String, Value> =
            tables.into_iter().map(|(name, table)| (name, json!({"facts": table.facts, "rows": table.rows}))).collect();
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
        assert!(fs::read(sandbox.path("copy.db")).unwrap() == reading.entries[1].1, "restored byte for byte");
        let expected = &expected()[codec.name()]["tables"];
        let (tables, _) = survey(&sandbox.path("copy.db"));
        for (name, table) in &tables {
            assert_eq!(expected[name]["rows"], json!(table.rows), "{name}");
        }
        sandbox.ok(&["extract", &id, "--to", "folder", "--store", "backups"]);
        for (path, content) in &reading.entries {
            assert!(&fs::read(sandbox.path("folder").join(path)).unwrap() == content, "{path}");
        }
        let stream = sandbox.ok(&["extract", &id, "--to", "-", "--store", "backups"]);
        assert!(stream.output.stdout == reading.tar, "the stream on stdout is the archive's");
        for (path, content) in &reading.entries {
            let one = sandbox.ok(&["extract", &id, "--entry", path, "--to", "-", "--store", "backups"]);
            assert!(&one.output.stdout == content, "{path}");
        }
        // Over another database.
        crate::support::sample(sandbox.path("live.db"), 2, "delete");
        if codec == Codec::Gzip {
            sandbox.ok(&["restore", &id, "--to", "live.db", "--replace", "--yes", "--store", "backups"]);
            let (tables, _) = survey(&sandbox.path("live.db"));
            for (name, table) in &tables {
                assert_eq!(expected[name]["rows"], json!(table.rows), "{name}");
            }
        }
    }
}

// --- other people's tools

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

/// Requires that GNU tar, gzip, zstd and Python read what the independent reader read, without a word of complaint.
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

    // What gzip and zstd give is the tar stream, then the index, which tar passes over.
    let all = craft::unpack(reading.codec, &fs::read(archive).unwrap());
    assert!(all.starts_with(&reading.tar) && all[reading.tar.len()..].starts_with(b"{\"format\":1,"));
    // Python knows gzip by itself; zstd only in its newest versions. (Its `r|gz` reads one member only: not for us.)
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
    let seen: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted: Vec<Value> = reading
        .entries
        .iter()
        .map(|(path, content)| json!([path, true, content.len(), 0o600, reading.mtime, 0, sha256(content)]))
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn tar_gzip_zstd_and_python_open_the_samples() {
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

/// Takes a snapshot and holds it against the specification, other people's tools, and its own source.
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
fn an_archive_of_many_blocks_that_do_not_compress_opens_everywhere() {
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
        // The last block is the manifest's, and the one before is what was left of the rest.
        let [full @ .., rest, last] = reading.block_lengths.as_slice() else { panic!("{:?}", reading.block_lengths) };
        assert_eq!(full, [4 << 20; 3], "and {rest}, {last}");
    }
}

#[test]
fn entries_with_long_and_odd_names_open_everywhere() {
    if !have(&["tar", "gzip", "zstd", "python3", "sqlite3"]) {
        return;
    }
    // With `data/` before it: 99, 100, 101 bytes, the longest that leaves room for `-journal`; and what a shell would read in another way.
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
fn names_in_other_scripts_open_everywhere_however_long() {
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
fn a_database_of_the_longest_name_is_restored_to_where_it_came_from() {
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
fn every_odd_database_is_read_alike_by_two_hands() {
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
            odd_database(&sandbox.path("odd.db"), pragmas);
            check_snapshot(&sandbox, "odd.db", codec);
        }
    }
}

#[test]
fn the_specification_is_the_one_that_this_test_reads() {
    // Whoever changes the page changes this test, and brings samples of another version.
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/archive/mod.rs")).unwrap();
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
