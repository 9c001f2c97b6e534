//! Archives that are damaged, or do not fit their manifest. A restore must fail in every mode and leave the target
//! unchanged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::common::{MODES, Mode, Setup, Target, require_error};
use crate::support::craft::{self, Codec, File, Layout};
use crate::support::postgres::{TestDatabase, server};

/// A snapshot whose archive and manifest the tests replace. `outside` is the manifest beside the archive.
struct Vault {
    setup: Setup,
    source: TestDatabase,
    id: String,
    archive: PathBuf,
    manifest: PathBuf,
    bytes: Vec<u8>,
    outside: Value,
}

impl Vault {
    fn new(major: u32, name: &str) -> Self {
        let server = server(major);
        let setup = Setup::new(&server);
        let source = setup.bank(name, 0);
        source.psql("CREATE EXTENSION citext");
        Vault::of(setup, source)
    }

    fn of(setup: Setup, source: TestDatabase) -> Self {
        let id = setup.snapshot(&source.url());
        let folder = setup.sandbox.path(format!("backups/{}", id.rsplitn(3, '-').last().unwrap()));
        let (archive, manifest) = (folder.join(format!("{id}.tar.gz")), folder.join(format!("{id}.json")));
        let bytes = std::fs::read(&archive).unwrap();
        let outside = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        Vault { setup, source, id, archive, manifest, bytes, outside }
    }

    fn files(&self) -> Vec<File> {
        craft::map(&self.bytes).files
    }

    /// Writes a valid archive of these files, and the manifest beside it with the size and the hash of the archive.
    fn put(&self, files: &[File], mut outside: Value) {
        let bytes = Layout::of(Codec::Gzip, files, craft::BLOCK).bytes();
        outside["archive_bytes"] = bytes.len().into();
        outside["sha256"] = craft::sha256(&bytes).into();
        self.put_raw(&bytes, &outside);
    }

    fn put_raw(&self, bytes: &[u8], outside: &Value) {
        std::fs::write(&self.archive, bytes).unwrap();
        std::fs::write(&self.manifest, outside.to_string()).unwrap();
    }

    /// Restores in every mode, which must fail and change nothing.
    #[track_caller]
    fn require_refused(
        &self,
        targets: &BTreeMap<u8, (Target, super::common::State)>,
        label: &str,
        code: i32,
        words: &str,
    ) {
        for (target, before) in targets.values() {
            let url = target.database.url();
            let mut arguments = target.arguments(&self.id, &url);
            if target.mode == Mode::Replace {
                arguments.push("--no-safety");
            }
            let run = self.setup.run(&arguments);
            // `targets` contains only modes that read the damaged part.
            assert_eq!(run.exit(), code, "{label}: {:?}\n{}", target.mode, run.transcript());
            require_error_with_words(&run, words);
            assert_eq!(target.state(), *before, "{label}: {:?}\n{}", target.mode, run.transcript());
        }
        assert_eq!(self.setup.leftovers(), Vec::<Vec<String>>::new(), "{label}");
    }

    fn targets(&self, modes: &[Mode]) -> BTreeMap<u8, (Target, super::common::State)> {
        let targets = modes.iter().map(|mode| {
            let target = Target::new(*mode, &self.source);
            let before = target.state();
            (*mode as u8, (target, before))
        });
        targets.collect()
    }
}

/// Requires an error with these words. A report of damage has no hint.
#[track_caller]
fn require_error_with_words(run: &crate::support::Run, words: &str) {
    assert!(
        run.stderr().contains(words) && run.stderr().contains("error: "),
        "stderr lacks '{words}'\n{}",
        run.transcript()
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_damaged_archive_changes_no_target_in_any_mode() {
    let vault = Vault::new(18, "damaged");
    let targets = vault.targets(&MODES);
    let map = craft::map(&vault.bytes);
    // An archive as small as this has a single block.
    let block = map.blocks[0].clone();
    for (label, at) in [
        ("in the block", block.start + block.len() / 2),
        ("in the index", map.index.start + map.index.len() / 2),
        ("in the footer", map.footer.end - 20),
    ] {
        let mut bytes = vault.bytes.clone();
        bytes[at] ^= 0x10;
        vault.put_raw(&bytes, &vault.outside);
        vault.require_refused(&targets, label, 3, "damaged");
    }
    vault.put_raw(&vault.bytes[..vault.bytes.len() / 2], &vault.outside);
    vault.require_refused(&targets, "truncated", 3, "damaged");
    let mut outside = vault.outside.clone();
    outside["postgres"]["sequences"][0]["last_value"] = 1.into();
    vault.put_raw(&vault.bytes, &outside);
    vault.require_refused(&targets, "another manifest", 3, "differ");
    std::fs::write(&vault.manifest, "{\"half\": 1}").unwrap();
    vault.require_refused(&targets, "a manifest without its fields", 3, "");
    // The original archive can be restored.
    vault.put_raw(&vault.bytes, &vault.outside);
    for (target, _) in targets.values() {
        vault.setup.ok(&target.arguments(&vault.id, &target.database.url()));
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_archive_with_other_rows_than_its_manifest_says_changes_no_target() {
    let vault = Vault::new(15, "other_rows");
    // A restore of a single table does not read the entries of the others, so Mode::Tables is left out.
    let modes = [Mode::Create, Mode::Empty, Mode::Replace, Mode::Swap, Mode::Beside];
    let targets = vault.targets(&modes);
    let files = vault.files();
    let find =
        |path: &str| files.iter().position(|file| file.path.contains(path)).unwrap_or_else(|| panic!("no {path}"));
    let (accounts, log) = (find("/accounts/"), find("/log/"));
    let mut swapped = files.clone();
    (swapped[accounts].content, swapped[log].content) = (files[log].content.clone(), files[accounts].content.clone());
    vault.put(&swapped, vault.outside.clone());
    let run = vault.setup.run(&["restore", &vault.id, "--to", &targets[&0].0.database.url(), "--create"]);
    assert!(run.exit() == 1 || run.exit() == 3, "{}", run.transcript());
    let code = run.exit();
    vault.require_refused(&targets, "two entries are exchanged", code, "");

    let mut missing = files.clone();
    missing.remove(log);
    vault.put(&missing, vault.outside.clone());
    vault.require_refused(&targets, "an entry is missing", 3, "");

    let mut changed = files.clone();
    let at = changed[accounts].content.iter().position(|byte| *byte == b'1').unwrap();
    changed[accounts].content[at + 2] = b'b';
    vault.put(&changed, vault.outside.clone());
    vault.require_refused(&targets, "a character is changed", 3, "public.accounts");

    let mut fewer = files.clone();
    let line = fewer[accounts].content.iter().position(|byte| *byte == b'\n').unwrap();
    // The entry has the same length as before: one row is removed, and another one is longer.
    let row: Vec<u8> = fewer[accounts].content.drain(..=line).collect();
    let name = fewer[accounts].content.iter().position(|byte| *byte == b'a').unwrap();
    fewer[accounts].content.splice(name..name, vec![b'x'; row.len()]);
    vault.put(&fewer, vault.outside.clone());
    let replaced = vault.targets(&[Mode::Beside]);
    vault.require_refused(&replaced, "a row is missing", 3, "199 rows, but 200 were saved");

    let mut no_schema = files.clone();
    let objects = find("objects.json");
    no_schema[objects].content.truncate(100);
    vault.put(&no_schema, vault.outside.clone());
    vault.require_refused(&targets, "half a schema", 3, "list of schema objects");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_changed_large_object_changes_no_target() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("other_objects", 0);
    source.psql(
        "SELECT lo_from_bytea(990, 'content'), lo_from_bytea(991, ''), lo_from_bytea(992, repeat('x', 600000)::bytea)",
    );
    let vault = Vault::of(setup, source);
    let targets = vault.targets(&[Mode::Create, Mode::Empty, Mode::Swap]);
    let mut files = vault.files();
    let file = files.iter_mut().find(|file| file.content.starts_with(b"990\t")).unwrap();
    let end = file.content.iter().position(|byte| *byte == b'\n').unwrap();
    file.content[end - 1] ^= 1;
    vault.put(&files, vault.outside.clone());
    vault.require_refused(&targets, "another byte", 3, "large objects");
    vault.put_raw(&vault.bytes, &vault.outside);
    for (target, _) in targets.values() {
        vault.setup.ok(&target.arguments(&vault.id, &target.database.url()));
        assert_eq!(target.database.value("SELECT convert_from(lo_get(990), 'UTF8')"), "content");
        assert_eq!(target.database.value("SELECT length(lo_get(992))"), "600000");
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_missing_extension_is_named_and_nothing_is_created() {
    let vault = Vault::new(13, "extension");
    let targets = vault.targets(&[Mode::Create, Mode::Empty, Mode::Swap]);
    let mut files = vault.files();
    for file in files.iter_mut().filter(|file| {
        file.path.ends_with("manifest.json") || file.path.ends_with(".sql") || file.path.contains("objects")
    }) {
        file.content = String::from_utf8(file.content.clone()).unwrap().replace("citext", "no_such_ext").into_bytes();
    }
    let outside: Value = serde_json::from_str(&vault.outside.to_string().replace("citext", "no_such_ext")).unwrap();
    vault.put(&files, outside);
    for (target, before) in targets.values() {
        let run = vault.setup.fails(
            1,
            &target.arguments(&vault.id, &target.database.url()),
            &["the extension no_such_ext (version 1."],
        );
        assert_eq!(target.state(), *before, "{}", run.transcript());
    }
    require_error(&vault.setup.run(&["drill", &vault.id, "--to", &vault.source.url()]).code(1), &["no_such_ext"]);
}
