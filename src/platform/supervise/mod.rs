//! Runs another program in the foreground, as a container's entry point does: passes signals on, reaps what is left
//! over, ends what outlives its time.
//!
//! A life has three phases, and a signal means something else in each:
//! - **before** the program runs (checks, a restore): one that stops asks the work in hand to stop (`interrupt`), a second
//!   one ends the process at once; what is meant for the program is dropped, since it is not there yet;
//! - **while** it runs: every signal goes to the program, and nothing here is interrupted;
//! - **after** it has ended (the last snapshot): the first stop signal, if none came before, is only noted; one more
//!   interrupts the work in hand, and yet one more ends the process at once.

mod family;
mod terminal;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper, waitpid,
};
use signal_hook::iterator::Signals;

use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::interrupt;
use terminal::Terminal;

/// What the program is told when we are, as long as it runs. STOP and KILL cannot be heard.
const PASSED_ON: [Signal; 9] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
];

/// What makes a shell end before a program has begun.
const STOPS_BEFORE: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// What asks for an end when the program is gone already; a terminal that closes does not.
const STOPS_AFTER: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::QUIT];

/// What shells answer for a program that is there but cannot be run, and for one that is not there.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// How often it is looked whether the processes that are left have left others: nothing tells us.
const LOOK: Duration = Duration::from_millis(20);

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(2);

/// How a program is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the program may take to end after a stop signal, before it is killed.
    pub grace: Duration,
    /// How long what it leaves behind may take to end, before that is killed.
    pub orphan_grace: Duration,
    /// The signals that start the grace. Others are passed on all the same: QUIT is how a JVM is asked for its threads,
    /// HUP how a server is told to read its configuration again.
    pub stop_signals: Vec<Signal>,
}

impl Default for Options {
    fn default() -> Self {
        // Docker waits 10 seconds in all, and the last snapshot wants some of them.
        Options {
            grace: Duration::from_secs(5),
            orphan_grace: Duration::from_secs(1),
            stop_signals: vec![Signal::TERM, Signal::INT],
        }
    }
}

/// The signal that asked this process to stop, and when it came: from then on the platform's grace time runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The signal.
    pub signal: Signal,
    /// When it was heard.
    pub at: Instant,
}

impl Stop {
    /// What remains of a time that the platform gives after the signal; zero once it is over.
    #[must_use]
    pub fn remaining(&self, grace: Duration) -> Duration {
        grace.saturating_sub(self.at.elapsed())
    }
}

/// What was left of the program's processes when it had ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// How many there were.
    pub found: usize,
    /// How many of them had to be killed.
    pub killed: usize,
    /// Those that run on in spite of it, by number and name: what they have open they may still write to.
    pub left: Vec<String>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, as a shell gives it: 128 + N where signal N ended it, 127 not found, 126 not to be executed.
    pub code: i32,
    /// The first stop signal that came while it ran, if any.
    pub stopped: Option<Stop>,
    /// True where it did not end within the grace, and was killed.
    pub killed: bool,
    /// Why it never ran, where it did not: `code` is then 126 or 127.
    pub not_started: Option<Error>,
    /// What became of the processes that it left behind.
    pub orphans: Orphans,
}

/// Hears this process's signals, from [`listen`](Self::listen) on to the end of the process.
pub struct Supervisor {
    state: Arc<Mutex<State>>,
    heard: Receiver<Heard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// A child has ended, stopped or gone on.
    Child,
    /// To be passed on.
    Signal(Signal, Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    Running,
    After,
}

struct State {
    phase: Phase,
    stop: Option<Stop>,
    /// A stop signal after `stop` has interrupted the last work.
    urged: bool,
    /// How long after `stop` the last work must be over.
    bound: Option<Duration>,
    overdue: bool,
    /// A child is on its way to whoever supervises: more of them would say the same.
    child_told: bool,
    running: Sender<Heard>,
}

impl Supervisor {
    /// Starts to hear signals; call once and early, instead of [`interrupt::listen`].
    pub fn listen() -> Result<Self> {
        let ignored = interrupt::ignored_signals();
        // Whoever started us with a signal ignored (nohup, say) wants it to stay so, for the program too.
        let heeded = PASSED_ON.iter().map(|signal| signal.as_raw()).filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = Signals::new(heeded.chain([Signal::CHILD.as_raw()]))
            .map_err(|error| Error::failed("cannot listen for signals").because(error))?;
        let (running, heard) = channel();
        let state = State {
            phase: Phase::Before,
            stop: None,
            urged: false,
            bound: None,
            overdue: false,
            child_told: false,
            running,
        };
        let state = Arc::new(Mutex::new(state));
        let listener = Arc::clone(&state);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let known = PASSED_ON.iter().find(|known| known.as_raw() == signal);
                    hear(&listener, known.map_or(Heard::Child, |signal| Heard::Signal(*signal, Instant::now())));
                }
            })
            .map_err(|error| Error::failed("cannot start a thread for signals").because(error))?;
        Ok(Supervisor { state, heard })
    }

    /// The signal that asked this process to stop, if one has come.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        lock(&self.state).stop
    }

    /// Interrupts the work in hand once `bound` has passed since the stop signal, be that here already or still to
    /// come: for the last work, after [`run`](Self::run).
    pub fn finish_within(&self, bound: Duration) {
        let mut state = lock(&self.state);
        state.bound = Some(bound);
        if let Some(stop) = state.stop {
            time_out(&self.state, stop, bound);
        }
    }

    /// True once the bound of [`finish_within`](Self::finish_within) has passed, and interrupted what was in hand.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        lock(&self.state).overdue
    }

    /// Runs a program with our standard streams to its end, and then ends what it leaves behind. Fails with
    /// [`Kind::Interrupted`], the program not started, where a signal has asked to stop before.
    pub fn run(&mut self, command: &[OsString], options: &Options) -> Result<Ended> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| Error::usage("there is no program to run").hint("name it after '--'"))?;
        self.begin()?;
        let ended = self.supervise(program, arguments, options);
        self.end();
        ended
    }

    fn begin(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if let Some(stop) = state.stop {
            return Err(Error::new(Kind::Interrupted, format!("stopped by {} before the start", name(stop.signal))));
        }
        interrupt::check()?;
        state.phase = Phase::Running;
        Ok(())
    }

    fn end(&self) {
        let mut state = lock(&self.state);
        state.phase = Phase::After;
        interrupt::clear();
        // What came at the very end was not passed on any more.
        for heard in self.heard.try_iter() {
            if let Heard::Signal(signal, at) = heard {
                after(&self.state, &mut state, signal, at);
            }
        }
    }

    fn supervise(&self, program: &OsString, arguments: &[OsString], options: &Options) -> Result<Ended> {
        let mut ended = Ended { code: 0, stopped: None, killed: false, not_started: None, orphans: Orphans::default() };
        // Whose parent has ended comes to us, to be reaped; as the first process of a container we get them anyway.
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!("processes that {} leaves behind will not be seen: {error}", shown(program));
        }
        if !family::can_be_seen() {
            tracing::warn!("there is no /proc: what {} leaves behind is neither reaped nor ended", shown(program));
        }
        let terminal = Terminal::ours();
        // A group of its own: a key on the terminal and a signal to our whole group (as 'timeout' and pipelines send it)
        // would otherwise reach CMD twice, once from there and once from us, and many programs give up on clearing up at
        // the second. In front of a terminal that group is lent the foreground, as shells do it: Ctrl-C then goes
        // to CMD alone, and we act when it has ended.
        let spawned = Command::new(program).args(arguments).process_group(0).spawn();
        let pid = match spawned {
            // Not waited for through `Child`: that cannot tell a stop from an end.
            Ok(child) => Pid::from_child(&child),
            Err(error) => {
                ended.code = match error.kind() {
                    io::ErrorKind::NotFound => NOT_FOUND,
                    _ => NOT_EXECUTABLE,
                };
                ended.not_started = Some(cannot_run(program, error));
                return Ok(ended);
            }
        };
        if let Some(terminal) = &terminal {
            terminal.lend(pid);
        }
        let status = self.watch(pid, program, terminal.as_ref(), options, &mut ended);
        if let Some(terminal) = &terminal {
            terminal.take_back(pid);
        }
        let status = status?;
        ended.code =
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1);
        ended.orphans = self.end_orphans(options);
        ended.stopped = self.stop();
        Ok(ended)
    }

    /// Waits for the program's end, and meanwhile passes on what is heard.
    fn watch(
        &self,
        pid: Pid,
        program: &OsString,
        terminal: Option<&Terminal>,
        options: &Options,
        ended: &mut Ended,
    ) -> Result<WaitStatus> {
        let mut deadline = None;
        let (mut frozen, mut asked) = (false, false);
        loop {
            lock(&self.state).child_told = false;
            match waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((_, status))) if status.stopped() => {
                    frozen = terminal.is_none();
                    if let Some(terminal) = terminal {
                        terminal.stopped(pid, status.stopping_signal());
                    }
                    continue;
                }
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::failed(format!("cannot wait for {}", shown(program))).because(error));
                }
            }
            // Who is stopped hears of the end only when told to go on. The stop may also be seen after the signal.
            if frozen && asked {
                let _ = kill_process_group(pid, Signal::CONT);
                frozen = false;
            }
            family::reap(Some(pid));
            match self.next(deadline) {
                Some(Heard::Child) => {}
                Some(Heard::Signal(signal, at)) => {
                    // To CMD only, not to its group: what a program does with its own children on a signal is
                    // its own affair, and without us the platform too would tell only the first process.
                    if let Err(error) = kill_process(pid, signal) {
                        tracing::warn!("cannot pass {} on to {}: {error}", name(signal), shown(program));
                    }
                    if signal == Signal::CONT {
                        frozen = false;
                        // A shell says so too when it puts us into the foreground ('fg' after 'bg').
                        if let Some(terminal) = terminal {
                            terminal.lend_again(pid);
                        }
                    }
                    if options.stop_signals.contains(&signal) {
                        let stop = *lock(&self.state).stop.get_or_insert(Stop { signal, at });
                        if !ended.killed {
                            deadline = Some(stop.at + options.grace);
                        }
                        asked = true;
                    }
                }
                None => {
                    tracing::warn!(
                        "{} has not ended within {:.1} s of the stop signal: killing it",
                        shown(program),
                        options.grace.as_secs_f64()
                    );
                    // It is not reaped, so its number is still the group's.
                    let _ = kill_process_group(pid, Signal::KILL);
                    (ended.killed, deadline) = (true, None);
                }
            }
        }
    }

    /// The next that is heard; none at the deadline.
    fn next(&self, deadline: Option<Instant>) -> Option<Heard> {
        let Some(deadline) = deadline else {
            return Some(self.heard.recv().expect("the state that `self` has keeps the other end open"));
        };
        self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Ends the processes that the program has left behind, and theirs: TERM, and KILL to what is there after the
    /// grace, or at once where a second stop signal comes.
    fn end_orphans(&self, options: &Options) -> Orphans {
        let (mut asked, mut killed): (Vec<Pid>, Vec<Pid>) = (Vec::new(), Vec::new());
        let mut patience = Instant::now() + options.orphan_grace;
        let left = loop {
            lock(&self.state).child_told = false;
            // Only our own children are signalled: their numbers cannot have gone to others meanwhile. When
            // one has ended, its children are ours.
            let living = family::reap(None);
            let now = Instant::now();
            if living.is_empty() || now > patience + DEATH {
                break living;
            }
            for pid in living {
                if now >= patience {
                    let _ = kill_process(pid, Signal::KILL);
                    if !killed.contains(&pid) {
                        killed.push(pid);
                    }
                } else if !asked.contains(&pid) {
                    let _ = kill_process(pid, Signal::TERM);
                    let _ = kill_process(pid, Signal::CONT);
                    asked.push(pid);
                }
            }
            if let Some(Heard::Signal(signal, at)) = self.next(Some(now + LOOK))
                && STOPS_AFTER.contains(&signal)
            {
                let mut state = lock(&self.state);
                match state.stop {
                    None => state.stop = Some(Stop { signal, at }),
                    Some(_) => patience = patience.min(at),
                }
            }
        };
        let found = asked.len() + killed.iter().filter(|pid| !asked.contains(pid)).count();
        Orphans { found, killed: killed.len(), left: left.into_iter().map(family::name).collect() }
    }
}

/// What a signal does, by the phase that it comes in.
fn hear(shared: &Arc<Mutex<State>>, heard: Heard) {
    let mut state = lock(shared);
    match (state.phase, heard) {
        (Phase::Running, Heard::Child) if state.child_told => {}
        (Phase::Running, heard) => {
            state.child_told |= heard == Heard::Child;
            // Nobody hears it only where the supervisor is gone.
            let _ = state.running.send(heard);
        }
        (Phase::Before, Heard::Signal(signal, at)) if STOPS_BEFORE.contains(&signal) => {
            if state.stop.is_some() {
                signal_hook::low_level::exit(Kind::Interrupted.exit_code().into());
            }
            state.stop = Some(Stop { signal, at });
            interrupt::request();
        }
        (Phase::After, Heard::Signal(signal, at)) => after(shared, &mut state, signal, at),
        (Phase::Before, _) | (Phase::After, Heard::Child) => {}
    }
}

/// What a signal does once the program has ended.
fn after(shared: &Arc<Mutex<State>>, state: &mut State, signal: Signal, at: Instant) {
    if !STOPS_AFTER.contains(&signal) {
        return;
    }
    if state.stop.is_none() {
        let stop = Stop { signal, at };
        state.stop = Some(stop);
        if let Some(bound) = state.bound {
            time_out(shared, stop, bound);
        }
    } else if state.urged {
        signal_hook::low_level::exit(Kind::Interrupted.exit_code().into());
    } else {
        state.urged = true;
        interrupt::request();
    }
}

/// Interrupts the work in hand when the time is over. The thread is never ended: the process soon is.
fn time_out(shared: &Arc<Mutex<State>>, stop: Stop, bound: Duration) {
    let shared = Arc::clone(shared);
    let started = thread::Builder::new().name("grace".to_owned()).spawn(move || {
        thread::sleep(stop.remaining(bound));
        lock(&shared).overdue = true;
        interrupt::request();
    });
    if let Err(error) = started {
        tracing::warn!("the last work is not bounded: cannot start a thread: {error}");
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A signal's name, for messages.
#[must_use]
pub fn name(signal: Signal) -> &'static str {
    signal_hook::low_level::signal_name(signal.as_raw()).unwrap_or("a signal")
}

fn shown(program: &OsString) -> String {
    one_line(&program.to_string_lossy())
}

fn cannot_run(program: &OsString, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => Some("give its whole path, or check PATH; a script needs its interpreter too"),
        io::ErrorKind::PermissionDenied => Some("it is a folder, or lacks the right to be executed (chmod +x)"),
        _ => None,
    };
    let told = Error::failed(format!("cannot run {}", shown(program))).because(error);
    if let Some(hint) = hint { told.hint(hint) } else { told }
}
