//! Every kind of damage at every structural place of an archive: `verify` and `drill` find it, and `restore` and
//! `extract` refuse it.

use std::ops::Range;
use std::sync::Arc;

use crate::support::craft::{self, CODECS, Codec, File, Layout, file};
use crate::support::vault::{Vault, manifest_for};
use lifeboat::archive::ArchiveReader;
use lifeboat::platform::entries::EntryVisitor;
use lifeboat::platform::error::Kind;
use serde_json::{Value, json};

/// The size of a database that fills three blocks.
const MEGABYTES: u32 = 10;

/// Reads an archive without the manifest outside it. Returns the first problem that the reader finds, or `None`.
fn reader_problem(archive: Vec<u8>) -> Option<String> {
    struct Ignore;
    impl EntryVisitor for Ignore {
        fn start(&mut self, _: &str, _: u64) -> lifeboat::platform::error::Result<()> {
            Ok(())
        }
        fn data(&mut self, _: &[u8]) -> lifeboat::platform::error::Result<()> {
            Ok(())
        }
        fn end(&mut self) -> lifeboat::platform::error::Result<()> {
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
    let walked = reader.walk(&mut Ignore).err();
    assert_eq!(inspected.is_some(), walked.is_some(), "inspect() and walk() disagree: {inspected:?} {walked:?}");
    for error in inspected.iter().chain(&walked) {
        assert_eq!(error.kind, Kind::Problem, "{error}");
    }
    inspected.map(|error| error.to_string())
}

/// A small archive from a snapshot that the program took.
fn small_archive(codec: Codec) -> Vec<u8> {
    let vault = Vault::new(codec, 0);
    assert!(vault.archive_bytes.len() < 12_000, "{} bytes are too many to damage each", vault.archive_bytes.len());
    vault.archive_bytes
}

#[test]
fn a_bit_flipped_in_any_byte_is_found_without_the_manifest() {
    for codec in CODECS {
        let good = small_archive(codec);
        let map = craft::map(&good);
        assert_eq!(reader_problem(good.clone()), None);
        let good_hash = craft::sha256(&good);
        let mut undetected = Vec::new();
        for at in 0..good.len() {
            // Every bit of the structural bytes, and one bit of each byte of compressed data.
            let is_structural =
                map.footer.contains(&at) || at < 20 || map.index.start + 20 > at && at >= map.index.start;
            let bits = if is_structural { 0..8 } else { at as u32 % 8..at as u32 % 8 + 1 };
            for bit in bits {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_ne!(craft::sha256(&bad), good_hash);
                if reader_problem(bad).is_none() {
                    undetected.push((at, bit));
                }
            }
        }
        assert!(undetected.is_empty(), "{}: not found: (byte, bit) {undetected:?} of {map:?}", codec.name());
    }
}

#[test]
fn an_archive_truncated_at_any_length_is_found_without_the_manifest() {
    for codec in CODECS {
        let good = small_archive(codec);
        let undetected: Vec<usize> =
            (0..good.len()).filter(|at| reader_problem(good[..*at].to_vec()).is_none()).collect();
        assert!(undetected.is_empty(), "{}: not found: truncated at {undetected:?}", codec.name());
    }
}

#[test]
fn an_inserted_or_removed_byte_is_found_without_the_manifest() {
    for codec in CODECS {
        let good = small_archive(codec);
        let mut undetected = Vec::new();
        for at in 0..=good.len() {
            let longer = [&good[..at], &[0], &good[at..]].concat();
            if reader_problem(longer).is_none() {
                undetected.push((at, "inserted"));
            }
            if at < good.len() && reader_problem([&good[..at], &good[at + 1..]].concat()).is_none() {
                undetected.push((at, "removed"));
            }
        }
        assert!(undetected.is_empty(), "{}: not found: {undetected:?}", codec.name());
    }
}

/// The structural places of an archive of four blocks, the last of which holds the manifest.
fn places(archive: &[u8]) -> Vec<(String, Range<usize>)> {
    let map = craft::map(archive);
    let (first, middle, last) = (map.blocks[0].clone(), map.blocks[1].clone(), map.blocks[3].clone());
    assert_eq!(map.blocks.len(), 4);
    // The lengths of a member's header, and of its trailer: CRC-32 and length, or the checksum.
    let (head, tail) = if map.codec == Codec::Gzip { (10, 8) } else { (9, 4) };
    let middle_of = |range: &Range<usize>| range.start + range.len() / 2..range.start + range.len() / 2 + 16;
    let mut places = vec![
        ("magic of the first block".to_owned(), first.start..first.start + 4),
        ("header of the first block".to_owned(), first.start + 4..first.start + head),
        ("first data of the first block".to_owned(), first.start + head..first.start + head + 16),
        ("middle of the first block".to_owned(), middle_of(&first)),
        ("trailer of the first block".to_owned(), first.end - tail..first.end),
        ("header of the middle block".to_owned(), middle.start..middle.start + head),
        ("middle of the middle block".to_owned(), middle_of(&middle)),
        ("trailer of the middle block".to_owned(), middle.end - tail..middle.end),
        ("header of the last block".to_owned(), last.start..last.start + head),
        ("middle of the last block".to_owned(), middle_of(&last)),
        ("trailer of the last block".to_owned(), last.end - tail..last.end),
        ("whole middle block".to_owned(), middle),
        ("header of the index".to_owned(), map.index.start..map.index.start + head),
        ("middle of the index".to_owned(), middle_of(&map.index)),
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
    places.push(("header before the footer's payload".to_owned(), map.footer.start..at));
    if length > payload + 64 {
        places.push(("bytes after the footer's payload".to_owned(), at + 64..map.footer.end));
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
    ("truncated there", |bytes, place| bytes.truncate(place.start)),
    ("removed", |bytes, place| drop(bytes.drain(place))),
    ("doubled", |bytes, place| {
        let copy = bytes[place.clone()].to_vec();
        drop(bytes.splice(place.start..place.start, copy));
    }),
];

fn damage_everywhere(codec: Codec) {
    let vault = Vault::new(codec, MEGABYTES);
    let mut violations = String::new();
    let mut cases = 0;
    for (place, range) in places(&vault.archive_bytes) {
        for (name, damage) in DAMAGES {
            let mut bad = vault.archive_bytes.clone();
            damage(&mut bad, range.clone());
            if bad == vault.archive_bytes {
                // This damage changes nothing here, such as zeroing bytes that are zero.
                continue;
            }
            let label = format!("{place}: {name}");
            vault.put(Some(&bad), &vault.document);
            violations += &vault.violations(&label, "");
            if reader_problem(bad).is_none() {
                violations += &format!("=== {}, {label}: ArchiveReader does not find it\n", codec.name());
            }
            cases += 1;
        }
    }
    assert!(violations.is_empty(), "{violations}");
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
fn an_undamaged_archive_passes_every_command() {
    for codec in CODECS {
        let vault = Vault::new(codec, MEGABYTES);
        assert_eq!(reader_problem(vault.archive_bytes.clone()), None);
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
        // The same archive, built by `craft` instead of the program.
        let rebuilt = vault.layout(&vault.files()).bytes();
        vault.put_with_manifest(&rebuilt);
        for arguments in [&["verify", &vault.id][..], &["drill", &vault.id]] {
            let run = vault.run(arguments);
            assert_eq!(run.code(), 0, "{}", run.transcript());
        }
    }
}

#[test]
fn swapped_missing_and_doubled_blocks_are_caught() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, MEGABYTES);
        let map = craft::map(&vault.archive_bytes);
        let blocks: Vec<&[u8]> = map.blocks.iter().map(|range| &vault.archive_bytes[range.clone()]).collect();
        let end = &vault.archive_bytes[map.index.start..];
        let orders: [&[usize]; 6] = [&[1, 0, 2], &[0, 2, 1], &[0, 2], &[0, 1, 1, 2], &[0, 1, 2, 2], &[0, 0, 2]];
        for order in orders {
            let label = format!("blocks {order:?}");
            let chosen: Vec<Vec<u8>> = order.iter().map(|i| blocks[*i].to_vec()).collect();
            // The blocks with the original index.
            let bad = [&chosen.concat(), end].concat();
            vault.put(Some(&bad), &vault.document);
            violations += &vault.violations(&label, "");
            vault.put_with_manifest(&bad);
            violations += &vault.violations(&format!("{label}, with a matching manifest"), "");
            // The blocks with an index that describes them.
            let mut layout = vault.layout(&map.files);
            layout.blocks = chosen;
            let lengths: Vec<usize> = order.iter().map(|i| map.tar_lengths[*i]).collect();
            layout.describe_blocks(&lengths);
            layout.head["blocks"] = order.len().into();
            layout.head["tar_bytes"] = lengths.iter().sum::<usize>().into();
            vault.put_with_manifest(&layout.bytes());
            violations += &vault.violations(&format!("{label}, with a matching index and manifest"), "");
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

/// Archives of valid form with other contents than the original, each with a label.
fn changed_archives(vault: &Vault) -> Vec<(&'static str, Layout)> {
    let good = vault.files();
    let (readme, image, inside) = (&good[0], &good[1], &good[2]);
    let with_change = |which: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = good.clone();
        change(&mut files[which].content);
        vault.layout(&files)
    };
    let layout_of = |files: &[&File]| vault.layout(&files.iter().map(|file| (*file).clone()).collect::<Vec<_>>());
    let flip = |at: usize| move |content: &mut Vec<u8>| content[at] ^= 1;
    let half = image.content.len() / 2;
    vec![
        ("no README", layout_of(&[image, inside])),
        ("no image", layout_of(&[readme, inside])),
        ("no manifest inside", layout_of(&[readme, image])),
        ("nothing inside", layout_of(&[])),
        ("README twice", layout_of(&[readme, readme, image, inside])),
        ("image twice", layout_of(&[readme, image, image, inside])),
        ("manifest twice", layout_of(&[readme, image, inside, inside])),
        (
            "image twice under two names",
            layout_of(&[readme, image, &file("data/copy.db", image.content.clone()), inside]),
        ),
        ("an additional entry at the end", layout_of(&[readme, image, inside, &file("more", "more")])),
        ("README and image swapped", layout_of(&[image, readme, inside])),
        ("manifest first", layout_of(&[inside, readme, image])),
        ("a bit flipped in the README", with_change(0, &flip(20))),
        ("a bit flipped in the image", with_change(1, &flip(half))),
        ("a bit flipped in the manifest inside", with_change(2, &flip(30))),
        ("README empty", with_change(0, &Vec::clear)),
        ("image empty", with_change(1, &Vec::clear)),
        ("manifest inside empty", with_change(2, &Vec::clear)),
        ("image truncated", with_change(1, &|content| content.truncate(half))),
        ("image longer", with_change(1, &|content| content.extend([0; 4096]))),
        ("a page of the image zeroed", with_change(1, &|content| content[half / 4096 * 4096..][..4096].fill(0))),
        ("manifest inside truncated", with_change(2, &|content| content.truncate(content.len() / 2))),
    ]
}

#[test]
fn a_removed_doubled_or_changed_entry_is_caught_even_if_the_index_matches() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 1);
        for (label, layout) in changed_archives(&vault) {
            vault.put(Some(&layout.bytes()), &vault.document);
            violations += &vault.violations(label, "");
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn a_changed_entry_with_its_old_hash_in_the_index_is_caught_without_the_manifest() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 1);
        let good = vault.layout(&vault.files());
        for (label, mut layout) in changed_archives(&vault) {
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
            vault.put_with_manifest(&bad);
            violations += &vault.violations(label, "SHA-256 does not match");
            if reader_problem(bad).is_none() {
                violations += &format!("=== {}, {label}: ArchiveReader does not find it\n", codec.name());
            }
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn a_changed_image_with_recomputed_hashes_is_caught_by_drill_and_restore() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 1);
        let mut files = vault.files();
        let at = files[1].content.windows(10).position(|window| window == b"note 500 2").unwrap();
        files[1].content[at + 9] ^= 1;
        vault.put_with_manifest(&vault.layout(&files).bytes());
        violations += &vault.violations_of("one digit in one row", "", &["drill", "create", "replace"]);
    }
    assert!(violations.is_empty(), "{violations}");
}

type Edit<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_wrong_manifest_that_agrees_inside_and_outside_is_caught_by_drill_and_restore() {
    let mut violations = String::new();
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
        vault.put(Some(&archive), &manifest_for(inside, &archive));
        violations += &vault.violations_of(label, "", &["drill", "create", "replace"]);
    }
    assert!(violations.is_empty(), "{violations}");
}

/// Changes to the manifest outside that a person, a script or a bad disk could make.
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
        ("id not an id", set("/id", json!("../../etc/passwd"))),
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
        ("created_at not a time", set("/created_at", json!("yesterday"))),
        ("a tag more", set("/tags", json!(["predeploy"]))),
        ("raw_bytes one more", add("/raw_bytes", 1)),
        ("raw_bytes the largest", set("/raw_bytes", json!(u64::MAX))),
        ("codec unknown", set("/codec", json!("lz4"))),
        ("encrypted", set("/encrypted", json!(true))),
        ("server_version another", set("/server_version", json!("3.0.0"))),
        ("lifeboat_version another", set("/lifeboat_version", json!("9.9.9"))),
        ("seconds another", set("/seconds", json!(12345.5))),
        ("format 0", set("/format", json!(0))),
        ("format -1", set("/format", json!(-1))),
        ("format 2.5", set("/format", json!(2.5))),
        ("format a string", set("/format", json!("1"))),
        ("format a newer one as a string", set("/format", json!("2"))),
        ("format gone", remove("", "format")),
        ("an unknown field", insert("", "note", json!("hello"))),
        ("an unknown field in a table", insert("/tables/0", "note", json!("hello"))),
        ("an unknown field in 'sqlite'", insert("/sqlite", "note", json!(1))),
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
    let mut violations = String::new();
    for (label, edit) in manifest_edits().into_iter().filter(|(label, _)| wanted(label)) {
        let mut manifest = vault.outside_manifest();
        edit(&mut manifest);
        assert_ne!(manifest, vault.outside_manifest(), "{label} changes nothing");
        vault.put(Some(&vault.archive_bytes), manifest.to_string().as_bytes());
        violations += &vault.violations(label, if label == "format 0" { "unknown format version 0" } else { "" });
    }
    assert!(violations.is_empty(), "{violations}");
}

/// Returns true for edits that look like a mistake of the user: they say that the snapshot has nothing to restore, or
/// cannot be restored to this target. A command that uses the manifest outside before it has compared it with the one
/// inside reports such an edit with another exit code than that for damage.
fn looks_like_a_user_error(label: &str) -> bool {
    ["health null", "health gone", "sqlite gone", "encoding another"].contains(&label)
}

#[test]
fn every_edited_field_of_a_gzip_manifest_is_caught() {
    edit_manifests(Codec::Gzip, |label| !looks_like_a_user_error(label));
}

#[test]
fn every_edited_field_of_a_zstd_manifest_is_caught() {
    edit_manifests(Codec::Zstd, |label| !looks_like_a_user_error(label));
}

#[test]
fn an_edit_of_a_manifest_that_looks_like_a_user_error_is_reported_as_damage() {
    edit_manifests(Codec::Gzip, looks_like_a_user_error);
}

#[test]
fn a_truncated_empty_or_garbage_manifest_is_caught() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = &vault.document;
        let doubled = String::from_utf8(good.clone()).unwrap().replacen("\"rows\"", "\"rows\": 1, \"rows\"", 1);
        let garbage: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", Vec::new()),
            ("one byte", good[..1].to_vec()),
            ("its first half", good[..good.len() / 2].to_vec()),
            ("all but the last brace", good[..good.len() - 2].to_vec()),
            ("an empty object", b"{}".to_vec()),
            ("an array", b"[]".to_vec()),
            ("null", b"null".to_vec()),
            ("a string", b"\"manifest\"".to_vec()),
            ("only the format", b"{\"format\":1}".to_vec()),
            ("twice", [&good[..], good].concat()),
            ("an additional byte", [&good[..], b"x"].concat()),
            ("zeros", vec![0; good.len()]),
            ("zeros after it", [&good[..], &[0; 512]].concat()),
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
            // The archive holds its own manifest, which takes the place of one that is no JSON document.
            match serde_json::from_slice::<serde::de::IgnoredAny>(&manifest) {
                Ok(_) => violations += &vault.violations(label, ""),
                Err(_) => {
                    violations += &vault.violations_of(label, "damaged manifest", &["verify"]);
                    violations += &vault.violations_of(label, "", &["drill"]);
                }
            }
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn a_missing_empty_or_foreign_archive_is_caught() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        vault.put(Some(b""), &vault.document);
        violations += &vault.violations("an empty archive", "");
        vault.put_with_manifest(b"");
        violations += &vault.violations("an empty archive with a matching manifest", "");
        vault.put_with_manifest(&vault.document);
        violations += &vault.violations("the manifest in the archive's place", "");
        for other in CODECS.into_iter().filter(|other| *other != codec) {
            let foreign = Layout::of(other, &vault.files(), craft::BLOCK).bytes();
            vault.put_with_manifest(&foreign);
            violations += &vault.violations("an archive of the other codec under this name", "");
        }
        vault.put(None, &vault.document);
        violations += &vault.violations("no archive", "missing");
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn an_archive_or_manifest_of_another_snapshot_is_caught() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let other = Vault::new(codec, 1);
        // The other archive is also in this store, under its own name.
        let second =
            vault.sandbox.path(format!("backups/app/{}", other.archive.file_name().unwrap().to_str().unwrap()));
        std::fs::write(second, &other.archive_bytes).unwrap();
        vault.put(Some(&vault.archive_bytes), &other.document);
        violations += &vault.violations("the manifest of another", "");
        vault.put(Some(&other.archive_bytes), &vault.document);
        violations += &vault.violations("the archive of another", "");
        vault.put_with_manifest(&other.archive_bytes);
        violations += &vault.violations("the archive of another, with matching length and hash", "");
        vault.put(Some(&other.archive_bytes), &other.document);
        violations += &vault.violations("archive and manifest of another", "");
        let renamed = String::from_utf8(other.document.clone()).unwrap().replace(&other.id, &vault.id);
        vault.put(Some(&other.archive_bytes), renamed.as_bytes());
        violations += &vault.violations("archive and manifest of another, with a matching id", "");
    }
    assert!(violations.is_empty(), "{violations}");
}
