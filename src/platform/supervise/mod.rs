//! Runs another program in the foreground, as a container's entry point does: forwards signals, reaps orphaned
//! processes, and kills processes that exceed their grace time.
//!
//! There are three phases, and the meaning of a signal depends on the phase:
//! - **before** the program runs (checks, a restore): the first stop signal asks the current operation to stop
//!   (`interrupt`), a second one ends the process at once; signals for the program are dropped, because it does not run
//!   yet;
//! - **while** it runs: every signal is forwarded to the program, and nothing here is interrupted;
//! - **after** it has ended (the last snapshot): the first stop signal, if none came before, is only noted; the next
//!   one interrupts the current operation, and another one ends the process at once.

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
use crate::platform::{home_variable, interrupt};
use terminal::Terminal;

/// The signals to forward to the child while it runs. STOP and KILL cannot be caught.
const FORWARDED: [Signal; 9] = [
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

/// The stop signals before the program has started.
const STOP_SIGNALS_BEFORE: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// The stop signals after the program has ended. HUP is not among them: a terminal that closes does not stop the work.
const STOP_SIGNALS_AFTER: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::QUIT];

/// The exit codes of shells for a program that cannot be executed, and for one that is not found.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// The interval at which the remaining processes are checked for new orphans, because no signal reports these.
const ORPHAN_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The time to wait for a killed process to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The options for running a program.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time between a stop signal and the kill of a program that has not ended.
    pub grace: Duration,
    /// The time that orphaned processes have to end before they are killed.
    pub orphan_grace: Duration,
    /// The signals that start the grace time. Other signals are forwarded too but do not start it: QUIT asks a JVM for
    /// a thread dump, HUP asks a server to reload its configuration.
    pub stop_signals: Vec<Signal>,
}

impl Default for Options {
    fn default() -> Self {
        // Docker waits 10 seconds in all, and the last snapshot needs some of them.
        Options {
            grace: Duration::from_secs(5),
            orphan_grace: Duration::from_secs(1),
            stop_signals: vec![Signal::TERM, Signal::INT],
        }
    }
}

/// The signal that asked this process to stop, and its time, at which the platform's grace time starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The signal.
    pub signal: Signal,
    /// The time at which it was received.
    pub at: Instant,
}

impl Stop {
    /// Returns the rest of a grace time that starts with the signal; zero after its end.
    #[must_use]
    pub fn remaining(&self, grace: Duration) -> Duration {
        grace.saturating_sub(self.at.elapsed())
    }
}

/// The processes that the program left behind when it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// The number of such processes.
    pub found: usize,
    /// The number of processes among them that had to be killed.
    pub killed: usize,
    /// The PIDs and names of the processes that still run. They may still write to their open files.
    pub left: Vec<String>,
}

/// The result of running a program.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, as shells report it: 128 + N if signal N ended it, 127 if it was not found, 126 if it cannot be
    /// executed.
    pub code: i32,
    /// The first stop signal that came while it ran, if any.
    pub stopped: Option<Stop>,
    /// True if it did not end within the grace time and was killed.
    pub killed: bool,
    /// The reason why it was not started, if so: `code` is then 126 or 127.
    pub not_started: Option<Error>,
    /// The time from its start to its end.
    pub ran: Duration,
    /// The processes that it left behind.
    pub orphans: Orphans,
}

/// Receives this process's signals, from [`listen`](Self::listen) to the end of the process.
pub struct Supervisor {
    state: Arc<Mutex<State>>,
    events: Receiver<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A child has ended, stopped or continued.
    Child,
    /// A signal to forward.
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
    /// True if a further stop signal after `stop` has interrupted the last operation.
    interrupted: bool,
    /// The time after `stop` within which the last operation must end.
    time_limit: Option<Duration>,
    overdue: bool,
    /// True if an [`Event::Child`] is already queued for the supervisor: further ones would add nothing.
    child_event_queued: bool,
    running: Sender<Event>,
}

impl Supervisor {
    /// Starts to receive signals. Call once and early, instead of [`interrupt::listen`].
    pub fn listen() -> Result<Self> {
        let ignored = interrupt::ignored_signals();
        // A signal that was ignored at the start (with nohup, for example) stays ignored, also for the program.
        let forwarded = FORWARDED.iter().map(|signal| signal.as_raw());
        let received = forwarded.filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = Signals::new(received.chain([Signal::CHILD.as_raw()]))
            .map_err(|error| Error::failed("cannot listen for signals").because(error))?;
        let (running, events) = channel();
        let state = State {
            phase: Phase::Before,
            stop: None,
            interrupted: false,
            time_limit: None,
            overdue: false,
            child_event_queued: false,
            running,
        };
        let state = Arc::new(Mutex::new(state));
        let listener = Arc::clone(&state);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let known = FORWARDED.iter().find(|known| known.as_raw() == signal);
                    handle(&listener, known.map_or(Event::Child, |signal| Event::Signal(*signal, Instant::now())));
                }
            })
            .map_err(|error| Error::failed("cannot start a thread for signals").because(error))?;
        Ok(Supervisor { state, events })
    }

    /// Returns the signal that asked this process to stop, if one has come.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        lock(&self.state).stop
    }

    /// Interrupts the current operation when `time_limit` has passed since the stop signal, which may already have come
    /// or come later. For the last operation, after [`run`](Self::run).
    pub fn finish_within(&self, time_limit: Duration) {
        let mut state = lock(&self.state);
        state.time_limit = Some(time_limit);
        if let Some(stop) = state.stop {
            time_out(&self.state, stop, time_limit);
        }
    }

    /// Runs `wait` after the program has ended, which waits for another thread to stop its work. The work is asked to
    /// stop, as after a signal; a real signal meanwhile still stops the operations after it.
    pub fn stop_work(&self, wait: impl FnOnce()) {
        interrupt::request();
        wait();
        let state = lock(&self.state);
        if !state.interrupted && !state.overdue {
            interrupt::clear();
        }
    }

    /// Returns true after the time limit of [`finish_within`](Self::finish_within) has passed and interrupted the
    /// operation.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        lock(&self.state).overdue
    }

    /// Runs a program with our standard streams until it ends, and then ends the processes that it leaves behind. Fails
    /// with [`Kind::Interrupted`] and does not start the program if a signal has asked to stop before.
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
        // Signals that came at the very end were no longer forwarded.
        for event in self.events.try_iter() {
            if let Event::Signal(signal, at) = event {
                after(&self.state, &mut state, signal, at);
            }
        }
    }

    fn supervise(&self, program: &OsString, arguments: &[OsString], options: &Options) -> Result<Ended> {
        let mut ended = Ended {
            code: 0,
            stopped: None,
            killed: false,
            not_started: None,
            ran: Duration::ZERO,
            orphans: Orphans::default(),
        };
        // Orphaned descendants become our children, to be reaped; the first process of a container gets them anyway.
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!("cannot adopt the processes that {} leaves behind: {error}", shown(program));
        }
        if !family::is_available() {
            tracing::warn!(
                "/proc is not available: processes that {} leaves behind are neither reaped nor ended",
                shown(program)
            );
        }
        let terminal = Terminal::ours();
        let clock = Instant::now();
        // A process group of its own: otherwise a key on the terminal or a signal to our whole group (as 'timeout' and
        // pipelines send it) would reach CMD twice, once directly and once from us, and many programs abort their
        // cleanup at the second signal. If we have a terminal, CMD's group becomes its foreground group, as in shells:
        // Ctrl-C then reaches CMD alone, and we act when it has ended.
        let mut command = Command::new(program);
        for name in home_variable::added() {
            command.env_remove(name);
        }
        let spawned = command.args(arguments).process_group(0).spawn();
        let pid = match spawned {
            // Not waited for through `Child`, which cannot distinguish a stop from an end.
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
            terminal.give_foreground(pid);
        }
        let status = self.watch(pid, program, terminal.as_ref(), options, &mut ended);
        if let Some(terminal) = &terminal {
            terminal.take_foreground(pid);
        }
        let status = status?;
        ended.code =
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1);
        ended.ran = clock.elapsed();
        ended.stopped = self.stop();
        log_end(program, &ended);
        ended.orphans = self.end_orphans(options);
        // A signal may have come while the remaining processes were ended.
        ended.stopped = self.stop();
        Ok(ended)
    }

    /// Waits for the program's end, and forwards signals meanwhile.
    fn watch(
        &self,
        pid: Pid,
        program: &OsString,
        terminal: Option<&Terminal>,
        options: &Options,
        ended: &mut Ended,
    ) -> Result<WaitStatus> {
        let mut deadline = None;
        let (mut is_stopped, mut stop_requested) = (false, false);
        loop {
            lock(&self.state).child_event_queued = false;
            match waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((_, status))) if status.stopped() => {
                    is_stopped = terminal.is_none();
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
            // A stopped process handles the stop signal only after CONT. The stop may also be seen after the signal.
            if is_stopped && stop_requested {
                let _ = kill_process_group(pid, Signal::CONT);
                is_stopped = false;
            }
            family::reap(Some(pid));
            match self.next(deadline) {
                Some(Event::Child) => {}
                // With a terminal, CMD is stopped only together with us, and was continued together with us. A CONT that
                // comes late would undo a new Ctrl-Z. A shell also sends it when it puts us into the foreground ('fg'
                // after 'bg').
                Some(Event::Signal(Signal::CONT, _)) if let Some(terminal) = terminal => {
                    terminal.give_foreground_if_ours(pid);
                }
                Some(Event::Signal(signal, at)) => {
                    // To CMD only, not to its group: CMD decides what to do with its own children on a signal, and
                    // without us the platform would signal only the first process, too.
                    if let Err(error) = kill_process(pid, signal) {
                        tracing::warn!("cannot forward {} to {}: {error}", name(signal), shown(program));
                    }
                    if signal == Signal::CONT {
                        is_stopped = false;
                    }
                    if options.stop_signals.contains(&signal) {
                        let stop = *lock(&self.state).stop.get_or_insert(Stop { signal, at });
                        if !ended.killed {
                            deadline = Some(stop.at + options.grace);
                        }
                        stop_requested = true;
                    }
                }
                None => {
                    tracing::warn!(
                        "{} has not ended within {:.1} s of the stop signal: killing it",
                        shown(program),
                        options.grace.as_secs_f64()
                    );
                    // It is not reaped yet, so its PID is still the group's ID.
                    let _ = kill_process_group(pid, Signal::KILL);
                    (ended.killed, deadline) = (true, None);
                }
            }
        }
    }

    /// Returns the next event, or `None` at the deadline.
    fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else {
            return Some(self.events.recv().expect("the state that `self` has keeps the other end open"));
        };
        self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Ends the processes that the program has left behind, and their descendants. Sends TERM first, and KILL to
    /// processes that still run after the grace time, or at once if a second stop signal comes.
    fn end_orphans(&self, options: &Options) -> Orphans {
        let (mut terminated, mut killed): (Vec<Pid>, Vec<Pid>) = (Vec::new(), Vec::new());
        let mut kill_at = Instant::now() + options.orphan_grace;
        let left = loop {
            lock(&self.state).child_event_queued = false;
            // Only our own children are signalled: their PIDs cannot have been reused meanwhile. When a child has
            // ended, its children become ours.
            let living = family::reap(None);
            let now = Instant::now();
            if living.is_empty() || now > kill_at + KILL_TIMEOUT {
                break living;
            }
            for pid in living {
                if now >= kill_at {
                    let _ = kill_process(pid, Signal::KILL);
                    if !killed.contains(&pid) {
                        killed.push(pid);
                    }
                } else if !terminated.contains(&pid) {
                    let _ = kill_process(pid, Signal::TERM);
                    let _ = kill_process(pid, Signal::CONT);
                    terminated.push(pid);
                }
            }
            if let Some(Event::Signal(signal, at)) = self.next(Some(now + ORPHAN_CHECK_INTERVAL))
                && STOP_SIGNALS_AFTER.contains(&signal)
            {
                let mut state = lock(&self.state);
                match state.stop {
                    None => state.stop = Some(Stop { signal, at }),
                    Some(_) => kill_at = kill_at.min(at),
                }
            }
        };
        let found = terminated.len() + killed.iter().filter(|pid| !terminated.contains(pid)).count();
        Orphans { found, killed: killed.len(), left: left.into_iter().map(family::name).collect() }
    }
}

/// The number of processes that a message names.
const MOST_NAMED: usize = 5;

/// Logs that the program has ended and why, and names the processes that it has left behind, before they are ended.
fn log_end(program: &OsString, ended: &Ended) {
    let (program, code) = (shown(program), ended.code);
    let reason = match ended.stopped {
        Some(stop) => format!("after {}", name(stop.signal)),
        None => "by itself".to_owned(),
    };
    tracing::debug!("{program} ended {reason}, with exit code {code}");
    let left = family::left_behind();
    if left.is_empty() {
        return;
    }
    let mut names: Vec<String> = left.iter().take(MOST_NAMED).map(|pid| family::name(*pid)).collect();
    if left.len() > MOST_NAMED {
        names.push(format!("and {} more", left.len() - MOST_NAMED));
    }
    let count = if left.len() == 1 { "1 process".to_owned() } else { format!("{} processes", left.len()) };
    let names = names.join(", ");
    match ended.stopped {
        Some(_) => tracing::info!("{program} left {count} behind, which are ended now: {names}"),
        None => tracing::warn!(
            "{program} ended by itself with exit code {code}, and left {count} in the background, which are ended now, \
             because the container stops when this program ends: {names}; run the server in the foreground, without a \
             daemon option or '&'"
        ),
    }
}

/// Handles a signal according to the phase in which it comes.
fn handle(shared: &Arc<Mutex<State>>, event: Event) {
    let mut state = lock(shared);
    match (state.phase, event) {
        (Phase::Running, Event::Child) if state.child_event_queued => {}
        (Phase::Running, event) => {
            state.child_event_queued |= event == Event::Child;
            // Sending fails only if the supervisor is gone.
            let _ = state.running.send(event);
        }
        (Phase::Before, Event::Signal(signal, at)) if STOP_SIGNALS_BEFORE.contains(&signal) => {
            if state.stop.is_some() {
                signal_hook::low_level::exit(Kind::Interrupted.exit_code().into());
            }
            state.stop = Some(Stop { signal, at });
            interrupt::request();
        }
        (Phase::After, Event::Signal(signal, at)) => after(shared, &mut state, signal, at),
        (Phase::Before, _) | (Phase::After, Event::Child) => {}
    }
}

/// Handles a signal that comes after the program has ended.
fn after(shared: &Arc<Mutex<State>>, state: &mut State, signal: Signal, at: Instant) {
    if !STOP_SIGNALS_AFTER.contains(&signal) {
        return;
    }
    if state.stop.is_none() {
        let stop = Stop { signal, at };
        state.stop = Some(stop);
        if let Some(time_limit) = state.time_limit {
            time_out(shared, stop, time_limit);
        }
    } else if state.interrupted {
        signal_hook::low_level::exit(Kind::Interrupted.exit_code().into());
    } else {
        state.interrupted = true;
        interrupt::request();
    }
}

/// Interrupts the current operation when the time is over. The thread is not stopped, because the process ends soon.
fn time_out(shared: &Arc<Mutex<State>>, stop: Stop, time_limit: Duration) {
    let shared = Arc::clone(shared);
    let started = thread::Builder::new().name("grace".to_owned()).spawn(move || {
        thread::sleep(stop.remaining(time_limit));
        let mut state = lock(&shared);
        state.overdue = true;
        interrupt::request();
    });
    if let Err(error) = started {
        tracing::warn!("cannot start a thread, so the last operation has no time limit: {error}");
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a signal's name, for messages.
#[must_use]
pub fn name(signal: Signal) -> &'static str {
    signal_hook::low_level::signal_name(signal.as_raw()).unwrap_or("a signal")
}

fn shown(program: &OsString) -> String {
    one_line(&program.to_string_lossy())
}

fn cannot_run(program: &OsString, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => Some("give its full path, or check PATH; a script needs its interpreter too"),
        io::ErrorKind::PermissionDenied => Some("it is a folder, or it is not executable (chmod +x)"),
        _ => None,
    };
    let failure = Error::failed(format!("cannot run {}", shown(program))).because(error);
    if let Some(hint) = hint { failure.hint(hint) } else { failure }
}
