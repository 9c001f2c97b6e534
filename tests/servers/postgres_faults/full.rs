//! Disks without room: the store's and the server's. Connections without room.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Mode, Role, Scene, Target, content, require_told, session};
use crate::support::postgres::{PrivateServer, server};
use crate::support::skip_unless_ci;

/// A small disk of its own, gone at the end.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount one.
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Disk(path));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount a tmpfs: {mounted:?}");
        skip_unless_ci("no disk can be mounted here, which takes root");
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
fn full_store_fails_the_snapshot_and_the_restore_that_would_overwrite() {
    let server = server(18);
    let scene = Scene::new(&server);
    let Some(_disk) = Disk::mount(scene.sandbox.path("disk"), "10m") else { return };
    let source = scene.bank("full_store", 0);
    let store = ["--store", "disk/backups"];
    let document = scene.json(&[&["snapshot", &source.url()], &store[..]].concat());
    let id = document["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let target = Target::new(Mode::Replace, &source);
    // About 7 MB in an archive: the first fits, the second does not.
    for database in [&source, &target.database] {
        database.psql(NOISE);
    }
    let state = scene.sandbox.state();
    scene.ok(&[&["snapshot", &source.url()], &store[..]].concat());
    let files = scene.sandbox.state();
    let run = scene.run(&[&["snapshot", &source.url()], &store[..]].concat()).code(1);
    require_told(&run, &["no snapshot of", "the disk is full"]);
    assert_eq!(scene.sandbox.state(), files);
    // Without a safety snapshot nothing is overwritten.
    let before = target.state();
    let url = target.database.url();
    let run = scene.run(&[&["restore", "latest", "--to", &url, "--replace", "--yes"], &store[..]].concat()).code(1);
    require_told(&run, &["cannot save what would be overwritten; nothing was changed", "the disk is full"]);
    assert_eq!(target.state(), before);
    assert_eq!(scene.sandbox.state(), files);
    scene.ok(&[&["verify", "--all"], &store[..]].concat());
    assert!(state.len() < files.len() && files.keys().any(|path| path.to_string_lossy().contains(&id)));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn server_without_room_fails_the_restore_and_the_database_is_empty_again() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("full_server", 0);
    source.psql(NOISE);
    let id = scene.snapshot(&source.url());
    // The server must be able to get there.
    let folder = tempfile::Builder::new().prefix("lifeboat-disk-").tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path().join("disk"), "16m") else { return };
    let place = disk.0.join("space");
    std::fs::create_dir(&place).unwrap();
    give_to_server(&server.data, &[folder.path(), &disk.0, &place]);
    let space = format!("small_{}", std::process::id());
    // Not in a transaction.
    server.psql("postgres", format!("CREATE TABLESPACE {space} LOCATION '{}'", place.display()));
    {
        let database = server.create_database_with("full_target", &format!("TABLESPACE {space}"));
        let before = content(&server, &database.name);
        let run = scene.run(&["restore", &id, "--to", &database.url()]).code(1);
        require_told(&run, &["is empty again", "No space left on device"]);
        assert_eq!(content(&server, &database.name), before);
        assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new());
    }
    server.psql("postgres", format!("DROP TABLESPACE {space}"));
    scene.require_store(&[id]);
}

fn give_to_server(data: &Path, paths: &[&Path]) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let owner = std::fs::metadata(data).unwrap();
    for path in paths {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn fewer_connections_than_jobs_are_enough_and_none_fails() {
    let server = PrivateServer::start(15);
    let scene = Scene::new(&server);
    let source = scene.bank("connections", 40);
    let role = Role::new(&server, "narrow", &[&source]);
    source.psql(format!("GRANT pg_read_all_data TO \"{}\"", role.name));
    let url = role.url(&source.name);
    // As many as there are places: one for the watch of the first, and so on.
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT 2", role.name));
    let run = scene.ok(&["snapshot", &url, "--jobs", "6"]);
    assert!(run.stderr().contains("going on with 2 sessions of 5"), "{}", run.transcript());
    let id = scene.ids().remove(0);
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT 0", role.name));
    scene.fails(5, &["snapshot", &url], &["has no free connection"]);
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT 3 CREATEDB", role.name));
    // One beside the database, two in it.
    let target = Target::new(Mode::Create, &source);
    let run =
        scene.ok(&["restore", &id, "--to", &role.url(&target.database.name), "--create", "--no-owner", "--jobs", "6"]);
    assert!(run.stderr().contains("going on with 2 sessions of 6"), "{}", run.transcript());
    // The whole server is full, but for superusers.
    server.configure("max_connections = 5\nsuperuser_reserved_connections = 2");
    server.psql("postgres", format!("ALTER ROLE \"{}\" CONNECTION LIMIT -1", role.name));
    let others: Vec<_> = (0..3).map(|_| session(&server, "postgres", "another")).collect();
    scene.fails(5, &["snapshot", &url], &["has no free connection"]);
    drop(others);
    scene.require_store(&[id]);
    source.psql(format!("REVOKE pg_read_all_data FROM \"{}\"", role.name));
}
