//! Owner, mode, access control lists and attributes of restored files: the program of a database can still open it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::XattrFlags;

use crate::helpers::{query_value, sql};
use crate::support::{LIFEBOAT, Sandbox, copy_folder, have, open, sample, skip_unless_ci};

const PROGRAM: u32 = 12345;

/// Returns false, and reports the test as skipped, if this user is not root.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip_unless_ci("giving files to other users needs root");
    }
    is_root
}

/// Creates `data/app.db` of another user with mode 0640, in a folder of that user. Returns the sandbox and the id of a
/// snapshot.
fn database_of_another_user(journal: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 3, journal);
    fs::set_permissions(sandbox.path("data/app.db"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(sandbox.path("data"), Some(PROGRAM), Some(PROGRAM)).unwrap();
    chown(sandbox.path("data/app.db"), Some(PROGRAM), Some(PROGRAM + 1)).unwrap();
    let id = sandbox.snapshot("data/app.db");
    (sandbox, id)
}

/// Returns user, group and mode of a file.
#[track_caller]
fn owner(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.uid(), facts.gid(), facts.mode() & 0o7777)
}

/// An access control list: the group may read, user 54321 may read and write.
fn acl() -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 6u16, u32::MAX), (2, 6, 54321), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// Sets an access control list and an attribute. Returns false, and reports the test as skipped, if the file system has
/// none.
fn set_attributes(path: &Path) -> bool {
    let set = |name: &str, value: &[u8]| rustix::fs::setxattr(path, name, value, XattrFlags::empty());
    let done = set("user.tag", b"keep").and_then(|()| set("system.posix_acl_access", &acl()));
    if done.is_err() {
        skip_unless_ci("the file system has no access control lists");
    }
    done.is_ok()
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 1000];
    let length = rustix::fs::getxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

#[track_caller]
fn assert_attributes(path: &Path) {
    assert_eq!(attribute(path, "user.tag").as_deref(), Some(&b"keep"[..]));
    assert_eq!(attribute(path, "system.posix_acl_access"), Some(acl()));
}

#[test]
fn a_restored_file_gets_the_owner_and_the_mode_of_the_saved_file() {
    if !is_root() {
        return;
    }
    for journal in ["delete", "wal"] {
        let (sandbox, id) = database_of_another_user(journal);
        fs::remove_file(sandbox.path("data/app.db")).unwrap();
        let document = sandbox.json(&["restore", &id, "--store", "backups"]);
        assert_eq!(document["notes"], serde_json::json!([]));
        assert_eq!(owner(sandbox.path("data/app.db")), (PROGRAM, PROGRAM + 1, 0o640));
    }
}

#[test]
fn the_program_can_write_to_a_restored_file() {
    if !is_root() || !have(&["setpriv", "sqlite3"]) {
        return;
    }
    let (sandbox, id) = database_of_another_user("wal");
    fs::remove_file(sandbox.path("data/app.db")).unwrap();
    sandbox.ok(&["restore", &id, "--store", "backups"]);
    let insert = "setpriv --reuid 12345 --regid 12345 --clear-groups sqlite3 data/app.db 'CREATE TABLE mine (a)'";
    crate::helpers::shell_ok(&sandbox, insert);
}

#[test]
fn an_archive_without_an_owner_is_restored_for_the_owner_of_the_folder() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/gzip"), &sandbox.path("backups"));
    fs::create_dir(sandbox.path("data")).unwrap();
    chown(sandbox.path("data"), Some(PROGRAM), Some(PROGRAM)).unwrap();
    let document = sandbox.json(&["restore", "latest", "--to", "data/app.db", "--store", "backups"]);
    let (user, group, mode) = owner(sandbox.path("data/app.db"));
    assert_eq!((user, group), (PROGRAM, PROGRAM), "{document:#}");
    assert_eq!(mode & 0o7000, 0);
    assert!(document["notes"][0].as_str().unwrap().contains("12345:12345"), "{document:#}");
}

#[test]
fn on_another_path_the_folder_decides_and_a_note_has_the_chown_command() {
    if !is_root() {
        return;
    }
    let (sandbox, id) = database_of_another_user("delete");
    for (folder, user, expected) in [
        ("root", 0, (0, 0, 0o640)),
        ("other", 777, (777, 777, 0o640)),
        ("same", PROGRAM, (PROGRAM, PROGRAM + 1, 0o640)),
    ] {
        fs::create_dir(sandbox.path(folder)).unwrap();
        chown(sandbox.path(folder), Some(user), Some(user)).unwrap();
        let target = format!("{folder}/copy.db");
        let run = sandbox.ok(&["restore", &id, "--to", &target, "--store", "backups"]);
        assert_eq!(owner(sandbox.path(&target)), expected, "{folder}");
        let has_note = run.stdout().contains("run as root: chown 12345:12346");
        assert_eq!(has_note, user != PROGRAM, "{}", run.transcript());
    }
    // On another machine, the number may be another person's.
    fs::remove_file(sandbox.path("data/app.db")).unwrap();
    chown(sandbox.path("data"), Some(777), Some(777)).unwrap();
    let run = sandbox.ok(&["restore", &id, "--to", "data/app.db", "--host", "elsewhere", "--store", "backups"]);
    assert_eq!(owner(sandbox.path("data/app.db")), (777, 777, 0o640), "{}", run.transcript());
}

#[test]
fn a_restored_file_gets_the_list_and_the_attributes_of_the_saved_file() {
    if !is_root() {
        return;
    }
    let (sandbox, _) = database_of_another_user("delete");
    let path = sandbox.path("data/app.db");
    if !set_attributes(&path) {
        return;
    }
    let id = sandbox.snapshot("data/app.db");
    fs::remove_file(&path).unwrap();
    sandbox.ok(&["restore", &id, "--store", "backups"]);
    assert_attributes(&path);
    assert_eq!(owner(&path), (PROGRAM, PROGRAM + 1, 0o660));
    // The list names users of the saved file's machine; attributes name nobody.
    fs::create_dir(sandbox.path("other")).unwrap();
    let run = sandbox.ok(&["restore", &id, "--to", "other/copy.db", "--store", "backups"]);
    assert!(run.stdout().contains("no access control list"), "{}", run.transcript());
    assert_eq!(attribute(&sandbox.path("other/copy.db"), "system.posix_acl_access"), None);
    assert_eq!(attribute(&sandbox.path("other/copy.db"), "user.tag").as_deref(), Some(&b"keep"[..]));
}

#[test]
fn the_file_in_place_of_a_damaged_one_has_its_owner_list_and_attributes() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let path = sandbox.path("app.db");
    let id = sandbox.snapshot("app.db");
    if !set_attributes(&path) {
        return;
    }
    let before = owner(&path);
    fs::write(&path, b"\0ruined".repeat(2000)).unwrap();
    // The new file must not keep a list that it inherits from its folder, nor lose the one of the old file.
    let document = sandbox.json(&["restore", &id, "--replace", "--store", "backups"]);
    assert_eq!(document["mode"], "replace-damaged");
    assert_eq!(document["notes"], serde_json::json!([]));
    assert_attributes(&path);
    assert_eq!(owner(&path), before);
    assert_eq!(query_value(&path, "SELECT count(*) FROM accounts"), "3");
}

#[test]
fn a_list_that_a_folder_gives_to_new_files_is_not_kept_in_place_of_a_damaged_file() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    let default = rustix::fs::setxattr(sandbox.root(), "system.posix_acl_default", &acl(), XattrFlags::empty());
    if default.is_err() {
        skip_unless_ci("the file system has no access control lists");
        return;
    }
    fs::set_permissions(sandbox.path("app.db"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(sandbox.path("app.db"), b"\0ruined".repeat(2000)).unwrap();
    sandbox.ok(&["restore", &id, "--replace", "--store", "backups"]);
    assert_eq!(attribute(&sandbox.path("app.db"), "system.posix_acl_access"), None);
    assert_eq!(owner(sandbox.path("app.db")).2, 0o600);
}

#[test]
fn a_user_who_cannot_give_the_file_away_is_told_the_chown_command() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let (sandbox, id) = database_of_another_user("delete");
    let helper = sandbox.path("data/app.db");
    fs::write(&helper, b"\0ruined".repeat(2000)).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o644)).unwrap();
    crate::helpers::shell_ok(&sandbox, "mkdir scratch2; chmod 777 scratch2 data; chown -R 777:777 backups");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "777", "--regid", "777", "--clear-groups", LIFEBOAT]);
    command.args(["restore", &id, "--to", "data/app.db", "--replace", "--store", "backups"]);
    command.current_dir(sandbox.root()).env("TMPDIR", sandbox.path("scratch2"));
    let run = sandbox.finish(command).code(0);
    assert!(run.stdout().contains("run as root: chown 12345:12346"), "{}", run.transcript());
    assert_eq!(owner(&helper), (777, 777, 0o644));
}

#[test]
fn root_leaves_no_files_of_root_beside_a_database_of_another_user() {
    if !is_root() {
        return;
    }
    let (sandbox, id) = database_of_another_user("wal");
    let require = |what: &str| {
        for suffix in ["-wal", "-shm", "-journal"] {
            let path = sandbox.path(format!("data/app.db{suffix}"));
            if path.exists() {
                assert_eq!(owner(&path).0, PROGRAM, "{what} {suffix}");
            }
        }
    };
    // A program that was killed leaves a WAL, and maybe no -shm.
    let holder = open(sandbox.path("data/app.db"));
    holder.execute_batch("INSERT INTO accounts (name) VALUES ('late')").unwrap();
    fs::copy(sandbox.path("data/app.db"), sandbox.path("data/killed.db")).unwrap();
    fs::copy(sandbox.path("data/app.db-wal"), sandbox.path("data/killed.db-wal")).unwrap();
    drop(holder);
    for name in ["app.db", "killed.db", "killed.db-wal"] {
        chown(sandbox.path("data").join(name), Some(PROGRAM), Some(PROGRAM)).unwrap();
    }
    fs::rename(sandbox.path("data/killed.db"), sandbox.path("data/app.db")).unwrap();
    fs::rename(sandbox.path("data/killed.db-wal"), sandbox.path("data/app.db-wal")).unwrap();
    sandbox.ok(&["snapshot", "data/app.db", "--store", "backups"]);
    require("snapshot");
    sandbox.ok(&["check", "data/app.db", "--store", "backups"]);
    require("check");
    sandbox.ok(&["restore", &id, "--replace", "--store", "backups"]);
    require("restore");
    sql(sandbox.path("data/app.db"), "DELETE FROM balances");
    sandbox.ok(&["restore", &id, "--replace", "--table", "balances", "--store", "backups"]);
    require("restore --table");
    assert_eq!(owner(sandbox.path("data/app.db")).0, PROGRAM);
}

#[test]
fn folders_that_a_guard_creates_get_the_owner_of_the_folder_above() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("data/a/b")).unwrap();
    sample(sandbox.path("data/a/b/app.db"), 3, "delete");
    for name in ["data", "data/a", "data/a/b", "data/a/b/app.db"] {
        chown(sandbox.path(name), Some(PROGRAM), Some(PROGRAM)).unwrap();
    }
    let config =
        "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./data/a/b/app.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox.ok(&["snapshot", "app", "--store", "./backups"]);
    fs::remove_dir_all(sandbox.path("data/a")).unwrap();
    sandbox.ok(&["guard", "--", "true"]);
    for name in ["data/a", "data/a/b", "data/a/b/app.db"] {
        assert_eq!(owner(sandbox.path(name)).0, PROGRAM, "{name}");
    }
    // In a folder of root, they get the owner of the saved file.
    fs::remove_dir_all(sandbox.path("data")).unwrap();
    sandbox.ok(&["guard", "--", "true"]);
    for name in ["data", "data/a", "data/a/b", "data/a/b/app.db"] {
        assert_eq!(owner(sandbox.path(name)).0, PROGRAM, "{name}");
    }
}

#[test]
fn an_encrypted_store_does_not_reveal_owner_and_attributes() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    fs::write(sandbox.path("pass"), "correct horse battery staple").unwrap();
    let document = sandbox.json(&["snapshot", "app.db", "--passphrase-file", "pass", "--store", "backups"]);
    let id = crate::helpers::id_of(&document);
    let outside = fs::read_to_string(sandbox.path(format!("backups/app/{id}.json"))).unwrap();
    assert!(!outside.contains("file_owner") && !outside.contains("uid"), "{outside}");
    let entry = ["extract", &id, "--entry", "manifest.json", "--passphrase-file", "pass", "--store", "backups"];
    let inside = sandbox.ok(&entry).json();
    assert_eq!(inside["sqlite"]["file_owner"]["uid"], rustix::process::geteuid().as_raw());
}

/// Creates a source `app` in `data` that belongs to another user, with a snapshot. Returns the sandbox.
fn source_of_another_user(journal: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 3, journal);
    fs::set_permissions(sandbox.path("data/app.db"), fs::Permissions::from_mode(0o640)).unwrap();
    for name in ["data", "data/app.db"] {
        chown(sandbox.path(name), Some(PROGRAM), Some(PROGRAM)).unwrap();
    }
    let config =
        "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./data/app.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox.ok(&["snapshot", "app", "--store", "./backups"]);
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(sandbox.path(format!("data/app.db{suffix}")));
    }
    sandbox
}

/// A shell command by which the program writes to its database, in WAL mode and in a rollback mode.
const PROGRAM_WRITES: &str = "setpriv --reuid 12345 --regid 12345 --clear-groups sh -ec 'for mode in wal delete; do \
                              sqlite3 -bail data/app.db \"PRAGMA journal_mode = $mode; \
                              INSERT INTO accounts (name) VALUES (1)\"; done'";

/// The ways in which root leaves a file at the path of a database that the program cannot write to.
const FILES_OF_ROOT: [(&str, &str); 5] = [
    ("an empty file", "rm data/app.db; touch data/app.db"),
    ("an empty file without rights", "rm data/app.db; install -m 400 /dev/null data/app.db"),
    ("a database without rows", "rm data/app.db; sqlite3 data/app.db 'CREATE TABLE accounts (name)'"),
    (
        "a database in WAL mode",
        "rm data/app.db; sqlite3 data/app.db 'PRAGMA journal_mode = wal; CREATE TABLE accounts (name)'; chmod 644 data/app.db",
    ),
    ("a damaged file", "head -c 9000 /dev/urandom >data/app.db; chown 0:0 data/app.db"),
];

#[test]
fn the_program_can_write_to_a_database_that_is_restored_over_a_file_of_root() {
    if !is_root() || !have(&["setpriv", "sqlite3"]) {
        return;
    }
    for (kind, make) in FILES_OF_ROOT {
        for journal in ["delete", "wal"] {
            let sandbox = source_of_another_user(journal);
            crate::helpers::shell_ok(&sandbox, make);
            let run = sandbox.ok(&["restore", "latest", "--replace", "--yes"]);
            assert!(run.stdout().contains("belonged to 0:0, and now belongs to 12345:12345"), "{}", run.transcript());
            let (user, group, mode) = owner(sandbox.path("data/app.db"));
            assert_eq!((user, group, mode & 0o600), (PROGRAM, PROGRAM, 0o600), "{kind}");
            if kind.starts_with("an empty file") {
                assert_eq!(mode, 0o640, "{kind}");
            }
            crate::helpers::shell_ok(&sandbox, PROGRAM_WRITES);
            assert_eq!(query_value(sandbox.path("data/app.db"), "SELECT count(*) FROM accounts"), "5", "{kind}");
        }
    }
}

#[test]
fn guard_gives_an_empty_database_of_root_to_the_program_before_it_starts() {
    if !is_root() || !have(&["setpriv", "sqlite3"]) {
        return;
    }
    for (kind, make) in &FILES_OF_ROOT[..4] {
        let sandbox = source_of_another_user("wal");
        crate::helpers::shell_ok(&sandbox, make);
        crate::helpers::shell_ok(&sandbox, &format!("lifeboat guard -- {PROGRAM_WRITES}"));
        assert_eq!(query_value(sandbox.path("data/app.db"), "SELECT count(*) FROM accounts"), "5", "{kind}");
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let path = sandbox.path(format!("data/app.db{suffix}"));
            assert!(!path.exists() || owner(path).0 == PROGRAM, "{kind} {suffix}");
        }
    }
}

#[test]
fn a_wal_that_another_program_of_root_has_open_is_given_away_too() {
    if !is_root() || !have(&["setpriv", "sqlite3"]) {
        return;
    }
    let sandbox = source_of_another_user("wal");
    crate::helpers::shell_ok(&sandbox, FILES_OF_ROOT[3].1);
    let holder = open(sandbox.path("data/app.db"));
    holder.execute_batch("INSERT INTO accounts VALUES (1)").unwrap();
    sandbox.ok(&["restore", "latest", "--replace", "--yes"]);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(owner(sandbox.path(format!("data/app.db{suffix}"))).0, PROGRAM, "{suffix}");
    }
    let insert = "setpriv --reuid 12345 --regid 12345 --clear-groups sqlite3 data/app.db \
                  'INSERT INTO accounts (name) VALUES (1)'";
    crate::helpers::shell_ok(&sandbox, insert);
    drop(holder);
}

#[test]
fn the_undo_command_gives_the_file_back_to_root() {
    if !is_root() || !have(&["sqlite3"]) {
        return;
    }
    for (kind, make) in FILES_OF_ROOT {
        let sandbox = source_of_another_user("delete");
        crate::helpers::shell_ok(&sandbox, make);
        let before = owner(sandbox.path("data/app.db"));
        let document = sandbox.json(&["restore", "latest", "--replace", "--yes"]);
        crate::helpers::shell_ok(&sandbox, document["undo"].as_str().unwrap());
        assert_eq!(owner(sandbox.path("data/app.db")), before, "{kind}");
    }
}

#[test]
fn a_file_of_root_with_another_name_is_neither_overwritten_nor_given_away() {
    if !is_root() {
        return;
    }
    let sandbox = source_of_another_user("delete");
    fs::remove_file(sandbox.path("data/app.db")).unwrap();
    fs::write(sandbox.path("important"), "").unwrap();
    fs::hard_link(sandbox.path("important"), sandbox.path("data/app.db")).unwrap();
    let run = sandbox.run(&["restore", "latest", "--replace", "--yes"]).code(2).says("another name (a hard link)");
    assert_eq!(owner(sandbox.path("important")).0, 0, "{}", run.transcript());
    assert_eq!(fs::read(sandbox.path("important")).unwrap(), b"", "{}", run.transcript());
}

#[test]
fn an_empty_file_of_another_user_stays_with_that_user() {
    if !is_root() {
        return;
    }
    // A single file that is mounted into a container: its folder belongs to root.
    let (sandbox, id) = database_of_another_user("delete");
    fs::create_dir(sandbox.path("mounted")).unwrap();
    fs::write(sandbox.path("mounted/app.db"), "").unwrap();
    chown(sandbox.path("mounted/app.db"), Some(777), Some(777)).unwrap();
    sandbox.ok(&["restore", &id, "--to", "mounted/app.db", "--replace", "--store", "backups"]);
    assert_eq!(owner(sandbox.path("mounted/app.db")), (777, 777, 0o640));
}

#[test]
fn the_owner_of_a_store_can_read_what_root_writes_to_it() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let (sandbox, id) = database_of_another_user("delete");
    crate::helpers::shell_ok(&sandbox, "mkdir scratch2; chmod 777 scratch2; chown -R 12345:12345 backups");
    sandbox.ok(&["restore", &id, "--replace", "--store", "backups"]);
    sample(sandbox.path("other.db"), 3, "delete");
    sandbox.ok(&["snapshot", "other.db", "--store", "backups"]);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    for path in sandbox.state().keys().filter(|path| path.starts_with("backups")) {
        assert_eq!(owner(sandbox.path(path)).0, PROGRAM, "{}", path.display());
    }
    let as_program = |arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", LIFEBOAT]).args(arguments);
        command.current_dir(sandbox.root()).env("TMPDIR", sandbox.path("scratch2"));
        sandbox.finish(command)
    };
    let list = as_program(&["list", "--store", "backups", "--json"]).code(0);
    assert_eq!(list.json()["snapshots"].as_array().unwrap().len(), 3, "{}", list.transcript());
    // A store that root wrote to with an earlier version.
    crate::helpers::shell_ok(&sandbox, "chown -R 0:0 backups/other");
    let run = as_program(&["list", "--store", "backups"]);
    assert_ne!(run.exit(), 0, "{}", run.transcript());
    assert!(run.stderr().contains("as root: chown -R 12345:12345"), "{}", run.transcript());
}
