//! Malicious archives: every command refuses them with exit code 3, writes nothing, and uses little memory.

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use crate::support::craft::{self, CODECS, Codec, File, Header, Layout, MTIME, file};
use crate::support::vault::{Vault, manifest_for};
use lifeboat::archive::ArchiveReader;
use serde_json::{Value, json};

/// Puts each archive into the store, with a manifest that names its length and hash, and requires that every command
/// refuses it. A case is a label, the words that `verify` must print, and the archive.
fn refuse_all(vault: &Vault, cases: Vec<(String, &str, Vec<u8>)>) {
    let mut violations = String::new();
    for (label, words, archive) in cases {
        vault.put_with_manifest(&archive);
        violations += &vault.violations(&label, words);
        let reader = ArchiveReader::open(Arc::new(archive), 1).and_then(|reader| reader.inspect());
        if reader.is_ok_and(|walk| walk.problems.is_empty()) {
            let _ = writeln!(violations, "--- {label}: ArchiveReader accepts it");
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

fn case<'a>(label: &str, words: &'a str, archive: Vec<u8>) -> (String, &'a str, Vec<u8>) {
    (label.to_owned(), words, archive)
}

/// The files of a valid archive, with `extra` ones before the manifest.
fn files_with(vault: &Vault, extra: &[File]) -> Vec<File> {
    let mut files = vault.files();
    let last = files.len() - 1;
    files.splice(last..last, extra.iter().cloned());
    files
}

#[test]
fn valid_crafted_archives_are_accepted_within_the_same_memory_limit() {
    for codec in CODECS {
        for (megabytes, block_bytes) in [(0, craft::BLOCK), (0, 512), (0, 777), (10, craft::BLOCK)] {
            let vault = Vault::new(codec, megabytes);
            let layout = Layout::of(codec, &vault.files(), block_bytes);
            vault.put_with_manifest(&layout.bytes());
            for arguments in [
                &["verify", &vault.id][..],
                &["drill", &vault.id],
                &["restore", &vault.id, "--to", "new.db"],
                &["restore", &vault.id, "--to", "live.db", "--replace", "--yes"],
                &["extract", &vault.id, "--to", "folder"],
            ] {
                let run = vault.run(arguments);
                assert_eq!(run.code(), 0, "{megabytes} {block_bytes} {}", run.transcript());
            }
            // The archives that `craft` writes have the same format as those of the program.
            let crafted = craft::map(&layout.bytes());
            let original = craft::map(&vault.archive_bytes);
            assert_eq!((crafted.files.len(), crafted.mtime), (original.files.len(), MTIME));
        }
    }
}

#[test]
fn entries_with_unsafe_paths_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let paths = [
            "..",
            "../evil",
            "data/../../evil",
            "data/..",
            "/etc/evil",
            "/",
            "//evil",
            "",
            ".",
            "./evil",
            "data/./evil",
            "data//evil",
            "data/",
            "..\\evil",
            "data\\evil",
            "C:\\evil",
            "evil\0",
            "evil\n",
            "\u{1b}[31mevil",
            "\u{85}evil",
        ];
        let long = "x".repeat(5000);
        let deep = "d/".repeat(3000) + "evil";
        let cases = paths.into_iter().chain([&*long, &*deep]).map(|path| {
            let shown: String = path.escape_debug().take(40).collect();
            case(&format!("the path {shown}"), "", vault.layout(&files_with(&vault, &[file(path, "evil")])).bytes())
        });
        refuse_all(&vault, cases.collect());
    }
}

#[test]
fn links_devices_folders_and_other_entry_types_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let mut cases = Vec::new();
        for (kind, name, words) in [
            (b'1', "hard link", "is a link"),
            (b'2', "symbolic link", "is a link"),
            (b'3', "character device", "is a device"),
            (b'4', "block device", "is a device"),
            (b'5', "folder", "is a folder"),
            (b'6', "fifo", "is a device"),
            (b'7', "contiguous file", "does not match the index"),
            (b'\0', "old regular file", "does not match the index"),
            (b'L', "long name", "does not match the index"),
            (b'S', "sparse file", "does not match the index"),
            (b'x', "pax header", "does not match the index"),
            (b'g', "global pax header", "does not match the index"),
            (b'V', "volume label", "does not match the index"),
        ] {
            for which in 0..3 {
                let mut files = vault.files();
                let mut header = Header::of(&files[which].path, files[which].content.len() as u64, MTIME);
                header.kind = kind;
                if matches!(kind, b'1' | b'2') {
                    header.link = b"/etc/passwd".to_vec();
                }
                files[which].header = Some(header.bytes());
                cases.push(case(&format!("a {name} as {}", files[which].path), words, vault.layout(&files).bytes()));
            }
            // The same type as an additional entry.
            let mut extra = file("data/more", "");
            extra.header =
                Some(Header { kind, link: b"../../x".to_vec(), ..Header::of("data/more", 0, MTIME) }.bytes());
            cases.push(case(
                &format!("a {name} as an additional entry"),
                "files of an SQLite snapshot",
                vault.layout(&files_with(&vault, &[extra])).bytes(),
            ));
        }
        refuse_all(&vault, cases);
    }
}

#[test]
fn headers_that_differ_from_the_index_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.files();
        let length = good[1].content.len() as u64;
        let path = good[1].path.clone();
        let header = Header::of(&path, length, MTIME);
        let mut raw = Vec::new();
        let mut named = |label: &str, header: &Header| raw.push((label.to_owned(), header.bytes()));
        named("another name", &Header { name: b"data/other.db".to_vec(), ..header.clone() });
        named("a name outside", &Header { name: b"../../evil".to_vec(), ..header.clone() });
        named("no name", &Header { name: Vec::new(), ..header.clone() });
        named("one byte more", &Header { length: length + 1, ..header.clone() });
        named("one byte less", &Header { length: length - 1, ..header.clone() });
        named("no bytes", &Header { length: 0, ..header.clone() });
        named("a terabyte", &Header { length: 1 << 40, ..header.clone() });
        named("another time", &Header { mtime: MTIME + 1, ..header.clone() });
        named("a setuid mode", &Header { mode: 0o4755, ..header.clone() });
        let mut wrong_sum = header.bytes();
        wrong_sum[150] ^= 1;
        raw.push(("another checksum".to_owned(), wrong_sum));
        for at in [265, 297, 329, 345, 500, 511] {
            let mut set = header.bytes();
            set[at] = 1;
            raw.push((format!("a byte at {at}"), set));
        }
        let mut cases = Vec::new();
        for (label, header) in raw {
            let mut files = good.clone();
            files[1].header = Some(header);
            cases.push(case(
                &format!("a header with {label}"),
                "does not match the index",
                vault.layout(&files).bytes(),
            ));
        }
        // Long names that differ between the long-name record and the index.
        let long = format!("data/{}", "n".repeat(150));
        for (label, name_in_record) in
            [("another", format!("data/{}", "m".repeat(150))), ("outside", format!("../../{}", "n".repeat(149)))]
        {
            assert_eq!(name_in_record.len(), long.len());
            let mut extra = file(&long, "content");
            extra.header = Some(craft::full_header(&name_in_record, 7, MTIME));
            let archive = vault.layout(&files_with(&vault, &[extra])).bytes();
            cases.push(case(&format!("a long name that is {label}"), "files of an SQLite snapshot", archive));
        }
        // Bytes that the index does not describe: in the padding, between entries, after the end.
        let (tar, lines) = craft::tar(&good, MTIME);
        let readme_end = 512 + good[0].content.len();
        let mut padded = tar.clone();
        padded[readme_end] = b'x';
        assert!(!readme_end.is_multiple_of(512));
        cases.push(case(
            "content in the padding",
            "does not match the index",
            Layout::of_tar(codec, &padded, lines.clone(), craft::BLOCK).bytes(),
        ));
        let mut ended = tar.clone();
        let last = ended.len() - 1;
        ended[last] = 1;
        cases.push(case(
            "content in the end-of-archive blocks",
            "does not match the index",
            Layout::of_tar(codec, &ended, lines.clone(), craft::BLOCK).bytes(),
        ));
        let hidden = craft::tar(&[file("hidden", "hidden")], MTIME).0;
        for (label, tar) in [
            ("an entry after the end", [&tar[..], &hidden].concat()),
            ("an entry instead of the end", [&tar[..tar.len() - 1024], &hidden[..1024]].concat()),
            ("an entry after the last one", [&tar[..tar.len() - 1024], &hidden].concat()),
            ("zeros after the end", [&tar[..], &[0; 9216]].concat()),
            ("one end-of-archive block", tar[..tar.len() - 512].to_vec()),
            ("no end-of-archive block", tar[..tar.len() - 1024].to_vec()),
        ] {
            cases.push(case(label, "", Layout::of_tar(codec, &tar, lines.clone(), craft::BLOCK).bytes()));
        }
        refuse_all(&vault, cases);
    }
}

#[test]
fn an_index_with_wrong_values_for_entries_is_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let mut cases = Vec::new();
        let mut add = |label: String, change: &dyn Fn(&mut Layout)| {
            let mut layout = good.clone();
            change(&mut layout);
            cases.push(case(&label, "", layout.bytes()));
        };
        let numbers = [
            0,
            1,
            511,
            512,
            1 << 20,
            1 << 40,
            i64::MAX as u64,
            u64::MAX - 1024,
            u64::MAX - 511,
            u64::MAX - 1,
            u64::MAX,
        ];
        for which in 0..3 {
            for field in ["tar_offset", "bytes"] {
                let was = good.entry_lines[which][field].as_u64().unwrap();
                for number in numbers.into_iter().chain([was - 1, was + 1, was + 512]).filter(|number| *number != was) {
                    add(format!("entry {which}, {field} {number}"), &|layout| {
                        layout.entry_lines[which][field] = number.into()
                    });
                }
                for value in [json!(-1), json!(1.5), json!("1"), Value::Null, json!(1e30)] {
                    add(format!("entry {which}, {field} {value}"), &|layout| {
                        layout.entry_lines[which][field] = value.clone()
                    });
                }
            }
        }
        add("two entries at one offset".to_owned(), &|layout| {
            layout.entry_lines[2] = {
                let mut line = layout.entry_lines[1].clone();
                line["path"] = "manifest.json".into();
                line
            }
        });
        add("entries out of order".to_owned(), &|layout| layout.entry_lines.swap(0, 1));
        add("an entry that the index does not list".to_owned(), &|layout| {
            layout.entry_lines.remove(1);
            layout.head["entries"] = 2.into();
        });
        add("an entry twice".to_owned(), &|layout| {
            layout.entry_lines.insert(1, layout.entry_lines[0].clone());
            layout.head["entries"] = 4.into();
        });
        add("another path".to_owned(), &|layout| layout.entry_lines[0]["path"] = "README.md".into());
        add("a path outside".to_owned(), &|layout| layout.entry_lines[1]["path"] = "../../app.db".into());
        add("the same path twice".to_owned(), &|layout| layout.entry_lines[0]["path"] = "manifest.json".into());
        add("another hash".to_owned(), &|layout| layout.entry_lines[0]["sha256"] = "0".repeat(64).into());
        add("a hash too short".to_owned(), &|layout| layout.entry_lines[0]["sha256"] = "00".into());
        add("a hash in capitals".to_owned(), &|layout| {
            layout.entry_lines[0]["sha256"] = layout.entry_lines[0]["sha256"].as_str().unwrap().to_uppercase().into();
        });
        add("no hash".to_owned(), &|layout| drop(layout.entry_lines[0].as_object_mut().unwrap().remove("sha256")));
        refuse_all(&vault, cases);
    }
}

#[test]
fn an_index_with_wrong_values_for_blocks_is_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = Layout::of(codec, &vault.files(), 8192);
        assert!(good.blocks.len() > 2);
        let mut cases = Vec::new();
        let mut add = |label: String, change: &dyn Fn(&mut Layout)| {
            let mut layout = good.clone();
            change(&mut layout);
            cases.push(case(&label, "", layout.bytes()));
        };
        let numbers = [0, 1, (4 << 20) + 1, 8 << 20, 1 << 40, i64::MAX as u64, u64::MAX - 1, u64::MAX];
        for which in [0, 1, good.blocks.len() - 1] {
            for field in ["offset", "bytes", "tar_offset", "tar_bytes"] {
                let was = good.block_lines[which][field].as_u64().unwrap();
                for number in
                    numbers.into_iter().chain([was.saturating_sub(1), was + 1]).filter(|number| *number != was)
                {
                    add(format!("block {which}, {field} {number}"), &|layout| {
                        layout.block_lines[which][field] = number.into()
                    });
                }
                add(format!("block {which}, {field} -1"), &|layout| layout.block_lines[which][field] = (-1).into());
            }
            add(format!("block {which}, another hash"), &|layout| {
                layout.block_lines[which]["sha256"] = "0".repeat(64).into()
            });
        }
        add("blocks out of order".to_owned(), &|layout| layout.block_lines.swap(0, 1));
        add("a block twice".to_owned(), &|layout| {
            layout.block_lines.insert(1, layout.block_lines[0].clone());
            layout.head["blocks"] = layout.block_lines.len().into();
        });
        add("a block that the index does not list".to_owned(), &|layout| {
            layout.block_lines.pop();
            layout.head["blocks"] = layout.block_lines.len().into();
        });
        add("an empty block".to_owned(), &|layout| {
            let mut lengths: Vec<usize> = layout
                .block_lines
                .iter()
                .map(|line| usize::try_from(line["tar_bytes"].as_u64().unwrap()).unwrap())
                .collect();
            lengths.insert(1, 0);
            layout.blocks.insert(1, craft::pack(codec, b""));
            layout.describe_blocks(&lengths);
            layout.head["blocks"] = lengths.len().into();
        });
        add("a block that is a byte longer and the next a byte shorter".to_owned(), &|layout| {
            for (which, field, by) in [(0, "bytes", 1i64), (1, "offset", 1), (1, "bytes", -1)] {
                let was = layout.block_lines[which][field].as_i64().unwrap();
                layout.block_lines[which][field] = (was + by).into();
            }
            let all = layout.blocks.concat();
            for which in 0..2 {
                let at = |field: &str| usize::try_from(layout.block_lines[which][field].as_u64().unwrap()).unwrap();
                layout.block_lines[which]["sha256"] =
                    craft::sha256(&all[at("offset")..at("offset") + at("bytes")]).into();
            }
        });
        refuse_all(&vault, cases);
    }
}

#[test]
fn blocks_that_are_not_encoded_as_specified_are_refused() {
    let mut violations = Vec::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let (tar, lines) = craft::tar(&vault.files(), MTIME);
        let (front, back) = tar.split_at(1000);
        let mut forms: Vec<(&str, Vec<u8>)> = vec![
            ("two members in a block", [craft::pack(codec, front), craft::pack(codec, back)].concat()),
            ("an empty member after the data", [craft::pack(codec, &tar), craft::pack(codec, b"")].concat()),
            ("an empty member before the data", [craft::pack(codec, b""), craft::pack(codec, &tar)].concat()),
            ("a footer after the data", [craft::pack(codec, &tar), craft::footer(codec, 1, 0, 0, &[0; 32])].concat()),
            ("a zero byte after the data", [&craft::pack(codec, &tar)[..], &[0]].concat()),
            ("no compression at all", tar.clone()),
        ];
        match codec {
            Codec::Gzip => {
                let good = craft::pack(codec, &tar);
                let mut named = good.clone();
                named[3] = 8;
                named.splice(10..10, *b"name\0");
                forms.push(("a name in the header", named));
                for (label, at) in [("a flag", 3), ("a time", 4), ("a level", 8), ("a system", 9)] {
                    let mut other = good.clone();
                    other[at] ^= 1;
                    forms.push((label, other));
                }
                let (mut crc, mut length) = (good.clone(), good.clone());
                let end = good.len();
                crc[end - 8] ^= 1;
                length[end - 4] ^= 1;
                forms.extend([
                    ("another CRC", crc),
                    ("another length", length),
                    ("no trailer", good[..end - 8].to_vec()),
                ]);
            }
            Codec::Zstd => {
                let with = |checksum: bool, size: bool| {
                    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
                    compressor.include_checksum(checksum).unwrap();
                    compressor.include_contentsize(size).unwrap();
                    compressor.compress(&tar).unwrap()
                };
                forms.push(("no checksum", with(false, true)));
                forms.push(("no content size", with(true, false)));
                let mut checksum = with(true, true);
                *checksum.last_mut().unwrap() ^= 1;
                forms.push(("another checksum", checksum));
            }
        }
        for (label, form) in forms {
            let mut layout = Layout::of_tar(codec, &tar, lines.clone(), craft::BLOCK);
            layout.blocks = vec![form];
            layout.describe_blocks(&[tar.len()]);
            vault.put_with_manifest(&layout.bytes());
            violations.push(vault.violations(label, ""));
        }
    }
    let violations = violations.concat();
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn blocks_that_decompress_to_another_length_than_stated_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let files = vault.files();
        let (tar, lines) = craft::tar(&files, MTIME);
        let mut cases = Vec::new();
        let zeros = |bytes: u64| craft::pack_stream(codec, std::io::repeat(0).take(bytes));
        // The index says that a block holds 4 MiB, and the block decompresses to 512 MiB.
        let mut bomb = Layout::of(codec, &files_with(&vault, &[file("data/zeros", vec![0; 4 << 20])]), craft::BLOCK);
        assert_eq!(bomb.blocks.len(), 2);
        let lengths = [craft::BLOCK, usize::try_from(bomb.block_lines[1]["tar_bytes"].as_u64().unwrap()).unwrap()];
        for (which, label) in [(0, "first"), (1, "last")] {
            let mut layout = bomb.clone();
            layout.blocks[which] = zeros(512 << 20);
            layout.describe_blocks(&lengths);
            cases.push(case(&format!("512 MiB of zeros as the {label} block"), "", layout.bytes()));
        }
        bomb.blocks[0] = [&tar[..4096], &[0; 16]].concat();
        bomb.describe_blocks(&lengths);
        cases.push(case("a block that is not compressed", "", bomb.bytes()));
        // The right content, followed by 64 MiB of zeros.
        let mut longer = Layout::of_tar(codec, &tar, lines.clone(), craft::BLOCK);
        longer.blocks = vec![craft::pack_stream(codec, tar.chain(std::io::repeat(0).take(64 << 20)))];
        longer.describe_blocks(&[tar.len()]);
        cases.push(case("a block with 64 MiB after its content", "", longer.bytes()));
        let mut shorter = Layout::of_tar(codec, &tar, lines.clone(), craft::BLOCK);
        shorter.blocks = vec![craft::pack(codec, &tar[..tar.len() - 1])];
        shorter.describe_blocks(&[tar.len()]);
        cases.push(case("a block with a byte less than stated", "", shorter.bytes()));
        // The block really holds more than a block may hold.
        let big = Layout::of(codec, &files_with(&vault, &[file("data/zeros", vec![0; 6 << 20])]), 8 << 20);
        cases.push(case("a block of more than 4 MiB", "", big.bytes()));
        if codec == Codec::Zstd {
            // A frame's header may state any window and any size. This one is a single segment with a content-size
            // field of 8 bytes.
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
            frame.extend((1u64 << 62).to_le_bytes());
            frame.extend([1, 0, 0]);
            let mut layout = Layout::of_tar(codec, &tar, lines.clone(), craft::BLOCK);
            layout.blocks = vec![frame];
            layout.describe_blocks(&[tar.len()]);
            cases.push(case("a frame that states 4 EiB of content", "", layout.bytes()));
            // A frame with a window of 2 GiB.
            let mut layout = Layout::of_tar(codec, &tar, lines, craft::BLOCK);
            layout.blocks = vec![vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 1, 0, 0]];
            layout.describe_blocks(&[tar.len()]);
            cases.push(case("a frame that states a window of 2 GiB", "", layout.bytes()));
        }
        refuse_all(&vault, cases);
    }
}

#[test]
fn indexes_that_would_exhaust_the_memory_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let text = good.index_text();
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        // More than a run may allocate.
        let length = 320u64 << 20;
        let pack = |content: &mut dyn Read| craft::pack_stream(codec, content);
        let mut cases = Vec::new();
        let mut add = |label: &str, index: Vec<u8>| cases.push(case(label, "", good.with_packed_index(&index)));
        add("a line of 320 MiB", pack(&mut std::io::repeat(b'x').take(length)));
        add("320 MiB of line breaks", pack(&mut std::io::repeat(b'\n').take(length)));
        add("320 MiB of nested arrays", pack(&mut std::io::repeat(b'[').take(length)));
        add("320 MiB of zeros after the last line", pack(&mut text.chain(std::io::repeat(0).take(length))));
        add(
            "320 MiB of spaces in the first line",
            pack(&mut (&b"{"[..]).chain(std::io::repeat(b' ').take(length)).chain(&text[1..])),
        );
        let long_path = format!("{{\"path\":\"{}", "x".repeat(1 << 20));
        add(
            "a path of a megabyte",
            pack(&mut [lines[0], lines[1], long_path.as_bytes(), b"\"}\n"].concat().as_slice()),
        );
        // 320 MiB of lines, each of which is valid by itself: this reader repeats its bytes without end.
        struct Repeated(Vec<u8>, usize);
        impl Read for Repeated {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let rest = &self.0[self.1..];
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.1 = (self.1 + length) % self.0.len();
                Ok(length)
            }
        }
        for (which, label) in [(1, "block"), (2, "entry")] {
            let mut head = good.head.clone();
            head["blocks"] = if which == 1 { 4_000_000_000u64.into() } else { 1.into() };
            head["entries"] = 4_000_000_000u64.into();
            let start = if which == 1 {
                format!("{head}\n").into_bytes()
            } else {
                [head.to_string().as_bytes(), b"\n", lines[1]].concat()
            };
            add(
                &format!("the same {label} line for 320 MiB"),
                pack(&mut start.chain(Repeated(lines[which].to_vec(), 0).take(length))),
            );
        }
        for field in ["blocks", "entries", "tar_bytes"] {
            for number in [4_000_000_000, 1 << 40, u64::MAX - 1, u64::MAX] {
                let mut layout = good.clone();
                layout.head[field] = number.into();
                add(&format!("{field} {number}"), pack(&mut layout.index_text().as_slice()));
            }
        }
        if codec == Codec::Zstd {
            // A frame header with a window of 128 MiB, and one of 2 GiB, each followed by an empty last block.
            for (label, window) in [("128 MiB", 0x88u8), ("2 GiB", 0xa8)] {
                add(&format!("a window of {label}"), vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 1, 0, 0]);
            }
        }
        refuse_all(&vault, cases);
    }
}

/// The index lists two million empty entries with consistent offsets; the content of the archive does not match it.
#[test]
fn a_consistent_index_of_two_million_entries_is_refused_within_the_memory_limit() {
    const ENTRIES: u64 = 2_000_000;
    let codec = Codec::Zstd;
    let vault = Vault::new(codec, 0);
    let tar_bytes = (ENTRIES + 1) * 512 + 1024;
    let blocks = tar_bytes.div_ceil(craft::BLOCK as u64);
    let byte_hash = craft::sha256(&[0]);
    let empty_hash = craft::sha256(b"");
    let mut text = format!(
        "{}\n",
        json!({"format": 1, "codec": codec.name(), "mtime": MTIME, "tar_bytes": tar_bytes, "blocks": blocks, "entries": ENTRIES + 1})
    );
    for block in 0..blocks {
        let at = block * craft::BLOCK as u64;
        let length = (tar_bytes - at).min(craft::BLOCK as u64);
        let _ = writeln!(
            text,
            "{{\"offset\":{block},\"bytes\":1,\"tar_offset\":{at},\"tar_bytes\":{length},\"sha256\":\"{byte_hash}\"}}"
        );
    }
    for entry in 0..=ENTRIES {
        let at = (entry + 1) * 512;
        let path = if entry == ENTRIES { "manifest.json".to_owned() } else { format!("{entry}") };
        let _ = writeln!(text, "{{\"path\":\"{path}\",\"tar_offset\":{at},\"bytes\":0,\"sha256\":\"{empty_hash}\"}}");
    }
    let index = craft::pack_stream(codec, text.as_bytes());
    drop(text);
    vault.put_with_manifest(&craft::assemble(codec, &vec![0; usize::try_from(blocks).unwrap()], &index, 1));
    let violations = vault.violations("two million entries", "");
    assert!(violations.is_empty(), "an index of {} bytes\n{violations}", index.len());
}

#[test]
fn footers_with_wrong_values_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let blocks = good.blocks.concat();
        let index = craft::pack_stream(codec, good.index_text().as_slice());
        let hash = hex::decode(craft::sha256(&index)).unwrap();
        let (offset, bytes) = (blocks.len() as u64, index.len() as u64);
        let body = [&blocks[..], &index].concat();
        let footer = |version, offset, bytes| craft::footer(codec, version, offset, bytes, &hash);
        let archive = [&body[..], &footer(1, offset, bytes)].concat();
        let mut cases = Vec::new();
        let mut add = |label: &str, words, bytes: Vec<u8>| cases.push(case(label, words, bytes));
        for version in [0, 2, 0x0100_0000, u32::MAX] {
            let bad = [&body[..], &footer(version, offset, bytes)].concat();
            let words = format!("unknown format version {version}").leak();
            add(&format!("version {version}"), words, bad);
        }
        for (o, b) in [
            (0, 0),
            (0, bytes),
            (offset, 0),
            (offset + 1, bytes - 1),
            (offset - 1, bytes + 1),
            (0, offset + bytes),
            (offset + bytes, 0),
            (offset, bytes + 1),
            (offset, u64::MAX),
            (u64::MAX, bytes),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (1 << 63, 1 << 63),
            (u64::MAX - bytes, bytes),
            (offset.wrapping_add(1), bytes.wrapping_sub(1)),
        ] {
            add(&format!("index at {o}, of {b} bytes"), "", [&body[..], &footer(1, o, b)].concat());
        }
        for more in [&[0u8][..], &[0; 512], &[0; 10240], b"x", &[0xff; 64]] {
            add(&format!("{} bytes after the footer", more.len()), "", [&archive[..], more].concat());
        }
        add(
            "a tar.gz after the footer",
            "",
            [&archive[..], &craft::pack(codec, &craft::tar(&[file("evil", "evil")], 0).0)].concat(),
        );
        add("the footer twice", "", [&archive[..], &footer(1, offset, bytes)].concat());
        add("the whole archive twice", "", archive.repeat(2));
        let first = footer(1, offset, bytes);
        let index_and_footer = [&index[..], &first].concat();
        add(
            "two footers, the first inside the index of the second",
            "",
            craft::assemble(codec, &blocks, &index_and_footer, 1),
        );
        add("two members in the index", "", good.with_packed_index(&[&index[..], &craft::pack(codec, b"")].concat()));
        add("an index in two members", "", {
            let text = good.index_text();
            let (a, b) = text.split_at(text.len() / 2);
            good.with_packed_index(&[craft::pack(codec, a), craft::pack(codec, b)].concat())
        });
        add("garbage after the index", "", good.with_packed_index(&[&index[..], b"garbage"].concat()));
        add("an empty index", "", good.with_packed_index(&craft::pack(codec, b"")));
        add("no index", "", good.with_packed_index(b""));
        add("an index that is not compressed", "", good.with_packed_index(&good.index_text()));
        add("only a footer", "", footer(1, 0, 0));
        for other in CODECS.into_iter().filter(|other| *other != codec) {
            add("the other codec's footer", "", [&body[..], &craft::footer(other, 1, offset, bytes, &hash)].concat());
            let mixed = craft::pack_stream(other, good.index_text().as_slice());
            add("the other codec's index", "", good.with_packed_index(&mixed));
            let mut named = good.clone();
            named.head["codec"] = other.name().into();
            add("an index that names the other codec", "codec", named.bytes());
        }
        refuse_all(&vault, cases);
    }
}

#[test]
fn malformed_indexes_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let text = String::from_utf8(good.index_text()).unwrap();
        let mut cases = Vec::new();
        let mut add =
            |label: &str, words, text: String| cases.push(case(label, words, good.with_index(text.as_bytes())));
        add("format 0", "unknown format version 0", text.replacen("\"format\":1", "\"format\":0", 1));
        add("no format", "", text.replacen("\"format\":1,", "", 1));
        add("no line break at the end", "", text.trim_end().to_owned());
        add("an additional line", "", format!("{text}{{}}\n"));
        add("an empty line at the end", "", format!("{text}\n"));
        add("an empty line at the start", "", format!("\n{text}"));
        add("an empty line between", "", text.replacen('\n', "\n\n", 1));
        add("all lines in one", "", text.replace('\n', " "));
        add("no head line", "", text.lines().skip(1).map(|line| format!("{line}\n")).collect());
        add("an entry less than the head states", "", text.replacen("\"entries\":3", "\"entries\":4", 1));
        add("an entry more than the head states", "", text.replacen("\"entries\":3", "\"entries\":2", 1));
        add("no tar_bytes", "", text.replacen("\"tar_bytes\"", "\"other\"", 1));
        add("another time", "does not match the index", text.replacen(&MTIME.to_string(), &(MTIME + 1).to_string(), 1));
        add("the largest time", "", text.replacen(&MTIME.to_string(), &u64::MAX.to_string(), 1));
        add("a negative time", "", text.replacen(&MTIME.to_string(), "-1", 1));
        add("a replacement character", "", text.replacen("README", "READM\u{fffd}", 1));
        cases.push(case("bytes that are not UTF-8", "", {
            let mut bytes = text.clone().into_bytes();
            let at = text.find("README").unwrap();
            bytes[at] = 0xff;
            good.with_index(&bytes)
        }));
        refuse_all(&vault, cases);
    }
}

#[test]
fn index_lines_with_unknown_fields_are_refused() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let text = String::from_utf8(good.index_text()).unwrap();
        let mut cases = Vec::new();
        for (line, first) in [("head", "\"format\""), ("block", "\"offset\""), ("entry", "\"path\"")] {
            for (label, value) in
                [("an unknown field", "1".to_owned()), ("5000 arrays in arrays", "[".repeat(5000) + &"]".repeat(5000))]
            {
                let bad = text.replacen(first, &format!("\"other\":{value},{first}"), 1);
                assert_ne!(bad, text);
                cases.push(case(&format!("{label} in the {line} line"), "", good.with_index(bad.as_bytes())));
            }
        }
        refuse_all(&vault, cases);
    }
}

#[test]
fn archives_with_missing_duplicate_or_additional_entries_are_refused() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.files();
        let (readme, image, inside) = (&good[0], &good[1], &good[2]);
        let added = |path: &str| file(path, "content");
        let cases: Vec<(&str, Vec<&File>)> = vec![
            ("no README", vec![image, inside]),
            ("README second", vec![image, readme, inside]),
            ("no image", vec![readme, inside]),
            ("no manifest", vec![readme, image]),
            ("manifest second", vec![readme, inside, image]),
            ("manifest first", vec![inside, readme, image]),
            ("no entries", vec![]),
            ("README twice", vec![readme, readme, image, inside]),
            ("image twice", vec![readme, image, image, inside]),
            ("manifest twice", vec![readme, image, inside, inside]),
        ];
        for (label, files) in cases {
            let files: Vec<File> = files.into_iter().cloned().collect();
            vault.put_with_manifest(&vault.layout(&files).bytes());
            violations += &vault.violations(label, "");
        }
        for (label, extra) in [
            ("an additional file", added("evil.sh")),
            ("an additional file in the folder", added("data/evil.db")),
            ("a WAL beside a complete image", added(&format!("{}-wal", image.path))),
            ("a journal beside a complete image", added(&format!("{}-journal", image.path))),
            ("a file with the path of the folder", added("data")),
            ("a file below the image", added(&format!("{}/evil", image.path))),
            ("a hidden file", added(".bashrc")),
        ] {
            vault.put_with_manifest(&vault.layout(&files_with(&vault, &[extra])).bytes());
            violations += &vault.violations(label, "");
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

/// Puts an archive into the store whose manifests, inside and outside, have the same change.
fn put_with_changed_manifests(vault: &Vault, change: &dyn Fn(&mut Value, &[File])) {
    let mut files = vault.files();
    let mut inside: Value = serde_json::from_slice(&files[2].content).unwrap();
    change(&mut inside, &files);
    files[2].content = inside.to_string().into_bytes();
    let archive = vault.layout(&files).bytes();
    vault.put(Some(&archive), &manifest_for(inside, &archive));
}

#[test]
fn malicious_manifests_that_agree_inside_and_outside_are_refused() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        type Change = &'static dyn Fn(&mut Value, &[File]);
        let cases: [(&str, &str, Change); 9] = [
            ("format 0", "unknown format version 0", &|m, _| m["format"] = 0.into()),
            ("an image outside", "", &|m, _| m["sqlite"]["image"] = "../../x".into()),
            ("an absolute image", "", &|m, _| m["sqlite"]["image"] = "/etc/passwd".into()),
            ("an image that does not exist", "", &|m, _| m["sqlite"]["image"] = "data/other.db".into()),
            ("the README as the image", "", &|m, _| m["sqlite"]["image"] = "README.txt".into()),
            ("an empty image name", "", &|m, _| m["sqlite"]["image"] = "".into()),
            ("a number of pages that overflows", "", &|m, _| {
                m["sqlite"]["pages"] = (1u64 << 63).into();
                m["sqlite"]["page_bytes"] = 4.into();
            }),
            ("a huge image", "", &|m, _| {
                m["raw_bytes"] = (1u64 << 60).into();
                m["sqlite"]["pages"] = (1u64 << 48).into();
                m["sqlite"]["page_bytes"] = 4096.into();
            }),
            ("another codec", "", &|m, _| m["codec"] = "lz4".into()),
        ];
        for (label, words, change) in cases {
            put_with_changed_manifests(&vault, change);
            violations += &vault.violations(label, words);
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn archives_without_a_valid_manifest_inside_are_refused() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.files().pop().unwrap().content;
        let text = String::from_utf8(good.clone()).unwrap();
        let deep = format!("{{\"note\":{}1{},", "[".repeat(50_000), "]".repeat(50_000));
        let cases: [(&str, Vec<u8>); 7] = [
            ("empty", Vec::new()),
            ("deeply nested", [&b"[".repeat(100_000)[..], &b"]".repeat(100_000)].concat()),
            ("deeply nested in a field", text.replacen('{', &deep, 1).into_bytes()),
            ("an array", b"[]".to_vec()),
            ("twice", [&good[..], &good].concat()),
            ("of another snapshot", text.replace(&vault.id, "app-20200101T000000Z-abcd").into_bytes()),
            ("format 2", text.replacen("\"format\": 1", "\"format\": 2", 1).into_bytes()),
        ];
        for (label, inside) in cases {
            assert_ne!(inside, good);
            let mut files = vault.files();
            files[2].content = inside;
            vault.put_with_manifest(&vault.layout(&files).bytes());
            violations += &vault.violations(label, "");
        }
    }
    assert!(violations.is_empty(), "{violations}");
}

/// The manifest outside repeats the one inside, so the one inside cannot be a thousand times as long as the other.
#[test]
fn a_manifest_of_250_mib_inside_is_refused_within_the_memory_limit() {
    let vault = Vault::new(Codec::Zstd, 0);
    let mut files = vault.files();
    let more = (250 << 20) - files[2].content.len();
    files[2].content.extend(std::iter::repeat_n(b' ', more));
    let archive = vault.layout(&files).bytes();
    drop(files);
    assert!(archive.len() < 200_000, "{}", archive.len());
    vault.put_with_manifest(&archive);
    let violations = vault.violations("250 MiB of spaces", "");
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn a_manifest_that_names_the_readme_as_the_image_is_refused() {
    let vault = Vault::new(Codec::Gzip, 0);
    put_with_changed_manifests(&vault, &|m, files| {
        m["sqlite"]["image"] = "README.txt".into();
        m["raw_bytes"] = files[0].content.len().into();
        m["sqlite"]["page_bytes"] = 1.into();
        m["sqlite"]["pages"] = files[0].content.len().into();
    });
    let violations = vault.violations("the README as the image, with its length", "");
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn a_restored_file_gets_no_special_permission_bits_from_a_manifest() {
    use std::os::unix::fs::PermissionsExt;
    let vault = Vault::new(Codec::Gzip, 0);
    put_with_changed_manifests(&vault, &|m, _| m["sqlite"]["file_mode"] = 0o6755.into());
    let run = vault.run(&["restore", &vault.id, "--to", "new.db"]);
    match std::fs::metadata(vault.sandbox.path("new.db")) {
        Ok(metadata) => assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{}", run.transcript()),
        Err(_) => assert_eq!(run.code(), 3, "{}", run.transcript()),
    }
}
