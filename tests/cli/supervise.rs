//! A program that runs under `guard`: its signals, exit code and streams, and the processes that it leaves behind.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{LIFEBOAT, Sandbox, child_test, have, skip_unless_ci};
use lifeboat::platform::error::Kind;
use lifeboat::platform::supervise::{Options, Supervisor};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The longest time that a test waits for a condition.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Waits until a condition is true, for at most [`LONGEST_WAIT`].
#[track_caller]
fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < LONGEST_WAIT, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Creates a sandbox with a config in which `guard` neither restores before the program nor saves after it.
fn sandbox_with_config() -> Sandbox {
    let sandbox = Sandbox::new();
    let config = "host = \"test\"\n[[store]]\nurl = \"./store\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n\
                  [guard]\nrestore_if_missing = false\nsnapshot_at_end = false\n";
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox
}

/// Returns the command `lifeboat guard OPTIONS -- sh -c SCRIPT`.
fn guard(sandbox: &Sandbox, options: &[&str], script: &str) -> Command {
    let mut arguments = vec!["guard"];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", script]);
    sandbox.command(&arguments)
}

/// Returns the text of a file, or an empty text if it does not exist.
fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Returns state, parent and id of every process, from `/proc`.
fn processes() -> Vec<(char, i32, i32)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let mut words = stat[stat.rfind(')').unwrap() + 1..].split_whitespace();
        let state = words.next().unwrap().chars().next().unwrap();
        all.push((state, words.next().unwrap().parse().unwrap(), pid));
    }
    all
}

/// Returns the running processes that have this `NAME=VALUE` in their environment, which every descendant of a guard
/// inherits from it.
fn processes_with_mark(mark: &str) -> Vec<i32> {
    let has_mark = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
    };
    processes().into_iter().filter(|(state, ..)| *state != 'Z').map(|(.., pid)| pid).filter(has_mark).collect()
}

/// A process that is killed with its descendants when this is dropped.
struct KilledOnDrop(Child);

impl KilledOnDrop {
    fn start(mut command: Command) -> Self {
        KilledOnDrop(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the process ends. Returns its exit code, or the negative number of the signal that ended it.
    #[track_caller]
    fn code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let mut status = None;
        wait_for("the process to end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // A guard that is killed cannot end its descendants, so a failed test would leave them behind.
        let (all, mut family) = (processes(), vec![self.pid().as_raw_pid()]);
        let mut next = 0;
        while self.0.try_wait().is_ok_and(|status| status.is_none()) && next < family.len() {
            let ancestor = family[next];
            family.extend(all.iter().filter(|(_, parent, _)| *parent == ancestor).map(|(.., pid)| *pid));
            next += 1;
        }
        for pid in family.into_iter().skip(1).filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---------------------------------------------------------------- exit codes and streams

#[test]
fn the_exit_code_is_that_of_the_program_as_in_a_shell() {
    let sandbox = sandbox_with_config();
    let cases = [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)];
    for (script, expected) in cases {
        let run = sandbox.finish(guard(&sandbox, &[], script)).code(expected);
        assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()), "{script}");
    }
}

#[test]
fn a_program_that_cannot_run_gives_126_or_127_and_the_reason() {
    let sandbox = sandbox_with_config();
    std::fs::write(sandbox.path("plain"), "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::write(sandbox.path("orphaned"), "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(sandbox.path("orphaned"), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (program, code, reason) in [
        ("no-such-program", 127, "No such file"),
        ("./no-such-program", 127, "No such file"),
        ("./orphaned", 127, "No such file"),
        ("./plain", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
    ] {
        let run = sandbox.run(&["guard", "--", program]).code(code);
        assert!(run.stderr().contains(&format!("cannot run {program}")), "{}", run.stderr());
        assert!(run.stderr().contains(reason), "{}", run.stderr());
    }
    sandbox.run(&["guard", "--"]).code(2);
    sandbox.run(&["guard"]).code(2);
}

#[test]
fn streams_arguments_and_environment_are_passed_unchanged() {
    let sandbox = sandbox_with_config();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut command = guard(&sandbox, &[], "tee /dev/fd/2");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, sent) = (child.stdin.take().unwrap(), bytes.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes && output.stderr == bytes);

    let odd = OsStr::from_bytes(b"\xff\xfe");
    let mut arguments: Vec<OsString> =
        ["guard", "--", "printf", "%s|", "a b", "", "--json", "-q", "--"].map(Into::into).into();
    arguments.push(odd.to_owned());
    let run = sandbox.finish(sandbox.command(&arguments)).code(0);
    assert_eq!(run.output.stdout, b"a b||--json|-q|--|\xff\xfe|");
    let mut command = guard(&sandbox, &[], "printf %s \"$ODD\"; pwd");
    command.env("ODD", odd);
    let run = sandbox.finish(command).code(0);
    let folder = sandbox.root().canonicalize().unwrap();
    assert_eq!(run.output.stdout, [b"\xff\xfe", folder.as_os_str().as_bytes(), b"\n"].concat());
}

#[test]
fn the_program_inherits_neither_open_files_nor_signal_settings_of_the_guard() {
    let sandbox = sandbox_with_config();
    let script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls -l /proc/self/fd | wc -l";
    let mut without_guard = Command::new("sh");
    let without_guard = without_guard.args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    let run = sandbox.finish({
        let mut command = guard(&sandbox, &[], script);
        command.stdin(Stdio::null());
        command
    });
    assert_eq!(run.code(0).stdout(), String::from_utf8(without_guard.stdout).unwrap());
}

// ---------------------------------------------------------------- signals

/// A script that writes each signal it receives to the file `heard`, and ends with exit code 42 at SIGTERM.
const RECORDS_SIGNALS: &str = r#"
    for signal in HUP INT QUIT USR1 USR2 WINCH; do trap "echo $signal >>heard" $signal; done
    trap 'echo TERM >>heard; exit 42' TERM
    echo ready >>heard
    while :; do sleep 0.01; done"#;

#[test]
fn every_signal_is_forwarded_once() {
    let sandbox = sandbox_with_config();
    let mut process = KilledOnDrop::start(guard(&sandbox, &["--grace", "60s"], RECORDS_SIGNALS));
    let mut expected = "ready\n".to_owned();
    wait_for("the script to begin", || text(&sandbox.path("heard")) == expected);
    // SIGINT also asks the program to stop, but this script goes on.
    let signals =
        [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::QUIT, Signal::INT, Signal::INT, Signal::TERM];
    for signal in signals {
        process.signal(signal);
        expected.push_str(lifeboat::platform::supervise::name(signal).trim_start_matches("SIG"));
        expected.push('\n');
        wait_for(&expected, || text(&sandbox.path("heard")) == expected);
    }
    assert_eq!(process.code(), 42);
    assert_eq!(text(&sandbox.path("heard")), expected);
}

#[test]
fn a_signal_to_the_process_group_reaches_the_program_once() {
    let sandbox = sandbox_with_config();
    let script = r#"trap 'echo TERM >>heard' TERM
        echo ready >>heard
        while [ ! -e enough ]; do sleep 0.01; done"#;
    let mut command = guard(&sandbox, &["--grace", "60s"], script);
    command.process_group(0);
    let mut process = KilledOnDrop::start(command);
    wait_for("the script to begin", || text(&sandbox.path("heard")) == "ready\n");
    for expected in ["ready\nTERM\n", "ready\nTERM\nTERM\n"] {
        kill_process_group(process.pid(), Signal::TERM).unwrap();
        wait_for("the signal", || text(&sandbox.path("heard")) == expected);
    }
    std::fs::write(sandbox.path("enough"), "").unwrap();
    assert_eq!(process.code(), 0);
    assert_eq!(text(&sandbox.path("heard")), "ready\nTERM\nTERM\n");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_the_grace_period_with_a_message() {
    let sandbox = sandbox_with_config();
    let mark = format!("GUARD_MARK=ignores-{}", std::process::id());
    let mut command = guard(&sandbox, &["--grace", "1s"], "trap '' TERM; echo ready >heard; while :; do sleep 1; done");
    command.env("GUARD_MARK", &mark[11..]).stderr(Stdio::piped());
    let mut process = KilledOnDrop::start(command);
    wait_for("the script to begin", || text(&sandbox.path("heard")) == "ready\n");
    let start = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.code(), 137);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut process.0.stderr.take().unwrap(), &mut stderr).unwrap();
    assert!(stderr.contains("sh has not ended within 1.0 s of the stop signal: killing it"), "{stderr}");
    assert_eq!(processes_with_mark(&mark), Vec::<i32>::new(), "its children still run");
}

#[test]
fn a_stopped_program_receives_sigterm() {
    let sandbox = sandbox_with_config();
    let script = "trap 'exit 42' TERM; echo $$ >pid; while :; do sleep 0.01; done";
    let mut process = KilledOnDrop::start(guard(&sandbox, &["--grace", "60s"], script));
    wait_for("the script to begin", || text(&sandbox.path("pid")).ends_with('\n'));
    let pid: i32 = text(&sandbox.path("pid")).trim().parse().unwrap();
    let stopped = || processes().iter().any(|(state, _, id)| (*state, *id) == ('T', pid));
    process.signal(Signal::TSTP);
    wait_for("the program to be stopped", stopped);
    process.signal(Signal::CONT);
    wait_for("the program to be continued", || !stopped());
    process.signal(Signal::TSTP);
    wait_for("the program to be stopped", stopped);
    process.signal(Signal::TERM);
    assert_eq!(process.code(), 42);
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let sandbox = sandbox_with_config();
    let mut command = Command::new("sh");
    let script =
        "trap '' HUP; exec \"$0\" guard -- sh -c 'echo ready >heard; while [ ! -e enough ]; do sleep 0.01; done'";
    command.args(["-c", script, LIFEBOAT]).current_dir(sandbox.root());
    let mut process = KilledOnDrop::start(command);
    wait_for("the script to begin", || text(&sandbox.path("heard")) == "ready\n");
    process.signal(Signal::HUP);
    std::fs::write(sandbox.path("enough"), "").unwrap();
    assert_eq!(process.code(), 0);
}

// ---------------------------------------------------------------- a terminal

/// A Python script that runs its arguments on a new terminal, types like a user, and prints the exit code.
const TERMINAL_SESSION: &str = r#"
import os, pty, signal, sys, time
pid, tty = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def wait_for(what):
    global seen
    while what not in seen:
        seen += os.read(tty, 65536)
    seen = seen[seen.index(what) + len(what):]
wait_for(b"ready")
os.write(tty, b"a line\n")
wait_for(b"read: a line")
os.write(tty, b"\x03")
wait_for(b"INT")
os.write(tty, b"\x1a")
_, status = os.waitpid(pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
# For 'fg', a shell makes the group of the command the foreground group and continues it.
assert os.tcgetpgrp(tty) == pid, "the guard is not in the foreground group"
os.kill(pid, signal.SIGCONT)
os.write(tty, b"again\n")
wait_for(b"read: again")
assert os.tcgetpgrp(tty) != pid
os.write(tty, b"\x03")
wait_for(b"INT")
os.write(tty, b"quit\n")
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
"#;

#[test]
fn keys_on_a_terminal_reach_the_program_once_and_ctrl_z_stops_both() {
    if !have(&["python3"]) {
        return;
    }
    let sandbox = sandbox_with_config();
    let script = r#"trap 'echo INT; echo INT >>heard' INT
        echo ready
        while :; do
            if read line; then
                [ "$line" = quit ] && exit 33
                echo "read: $line"
            fi
        done"#;
    let mut command = Command::new("timeout");
    command.args(["20", "python3", "-c", TERMINAL_SESSION, LIFEBOAT, "guard", "--", "bash", "-c", script]);
    let output = command.current_dir(sandbox.root()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "33\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(&sandbox.path("heard")), "INT\nINT\n");
}

/// A Python script that starts an interactive bash on a new terminal and types like a user: the guard with the program,
/// then Ctrl-Z, `bg` and `fg`.
const SHELL_SESSION: &str = r#"
import os, pty, signal, sys
pid, tty = pty.fork()
if pid == 0:
    os.environ["PS1"] = "prompt> "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
seen = b""
waited = None
signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"timed out waiting for {waited} after {seen}"))
def wait_for(what):
    global seen, waited
    waited = what
    while what not in seen:
        try:
            seen += os.read(tty, 65536)
        except OSError:
            sys.exit(f"the terminal was closed before {what}: {seen}")
    seen = seen[seen.index(what) + len(what):]
def say(what):
    os.write(tty, what)
wait_for(b"prompt> ")
say(b"\"$GUARD\" guard -- bash -c \"$SCRIPT\"\n")
wait_for(b"ready")
say(b"one\n")
wait_for(b"read: one")
say(b"\x1a")
wait_for(b"Stopped"); wait_for(b"prompt> ")
# In the background, the program runs until it reads from the terminal; then it is stopped. The quotes in it''s are not
# in the output of echo, so the wait below does not end at the typed command.
say(b"bg\n")
wait_for(b"prompt> ")
say(b"until jobs | grep -q Stopped; do sleep 0.02; done; echo it''s stopped\n")
wait_for(b"its stopped"); wait_for(b"prompt> ")
say(b"fg\n")
wait_for(b"guard")
say(b"two\n")
wait_for(b"read: two")
say(b"\x03")
wait_for(b"INT")
# The program is stopped while it works, continues in the background, and comes to the foreground while it runs.
say(b"work\n")
wait_for(b"working")
say(b"\x1a")
wait_for(b"Stopped"); wait_for(b"prompt> ")
say(b"bg\n")
wait_for(b"prompt> ")
say(b"fg; echo code $?\n")
wait_for(b"guard")
open("rest", "w").close()
wait_for(b"rested")
say(b"three\n")
wait_for(b"read: three")
say(b"quit\n")
wait_for(b"code 33")
say(b"exit\n")
os.waitpid(pid, 0)
print("done")
"#;

#[test]
fn job_control_of_a_shell_works_as_without_the_guard() {
    if !have(&["python3"]) {
        return;
    }
    let sandbox = sandbox_with_config();
    let script = r#"trap 'echo INT' INT
        echo ready
        while :; do
            if read line; then
                [ "$line" = quit ] && exit 33
                if [ "$line" = work ]; then
                    echo working
                    while [ ! -e rest ]; do sleep 0.01; done
                    echo rested
                fi
                echo "read: $line"
            fi
        done"#;
    let mut command = Command::new("timeout");
    command.args(["20", "python3", "-c", SHELL_SESSION]).env("GUARD", LIFEBOAT).env("SCRIPT", script);
    let output = command.current_dir(sandbox.root()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{}", String::from_utf8_lossy(&output.stderr));
}

// ---------------------------------------------------------------- processes that are left behind

/// A script that creates a hundred processes whose parents end before them.
const ORPHANS: &str = r#"
    i=0
    while [ $i -lt 50 ]; do
        sh -c 'sleep 0.02 & exec true'
        setsid sh -c 'sleep 0.03 & exec true'
        i=$((i + 1))
    done"#;

#[test]
fn orphans_are_reaped_although_the_guard_is_not_the_first_process() {
    let sandbox = sandbox_with_config();
    let script = format!("{ORPHANS}\necho made >heard; while [ ! -e enough ]; do sleep 0.01; done; exit 3");
    let mark = format!("GUARD_MARK=zombies-{}", std::process::id());
    let mut command = guard(&sandbox, &[], &script);
    command.env("GUARD_MARK", &mark[11..]);
    let mut process = KilledOnDrop::start(command);
    wait_for("the orphans to be created", || text(&sandbox.path("heard")) == "made\n");
    let guard_pid = process.pid().as_raw_pid();
    // In the end, the program is the only child of the guard: all orphans have become its children and were reaped.
    wait_for("the orphans to be reaped", || {
        processes().iter().filter(|(_, parent, _)| *parent == guard_pid).count() == 1
    });
    std::fs::write(sandbox.path("enough"), "").unwrap();
    assert_eq!(process.code(), 3);
    assert_eq!(processes_with_mark(&mark), Vec::<i32>::new());
}

/// Returns true if this user may create process namespaces. Otherwise the test is reported as skipped, or fails in CI.
fn can_be_first_process() -> bool {
    let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    let is_possible = probe.is_ok_and(|output| output.status.success());
    if !is_possible {
        skip_unless_ci("creating a process namespace needs root");
    }
    is_possible
}

#[test]
fn as_first_process_of_a_container_the_guard_reaps_orphans_and_returns_the_exit_code() {
    if !can_be_first_process() {
        return;
    }
    let sandbox = sandbox_with_config();
    let script = format!(
        r#"[ "$(cat /proc/1/comm)" = lifeboat ] || exit 99
        trap 'echo TERM >>heard; exit 42' TERM
        trap 'echo USR1 >>heard' USR1
        {ORPHANS}
        setsid sh -c 'trap "echo daemon >>heard; exit" TERM; echo up >>heard; while :; do sleep 0.01; done' &
        while [ "$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ')" != 0 ]; do sleep 0.01; done
        echo clean >>heard
        while :; do sleep 0.01; done"#
    );
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", LIFEBOAT, "guard", "--grace", "60s", "--", "sh", "-c", &script]);
    command.current_dir(sandbox.root());
    let mut process = KilledOnDrop::start(command);
    let heard = sandbox.path("heard");
    wait_for("the zombies to be reaped", || ["up", "clean"].iter().all(|line| text(&heard).contains(line)));
    let outer = process.pid().as_raw_pid();
    let first = processes().into_iter().find(|(_, parent, _)| *parent == outer).unwrap().2;
    let first = Pid::from_raw(first).unwrap();
    kill_process(first, Signal::USR1).unwrap();
    wait_for("the signal", || text(&heard).contains("USR1"));
    kill_process(first, Signal::TERM).unwrap();
    assert_eq!(process.code(), 42);
    assert!(text(&heard).ends_with("USR1\nTERM\ndaemon\n"), "{}", text(&heard));
}

#[test]
fn daemons_are_terminated_then_killed_before_the_guard_ends() {
    let sandbox = sandbox_with_config();
    let mark = format!("GUARD_MARK=daemons-{}", std::process::id());
    let script = r#"
        setsid sh -c 'trap "echo asked >>heard; exit" TERM; echo up >>heard; while :; do sleep 0.01; done' &
        setsid sh -c 'trap "" TERM; sh -c "echo up >>heard; while :; do echo row >>written; sleep 0.01; done" & wait' &
        (setsid sh -c 'echo up >>heard; kill -STOP $$' &)
        while [ "$(grep -c up heard)" != 3 ]; do sleep 0.01; done
        exit 5"#;
    let mut command = guard(&sandbox, &[], script);
    command.env("GUARD_MARK", &mark[11..]);
    let start = Instant::now();
    let mut process = KilledOnDrop::start(command);
    assert_eq!(process.code(), 5);
    assert_eq!(processes_with_mark(&mark), Vec::<i32>::new());
    assert!(text(&sandbox.path("heard")).ends_with("asked\n"));
    assert!(text(&sandbox.path("written")).contains("row\n"));
    // The guard waits a second after SIGTERM, and a short time after SIGKILL.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn processes_that_are_left_in_the_background_are_named_before_they_are_ended() {
    let sandbox = sandbox_with_config();
    let script = "sh -c 'touch one; exec sleep 600' & setsid sh -c 'touch two; exec sleep 601' &
        while [ ! -e one ] || [ ! -e two ]; do sleep 0.01; done; exit 0";
    let output = guard(&sandbox, &[], script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("left 2 processes in the background") && text.contains(" (s"), "{text}");
    assert!(text.contains("ended by itself with exit code 0") && text.contains("the container stops"), "{text}");
}

// ---------------------------------------------------------------- before and after the program, in a separate process

/// A process that plays one part of `guard`: this test binary, which runs only `child_plays_a_part`.
struct Part {
    process: KilledOnDrop,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Part {
    fn start(sandbox: &Sandbox, part: &str) -> Self {
        let mut command = child_test(module_path!(), "child_plays_a_part");
        command.env("GUARD_PART", part);
        command.current_dir(sandbox.root()).stdout(Stdio::piped());
        let mut process = KilledOnDrop::start(command);
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        Part { process, lines }
    }

    /// Waits for the next line that the part prints, which must be this one.
    #[track_caller]
    fn expect_line(&mut self, expected: &str) {
        // Other lines on stdout are from the test harness.
        let found = self.lines.by_ref().map(Result::unwrap).find(|line| line.contains("part: "));
        assert_eq!(found.map(|line| line[line.find("part: ").unwrap() + 6..].to_owned()).as_deref(), Some(expected));
    }
}

/// Prints a line for [`Part::expect_line`].
fn print_line(line: &str) {
    println!("part: {line}");
}

fn asked_to_stop() -> bool {
    lifeboat::platform::interrupt::check().is_err()
}

#[test]
#[ignore = "it is the other half of the tests below"]
fn child_plays_a_part() {
    let Ok(part) = std::env::var("GUARD_PART") else { return };
    let mut signals = Supervisor::listen().unwrap();
    let shell = |script: &str| ["sh", "-c", script].map(OsString::from);
    match part.as_str() {
        "before" => {
            print_line("restoring");
            wait_for("a signal", asked_to_stop);
            let error = signals.run(&shell("touch started"), &Options::default()).unwrap_err();
            assert_eq!(error.kind, Kind::Interrupted);
            print_line(&error.message);
            wait_for("the second signal to end this process", || false);
        }
        "after" => {
            let options = Options::default();
            let script = "trap 'exit 9' TERM; echo part: up; while :; do sleep 0.01; done";
            let ended = signals.run(&shell(script), &options).unwrap();
            let stop = ended.stopped.unwrap();
            assert_eq!((ended.code, ended.killed, stop.signal), (9, false, Signal::TERM));
            assert!(stop.remaining(Duration::from_secs(100)) > Duration::from_secs(80));
            assert!(!asked_to_stop(), "the signal that stopped the program must not interrupt the last snapshot");
            print_line("snapshot");
            wait_for("one more signal", asked_to_stop);
            print_line("interrupted");
            wait_for("a third signal to end this process", || false);
        }
        "own end" => {
            let ended = signals.run(&shell("exit 4"), &Options::default()).unwrap();
            assert_eq!((ended.code, ended.stopped), (4, None));
            signals.finish_within(Duration::from_millis(300));
            print_line("snapshot");
            wait_for("a signal", || signals.stop().is_some());
            assert!(!asked_to_stop() && !signals.is_overdue());
            wait_for("the time to be over", asked_to_stop);
            assert!(signals.is_overdue());
            assert_eq!(signals.stop().unwrap().remaining(Duration::from_millis(300)), Duration::ZERO);
            print_line("out of time");
        }
        "own child" => {
            let other_children = std::thread::spawn(|| {
                let codes =
                    (0..40).map(|code| Command::new("sh").args(["-c", &format!("exit {code}")]).status().unwrap());
                codes.map(|status| status.code().unwrap()).collect::<Vec<_>>()
            });
            let slow = Command::new("sleep").arg("600").spawn().unwrap();
            let script = format!("{ORPHANS}\nsetsid sleep 600 & sleep 0.2");
            let ended = signals.run(&shell(&script), &Options::default()).unwrap();
            assert_eq!((ended.code, ended.orphans.found, ended.orphans.killed), (0, 1, 0));
            assert_eq!(other_children.join().unwrap(), (0..40).collect::<Vec<_>>());
            let mut slow = KilledOnDrop(slow);
            assert_eq!(slow.0.try_wait().unwrap(), None, "the supervisor has ended a child of another thread");
            print_line("done");
        }
        other => panic!("unknown part {other}"),
    }
}

#[test]
fn sigterm_before_the_start_prevents_the_start_of_the_program() {
    let sandbox = sandbox_with_config();
    let mut part = Part::start(&sandbox, "before");
    part.expect_line("restoring");
    part.process.signal(Signal::USR1);
    part.process.signal(Signal::TERM);
    part.expect_line("stopped by SIGTERM before the start");
    part.process.signal(Signal::TERM);
    assert_eq!(part.process.code(), 130);
    assert!(!sandbox.path("started").exists());
}

#[test]
fn only_a_second_sigterm_interrupts_the_last_snapshot() {
    let sandbox = sandbox_with_config();
    let mut part = Part::start(&sandbox, "after");
    part.expect_line("up");
    part.process.signal(Signal::TERM);
    part.expect_line("snapshot");
    part.process.signal(Signal::HUP);
    part.process.signal(Signal::TERM);
    part.expect_line("interrupted");
    part.process.signal(Signal::INT);
    assert_eq!(part.process.code(), 130);
}

#[test]
fn sigterm_after_the_program_has_ended_only_limits_the_last_snapshot() {
    let sandbox = sandbox_with_config();
    let mut part = Part::start(&sandbox, "own end");
    part.expect_line("snapshot");
    part.process.signal(Signal::TERM);
    part.expect_line("out of time");
    assert_eq!(part.process.code(), 0);
}

#[test]
fn children_of_other_threads_are_neither_reaped_nor_ended() {
    let sandbox = sandbox_with_config();
    let mut part = Part::start(&sandbox, "own child");
    part.expect_line("done");
    assert_eq!(part.process.code(), 0);
}
