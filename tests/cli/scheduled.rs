//! Scheduled runs: the lines of the crontab and the commands of the systemd units, as they are in `scripts`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{LIFEBOAT, Sandbox, skip};
use rusqlite::Connection;

/// Returns a line of a crontab or a unit with the path of the test's config instead of the usual one.
fn with_config_of(machine: &Machine, line: &str) -> String {
    let config = "/etc/lifeboat.toml";
    assert!(line.contains(config), "{line}");
    line.replace(config, machine.path("lifeboat.toml").to_str().unwrap())
}

/// A simulated machine: a sandbox with a database, a store, a config, and a folder with the program `lifeboat`.
struct Machine {
    sandbox: Sandbox,
}

impl Machine {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let database = Connection::open(sandbox.path("app.db")).unwrap();
        database.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3)").unwrap();
        let config = "host = \"test\"\n[[store]]\nurl = \"./store\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n\
                      [retention]\nkeep_last = 100\n";
        fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
        fs::create_dir(sandbox.path("bin")).unwrap();
        std::os::unix::fs::symlink(LIFEBOAT, sandbox.path("bin/lifeboat")).unwrap();
        // The commands expect that the store of the config exists.
        sandbox.ok(&["init"]);
        sandbox.ok(&["snapshot"]);
        Machine { sandbox }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    /// Returns the number of snapshots that were taken after the first one.
    fn snapshots(&self) -> usize {
        let document = self.sandbox.json(&["list", "--store", "store"]);
        document["snapshots"].as_array().unwrap().len() - 1
    }

    /// Replaces `lifeboat` with a script that creates the file `begun`, waits for the file `go`, and then runs it.
    fn install_slow_program(&self) {
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

/// Waits until a condition is true, for at most 20 seconds.
#[track_caller]
fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(20), "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Requires exit code 0 and no output.
#[track_caller]
fn assert_silent(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.as_str()), (Some(0), ""), "a successful run must print nothing");
}

// ---------------------------------------------------------------- cron

/// The crontab: its variables, and the schedule and the command of each line.
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
                    // Cron replaces % with the end of the line.
                    assert!(!command.contains('%'), "{command}");
                    lines.push((schedule.join(" "), command.to_owned()));
                }
            }
        }
        assert_eq!(lines.len(), 2, "the crontab must have a snapshot and a drill");
        Crontab { variables, lines }
    }

    /// Returns the command of a line as cron runs it: in the shell that the crontab names, with a minimal environment.
    fn command(&self, number: usize, machine: &Machine) -> Command {
        let shell = &self.variables.iter().find(|(name, _)| name == "SHELL").unwrap().1;
        let mut command = Command::new("env");
        command.arg("-i").args(["LOGNAME=root", "HOME=/root"]);
        for (name, value) in &self.variables {
            let value = value.replace("/usr/local/bin", machine.path("bin").to_str().unwrap());
            command.arg(format!("{name}={value}"));
        }
        command.arg(shell).args(["-c", &with_config_of(machine, &self.lines[number].1)]);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[test]
fn cron_lines_print_nothing_on_success() {
    let machine = Machine::new();
    let crontab = Crontab::read();
    for taken in 1..=2 {
        assert_silent(&crontab.command(0, &machine).output().unwrap());
        assert_eq!(machine.snapshots(), taken);
    }
    assert_silent(&crontab.command(1, &machine).output().unwrap());
    let list = machine.sandbox.ok(&["list", "--store", "store"]);
    assert!(list.stdout().contains("drilled"), "{}", list.stdout());
}

#[test]
fn cron_lines_report_every_failure() {
    let crontab = Crontab::read();
    let assert_fails = |machine: &Machine, number: usize, codes: &[i32], expected: &str| {
        let output = crontab.command(number, machine).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(codes.contains(&output.status.code().unwrap()), "{:?}: {stderr}", output.status);
        assert!(stderr.contains(expected), "{stderr}");
        assert!(output.stdout.is_empty());
    };
    let machine = Machine::new();
    assert_silent(&crontab.command(0, &machine).output().unwrap());
    // A missing database, a file that is not a database, and a missing config.
    fs::rename(machine.path("app.db"), machine.path("away.db")).unwrap();
    assert_fails(&machine, 0, &[5], "app.db");
    fs::write(machine.path("app.db"), vec![b'x'; 8192]).unwrap();
    assert_fails(&machine, 0, &[2], "app.db");
    fs::rename(machine.path("away.db"), machine.path("app.db")).unwrap();
    assert_eq!(machine.snapshots(), 1);
    fs::rename(machine.path("lifeboat.toml"), machine.path("away.toml")).unwrap();
    assert_fails(&machine, 0, &[1, 2], "lifeboat.toml");
    fs::rename(machine.path("away.toml"), machine.path("lifeboat.toml")).unwrap();
    // Damaged archives, which the drill finds, and a missing program.
    let folder = fs::read_dir(machine.path("store/app")).unwrap().flatten().map(|entry| entry.path());
    for archive in folder.filter(|path| path.to_string_lossy().contains(".tar.")) {
        let mut bytes = fs::read(&archive).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&archive, bytes).unwrap();
    }
    assert_fails(&machine, 1, &[3], "damage");
    fs::remove_file(machine.path("bin/lifeboat")).unwrap();
    assert_fails(&machine, 0, &[127], "lifeboat");
    assert_fails(&machine, 1, &[127], "lifeboat");
}

#[test]
fn a_cron_line_is_refused_while_the_previous_run_goes_on() {
    let machine = Machine::new();
    let crontab = Crontab::read();
    machine.install_slow_program();
    let mut first = KilledOnDrop(Some(crontab.command(0, &machine).spawn().unwrap()));
    wait_for("the first run to begin", || machine.path("begun").exists());
    let second = crontab.command(0, &machine).output().unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{stderr}");
    assert_eq!(stderr, "lifeboat: no snapshot was taken: the previous run has not ended yet\n");
    fs::write(machine.path("go"), "").unwrap();
    assert_silent(&first.wait());
    assert_eq!(machine.snapshots(), 1);
    assert_silent(&crontab.command(0, &machine).output().unwrap());
    assert_eq!(machine.snapshots(), 2);

    // A run that is killed leaves no lock behind.
    fs::remove_file(machine.path("go")).unwrap();
    fs::remove_file(machine.path("begun")).unwrap();
    let mut killed = KilledOnDrop(Some(crontab.command(0, &machine).spawn().unwrap()));
    wait_for("the run to begin", || machine.path("begun").exists());
    fs::write(machine.path("go"), "").unwrap();
    killed.0.as_mut().unwrap().kill().unwrap();
    assert_eq!(killed.wait().status.signal(), Some(9));
    wait_for("the lock to be free", || crontab.command(0, &machine).output().unwrap().status.success());
}

/// A process that is killed when this is dropped.
struct KilledOnDrop(Option<Child>);

impl KilledOnDrop {
    /// Waits until the process ends, and returns its output.
    fn wait(&mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for KilledOnDrop {
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

/// Returns the values of a setting in a unit.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// Returns the command of a service as systemd starts it: without a shell, and with the variables that a system service
/// without `User=` has (systemd.exec(5), "Environment Variables in Spawned Processes"). HOME is not one of them.
fn start(service: &str, machine: &Machine) -> Command {
    let text = unit(service);
    let line = settings(&text, "ExecStart");
    assert_eq!(line.len(), 1);
    let line = with_config_of(machine, line[0]);
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/lifeboat"));
    let mut command = Command::new(machine.path("bin/lifeboat"));
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef").env("JOURNAL_STREAM", "8:12345");
    command.env("SYSTEMD_EXEC_PID", "12345").env("MEMORY_PRESSURE_WATCH", "/dev/null");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_commands_of_the_units_take_snapshots_and_report_failures() {
    let machine = Machine::new();
    // systemd does not run a service twice at the same time, but people may also start the command by hand.
    let mut both = [(); 2].map(|()| KilledOnDrop(Some(start("lifeboat.service", &machine).spawn().unwrap())));
    for process in &mut both {
        let output = process.wait();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(machine.snapshots(), 2);
    let output = start("lifeboat-drill.service", &machine).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(machine.sandbox.ok(&["list", "--store", "store"]).stdout().contains("drilled"));

    fs::remove_file(machine.path("app.db")).unwrap();
    let output = start("lifeboat.service", &machine).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("app.db"));
}

#[test]
fn services_are_hardened_and_timers_catch_up_missed_runs() {
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
fn systemd_analyze_accepts_the_units() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        skip("it needs systemd-analyze");
        return;
    };
    assert!(version.status.success());
    let sandbox = Sandbox::new();
    let paths = UNITS.map(|name| {
        // systemd-analyze requires that the program exists.
        let text = unit(name).replace("/usr/local/bin/lifeboat", LIFEBOAT);
        fs::write(sandbox.path(name), text).unwrap();
        sandbox.path(name)
    });
    let verify = |paths: &[PathBuf]| {
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // It also reports errors in other units of the machine.
        stderr.lines().filter(|line| line.contains("lifeboat")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(verify(&paths), Vec::<String>::new());
    // An invalid setting is found, so the test above is effective.
    fs::write(&paths[0], unit(UNITS[0]).replace("ProtectSystem=full", "ProtectSystems=full")).unwrap();
    assert!(verify(&paths).iter().any(|line| line.contains("ProtectSystems")), "{:?}", verify(&paths));
    for calendar in UNITS.iter().filter(|name| name.ends_with(".timer")) {
        let text = unit(calendar);
        let output =
            Command::new("systemd-analyze").args(["calendar", settings(&text, "OnCalendar")[0]]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
