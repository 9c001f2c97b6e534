//! A program run under `guard`: its signals, its exit code, its streams, and the processes that it leaves behind.

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

const BOUND: Duration = Duration::from_secs(20);

/// Waits until something is so, and no longer than is reasonable.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < BOUND, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder with a config of a guard that has nothing to restore and nothing to save.
fn place() -> Sandbox {
    let sandbox = Sandbox::new();
    let config = "host = \"test\"\n[[store]]\nurl = \"./store\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n\
                  [guard]\nrestore_if_missing = false\nsnapshot_at_end = false\n";
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox
}

/// `lifeboat guard OPTIONS -- sh -c SCRIPT`.
fn guard(sandbox: &Sandbox, options: &[&str], script: &str) -> Command {
    let mut arguments = vec!["guard"];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", script]);
    sandbox.command(&arguments)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// State, parent and number of every process, from `/proc`.
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

/// The processes that carry a mark in their environment: all that came from one guard.
fn marked(mark: &str) -> Vec<i32> {
    let carries = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
    };
    processes().into_iter().filter(|(state, ..)| *state != 'Z').map(|(.., pid)| pid).filter(carries).collect()
}

/// A process, killed at the end if it still runs.
struct Kept(Child);

impl Kept {
    fn start(mut command: Command) -> Self {
        Kept(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    fn code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let mut status = None;
        until("its end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A guard that is killed cannot end what hangs on it: a test that fails would leave that behind.
        let (all, mut family) = (processes(), vec![self.pid().as_raw_pid()]);
        let mut next = 0;
        while self.0.try_wait().is_ok_and(|status| status.is_none()) && next < family.len() {
            let above = family[next];
            family.extend(all.iter().filter(|(_, parent, _)| *parent == above).map(|(.., pid)| *pid));
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
fn exit_code_is_that_of_the_program_as_a_shell_gives_it() {
    let sandbox = place();
    let cases = [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)];
    for (script, expected) in cases {
        let run = sandbox.finish(guard(&sandbox, &[], script)).code(expected);
        assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()), "{script}");
    }
}

#[test]
fn program_that_cannot_run_gives_126_or_127_and_says_why() {
    let sandbox = place();
    std::fs::write(sandbox.path("plain"), "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::write(sandbox.path("orphaned"), "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(sandbox.path("orphaned"), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (program, code, said) in [
        ("no-such-program", 127, "No such file"),
        ("./no-such-program", 127, "No such file"),
        ("./orphaned", 127, "No such file"),
        ("./plain", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
    ] {
        let run = sandbox.run(&["guard", "--", program]).code(code);
        assert!(run.stderr().contains(&format!("cannot run {program}")), "{}", run.stderr());
        assert!(run.stderr().contains(said), "{}", run.stderr());
    }
    sandbox.run(&["guard", "--"]).code(2);
    sandbox.run(&["guard"]).code(2);
}

#[test]
fn streams_arguments_and_environment_pass_through_untouched() {
    let sandbox = place();
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
fn program_has_no_file_open_and_no_signal_blocked_or_ignored_that_was_not_so_before() {
    let sandbox = place();
    let facts = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls -l /proc/self/fd | wc -l";
    let mut bare = Command::new("sh");
    let bare = bare.args(["-c", facts]).stdin(Stdio::null()).output().unwrap();
    let run = sandbox.finish({
        let mut command = guard(&sandbox, &[], facts);
        command.stdin(Stdio::null());
        command
    });
    assert_eq!(run.code(0).stdout(), String::from_utf8(bare.stdout).unwrap());
}

// ---------------------------------------------------------------- signals

/// Says in `heard` what it hears, and ends with 42 at TERM.
const LISTENS: &str = r#"
    for signal in HUP INT QUIT USR1 USR2 WINCH; do trap "echo $signal >>heard" $signal; done
    trap 'echo TERM >>heard; exit 42' TERM
    echo ready >>heard
    while :; do sleep 0.01; done"#;

#[test]
fn every_signal_is_passed_on_once() {
    let sandbox = place();
    let mut kept = Kept::start(guard(&sandbox, &["--grace", "60s"], LISTENS));
    let mut expected = "ready\n".to_owned();
    until("the script", || text(&sandbox.path("heard")) == expected);
    // INT asks to stop too; this program does not want to.
    let signals =
        [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::QUIT, Signal::INT, Signal::INT, Signal::TERM];
    for signal in signals {
        kept.signal(signal);
        expected.push_str(lifeboat::platform::supervise::name(signal).trim_start_matches("SIG"));
        expected.push('\n');
        until(&expected, || text(&sandbox.path("heard")) == expected);
    }
    assert_eq!(kept.code(), 42);
    assert_eq!(text(&sandbox.path("heard")), expected);
}

#[test]
fn signal_to_the_whole_group_reaches_the_program_once() {
    let sandbox = place();
    let script = r#"trap 'echo TERM >>heard' TERM
        echo ready >>heard
        while [ ! -e enough ]; do sleep 0.01; done"#;
    let mut command = guard(&sandbox, &["--grace", "60s"], script);
    command.process_group(0);
    let mut kept = Kept::start(command);
    until("the script", || text(&sandbox.path("heard")) == "ready\n");
    for expected in ["ready\nTERM\n", "ready\nTERM\nTERM\n"] {
        kill_process_group(kept.pid(), Signal::TERM).unwrap();
        until("the signal", || text(&sandbox.path("heard")) == expected);
    }
    std::fs::write(sandbox.path("enough"), "").unwrap();
    assert_eq!(kept.code(), 0);
    assert_eq!(text(&sandbox.path("heard")), "ready\nTERM\nTERM\n");
}

#[test]
fn program_that_ignores_term_is_killed_after_the_grace_and_that_is_told() {
    let sandbox = place();
    let mark = format!("GUARD_MARK=ignores-{}", std::process::id());
    let mut command = guard(&sandbox, &["--grace", "1s"], "trap '' TERM; echo ready >heard; while :; do sleep 1; done");
    command.env("GUARD_MARK", &mark[11..]).stderr(Stdio::piped());
    let mut kept = Kept::start(command);
    until("the script", || text(&sandbox.path("heard")) == "ready\n");
    let start = Instant::now();
    kept.signal(Signal::TERM);
    assert_eq!(kept.code(), 137);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut kept.0.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("sh has not ended within 1.0 s of the stop signal: killing it"), "{said}");
    assert_eq!(marked(&mark), Vec::<i32>::new(), "its children outlive it");
}

#[test]
fn stopped_program_hears_of_the_end() {
    let sandbox = place();
    let script = "trap 'exit 42' TERM; echo $$ >pid; while :; do sleep 0.01; done";
    let mut kept = Kept::start(guard(&sandbox, &["--grace", "60s"], script));
    until("the script", || text(&sandbox.path("pid")).ends_with('\n'));
    let pid: i32 = text(&sandbox.path("pid")).trim().parse().unwrap();
    let stopped = || processes().iter().any(|(state, _, own)| (*state, *own) == ('T', pid));
    kept.signal(Signal::TSTP);
    until("the stop", stopped);
    kept.signal(Signal::CONT);
    until("going on", || !stopped());
    kept.signal(Signal::TSTP);
    until("the stop", stopped);
    kept.signal(Signal::TERM);
    assert_eq!(kept.code(), 42);
}

#[test]
fn what_was_ignored_at_the_start_stays_so() {
    let sandbox = place();
    let mut command = Command::new("sh");
    let script =
        "trap '' HUP; exec \"$0\" guard -- sh -c 'echo ready >heard; while [ ! -e enough ]; do sleep 0.01; done'";
    command.args(["-c", script, LIFEBOAT]).current_dir(sandbox.root());
    let mut kept = Kept::start(command);
    until("the script", || text(&sandbox.path("heard")) == "ready\n");
    kept.signal(Signal::HUP);
    std::fs::write(sandbox.path("enough"), "").unwrap();
    assert_eq!(kept.code(), 0);
}

// ---------------------------------------------------------------- a terminal

/// Runs its arguments on a terminal of their own, and plays a person: types, and says what became of it.
const PERSON: &str = r#"
import os, pty, signal, sys, time
pid, tty = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def until(what):
    global seen
    while what not in seen:
        seen += os.read(tty, 65536)
    seen = seen[seen.index(what) + len(what):]
until(b"ready")
os.write(tty, b"a line\n")
until(b"read: a line")
os.write(tty, b"\x03")
until(b"INT")
os.write(tty, b"\x1a")
_, status = os.waitpid(pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
# What a shell does for 'fg': it gives the terminal to the group that it has started, and wakes it.
assert os.tcgetpgrp(tty) == pid, "the terminal did not come back"
os.kill(pid, signal.SIGCONT)
os.write(tty, b"again\n")
until(b"read: again")
assert os.tcgetpgrp(tty) != pid
os.write(tty, b"\x03")
until(b"INT")
os.write(tty, b"quit\n")
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
"#;

#[test]
fn keys_on_a_terminal_reach_the_program_once_and_ctrl_z_stops_both() {
    if !have(&["python3"]) {
        return;
    }
    let sandbox = place();
    let script = r#"trap 'echo INT; echo INT >>heard' INT
        echo ready
        while :; do
            if read line; then
                [ "$line" = quit ] && exit 33
                echo "read: $line"
            fi
        done"#;
    let mut command = Command::new("timeout");
    command.args(["20", "python3", "-c", PERSON, LIFEBOAT, "guard", "--", "bash", "-c", script]);
    let output = command.current_dir(sandbox.root()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "33\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(&sandbox.path("heard")), "INT\nINT\n");
}

/// A person at a shell that has job control.
const PERSON_AT_A_SHELL: &str = r#"
import os, pty, signal, sys
pid, tty = pty.fork()
if pid == 0:
    os.environ["PS1"] = "prompt> "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
seen = b""
waited = None
signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"waited for {waited}, and saw {seen}"))
def until(what):
    global seen, waited
    waited = what
    while what not in seen:
        try:
            seen += os.read(tty, 65536)
        except OSError:
            sys.exit(f"the terminal closed before {what}: {seen}")
    seen = seen[seen.index(what) + len(what):]
def say(what):
    os.write(tty, what)
until(b"prompt> ")
say(b"\"$GUARD\" guard -- bash -c \"$SCRIPT\"\n")
until(b"ready")
say(b"one\n")
until(b"read: one")
say(b"\x1a")
until(b"Stopped"); until(b"prompt> ")
# In the background it runs until it reads, and the shell is told.
say(b"bg\n")
until(b"prompt> ")
say(b"until jobs | grep -q Stopped; do sleep 0.02; done; echo it''s stopped\n")
until(b"its stopped"); until(b"prompt> ")
say(b"fg\n")
until(b"guard")
say(b"two\n")
until(b"read: two")
say(b"\x03")
until(b"INT")
# Out, into the background without reading, and back in while it runs.
say(b"work\n")
until(b"working")
say(b"\x1a")
until(b"Stopped"); until(b"prompt> ")
say(b"bg\n")
until(b"prompt> ")
say(b"fg; echo code $?\n")
until(b"guard")
open("rest", "w").close()
until(b"rested")
say(b"three\n")
until(b"read: three")
say(b"quit\n")
until(b"code 33")
say(b"exit\n")
os.waitpid(pid, 0)
print("done")
"#;

#[test]
fn job_control_of_a_shell_works_as_without_the_guard() {
    if !have(&["python3"]) {
        return;
    }
    let sandbox = place();
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
    command.args(["20", "python3", "-c", PERSON_AT_A_SHELL]).env("GUARD", LIFEBOAT).env("SCRIPT", script);
    let output = command.current_dir(sandbox.root()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{}", String::from_utf8_lossy(&output.stderr));
}

// ---------------------------------------------------------------- what is left behind

/// Makes fifty processes whose parent ends first, and which then end themselves.
const ORPHANS: &str = r#"
    i=0
    while [ $i -lt 50 ]; do
        sh -c 'sleep 0.02 & exec true'
        setsid sh -c 'sleep 0.03 & exec true'
        i=$((i + 1))
    done"#;

#[test]
fn zombies_are_reaped_without_being_the_first_process() {
    let sandbox = place();
    let script = format!("{ORPHANS}\necho made >heard; while [ ! -e enough ]; do sleep 0.01; done; exit 3");
    let mark = format!("GUARD_MARK=zombies-{}", std::process::id());
    let mut command = guard(&sandbox, &[], &script);
    command.env("GUARD_MARK", &mark[11..]);
    let mut kept = Kept::start(command);
    until("the orphans", || text(&sandbox.path("heard")) == "made\n");
    let own = kept.pid().as_raw_pid();
    // Only CMD hangs on the guard in the end; nobody of theirs waits anywhere else.
    until("no child but CMD", || processes().iter().filter(|(_, parent, _)| *parent == own).count() == 1);
    std::fs::write(sandbox.path("enough"), "").unwrap();
    assert_eq!(kept.code(), 3);
    assert_eq!(marked(&mark), Vec::<i32>::new());
}

/// True where this test may make process namespaces; else it says loudly that the test does nothing.
fn can_be_first_process() -> bool {
    let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can {
        skip_unless_ci("no process namespace can be made here, which takes root: nothing runs as PID 1");
    }
    can
}

#[test]
fn first_process_of_a_container_reaps_and_stops_and_keeps_the_code() {
    if !can_be_first_process() {
        return;
    }
    let sandbox = place();
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
    let mut kept = Kept::start(command);
    let heard = sandbox.path("heard");
    until("no zombie is left", || ["up", "clean"].iter().all(|line| text(&heard).contains(line)));
    let outer = kept.pid().as_raw_pid();
    let first = processes().into_iter().find(|(_, parent, _)| *parent == outer).unwrap().2;
    let first = Pid::from_raw(first).unwrap();
    kill_process(first, Signal::USR1).unwrap();
    until("the signal", || text(&heard).contains("USR1"));
    kill_process(first, Signal::TERM).unwrap();
    assert_eq!(kept.code(), 42);
    assert!(text(&heard).ends_with("USR1\nTERM\ndaemon\n"), "{}", text(&heard));
}

#[test]
fn daemons_are_asked_then_killed_before_the_guard_ends() {
    let sandbox = place();
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
    let mut kept = Kept::start(command);
    assert_eq!(kept.code(), 5);
    assert_eq!(marked(&mark), Vec::<i32>::new());
    assert!(text(&sandbox.path("heard")).ends_with("asked\n"));
    assert!(text(&sandbox.path("written")).contains("row\n"));
    // One second for those that are asked, and a little for those that are killed.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

// ---------------------------------------------------------------- before and after, in a process of its own

/// A process that plays the part of `guard`: this test binary, in one test that does nothing by itself.
struct Part {
    kept: Kept,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Part {
    fn start(sandbox: &Sandbox, part: &str) -> Self {
        let mut command = child_test(module_path!(), "child_plays_a_part");
        command.env("GUARD_PART", part);
        command.current_dir(sandbox.root()).stdout(Stdio::piped());
        let mut kept = Kept::start(command);
        let lines = BufReader::new(kept.0.stdout.take().unwrap()).lines();
        Part { kept, lines }
    }

    #[track_caller]
    fn says(&mut self, expected: &str) {
        // The harness prints beside it.
        let found = self.lines.by_ref().map(Result::unwrap).find(|line| line.contains("part: "));
        assert_eq!(found.map(|line| line[line.find("part: ").unwrap() + 6..].to_owned()).as_deref(), Some(expected));
    }
}

fn say(what: &str) {
    println!("part: {what}");
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
            say("restoring");
            until("a signal", asked_to_stop);
            let error = signals.run(&shell("touch started"), &Options::default()).unwrap_err();
            assert_eq!(error.kind, Kind::Interrupted);
            say(&error.message);
            until("the second signal ends it", || false);
        }
        "after" => {
            let options = Options::default();
            let script = "trap 'exit 9' TERM; echo part: up; while :; do sleep 0.01; done";
            let ended = signals.run(&shell(script), &options).unwrap();
            let stop = ended.stopped.unwrap();
            assert_eq!((ended.code, ended.killed, stop.signal), (9, false, Signal::TERM));
            assert!(stop.remaining(Duration::from_secs(100)) > Duration::from_secs(80));
            assert!(!asked_to_stop(), "the last snapshot would be interrupted by the signal that it is taken for");
            say("snapshot");
            until("one more signal", asked_to_stop);
            say("interrupted");
            until("yet one more ends it", || false);
        }
        "own end" => {
            let ended = signals.run(&shell("exit 4"), &Options::default()).unwrap();
            assert_eq!((ended.code, ended.stopped), (4, None));
            signals.finish_within(Duration::from_millis(300));
            say("snapshot");
            until("a signal", || signals.stop().is_some());
            assert!(!asked_to_stop() && !signals.is_overdue());
            until("the end of the time", asked_to_stop);
            assert!(signals.is_overdue());
            assert_eq!(signals.stop().unwrap().remaining(Duration::from_millis(300)), Duration::ZERO);
            say("out of time");
        }
        "own child" => {
            let mine = std::thread::spawn(|| {
                let codes =
                    (0..40).map(|code| Command::new("sh").args(["-c", &format!("exit {code}")]).status().unwrap());
                codes.map(|status| status.code().unwrap()).collect::<Vec<_>>()
            });
            let slow = Command::new("sleep").arg("600").spawn().unwrap();
            let script = format!("{ORPHANS}\nsetsid sleep 600 & sleep 0.2");
            let ended = signals.run(&shell(&script), &Options::default()).unwrap();
            assert_eq!((ended.code, ended.orphans.found, ended.orphans.killed), (0, 1, 0));
            assert_eq!(mine.join().unwrap(), (0..40).collect::<Vec<_>>());
            let mut slow = Kept(slow);
            assert_eq!(slow.0.try_wait().unwrap(), None, "it is no business of the supervisor");
            say("done");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn term_before_the_start_stops_the_work_and_the_program_never_runs() {
    let sandbox = place();
    let mut part = Part::start(&sandbox, "before");
    part.says("restoring");
    part.kept.signal(Signal::USR1);
    part.kept.signal(Signal::TERM);
    part.says("stopped by SIGTERM before the start");
    part.kept.signal(Signal::TERM);
    assert_eq!(part.kept.code(), 130);
    assert!(!sandbox.path("started").exists());
}

#[test]
fn term_for_the_program_leaves_the_last_work_alone_and_the_next_interrupts_it() {
    let sandbox = place();
    let mut part = Part::start(&sandbox, "after");
    part.says("up");
    part.kept.signal(Signal::TERM);
    part.says("snapshot");
    part.kept.signal(Signal::HUP);
    part.kept.signal(Signal::TERM);
    part.says("interrupted");
    part.kept.signal(Signal::INT);
    assert_eq!(part.kept.code(), 130);
}

#[test]
fn first_term_after_the_program_s_own_end_only_bounds_the_last_work() {
    let sandbox = place();
    let mut part = Part::start(&sandbox, "own end");
    part.says("snapshot");
    part.kept.signal(Signal::TERM);
    part.says("out of time");
    assert_eq!(part.kept.code(), 0);
}

#[test]
fn children_that_others_wait_for_are_neither_reaped_nor_ended() {
    let sandbox = place();
    let mut part = Part::start(&sandbox, "own child");
    part.says("done");
    assert_eq!(part.kept.code(), 0);
}
