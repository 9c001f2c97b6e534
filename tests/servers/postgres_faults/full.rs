//! Full disks of the store and of the server, and servers without free connections.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Mode, Role, Setup, Target, content, require_error, session};
use crate::support::postgres::{PrivateServer, server};
use crate::support::skip_unless_ci;

/// A small disk, which is unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    /// Mounts a disk. Returns `None` if this user may not do so.
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Disk(path));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount a tmpfs: {mounted:?}");
        skip_unless_ci("it needs root to mount a disk");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Rows that do not compress.
const NOISE: &str = "CREATE TABLE noise AS
    SELECT g AS id, (SELECT string_agg(md5(g::text || h::text), '') FROM generate_series(1, 300) h) AS body
      FROM generate_series(1, 1500) g";

#[test]
#[ignore = "needs PostgreSQL"]
fn a_full_store_fails_snapshots_and_restores_that_need_a_safety_snapshot() {
    let server = server(18);
    let setup = Setup::new(&server);
    let Some(_disk) = Disk::mount(setup.sandbox.path("disk"), "10m") else { return };
    let source = setup.bank("full_store", 0);
    let store = ["--store", "disk/backups"];
    let document = setup.json(&[&["snapshot", &source.url()], &store[..]].concat());
    let id = document["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let target = Target::new(Mode::Replace, &source);
    // An archive has about 7 MB, so the disk has space for one but not for two.
    for database in [&source, &target.database] {
        database.psql(NOISE);
    }
    let files_before = setup.sandbox.state();
    setup.ok(&[&["snapshot", &source.url()], &store[..]].concat());
    let files_after = setup.sandbox.state();
    let run = setup.run(&[&["snapshot", &source.url()], &store[..]].concat()).code(1);
    require_error(&run, &["no snapshot of", "the disk is full"]);
    assert_eq!(setup.sandbox.state(), files_after);
    // If the safety snapshot cannot be taken, nothing is overwritten.
    let before = target.state();
    let url = target.database.url();
    let run = setup.run(&[&["restore", "latest", "--to", &url, "--replace", "--yes"], &store[..]].concat()).code(1);
    require_error(&run, &["cannot save the data that would be overwritten; nothing was changed", "the disk is full"]);
    assert_eq!(target.state(), before);
    assert_eq!(setup.sandbox.state(), files_after);
    setup.ok(&[&["verify", "--all"], &store[..]].concat());
    assert!(files_before.len() < files_after.len());
    assert!(files_after.keys().any(|path| path.to_string_lossy().contains(&id)));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_full_disk_of_the_server_fails_the_restore_and_the_database_is_empty_again() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("full_server", 0);
    source.psql(NOISE);
    let id = setup.snapshot(&source.url());
    // The server must have access to the folder of the disk.
    let folder = tempfile::Builder::new().prefix("lifeboat-disk-").tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path().join("disk"), "16m") else { return };
    let tablespace_folder = disk.0.join("space");
    std::fs::create_dir(&tablespace_folder).unwrap();
    chown_to_server(&server.data, &[folder.path(), &disk.0, &tablespace_folder]);
    let tablespace = format!("small_{}", std::process::id());
    // CREATE TABLESPACE cannot run in a transaction, so it is a separate script.
    server.psql("postgres", format!("CREATE TABLESPACE {tablespace} LOCATION '{}'", tablespace_folder.display()));
    {
        let database = server.create_database_with("full_target", &format!("TABLESPACE {tablespace}"));
        let before = content(&server, &database.name);
        let run = setup.run(&["restore", &id, "--to", &database.url()]).code(1);
        require_error(&run, &["is empty again", "No space left on device"]);
        assert_eq!(content(&server, &database.name), before);
        assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new());
    }
    server.psql("postgres", format!("DROP TABLESPACE {tablespace}"));
    setup.require_store(&[id]);
}

/// Makes the owner of the server's data the owner of these folders.
fn chown_to_server(data: &Path, paths: &[&Path]) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let owner = std::fs::metadata(data).unwrap();
    for path in paths {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn runs_use_the_free_connections_and_fail_if_there_is_none() {
    let server = PrivateServer::start(15);
    let setup = Setup::new(&server);
    let source = setup.bank("connections", 40);
    let role = Role::new(&server, "narrow", &[&source]);
    source.psql(format!("GRANT pg_read_all_data TO \"{}\"", role.name));
    let url = role.url(&source.name);
    // A limit below the number of jobs: the snapshot uses the sessions that it gets.
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT 2", role.name));
    let run = setup.ok(&["snapshot", &url, "--jobs", "6"]);
    assert!(run.stderr().contains("continuing with 2 of 5 sessions"), "{}", run.transcript());
    let id = setup.ids().remove(0);
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT 0", role.name));
    setup.fails(5, &["snapshot", &url], &["has no free connection"]);
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT 3 CREATEDB", role.name));
    // Of three sessions, one is in another database, and two are in the new database.
    let target = Target::new(Mode::Create, &source);
    let run =
        setup.ok(&["restore", &id, "--to", &role.url(&target.database.name), "--create", "--no-owner", "--jobs", "6"]);
    assert!(run.stderr().contains("continuing with 2 of 6 sessions"), "{}", run.transcript());
    // All connections of the server are in use, except for those that are reserved for superusers.
    server.configure("max_connections = 5\nsuperuser_reserved_connections = 2");
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT -1", role.name));
    let others: Vec<_> = (0..3).map(|_| session(&server, "postgres", "another")).collect();
    setup.fails(5, &["snapshot", &url], &["has no free connection"]);
    drop(others);
    setup.require_store(&[id]);
    source.psql(format!("REVOKE pg_read_all_data FROM \"{}\"", role.name));
}
