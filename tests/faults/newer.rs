//! Objects that a newer version of the program made: they cannot be read, but nothing says that they are damaged.

use serde_json::{Value, json};

use crate::support::craft::{self, CODECS, Codec};
use crate::support::vault::{Vault, manifest_for};
use crate::support::{Sandbox, sample};

/// The version numbers of later formats, as they are written in JSON.
const NEWER: [&str; 5] = ["2", "300", "4294967297", "18446744073709551615", "1000000000000000000000000"];

/// Returns the manifest outside with another version number, given as JSON text.
fn manifest_of_format(vault: &Vault, format: &str) -> Vec<u8> {
    let text = String::from_utf8(vault.document.clone()).unwrap();
    assert!(text.contains("\"format\": 1"), "{text}");
    text.replacen("\"format\": 1", &format!("\"format\": {format}"), 1).into_bytes()
}

#[test]
fn manifests_of_a_newer_format_are_not_damaged() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        for format in NEWER {
            vault.put(Some(&vault.archive_bytes), &manifest_of_format(&vault, format));
            violations += &vault.newer_violations(&format!("format {format}"));
        }
        // A later version may have other fields, and other types of fields.
        for edit in [
            json!({"format": 2, "kind": "delta", "parent": vault.id}),
            json!({"format": 3, "id": {"source": "app"}, "archive": ["a", "b"]}),
            json!({"format": 2}),
        ] {
            vault.put(Some(&vault.archive_bytes), edit.to_string().as_bytes());
            violations += &vault.newer_violations(&edit.to_string());
        }
        // Its archive may have a name that is not known.
        vault.put(None, &manifest_of_format(&vault, "2"));
        violations += &vault.newer_violations("an archive of another name");
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn manifests_that_only_look_newer_are_damaged() {
    let mut violations = String::new();
    let vault = Vault::new(Codec::Gzip, 0);
    for format in ["0", "-1", "-2", "2.5", "2.0", "\"2\"", "[2]", "{\"2\": 2}", "true", "null"] {
        vault.put(Some(&vault.archive_bytes), &manifest_of_format(&vault, format));
        violations += &vault.violations(&format!("format {format}"), "");
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn archives_of_a_newer_format_are_not_damaged() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let text = String::from_utf8(good.index_text()).unwrap();
        let head = |format: &str| text.replacen("\"format\":1", &format!("\"format\":{format}"), 1);
        for format in NEWER {
            vault.put_with_manifest(&good.with_index(head(format).as_bytes()));
            violations += &vault.newer_violations(&format!("an index of format {format}"));
        }
        let other_fields = "{\"format\":2,\"codec\":\"lz4\",\"pieces\":[1,2]}\nand lines of another form\n";
        vault.put_with_manifest(&good.with_index(other_fields.as_bytes()));
        violations += &vault.newer_violations("an index with other fields");
        let blocks = good.blocks.concat();
        for (label, index) in [
            ("an index of format 2", craft::pack_stream(codec, head("2").as_bytes())),
            ("an index of another form", b"another index".to_vec()),
            ("no index", Vec::new()),
        ] {
            vault.put_with_manifest(&craft::assemble(codec, &blocks, &index, 2));
            violations += &vault.newer_violations(&format!("a footer of format 2 and {label}"));
        }
        // The rest of a newer footer may have another meaning.
        let end = craft::footer(codec, 7, u64::MAX, 3, &[7; 32]);
        vault.put_with_manifest(&[&blocks[..], &end].concat());
        violations += &vault.newer_violations("a footer with other fields");
    }
    assert!(violations.is_empty(), "{violations}");
}

#[test]
fn encrypted_snapshots_of_a_newer_format_are_not_damaged() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = sandbox.ok(&["keygen", "--public", "key.txt"]).stdout();
    let recipient = public.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    let saved = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--encrypt-to", &recipient]);
    let id = saved["snapshots"][0]["id"].as_str().unwrap();
    let path = sandbox.path(format!("backups/app/{id}.json"));
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["format"] = 2.into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let before = sandbox.state();
    for keys in [&["--identity", "key.txt"][..], &[]] {
        for command in [&["verify", id][..], &["drill", id], &["restore", id, "--to", "new.db"], &["show", id]] {
            let run = sandbox.run(&[command, &["--store", "backups"], keys].concat()).code(2);
            run.says("made by a newer lifeboat");
        }
    }
    assert_eq!(sandbox.state(), before);
}

/// A store with a snapshot of each of three formats, the newest one of a newer version, and their ids, oldest first.
fn mixed_store() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let ids: Vec<String> = (0..3).map(|_| sandbox.snapshot("app.db")).collect();
    for id in [&ids[0], &ids[2]] {
        let path = sandbox.path(format!("backups/app/{id}.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    }
    (sandbox, ids)
}

#[test]
fn verify_all_tests_the_others_and_names_what_a_newer_version_made() {
    let (sandbox, ids) = mixed_store();
    let run = sandbox.run(&["verify", "--all", "--store", "backups", "--json"]).code(2);
    let document = run.json();
    let levels: Vec<_> = document["snapshots"].as_array().unwrap().iter().map(|one| one["level"].clone()).collect();
    assert_eq!(levels, ["none", "verified", "none"], "{document:#}");
    assert_eq!(document["ok"], false);
    assert_eq!(document["snapshots"][0]["problems"][0]["kind"], "newer", "{document:#}");
    assert_eq!(document["error"]["kind"], "usage", "{document:#}");
    let proofs = |id: &str| {
        let files = std::fs::read_dir(sandbox.path("backups/app")).unwrap().flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with(&format!("{id}.proof-"))).count()
    };
    assert_eq!([proofs(&ids[0]), proofs(&ids[1]), proofs(&ids[2])], [0, 1, 0], "{}", run.transcript());
    let run = sandbox.run(&["verify", "--all", "--store", "backups"]).code(2).says("made by a newer lifeboat");
    assert_eq!(run.stdout().matches("NOT TESTED").count(), 2, "{}", run.transcript());
    // Damage outranks it.
    let archive = sandbox.path(format!("backups/app/{}.tar.gz", ids[1]));
    let mut bytes = std::fs::read(&archive).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
}

#[test]
fn latest_passes_over_what_a_newer_version_made_and_says_so() {
    let (sandbox, ids) = mixed_store();
    let run = sandbox.ok(&["show", "latest", "--store", "backups", "--json"]).says("made by a newer lifeboat");
    assert_eq!(run.json()["id"], ids[1].as_str());
    sandbox.ok(&["restore", "latest", "--to", "new.db", "--store", "backups"]).says(&ids[2]);
    // If nothing else is there, this is not "no snapshot": a newer program could restore it.
    for path in ["json", "tar.gz"] {
        std::fs::remove_file(sandbox.path(format!("backups/app/{}.{path}", ids[1]))).unwrap();
    }
    sandbox.run(&["restore", "latest", "--to", "other.db", "--store", "backups"]).code(2).says("newer lifeboat");
    // A new snapshot can be taken all the same.
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]).says("newer lifeboat");
}

#[test]
fn list_shows_what_a_newer_version_made_and_prune_keeps_it() {
    let (sandbox, ids) = mixed_store();
    // Its archive may have any name.
    std::fs::remove_file(sandbox.path(format!("backups/app/{}.tar.gz", ids[2]))).unwrap();
    let run = sandbox.ok(&["list", "--store", "backups"]).says("made by a newer lifeboat");
    let kinds: Vec<String> = run.stdout().lines().skip(1).map(str::to_owned).collect();
    assert!(kinds[0].contains(&ids[2]) && kinds[0].contains("newer"), "{}", run.transcript());
    assert!(kinds[1].contains(&ids[1]) && !kinds[1].contains("newer"), "{}", run.transcript());
    assert!(!run.stdout().contains("damaged"), "{}", run.transcript());
    let document = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["proof"], "none");
    assert!(document["snapshots"][0]["problem"].as_str().unwrap().contains("newer lifeboat"), "{document:#}");
    let flags = ["prune", "--keep-last", "1", "--keep-others", "0s", "--yes", "--store", "backups", "--json"];
    let report = sandbox.ok(&flags).json();
    let kept: Vec<_> = report["keep"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(kept, [json!(ids[2]), json!(ids[1]), json!(ids[0])], "{report:#}");
    assert_eq!(report["delete"], json!([]));
}

#[test]
fn proofs_of_a_newer_format_are_neither_replaced_nor_judged() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let ids: Vec<String> = (0..2).map(|_| sandbox.snapshot("app.db")).collect();
    let proof = sandbox.path(format!("backups/app/{}.proof-20270101T000000000Z.json", ids[1]));
    std::fs::write(&proof, json!({"format": 2, "id": ids[1], "level": "replayed"}).to_string()).unwrap();
    let before = sandbox.state();
    for command in [&["verify", &ids[1]][..], &["drill", &ids[1]]] {
        let run = sandbox.run(&[command, &["--store", "backups"]].concat()).code(2);
        run.says("made by a newer lifeboat");
    }
    // The manifest decides whether this version can read the snapshot: only the result of that test is not known.
    let shown = sandbox.json(&["show", "latest", "--store", "backups"]);
    assert_eq!((&shown["id"], &shown["proof"]), (&json!(ids[1]), &json!("unknown")));
    let run = sandbox.ok(&["list", "--store", "backups"]).says("made by a newer lifeboat");
    assert!(run.stdout().lines().nth(1).unwrap().contains("unknown"), "{}", run.transcript());
    assert_eq!(sandbox.json(&["list", "--store", "backups"])["snapshots"][0]["kind"], "full");
    assert_eq!(sandbox.state(), before);
    sandbox.snapshot("app.db");
    let report = sandbox.json(&["prune", "--keep-last", "1", "--keep-others", "0s", "--yes", "--store", "backups"]);
    assert_eq!(report["delete"], json!([{"id": ids[0]}]), "{report:#}");
    assert_eq!(report["keep"][1], json!({"id": ids[1], "reasons": ["tested by a newer lifeboat"]}), "{report:#}");
    // A restore tests every byte by itself.
    sandbox.ok(&["restore", &ids[1], "--to", "new.db", "--store", "backups"]);
    // A proof whose version is no version is an unreadable one, and not damage of the snapshot.
    std::fs::write(&proof, json!({"format": "2", "id": ids[1], "level": "verified"}).to_string()).unwrap();
    let document = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(document["snapshots"][1]["proof"], "none", "{document:#}");
}

/// An archive of a newer version may have a manifest of this one: nothing but its end says so.
#[test]
fn archives_of_a_newer_format_under_a_manifest_of_this_one_are_not_pruned() {
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let good = vault.layout(&vault.files());
        let text = String::from_utf8(good.index_text()).unwrap();
        let newer_index = good.with_index(text.replacen("\"format\":1", "\"format\":2", 1).as_bytes());
        let newer_footer = [&good.blocks.concat()[..], &craft::footer(codec, 7, u64::MAX, 3, &[7; 32])].concat();
        // Newer snapshots that the policy keeps instead, with more rows in each table.
        let db = crate::support::open(vault.sandbox.path("app.db"));
        db.execute_batch(
            "CREATE TABLE notes (id); CREATE TABLE small (a);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO notes SELECT i FROM n;
             INSERT INTO small SELECT id FROM notes",
        )
        .unwrap();
        drop(db);
        for _ in 0..2 {
            vault.sandbox.ok(&["snapshot", "app.db", "--moved", "--store", "backups"]);
        }
        let prune = ["prune", "--keep-last", "1", "--keep-others", "0s", "--store", "backups"];
        for archive in [&newer_index, &newer_footer] {
            vault.put_with_manifest(archive);
            // Also if the lengths differ, so that this version takes the snapshot for a damaged one.
            for manifest in [manifest_for(vault.outside_manifest(), archive), vault.document.clone()] {
                vault.put(Some(archive), &manifest);
                for flags in [&[][..], &["--yes"]] {
                    let run = vault.sandbox.ok(&[&prune[..], flags, &["--json"]].concat()).says("newer lifeboat");
                    let kept = &run.json()["keep"];
                    let kept = kept.as_array().unwrap().iter().find(|kept| kept["id"] == vault.id.as_str()).unwrap();
                    assert_eq!(kept["reasons"], json!(["made by a newer lifeboat"]), "{}", run.transcript());
                }
                assert!(vault.archive.exists() && vault.manifest.exists());
            }
        }
        // One of this version is deleted.
        vault.put(Some(&vault.archive_bytes), &vault.document);
        vault.sandbox.ok(&[&prune[..], &["--yes"]].concat());
        assert!(!vault.archive.exists() && !vault.manifest.exists());
    }
}

#[test]
fn a_store_of_a_newer_format_is_not_read() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox.snapshot("app.db");
    for format in NEWER {
        let mark = format!("{{\"lifeboat_store\": {format}, \"layout\": \"other\"}}");
        std::fs::write(sandbox.path("backups/lifeboat.json"), &mark).unwrap();
        let before = sandbox.state();
        for command in [&["list"][..], &["verify", "--all"], &["snapshot", "app.db"], &["prune", "--keep-last", "1"]] {
            let run = sandbox.run(&[command, &["--store", "backups"]].concat()).code(2);
            run.says("made by a newer lifeboat");
        }
        assert_eq!(sandbox.state(), before);
    }
}

#[test]
fn copies_name_what_a_newer_version_made() {
    let (sandbox, ids) = mixed_store();
    let copy = ["copy", "--all", "--from", "backups", "--to", "far", "--create"];
    let run = sandbox.run(&copy).code(2).says("made by a newer lifeboat").says(&ids[2]);
    assert!(run.stdout().contains(&ids[1]), "{}", run.transcript());
}

/// Both manifests are those of a newer version, as such a version writes them.
#[test]
fn both_manifests_of_a_newer_format_are_not_damaged() {
    let mut violations = String::new();
    for codec in CODECS {
        let vault = Vault::new(codec, 0);
        let mut files = vault.files();
        let mut inside: Value = serde_json::from_slice(&files[2].content).unwrap();
        inside["format"] = 2.into();
        files[2].content = inside.to_string().into_bytes();
        let archive = vault.layout(&files).bytes();
        vault.put(Some(&archive), &manifest_for(inside, &archive));
        violations += &vault.newer_violations("format 2");
    }
    assert!(violations.is_empty(), "{violations}");
}
