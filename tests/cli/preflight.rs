//! Preflight checks: endpoints, mount points, write access and free space.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::network::{SECRET, child_process, closed_port, event, events, ms, ok_answer, text_of, url};
use crate::support::skip_unless_ci;
use crate::support::web::{Web, answer, redirect};
use lifeboat::config::{HttpCheck, JsonField};
use lifeboat::notify::Notify;
use lifeboat::ops::preflight;
use lifeboat::ops::summary::Check;
use lifeboat::platform::error::Result;
use lifeboat::platform::interrupt;
use tempfile::TempDir;

fn check(server: &Web) -> HttpCheck {
    HttpCheck { timeout: ms(500), ..HttpCheck::new(url(&server.url("/health?key=T0k3n"))) }
}

/// Requires that a check has failed, with these words in its message and without the secret.
#[track_caller]
fn assert_failed(finding: Result<Check>, words: &str) {
    let finding = finding.unwrap();
    assert!(!finding.ok && finding.message.contains(words), "{finding:?}");
    assert!(!format!("{finding:?}").contains(SECRET), "{finding:?}");
}

fn status_is(expected: &str) -> Option<JsonField> {
    Some(JsonField { path: "status".to_owned(), expected: expected.to_owned() })
}

#[test]
fn a_check_of_a_healthy_endpoint_passes_and_its_message_has_the_details() {
    let server = Web::answering(&[answer("200 OK", "application/json", "{\"status\":\"ok\"}")]);
    let full = HttpCheck { json: status_is("ok"), contains: Some("stat".to_owned()), ..check(&server) };
    let finding = preflight::http(&full, Duration::ZERO).unwrap();
    assert!(finding.ok, "{finding:?}");
    assert_eq!(finding.name, format!("http {}", server.url("/health")));
    assert!(finding.message.contains("answers 200, status is 'ok', contains 'stat' in "), "{finding:?}");
    let removed = Web::answering(&[answer("410 Gone", "text/plain", "")]);
    assert!(preflight::http(&HttpCheck { status: 410, ..check(&removed) }, Duration::ZERO).unwrap().ok);
}

#[test]
fn a_check_is_repeated_until_the_endpoint_is_healthy() {
    let starting = answer("503 Service Unavailable", "text/html", "<h1>starting</h1>");
    let not_yet = answer("200 OK", "application/json", "{\"status\":\"starting\"}");
    let up = answer("200 OK", "application/json", "{\"status\":\"ok\"}");
    let server = Web::answering(&[starting, not_yet, up]);
    let check = HttpCheck { json: status_is("ok"), ..check(&server) };
    let finding = preflight::http(&check, ms(20_000)).unwrap();
    assert!(finding.ok, "{finding:?}");
    assert_eq!(server.request_lines().len(), 3);
}

#[test]
fn the_message_of_a_failed_endpoint_check_names_the_difference() {
    let check_with = |reply: String, change: fn(&mut HttpCheck)| {
        let server = Web::answering(&[reply]);
        let mut check = check(&server);
        change(&mut check);
        preflight::http(&check, Duration::ZERO)
    };
    let page = || answer("200 OK", "text/html", "<!doctype html><title>Sign in</title>");
    assert_failed(
        check_with(redirect("302 Found", "https://login.example/T0k3n"), |_| {}),
        "redirects to https://login.example (302): use the final URL",
    );
    assert_failed(
        check_with(redirect("301 Moved", "/health/?T0k3n"), |_| {}),
        "redirects to another path of http://127.0.0.1",
    );
    assert_failed(check_with(answer("500 Oops", "text/plain", SECRET), |_| {}), "answers 500, not 200");
    assert_failed(check_with(page(), |check| check.json = status_is("ok")), "answers HTML, not JSON");
    let finding = check_with(page(), |check| check.contains = Some("healthy".to_owned()));
    assert_failed(finding, "does not contain 'healthy'");
    let down = || answer("200 OK", "application/json", "{\"status\":\"down\"}");
    assert_failed(check_with(down(), |check| check.json = status_is("ok")), "answers that status is 'down', not 'ok'");
    let other_field =
        |check: &mut HttpCheck| check.json = Some(JsonField { path: "a.b".to_owned(), expected: String::new() });
    assert_failed(check_with(down(), other_field), "answers JSON without the field a.b");
}

#[test]
fn a_check_of_a_hanging_or_missing_endpoint_fails_in_time() {
    let server = Web::hanging();
    let start = Instant::now();
    assert_failed(preflight::http(&check(&server), Duration::ZERO), "within 0.5s");
    assert!(start.elapsed() < ms(2000));
    let start = Instant::now();
    let finding = preflight::http(&check(&server), ms(3000));
    assert!(start.elapsed() < ms(4500), "{:?}", start.elapsed());
    assert_failed(finding, "(2 attempts in ");
    let closed = HttpCheck::new(url(&format!("http://127.0.0.1:{}/", closed_port())));
    assert_failed(preflight::http(&closed, Duration::ZERO), "refuses the connection");
    let endless = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b'{'; 8192])?;
        }
    });
    let check = HttpCheck { timeout: ms(10_000), json: status_is("ok"), ..check(&endless) };
    assert_failed(preflight::http(&check, Duration::ZERO), "answers with more than the limit of 1 MiB");
}

/// Waits up to a minute for an endpoint that hangs, and then sends a notice.
#[test]
#[ignore = "it is the other half of the test of signals"]
fn child_waits() {
    interrupt::listen().unwrap();
    let check = HttpCheck { timeout: ms(60_000), ..HttpCheck::new(url(&std::env::var("ADDRESS").unwrap())) };
    println!("ended {:?}", preflight::http(&check, ms(60_000)).map_err(|error| error.kind));
    // The notice is sent after the signal too.
    let hook = Some(url(&std::env::var("HOOK").unwrap()));
    println!("warnings {:?}", Notify { webhook: hook, ..Notify::default() }.ended(&event(false)));
}

#[test]
fn a_signal_ends_the_wait_and_the_notice_is_still_sent() {
    let (server, hook) = (Web::hanging(), Web::answering(&[ok_answer()]));
    let start = Instant::now();
    let (address, hook_url) = (server.url("/"), hook.url("/"));
    let variables = [("ADDRESS", address.as_str()), ("HOOK", hook_url.as_str())];
    let child = child_process(module_path!(), "child_waits", &variables).spawn().unwrap();
    server.wait_for_request();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let printed = text_of(&child.wait_with_output().unwrap());
    assert!(printed.contains("ended Err(Interrupted)") && printed.contains("warnings []"), "{printed}");
    assert!(start.elapsed() < ms(10_000), "{:?}", start.elapsed());
    assert_eq!(events(&hook), ["failure"]);
}

/// A mount that is removed when this is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Returns `None` if this user is not allowed to mount.
    fn new(arguments: &[&str], path: &Path) -> Option<Self> {
        let output = Command::new("mount").args(arguments).arg(path).output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Mounted(path.to_owned()));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount: {output:?}");
        skip_unless_ci("mounting needs root");
        None
    }

    pub(crate) fn tmpfs(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        Mounted::new(&["-t", "tmpfs", "-o", options, "a-disk"], path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Returns a temporary folder and its path, which contains no symbolic links.
fn temporary_folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

#[test]
fn a_folder_is_not_a_mount_point_and_the_message_names_its_mount() {
    let (_folder, base) = temporary_folder();
    fs::write(base.join("file"), "").unwrap();
    let output = Command::new("stat").args(["-c", "%m"]).arg(&base).output().unwrap();
    let mount_of_folder = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let finding = preflight::mount(&base, true);
    let start = format!("{} is a folder on {mount_of_folder} (", base.display());
    assert!(!finding.ok && finding.message.starts_with(&start), "{finding:?}");
    assert!(finding.message.contains("), not a mount point: ") && finding.name.starts_with("mount /"), "{finding:?}");
    assert!(preflight::mount(&base.join("file"), true).message.contains("is a file on"));
    let finding = preflight::mount(&base.join("none"), true);
    assert!(!finding.ok && finding.message.contains("does not exist"), "{finding:?}");
    assert!(preflight::mount(Path::new("/proc"), false).ok);
}

#[test]
fn every_kind_of_mount_is_recognized_by_any_path() {
    let (_folder, base) = temporary_folder();
    let disk = base.join("my disk\\x");
    let Some(_disk) = Mounted::tmpfs(&disk, "size=1m") else { return };
    let refused = preflight::mount(&disk, false);
    assert!(!refused.ok && refused.message.contains("is a mount of tmpfs, whose files are lost"), "{refused:?}");
    let allowed = preflight::mount(&disk, true);
    let message = format!("{} is a mount of a-disk (tmpfs), 1.00 MiB free", disk.display());
    assert_eq!((allowed.ok, allowed.message), (true, message));
    // A folder in the mount is not a mount point, and a symbolic link to the mount is one.
    let inside = disk.join("inside");
    fs::create_dir(&inside).unwrap();
    let finding = preflight::mount(&inside, true);
    assert!(!finding.ok && finding.message.contains(&format!("a folder on {} (tmpfs)", disk.display())), "{finding:?}");
    std::os::unix::fs::symlink(&disk, base.join("link")).unwrap();
    let finding = preflight::mount(&base.join("link"), true);
    assert!(finding.ok && finding.message.contains(&format!("({})", disk.display())), "{finding:?}");
    // Bind mounts of one of its folders and of one of its files.
    let bound = base.join("bound");
    fs::create_dir(&bound).unwrap();
    let _bound = Mounted::new(&["--bind", inside.to_str().unwrap()], &bound).unwrap();
    let finding = preflight::mount(&bound, true);
    assert!(finding.ok && finding.message.contains("is a mount of a-disk[/inside] (tmpfs)"), "{finding:?}");
    let (file, bound_file) = (disk.join("file"), base.join("bound file"));
    fs::write(&file, "").unwrap();
    fs::write(&bound_file, "").unwrap();
    let _bound_file = Mounted::new(&["--bind", file.to_str().unwrap()], &bound_file).unwrap();
    let finding = preflight::mount(&bound_file, true);
    assert!(finding.ok && finding.message.contains("a-disk[/file]"), "{finding:?}");
    // A second mount at the same path.
    let _over = Mounted::new(&["-t", "tmpfs", "-o", "size=2m,ro", "another"], &disk).unwrap();
    let finding = preflight::mount(&disk, true);
    assert!(
        finding.ok && finding.message.contains("is a mount of another (tmpfs, read-only), 2.00 MiB"),
        "{finding:?}"
    );
    // A mount point that is hidden by a later mount of its parent folder is an ordinary folder.
    let hidden = bound.join("hidden");
    fs::create_dir(&hidden).unwrap();
    let _hidden = Mounted::new(&["-t", "tmpfs", "hidden"], &hidden).unwrap();
    assert!(preflight::mount(&hidden, true).ok);
    let _cover = Mounted::new(&["-t", "tmpfs", "cover"], &bound).unwrap();
    fs::create_dir(&hidden).unwrap();
    let finding = preflight::mount(&hidden, true);
    assert!(!finding.ok && finding.message.contains(&format!("a folder on {}", bound.display())), "{finding:?}");
}

#[test]
fn a_mount_of_a_disk_passes_the_check() {
    let (_folder, base) = temporary_folder();
    let (data, point) = (base.join("data"), base.join("point"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(&point).unwrap();
    let Some(_point) = Mounted::new(&["--bind", data.to_str().unwrap()], &point) else { return };
    let finding = preflight::mount(&point, false);
    // In a container, the mounted folder may be on the container's own file system, which must be refused.
    let is_temporary = ["overlay", "tmpfs"].iter().any(|name| finding.message.contains(&format!("a mount of {name},")));
    assert!(finding.ok != is_temporary, "{finding:?}");
}

#[test]
fn the_check_for_write_access_changes_nothing() {
    let (_folder, base) = temporary_folder();
    fs::write(base.join("app.db"), "x").unwrap();
    assert!(preflight::writable(&base).ok);
    assert!(preflight::writable(&base.join("app.db")).ok);
    assert_eq!(fs::read_to_string(base.join("app.db")).unwrap(), "x");
    assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
    let finding = preflight::writable(&base.join("none"));
    assert!(!finding.ok && finding.message.ends_with("does not exist"), "{finding:?}");
}

/// Checks the folder in the variable `FOLDER` for write access and prints the result.
#[test]
#[ignore = "it is the other half of the test of permissions"]
fn child_checks_write_access() {
    println!("found {:?}", preflight::writable(Path::new(&std::env::var("FOLDER").unwrap())));
}

#[test]
fn the_check_for_write_access_reports_the_reason_of_a_failure() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, base) = temporary_folder();
    let closed = base.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let mut child = child_process(module_path!(), "child_checks_write_access", &[("FOLDER", closed.to_str().unwrap())]);
    let output = if rustix::process::geteuid().is_root() {
        // Root may write to every folder unless it drops these capabilities.
        let mut command = Command::new("setpriv");
        command.args(["--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]);
        command.arg(child.get_program()).args(child.get_args()).env("FOLDER", &closed).output().unwrap()
    } else {
        child.output().unwrap()
    };
    let printed = text_of(&output);
    assert!(printed.contains("ok: false") && printed.contains("may not write to"), "{printed}");

    let Some(full) = Mounted::tmpfs(&base.join("full"), "size=64k") else { return };
    let _ = fs::write(full.0.join("filler"), vec![1; 1 << 20]);
    let finding = preflight::writable(&full.0);
    assert!(!finding.ok && finding.message.contains("no space is left"), "{finding:?}");
    assert_eq!(fs::read_dir(&full.0).unwrap().count(), 1, "the check left a file behind");
    let finding = preflight::min_free(&full.0, 1);
    assert!(!finding.ok && finding.message.starts_with("0 B free, 1 B required"), "{finding:?}");

    let crowded = Mounted::tmpfs(&base.join("crowded"), "size=1m,nr_inodes=3").unwrap();
    for name in ["a", "b"] {
        fs::write(crowded.0.join(name), "").unwrap();
    }
    assert!(preflight::writable(&crowded.0).message.contains("no space is left"));
    let finding = preflight::min_free(&crowded.0, 1);
    assert!(!finding.ok && finding.message.contains("only 0 more files can be created"), "{finding:?}");

    let locked = Mounted::tmpfs(&base.join("locked"), "size=1m").unwrap();
    fs::write(locked.0.join("app.db"), "").unwrap();
    let output = Command::new("mount").args(["-o", "remount,ro"]).arg(&locked.0).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for path in [locked.0.clone(), locked.0.join("app.db")] {
        let finding = preflight::writable(&path);
        assert!(!finding.ok && finding.message.contains("is on a read-only mount"), "{finding:?}");
    }
}

#[test]
fn free_space_is_compared_with_the_required_space() {
    let (_folder, base) = temporary_folder();
    let finding = preflight::min_free(&base, 1);
    assert!(finding.ok && finding.message.ends_with("free, 1 B required"), "{finding:?}");
    let finding = preflight::min_free(&base, 1 << 60);
    assert!(!finding.ok && finding.message.contains("1.00 EiB required: free some space"), "{finding:?}");
    assert!(preflight::min_free(&base.join("none"), 1).message.contains("does not exist"));
}
