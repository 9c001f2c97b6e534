//! What runs when nobody looks: the crontab's lines and the units' commands, as they are in their files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{LIFEBOAT, Sandbox, skip};
use rusqlite::Connection;

/// Puts what a test has in the place of what a machine has: the lines are those of the files, but for where the
/// configuration is.
fn adapted(line: &str, place: &Place) -> String {
    let config = "/etc/lifeboat.toml";
    assert!(line.contains(config), "{line}");
    line.replace(config, place.path("lifeboat.toml").to_str().unwrap())
}

/// A machine with a database, a store, a configuration and a `lifeboat` in a folder of its own.
struct Place {
    sandbox: Sandbox,
}

impl Place {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let database = Connection::open(sandbox.path("app.db")).unwrap();
        database.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3)").unwrap();
        let config = "host = \"test\"\n[[store]]\nurl = \"./store\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n\
                      [retention]\nkeep_last = 100\n";
        fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
        fs::create_dir(sandbox.path("bin")).unwrap();
        std::os::unix::fs::symlink(LIFEBOAT, sandbox.path("bin/lifeboat")).unwrap();
        // The store is there, as one that a configuration names must be.
        sandbox.ok(&["init"]);
        sandbox.ok(&["snapshot"]);
        Place { sandbox }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    /// How many snapshots the store has, beside the one that it was made with.
    fn snapshots(&self) -> usize {
        let document = self.sandbox.json(&["list", "--store", "store"]);
        document["snapshots"].as_array().unwrap().len() - 1
    }

    /// A `lifeboat` that says that it has begun, and goes on when it may.
    fn slow(&self) {
        fs::remove_file(self.path("bin/lifeboat")).unwrap();
        let (begun, go) = (self.path("begun"), self.path("go"));
        let script = format!(
            "#!/bin/sh\n: >{}\nwhile [ ! -e {} ]; do sleep 0.01; done\nexec {LIFEBOAT} \"$@\"\n",
            begun.display(),
            go.display()
        );
        fs::write(self.path("bin/lifeboat"), script).unwrap();
        fs::set_permissions(self.path("bin/lifeboat"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn silent(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "silence means success");
}

// ---------------------------------------------------------------- cron

/// A crontab of a user: its variables, and its lines' schedules and commands.
struct Crontab {
    variables: Vec<(String, String)>,
    lines: Vec<(String, String)>,
}

impl Crontab {
    fn read() -> Self {
        let text = fs::read_to_string(repository().join("scripts/cron/lifeboat.crontab")).unwrap();
        let (mut variables, mut lines) = (Vec::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once('=').filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase())) {
                Some((name, value)) => variables.push((name.to_owned(), value.to_owned())),
                None => {
                    let mut fields = line.splitn(6, ' ');
                    let schedule: Vec<&str> = fields.by_ref().take(5).collect();
                    assert!(schedule.iter().all(|field| field.bytes().all(|byte| b"0123456789*,-/".contains(&byte))));
                    let command = fields.next().unwrap();
                    // Cron would make it the end of the line.
                    assert!(!command.contains('%'), "{command}");
                    lines.push((schedule.join(" "), command.to_owned()));
                }
            }
        }
        assert_eq!(lines.len(), 2, "a snapshot and a drill");
        Crontab { variables, lines }
    }

    /// A line as cron runs it: by the shell it names, with next to nothing in the environment.
    fn command(&self, number: usize, place: &Place) -> Command {
        let shell = &self.variables.iter().find(|(name, _)| name == "SHELL").unwrap().1;
        let mut command = Command::new("env");
        command.arg("-i").args(["LOGNAME=root", "HOME=/root"]);
        for (name, value) in &self.variables {
            let value = value.replace("/usr/local/bin", place.path("bin").to_str().unwrap());
            command.arg(format!("{name}={value}"));
        }
        command.arg(shell).args(["-c", &adapted(&self.lines[number].1, place)]);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[test]
fn cron_lines_are_silent_when_all_is_well() {
    let place = Place::new();
    let crontab = Crontab::read();
    for taken in 1..=2 {
        silent(&crontab.command(0, &place).output().unwrap());
        assert_eq!(place.snapshots(), taken);
    }
    silent(&crontab.command(1, &place).output().unwrap());
    let listed = place.sandbox.ok(&["list", "--store", "store"]);
    assert!(listed.stdout().contains("drilled"), "{}", listed.stdout());
}

#[test]
fn cron_lines_are_loud_when_anything_fails() {
    let crontab = Crontab::read();
    let loud = |place: &Place, number: usize, codes: &[i32], expected: &str| {
        let output = crontab.command(number, place).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(codes.contains(&output.status.code().unwrap()), "{:?}: {said}", output.status);
        assert!(said.contains(expected), "{said}");
        assert!(output.stdout.is_empty());
    };
    let place = Place::new();
    silent(&crontab.command(0, &place).output().unwrap());
    // No database, one that is none, no configuration, no program.
    fs::rename(place.path("app.db"), place.path("away.db")).unwrap();
    loud(&place, 0, &[5], "app.db");
    fs::write(place.path("app.db"), vec![b'x'; 8192]).unwrap();
    loud(&place, 0, &[2], "app.db");
    fs::rename(place.path("away.db"), place.path("app.db")).unwrap();
    assert_eq!(place.snapshots(), 1);
    fs::rename(place.path("lifeboat.toml"), place.path("away.toml")).unwrap();
    loud(&place, 0, &[1, 2], "lifeboat.toml");
    fs::rename(place.path("away.toml"), place.path("lifeboat.toml")).unwrap();
    // Damaged archives, found by the drill.
    let folder = fs::read_dir(place.path("store/app")).unwrap().flatten().map(|entry| entry.path());
    for archive in folder.filter(|path| path.to_string_lossy().contains(".tar.")) {
        let mut bytes = fs::read(&archive).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&archive, bytes).unwrap();
    }
    loud(&place, 1, &[3], "damage");
    fs::remove_file(place.path("bin/lifeboat")).unwrap();
    loud(&place, 0, &[127], "lifeboat");
    loud(&place, 1, &[127], "lifeboat");
}

#[test]
fn cron_line_that_meets_the_one_before_says_so_and_leaves_it_alone() {
    let place = Place::new();
    let crontab = Crontab::read();
    place.slow();
    let mut first = Kept(Some(crontab.command(0, &place).spawn().unwrap()));
    until("the first run", || place.path("begun").exists());
    let second = crontab.command(0, &place).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{said}");
    assert_eq!(said, "lifeboat: no snapshot was taken: the run before is still going on\n");
    fs::write(place.path("go"), "").unwrap();
    silent(&first.end());
    assert_eq!(place.snapshots(), 1);
    silent(&crontab.command(0, &place).output().unwrap());
    assert_eq!(place.snapshots(), 2);

    // A run that is killed leaves no lock behind.
    fs::remove_file(place.path("go")).unwrap();
    fs::remove_file(place.path("begun")).unwrap();
    let mut killed = Kept(Some(crontab.command(0, &place).spawn().unwrap()));
    until("the run", || place.path("begun").exists());
    fs::write(place.path("go"), "").unwrap();
    killed.0.as_mut().unwrap().kill().unwrap();
    assert_eq!(killed.end().status.signal(), Some(9));
    until("the lock is free", || crontab.command(0, &place).output().unwrap().status.success());
}

/// A child that does not outlive its test.
struct Kept(Option<Child>);

impl Kept {
    fn end(&mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

// ---------------------------------------------------------------- systemd

const UNITS: [&str; 4] = ["lifeboat.service", "lifeboat.timer", "lifeboat-drill.service", "lifeboat-drill.timer"];

fn unit(name: &str) -> String {
    fs::read_to_string(repository().join("scripts/systemd").join(name)).unwrap()
}

/// The values of a setting in a unit.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// A service's command as systemd starts it: no shell, next to nothing in the environment.
fn start(service: &str, place: &Place) -> Command {
    let text = unit(service);
    let line = settings(&text, "ExecStart");
    assert_eq!(line.len(), 1);
    let line = adapted(line[0], place);
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/lifeboat"));
    let mut command = Command::new(place.path("bin/lifeboat"));
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn unit_s_commands_do_their_work_and_say_what_is_wrong() {
    let place = Place::new();
    // Two at once too: here it is systemd that keeps them apart, but people also start them by hand.
    let mut both = [(); 2].map(|()| Kept(Some(start("lifeboat.service", &place).spawn().unwrap())));
    for one in &mut both {
        let output = one.end();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(place.snapshots(), 2);
    let output = start("lifeboat-drill.service", &place).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(place.sandbox.ok(&["list", "--store", "store"]).stdout().contains("drilled"));

    fs::remove_file(place.path("app.db")).unwrap();
    let output = start("lifeboat.service", &place).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("app.db"));
}

#[test]
fn units_are_hardened_and_make_up_for_what_was_missed() {
    for name in UNITS.iter().filter(|name| name.ends_with(".service")) {
        let text = unit(name);
        for (setting, value) in [
            ("Type", "oneshot"),
            ("ProtectSystem", "full"),
            ("PrivateTmp", "true"),
            ("NoNewPrivileges", "true"),
            ("StandardError", "journal"),
            ("EnvironmentFile", "-/etc/lifeboat.env"),
        ] {
            assert_eq!(settings(&text, setting), [value], "{name}: {setting}");
        }
        assert!(text.contains("\n#OnFailure="), "{name}");
    }
    for name in UNITS.iter().filter(|name| name.ends_with(".timer")) {
        let text = unit(name);
        assert_eq!(settings(&text, "Persistent"), ["true"], "{name}");
        assert_eq!(settings(&text, "RandomizedDelaySec").len(), 1, "{name}");
        assert_eq!(settings(&text, "WantedBy"), ["timers.target"], "{name}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        skip("there is no systemd-analyze here, which judges the units");
        return;
    };
    assert!(version.status.success());
    let sandbox = Sandbox::new();
    let paths = UNITS.map(|name| {
        // The program must be there to be found good.
        let text = unit(name).replace("/usr/local/bin/lifeboat", LIFEBOAT);
        fs::write(sandbox.path(name), text).unwrap();
        sandbox.path(name)
    });
    let verify = |paths: &[PathBuf]| {
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // What the machine's own units have wrong is no matter of ours.
        said.lines().filter(|line| line.contains("lifeboat")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(verify(&paths), Vec::<String>::new());
    // And it would have seen it.
    fs::write(&paths[0], unit(UNITS[0]).replace("ProtectSystem=full", "ProtectSystems=full")).unwrap();
    assert!(verify(&paths).iter().any(|line| line.contains("ProtectSystems")), "{:?}", verify(&paths));
    for calendar in UNITS.iter().filter(|name| name.ends_with(".timer")) {
        let text = unit(calendar);
        let output =
            Command::new("systemd-analyze").args(["calendar", settings(&text, "OnCalendar")[0]]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
