//! Every kind of damage at every structural place: found by `verify` and `drill`, refused by `restore` and `extract`.

use std::ops::Range;
use std::sync::Arc;

use crate::support::craft::{self, CODECS, Codec, File, Layout, file};
use crate::support::vault::{Vault, fitting};
use lifeboat::archive::{ArchiveReader, Entry, Visitor};
use lifeboat::platform::error::Kind;
use serde_json::{Value, json};

/// Enough for three blocks.
const MEGABYTES: u32 = 10;

/// How the reader, which knows nothing of the manifest outside, takes an archive: what it says, or None where all is well.
fn reader_says(archive: Vec<u8>) -> Option<String> {
    struct Nobody;
    impl Visitor for Nobody {
        fn start(&mut self, _: &Entry) -> lifeboat::platform::error::Result<()> {
            Ok(())
        }
        fn data(&mut self, _: &[u8]) -> lifeboat::platform::error::Result<()> {
            Ok(())
        }
        fn end(&mut self, _: &Entry) -> lifeboat::platform::error::Result<()> {
            Ok(())
        }
    }
    let reader = match ArchiveReader::open(Arc::new(archive), 1) {
        Ok(reader) => reader,
        Err(error) => {
            assert_eq!(error.kind, Kind::Problem, "{error}");
            return Some(error.to_string());
        }
    };
    let inspected = match reader.inspect() {
        Ok(walk) => walk.problems.into_iter().next(),
        Err(error) => Some(error),
    };
    let walked = reader.walk(&mut Nobody).err();
    assert_eq!(
        inspected.is_some(),
        walked.is_some(),
        "one reading finds what the other does not: {inspected:?} {walked:?}"
    );
    for error in inspected.iter().chain(&walked) {
        assert_eq!(error.kind, Kind::Problem, "{error}");
    }
    inspected.map(|error| error.to_string())
}

/// A small archive, made by the program's own snapshot.
fn small(codec: Codec) -> Vec<u8> {
    let vault = Vault::new(codec, 0);
    assert!(vault.archive_bytes.len() < 12_000, "{} bytes are too many to damage each", vault.archive_bytes.len());
    vault.archive_bytes
}

#[test]
fn a_bit_flipped_in_any_byte_is_found_without_the_manifest() {
    for codec in CODECS {
        let good = small(codec);
        let map = craft::map(&good);
        assert_eq!(reader_says(good.clone()), None);
        let whole = craft::sha256(&good);
        let mut unseen = Vec::new();
        for at in 0..good.len() {
            // All bits where single ones mean something, one in data.
            let frame = map.footer.contains(&at) || at < 20 || map.index.start + 20 > at && at >= map.index.start;
            let bits = if frame { 0..8 } else { at as u32 % 8..at as u32 % 8 + 1 };
            for bit in bits {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_ne!(craft::sha256(&bad), whole);
                if reader_says(bad).is_none() {
                    unseen.push((at, bit));
                }
            }
        }
        assert!(unseen.is_empty(), "{}: nothing notices (byte, bit) {unseen:?} of {map:?}", codec.name());
    }
}

#[test]
fn an_archive_cut_at_any_length_is_found_without_the_manifest() {
    for codec in CODECS {
        let good = small(codec);
        let unseen: Vec<usize> = (0..good.len()).filter(|at| reader_says(good[..*at].to_vec()).is_none()).collect();
        assert!(unseen.is_empty(), "{}: cut at {unseen:?}", codec.name());
    }
}

#[test]
fn a_byte_too_many_or_too_few_anywhere_is_found_without_the_manifest() {
    for codec in CODECS {
        let good = small(codec);
        let mut unseen = Vec::new();
        for at in 0..=good.len() {
            let more = [&good[..at], &[0], &good[at..]].concat();
            if reader_says(more).is_none() {
                unseen.push((at, "more"));
            }
            if at < good.len() && reader_says([&good[..at], &good[at + 1..]].concat()).is_none() {
                unseen.push((at, "less"));
            }
        }
        assert!(unseen.is_empty(), "{}: {unseen:?}", codec.name());
    }
}

/// The structural places of an archive of four blocks, the last of which holds the manifest.
fn places(archive: &[u8]) -> Vec<(String, Range<usize>)> {
    let map = craft::map(archive);
    let (first, middle, last) = (map.blocks[0].clone(), map.blocks[1].clone(), map.blocks[3].clone());
    assert_eq!(map.blocks.len(), 4);
    // A member's header and what ends it: CRC-32 and length, or the checksum.
    let (head, tail) = if map.codec == Codec::Gzip { (10, 8) } else { (9, 4) };
    let half = |range: &Range<usize>| range.start + range.len() / 2..range.start + range.len() / 2 + 16;
    let mut places = vec![
        ("magic of the first block".to_owned(), first.start..first.start + 4),
        ("header of the first block".to_owned(), first.start + 4..first.start + head),
        ("first data of the first block".to_owned(), first.start + head..first.start + head + 16),
        ("middle of the first block".to_owned(), half(&first)),
        ("trailer of the first block".to_owned(), first.end - tail..first.end),
        ("header of the middle block".to_owned(), middle.start..middle.start + head),
        ("middle of the middle block".to_owned(), half(&middle)),
        ("trailer of the middle block".to_owned(), middle.end - tail..middle.end),
        ("header of the last block".to_owned(), last.start..last.start + head),
        ("middle of the last block".to_owned(), half(&last)),
        ("trailer of the last block".to_owned(), last.end - tail..last.end),
        ("whole middle block".to_owned(), middle),
        ("header of the index".to_owned(), map.index.start..map.index.start + head),
        ("middle of the index".to_owned(), half(&map.index)),
        ("end of the index".to_owned(), map.index.end - 4..map.index.end),
    ];
    let (payload, length) = map.codec.footer();
    let at = map.footer.start + payload;
    let fields = [
        ("magic", 0..8),
        ("version", 8..12),
        ("zeros", 12..16),
        ("index offset", 16..24),
        ("index length", 24..32),
        ("index hash", 32..64),
    ];
    places.extend(fields.map(|(name, range)| (format!("footer's {name}"), at + range.start..at + range.end)));
    places.push(("footer's frame".to_owned(), map.footer.start..at));
    if length > payload + 64 {
        places.push(("footer's end".to_owned(), at + 64..map.footer.end));
    }
    places.push(("whole footer".to_owned(), map.footer));
    places
}

type Damage = fn(&mut Vec<u8>, Range<usize>);

const DAMAGES: [(&str, Damage); 7] = [
    ("a bit flipped in the first byte", |bytes, place| bytes[place.start] ^= 0x10),
    ("a bit flipped in the last byte", |bytes, place| bytes[place.end - 1] ^= 1),
    ("zeroed", |bytes, place| bytes[place].fill(0)),
    ("overwritten", |bytes, place| bytes[place].iter_mut().for_each(|byte| *byte = !*byte)),
    ("cut off there", |bytes, place| bytes.truncate(place.start)),
    ("taken out", |bytes, place| drop(bytes.drain(place))),
    ("doubled", |bytes, place| {
        let copy = bytes[place.clone()].to_vec();
        drop(bytes.splice(place.start..place.start, copy));
    }),
];

fn damage_everywhere(codec: Codec) {
    let vault = Vault::new(codec, MEGABYTES);
    let mut broken = String::new();
    let mut cases = 0;
    for (place, range) in places(&vault.archive_bytes) {
        for (what, damage) in DAMAGES {
            let mut bad = vault.archive_bytes.clone();
            damage(&mut bad, range.clone());
            if bad == vault.archive_bytes {
                // Zeros zeroed.
                continue;
            }
            let label = format!("{place}: {what}");
            vault.put(Some(&bad), &vault.document);
            broken += &vault.broken_promises(&label, "");
            if reader_says(bad).is_none() {
                broken += &format!("=== {}, {label}: the reader alone does not notice\n", codec.name());
            }
            cases += 1;
        }
    }
    assert!(broken.is_empty(), "{broken}");
    assert!(cases > 140, "only {cases} cases");
}

#[test]
fn damage_to_a_gzip_archive_is_caught_at_every_place() {
    damage_everywhere(Codec::Gzip);
}

#[test]
fn damage_to_a_zstd_archive_is_caught_at_every_place() {
    damage_everywhere(Codec::Zstd);
}

#[test]
fn an_undamaged_archive_passes_all_that_catches_damaged_ones() {
    for codec in CODECS {
        let vault = Vault::new(codec, MEGABYTES);
        assert_eq!(reader_says(vault.archive_bytes.clone()), None);
        for arguments in [
            &["verify", &vault.id][..],
            &["drill", &vault.id],
            &["restore", &vault.id, "--to", "new.db"],
            &["restore", &vault.id, "--to", "live.db", "--replace", "--yes"],
            &["extract", &vault.id, "--to", "folder"],
        ] {
            let run = vault.run(arguments);
            assert_eq!(run.code(), 0, "{}", run.transcript());
        }
        // The same archive, built by another hand.
        let rebuilt = vault.layout(&vault.files()).bytes();
        vault.put_fitting(&rebuilt);
        for arguments in [&["verify", &vault.id][..], &["drill", &vault.id]] {
            let run = vault.run(arguments);
            assert_eq!(run.code(), 0, "{}", run.transcript());
        }
    }
}

#[test]
fn swapped_missing_and_doubled_blocks_are_caught() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, MEGABYTES);
        let map = craft::map(&vault.archive_bytes);
        let blocks: Vec<&[u8]> = map.blocks.iter().map(|range| &vault.archive_bytes[range.clone()]).collect();
        let end = &vault.archive_bytes[map.index.start..];
        let orders: [&[usize]; 6] = [&[1, 0, 2], &[0, 2, 1], &[0, 2], &[0, 1, 1, 2], &[0, 1, 2, 2], &[0, 0, 2]];
        for order in orders {
            let label = format!("blocks {order:?}");
            let chosen: Vec<Vec<u8>> = order.iter().map(|i| blocks[*i].to_vec()).collect();
            // The index as it was ...
            let bad = [&chosen.concat(), end].concat();
            vault.put(Some(&bad), &vault.document);
            broken += &vault.broken_promises(&label, "");
            vault.put_fitting(&bad);
            broken += &vault.broken_promises(&format!("{label}, the manifest fitting"), "");
            // ... and one that says that it should be so.
            let mut layout = vault.layout(&map.files);
            layout.blocks = chosen;
            let lengths: Vec<usize> = order.iter().map(|i| map.tar_lengths[*i]).collect();
            layout.describe_blocks(&lengths);
            layout.head["blocks"] = order.len().into();
            layout.head["tar_bytes"] = lengths.iter().sum::<usize>().into();
            vault.put_fitting(&layout.bytes());
            broken += &vault.broken_promises(&format!("{label}, index and manifest fitting"), "");
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

/// Archives that are well made but not what they were: labels, and files or a layout of one's own.
fn rebuilt(vault: &Vault) -> Vec<(&'static str, Layout)> {
    let good = vault.files();
    let (readme, image, inside) = (&good[0], &good[1], &good[2]);
    let changed = |which: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = good.clone();
        change(&mut files[which].content);
        vault.layout(&files)
    };
    let of = |files: &[&File]| vault.layout(&files.iter().map(|file| (*file).clone()).collect::<Vec<_>>());
    let flip = |at: usize| move |content: &mut Vec<u8>| content[at] ^= 1;
    let half = image.content.len() / 2;
    vec![
        ("no README", of(&[image, inside])),
        ("no image", of(&[readme, inside])),
        ("no manifest inside", of(&[readme, image])),
        ("nothing inside", of(&[])),
        ("README twice", of(&[readme, readme, image, inside])),
        ("image twice", of(&[readme, image, image, inside])),
        ("manifest twice", of(&[readme, image, inside, inside])),
        ("image twice under two names", of(&[readme, image, &file("data/copy.db", image.content.clone()), inside])),
        ("an entry too many at the end", of(&[readme, image, inside, &file("more", "more")])),
        ("README and image swapped", of(&[image, readme, inside])),
        ("manifest first", of(&[inside, readme, image])),
        ("a bit flipped in the README", changed(0, &flip(20))),
        ("a bit flipped in the image", changed(1, &flip(half))),
        ("a bit flipped in the manifest inside", changed(2, &flip(30))),
        ("README empty", changed(0, &Vec::clear)),
        ("image empty", changed(1, &Vec::clear)),
        ("manifest inside empty", changed(2, &Vec::clear)),
        ("image cut", changed(1, &|content| content.truncate(half))),
        ("image longer", changed(1, &|content| content.extend([0; 4096]))),
        ("a page of the image zeroed", changed(1, &|content| content[half / 4096 * 4096..][..4096].fill(0))),
        ("manifest inside cut", changed(2, &|content| content.truncate(content.len() / 2))),
    ]
}

#[test]
fn a_removed_doubled_or_changed_entry_is_caught_though_the_index_agrees() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 1);
        for (label, layout) in rebuilt(&vault) {
            vault.put(Some(&layout.bytes()), &vault.document);
            broken += &vault.broken_promises(label, "");
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn a_changed_entry_whose_old_hash_stands_in_the_index_is_caught_without_the_manifest() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 1);
        let good = vault.layout(&vault.files());
        for (label, mut layout) in rebuilt(&vault) {
            let same_lengths = layout.entry_lines.len() == good.entry_lines.len()
                && layout
                    .entry_lines
                    .iter()
                    .zip(&good.entry_lines)
                    .all(|(a, b)| a["bytes"] == b["bytes"] && a["path"] == b["path"]);
            if !same_lengths {
                continue;
            }
            layout.entry_lines = good.entry_lines.clone();
            let bad = layout.bytes();
            vault.put_fitting(&bad);
            broken += &vault.broken_promises(label, "SHA-256 is off");
            if reader_says(bad).is_none() {
                broken += &format!("=== {}, {label}: the reader alone does not notice\n", codec.name());
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn an_image_changed_with_all_hashes_made_to_fit_is_caught_by_what_restores_it() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 1);
        let mut files = vault.files();
        let at = files[1].content.windows(10).position(|window| window == b"note 500 2").unwrap();
        files[1].content[at + 9] ^= 1;
        vault.put_fitting(&vault.layout(&files).bytes());
        broken += &vault.broken_promises_of("one digit in one row", "", &["drill", "create", "replace"]);
    }
    assert!(broken.is_empty(), "{broken}");
}

type Edit<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_manifest_that_lies_inside_and_outside_alike_is_caught_by_what_restores() {
    let mut broken = String::new();
    let digest = json!("xxh3-128-sum:00000000000000000000000000000001");
    let vault = Vault::new(Codec::Zstd, 1);
    let edits: [(&str, Edit<'_>); 9] = [
        ("a digest", &|m| m["tables"][0]["digest"] = digest.clone()),
        ("no digest", &|m| m["tables"][0]["digest"] = Value::Null),
        ("a table's rows", &|m| m["tables"][0]["rows"] = 17.into()),
        ("a column", &|m| m["tables"][0]["columns"][1]["name"] = "other".into()),
        ("a table less", &|m| drop(m["tables"].as_array_mut().unwrap().pop())),
        ("no tables", &|m| m["tables"] = json!([])),
        ("a table more", &|m| {
            let mut more = m["tables"][0].clone();
            more["name"] = "more".into();
            m["tables"].as_array_mut().unwrap().push(more);
        }),
        ("the schema's digest", &|m| m["sqlite"]["schema_digest"] = digest.clone()),
        ("the page size", &|m| {
            m["sqlite"]["page_bytes"] = (m["sqlite"]["page_bytes"].as_u64().unwrap() * 2).into();
        }),
    ];
    for (label, edit) in edits {
        let mut files = vault.files();
        let mut inside: Value = serde_json::from_slice(&files[2].content).unwrap();
        edit(&mut inside);
        files[2].content = inside.to_string().into_bytes();
        let archive = vault.layout(&files).bytes();
        vault.put(Some(&archive), &fitting(inside, &archive));
        broken += &vault.broken_promises_of(label, "", &["drill", "create", "replace"]);
    }
    assert!(broken.is_empty(), "{broken}");
}

/// What a person, a script or a bad disk could make of the manifest outside.
#[allow(clippy::type_complexity)]
fn manifest_edits() -> Vec<(&'static str, Box<dyn Fn(&mut Value)>)> {
    fn set(pointer: &'static str, value: Value) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |m| *m.pointer_mut(pointer).unwrap() = value.clone())
    }
    fn add(pointer: &'static str, by: i64) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |m| {
            let value = m.pointer_mut(pointer).unwrap();
            *value = (value.as_i64().unwrap() + by).into();
        })
    }
    fn remove(pointer: &'static str, name: &'static str) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |m| drop(m.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name).unwrap()))
    }
    fn insert(pointer: &'static str, name: &'static str, value: Value) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |m| {
            assert!(
                m.pointer_mut(pointer)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .insert(name.to_owned(), value.clone())
                    .is_none()
            );
        })
    }
    let zeros = json!("0".repeat(64));
    let digest = json!("xxh3-128-sum:00000000000000000000000000000001");
    let other = "app-20200101T000000Z-abcd";
    vec![
        ("sha256 another", set("/sha256", zeros)),
        ("sha256 of another form", set("/sha256", json!("abc"))),
        ("sha256 null", set("/sha256", Value::Null)),
        ("sha256 gone", remove("", "sha256")),
        ("sha256 in capitals", Box::new(|m| m["sha256"] = m["sha256"].as_str().unwrap().to_uppercase().into())),
        ("archive_bytes one more", add("/archive_bytes", 1)),
        ("archive_bytes one less", add("/archive_bytes", -1)),
        ("archive_bytes 0", set("/archive_bytes", json!(0))),
        ("archive_bytes the largest", set("/archive_bytes", json!(u64::MAX))),
        ("archive_bytes negative", set("/archive_bytes", json!(-1))),
        ("archive_bytes gone", remove("", "archive_bytes")),
        ("rows one more", add("/rows", 1)),
        ("rows one less", add("/rows", -1)),
        ("rows gone", remove("", "rows")),
        ("a table's digest another", set("/tables/0/digest", digest.clone())),
        ("a table's digest null", set("/tables/0/digest", Value::Null)),
        ("a table's digest of another kind", set("/tables/0/digest", json!("md5:00"))),
        ("a table's digest gone", remove("/tables/0", "digest")),
        ("a table's rows one more", add("/tables/0/rows", 1)),
        ("a table's rows null", set("/tables/0/rows", Value::Null)),
        ("a table's bytes another", add("/tables/0/bytes", 1)),
        ("a table's name another", set("/tables/0/name", json!("other"))),
        ("a table's type another", set("/tables/0/type", json!("virtual"))),
        ("a table's columns gone", set("/tables/0/columns", json!([]))),
        ("a table's column renamed", set("/tables/0/columns/0/name", json!("other"))),
        ("a reason that was not there", insert("/tables/0", "reason", json!("because"))),
        ("no tables", set("/tables", json!([]))),
        ("tables gone", remove("", "tables")),
        ("a table less", Box::new(|m| drop(m["tables"].as_array_mut().unwrap().remove(0)))),
        (
            "a table twice",
            Box::new(|m| {
                let twin = m["tables"][0].clone();
                m["tables"].as_array_mut().unwrap().push(twin);
            }),
        ),
        ("id another", set("/id", json!(other))),
        ("id of another source", set("/id", json!("other-20200101T000000Z-abcd"))),
        ("id no id", set("/id", json!("../../etc/passwd"))),
        ("source another", set("/source", json!("other"))),
        ("source a path", set("/source", json!("../other"))),
        ("archive another", set("/archive", json!(format!("{other}.tar.gz")))),
        ("archive a path", set("/archive", json!("../../app.tar.gz"))),
        ("origin's host another", set("/origin/host", json!("elsewhere"))),
        ("origin's path another", set("/origin/path", json!("/etc/passwd"))),
        ("kind another", set("/kind", json!("safety"))),
        ("kind unknown", set("/kind", json!("best"))),
        ("engine another", set("/engine", json!("postgres"))),
        ("created_at another", set("/created_at", json!("2020-01-01T00:00:00Z"))),
        ("created_at no time", set("/created_at", json!("yesterday"))),
        ("a tag more", set("/tags", json!(["predeploy"]))),
        ("raw_bytes one more", add("/raw_bytes", 1)),
        ("raw_bytes the largest", set("/raw_bytes", json!(u64::MAX))),
        ("codec unknown", set("/codec", json!("lz4"))),
        ("encrypted", set("/encrypted", json!(true))),
        ("server_version another", set("/server_version", json!("3.0.0"))),
        ("lifeboat_version another", set("/lifeboat_version", json!("9.9.9"))),
        ("seconds another", set("/seconds", json!(12345.5))),
        ("format 0", set("/format", json!(0))),
        ("format 2", set("/format", json!(2))),
        ("format a text", set("/format", json!("1"))),
        ("format gone", remove("", "format")),
        ("an unknown field", insert("", "note", json!("hello"))),
        ("an unknown field in a table", insert("/tables/0", "note", json!("hello"))),
        ("an unknown field in what SQLite has", insert("/sqlite", "note", json!(1))),
        ("image another", set("/sqlite/image", json!("data/other.db"))),
        ("image outside", set("/sqlite/image", json!("../../app.db"))),
        ("image the README", set("/sqlite/image", json!("README.txt"))),
        ("page_bytes another", set("/sqlite/page_bytes", json!(512))),
        ("page_bytes the largest", set("/sqlite/page_bytes", json!(u64::MAX))),
        ("pages one less", add("/sqlite/pages", -1)),
        ("encoding another", set("/sqlite/encoding", json!("UTF-16le"))),
        ("journal_mode another", set("/sqlite/journal_mode", json!("wal2"))),
        ("user_version another", add("/sqlite/user_version", 1)),
        ("application_id another", add("/sqlite/application_id", 1)),
        ("schema_digest another", set("/sqlite/schema_digest", digest)),
        ("file_mode another", set("/sqlite/file_mode", json!(0o4777))),
        ("health with a fault", set("/sqlite/health/integrity", json!(["row 1 missing from index"]))),
        ("health by another check", set("/sqlite/health/check", json!("integrity_check"))),
        ("health by an unknown check", set("/sqlite/health/check", json!("no_check"))),
        ("health null", set("/sqlite/health", Value::Null)),
        ("health gone", remove("/sqlite", "health")),
        ("sqlite gone", remove("", "sqlite")),
    ]
}

fn edit_manifests(codec: Codec, wanted: fn(&str) -> bool) {
    let vault = Vault::new(codec, 0);
    let mut broken = String::new();
    for (label, edit) in manifest_edits().into_iter().filter(|(label, _)| wanted(label)) {
        let mut manifest = vault.outside();
        edit(&mut manifest);
        assert_ne!(manifest, vault.outside(), "{label} changes nothing");
        vault.put(Some(&vault.archive_bytes), manifest.to_string().as_bytes());
        let words = if label == "format 2" { "unknown format version 2" } else { "" };
        broken += &vault.broken_promises(label, words);
    }
    assert!(broken.is_empty(), "{broken}");
}

/// These say that there is nothing to restore, or not there; whoever believes them before the manifest inside was
/// read takes damage for a mistake of the user's.
fn asks_for_something_else(label: &str) -> bool {
    ["health null", "health gone", "sqlite gone", "encoding another"].contains(&label)
}

#[test]
fn every_edited_field_of_a_gzip_manifest_is_caught() {
    edit_manifests(Codec::Gzip, |label| !asks_for_something_else(label));
}

#[test]
fn every_edited_field_of_a_zstd_manifest_is_caught() {
    edit_manifests(Codec::Zstd, |label| !asks_for_something_else(label));
}

#[test]
fn an_edited_manifest_is_damage_even_where_it_asks_for_something_else() {
    edit_manifests(Codec::Gzip, asks_for_something_else);
}

#[test]
fn a_truncated_empty_or_garbage_manifest_is_caught() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = &vault.document;
        let doubled = String::from_utf8(good.clone()).unwrap().replacen("\"rows\"", "\"rows\": 1, \"rows\"", 1);
        let garbage: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", Vec::new()),
            ("one byte", good[..1].to_vec()),
            ("a half", good[..good.len() / 2].to_vec()),
            ("all but the last brace", good[..good.len() - 2].to_vec()),
            ("an empty object", b"{}".to_vec()),
            ("an array", b"[]".to_vec()),
            ("null", b"null".to_vec()),
            ("a text", b"\"manifest\"".to_vec()),
            ("only the format", b"{\"format\":1}".to_vec()),
            ("twice", [&good[..], good].concat()),
            ("a byte more", [&good[..], b"x"].concat()),
            ("zeros", vec![0; good.len()]),
            ("zeros behind", [&good[..], &[0; 512]].concat()),
            ("garbage", garbage),
            ("a field twice", doubled.into_bytes()),
            ("deeply nested", [&b"[".repeat(100_000)[..], &b"]".repeat(100_000)].concat()),
            ("deeply nested in a field", {
                let deep = format!("{{\"note\":{}1{},", "[".repeat(50_000), "]".repeat(50_000));
                String::from_utf8(good.clone()).unwrap().replacen('{', &deep, 1).into_bytes()
            }),
            ("the archive in its place", vault.archive_bytes.clone()),
        ];
        for (label, manifest) in cases {
            vault.put(Some(&vault.archive_bytes), &manifest);
            broken += &vault.broken_promises(label, "");
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn a_missing_empty_or_foreign_archive_is_caught() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        vault.put(Some(b""), &vault.document);
        broken += &vault.broken_promises("an empty archive", "");
        vault.put_fitting(b"");
        broken += &vault.broken_promises("an empty archive, the manifest fitting", "");
        vault.put_fitting(&vault.document);
        broken += &vault.broken_promises("the manifest in the archive's place", "");
        for other in CODECS.into_iter().filter(|other| *other != codec) {
            let foreign = Layout::of(other, &vault.files(), craft::BLOCK).bytes();
            vault.put_fitting(&foreign);
            broken += &vault.broken_promises("the other codec under this name", "");
        }
        vault.put(None, &vault.document);
        broken += &vault.broken_promises("no archive", "missing");
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn what_belongs_to_another_snapshot_is_caught() {
    let mut broken = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let other = Vault::new(codec, 1);
        // As if it had always been in this store, under its own name.
        let second =
            vault.sandbox.path(format!("backups/app/{}", other.archive.file_name().unwrap().to_str().unwrap()));
        std::fs::write(second, &other.archive_bytes).unwrap();
        vault.put(Some(&vault.archive_bytes), &other.document);
        broken += &vault.broken_promises("the manifest of another", "");
        vault.put(Some(&other.archive_bytes), &vault.document);
        broken += &vault.broken_promises("the archive of another", "");
        vault.put_fitting(&other.archive_bytes);
        broken += &vault.broken_promises("the archive of another, length and hash fitting", "");
        vault.put(Some(&other.archive_bytes), &other.document);
        broken += &vault.broken_promises("archive and manifest of another", "");
        let renamed = String::from_utf8(other.document.clone()).unwrap().replace(&other.id, &vault.id);
        vault.put(Some(&other.archive_bytes), renamed.as_bytes());
        broken += &vault.broken_promises("archive and manifest of another, the id fitting", "");
    }
    assert!(broken.is_empty(), "{broken}");
}
