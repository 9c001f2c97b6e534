//! Runs of the program under strace, which makes system calls fail, delays them, or sends a signal at them.

use crate::common::prepare;
use crate::support::{LIFEBOAT, Running, Sandbox, skip_unless_ci};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Returns true if strace can make system calls fail here; otherwise reports the test as skipped.
pub(crate) fn can_trace() -> bool {
    let trial = Command::new("strace").args(["-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync", "true"]).output();
    let can_trace = trial.is_ok_and(|output| output.status.success());
    if !can_trace {
        skip_unless_ci("strace cannot make system calls fail here");
    }
    can_trace
}

/// Starts `lifeboat ARGUMENTS` with these effects on system calls, such as `fsync:error=EIO`. With `paths`, only calls on
/// these files are affected.
pub(crate) fn start_with_effects(sandbox: &Sandbox, effects: &[&str], paths: &[&Path], arguments: &[&str]) -> Running {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    let calls: Vec<&str> = effects.iter().map(|effect| effect.split(':').next().unwrap()).collect();
    command.arg("-e").arg(format!("trace={}", calls.join(",")));
    for effect in effects {
        command.arg("-e").arg(format!("inject={effect}"));
    }
    for path in paths {
        command.arg("-P").arg(path);
    }
    command.arg(LIFEBOAT).args(arguments);
    prepare(&mut command, sandbox.root());
    sandbox.start_command(command)
}

/// Runs the program with an effect, such as an error, on the n-th call of `call` in each thread. If `n` ends with `+`,
/// the effect is also on all calls after it. Returns the output and the affected calls, or `None` if there are fewer
/// calls.
pub(crate) fn run_with_injection(
    folder: &Path,
    arguments: &[String],
    call: &str,
    effect: &str,
    n: &str,
) -> Option<(Output, Vec<String>)> {
    let log = folder.join("strace.log");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log).arg("-e").arg(format!("trace={call}"));
    // With this option, strace 6.1 delivers no signals.
    if effect.starts_with("error") {
        command.arg("--seccomp-bpf");
    }
    command.arg("-e").arg(format!("inject={call}:{effect}:when={n}")).arg(LIFEBOAT).args(arguments);
    prepare(&mut command, folder);
    let output = command.output().unwrap();
    let trace = fs::read_to_string(&log).unwrap();
    fs::remove_file(log).unwrap();
    let is_hit =
        |line: &&str| line.contains("(INJECTED)") || line.contains("--- SIGTERM") || line.contains("--- SIGINT");
    let mut affected: Vec<String> = trace.lines().filter(is_hit).map(str::to_owned).collect();
    if output.status.signal() == Some(9) {
        affected.push(trace.lines().last().unwrap_or_default().to_owned());
    }
    (!affected.is_empty()).then_some((output, affected))
}

/// System calls after which the files are in another state, which can survive a crash. Between two of them, a thread is
/// in one step of its work. The creation of a file is another.
const STEPS: [&str; 11] = [
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "ftruncate",
    "fallocate",
    "mkdir",
];

/// System calls of one thread that repeat each other: the same call in the same step, and on the same files if it changes
/// them. The pages of a database that are copied one after another are an example.
pub(crate) struct Group {
    pub(crate) call: String,
    /// The numbers of the first and the last of these calls, counted in the thread for each system call.
    first: usize,
    last: usize,
    changes_files: bool,
    /// The call, and the last two changes before it, with names that are the same in each run.
    context: String,
    /// True if the thread has changed the database `app.db` before.
    is_after_change: bool,
}

impl Group {
    /// Returns the instants at which a failure makes a difference: alone, or together with all later calls (`+`).
    pub(crate) fn failures(&self) -> Vec<String> {
        let (first, last) = (self.first, self.last);
        match self.changes_files {
            true => vec![first.to_string(), last.to_string(), format!("{first}+")],
            false => vec![first.to_string(), format!("{last}+")],
        }
    }

    /// Returns the instants at which the end of the process leaves other files behind.
    pub(crate) fn kills(&self) -> Vec<String> {
        match self.changes_files {
            true => vec![self.first.to_string(), self.last.to_string()],
            false => Vec::new(),
        }
    }

    /// Returns the instants at which the program is asked to stop in another step of its work.
    pub(crate) fn stops(&self) -> Vec<String> {
        vec![self.first.to_string()]
    }
}

/// The system calls of a run, without those of the dynamic loader: the program has not started then.
pub(crate) struct Trace(Vec<Group>);

impl Trace {
    /// Runs the program once in `folder`.
    pub(crate) fn of(folder: &Path, arguments: &[String]) -> Self {
        let log = folder.join("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-y", "-s", "0", "--seccomp-bpf", "-o"]).arg(&log);
        let calls = format!("trace={},openat,read,pread64,write,pwrite64", STEPS.join(","));
        command.arg("-e").arg(calls).arg(LIFEBOAT).args(arguments);
        prepare(&mut command, folder);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let trace = fs::read_to_string(&log).unwrap();
        let mut threads: BTreeMap<&str, Thread> = BTreeMap::new();
        for line in trace.lines() {
            // A line that ends a call which another thread has interrupted has no parenthesis before the name's end.
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let Some((name, rest)) = call.trim_start().split_once('(') else { continue };
            if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                threads.entry(thread).or_default().add(name, rest, folder);
            }
        }
        Trace(threads.into_values().flat_map(|thread| thread.groups.into_values()).collect())
    }

    /// Returns the groups of this run that are in none of the others, and those after the first change of the database.
    pub(crate) fn without(mut self, others: &[Trace]) -> Self {
        let known: BTreeSet<&str> =
            others.iter().flat_map(|other| &other.0).map(|group| group.context.as_str()).collect();
        self.0.retain(|group| group.is_after_change || !known.contains(group.context.as_str()));
        self
    }

    /// Returns the instants of one system call, each once.
    pub(crate) fn instants(&self, call: &str, instants: impl Fn(&Group) -> Vec<String>) -> BTreeSet<String> {
        self.0.iter().filter(|group| group.call == call).flat_map(instants).collect()
    }
}

/// The system calls of a thread.
#[derive(Default)]
struct Thread {
    counts: BTreeMap<String, usize>,
    steps: usize,
    last_changes: [String; 2],
    has_changed_database: bool,
    /// The groups by their calls, files and steps. Those of reads have no files.
    groups: BTreeMap<(String, String, usize), Group>,
}

impl Thread {
    fn add(&mut self, name: &str, arguments: &str, folder: &Path) {
        let count = self.counts.entry(name.to_owned()).or_default();
        *count += 1;
        let count = *count;
        let arguments = arguments.split(") = ").next().unwrap_or_default();
        // The paths of descriptors, `5</tmp/a>`, and of names, `"a"`.
        let files = arguments.split(['<', '>', '"']).skip(1).step_by(2).collect::<Vec<_>>().join(" ");
        if files.contains(".so") {
            return;
        }
        let is_creation = arguments.contains("O_CREAT");
        let is_step = STEPS.contains(&name) || is_creation;
        let changes_files = is_step || matches!(name, "write" | "pwrite64");
        let same_in_each_run = if changes_files { known_names(&files, folder) } else { String::new() };
        let change = format!("{name} {same_in_each_run}");
        let context = format!("{change} after {} after {}", self.last_changes[0], self.last_changes[1]);
        let key = (name.to_owned(), if changes_files { files } else { String::new() }, self.steps);
        let is_after_change = self.has_changed_database;
        let group = Group { call: name.to_owned(), first: count, last: count, changes_files, context, is_after_change };
        self.groups.entry(key).or_insert(group).last = count;
        self.steps += usize::from(is_step);
        if changes_files {
            // Files that are only created or removed beside it, and the index of the WAL, are no part of its content.
            let is_of_database =
                |file: &str| file.trim_start_matches('/').starts_with("app.db") && !file.ends_with("-shm");
            let is_change = !is_creation && !name.starts_with("unlink");
            self.has_changed_database |= is_change && same_in_each_run.split(' ').any(is_of_database);
            self.last_changes = [change, std::mem::take(&mut self.last_changes[0])];
        }
    }
}

/// Replaces the parts of names that differ between runs: the folder, random words, and words with digits.
fn known_names(files: &str, folder: &Path) -> String {
    let files = files.replace(&folder.display().to_string(), "");
    let is_random = |word: &&str| {
        let has = |test: fn(&u8) -> bool| word.as_bytes().iter().any(test);
        has(u8::is_ascii_digit) || has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
    };
    let words = files.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric());
    words.map(|word| if is_random(&word) { "#" } else { word }).collect()
}
