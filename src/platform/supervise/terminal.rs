//! The terminal that this process was started from: lent to CMD while it runs, so that its keys reach CMD alone.

use std::fs::{File, OpenOptions};

use nix::sys::signal::{SigSet, Signal as Name};
use rustix::process::{Pid, Signal, kill_current_process_group, kill_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use crate::platform::supervise::family::own_group;

/// A terminal whose foreground we are, or were until CMD got it.
pub(super) struct Terminal {
    tty: File,
    own: Pid,
}

impl Terminal {
    /// The terminal, where there is one and we are in its foreground; else it is not ours to lend.
    pub(super) fn ours() -> Option<Self> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let own = Pid::from_raw(own_group())?;
        let terminal = Terminal { tty, own };
        (terminal.in_front() == Some(own)).then_some(terminal)
    }

    /// Puts a process group into the foreground, and on its feet again if it was stopped for reading too early.
    pub(super) fn lend(&self, group: Pid) {
        if self.front(group) {
            let _ = kill_process_group(group, Signal::CONT);
        }
    }

    /// Puts us into the foreground again, if CMD still has it: a shell may have taken it for another.
    pub(super) fn take_back(&self, group: Pid) {
        if self.in_front() == Some(group) {
            self.front(self.own);
        }
    }

    /// Lends it where we are in the foreground, that is where a shell has put us there.
    pub(super) fn lend_again(&self, group: Pid) {
        if self.in_front() == Some(self.own) {
            self.lend(group);
        }
    }

    /// CMD was stopped by a signal: stops with it, so that the shell comes to the front, and goes on when the shell says so.
    pub(super) fn stopped(&self, group: Pid, signal: Option<i32>) {
        let for_the_terminal = [Signal::TTIN, Signal::TTOU].map(Signal::as_raw);
        if signal.is_some_and(|signal| for_the_terminal.contains(&signal))
            && [Some(self.own), Some(group)].contains(&self.in_front())
        {
            // It wanted the terminal before it had it, and it may have it.
            return self.lend(group);
        }
        self.take_back(group);
        // All of our group, as Ctrl-Z would: also the make or the script that we were started from.
        let _ = kill_current_process_group(Signal::STOP);
        self.lend_again(group);
        // In the background too: there it is stopped again when it reads.
        let _ = kill_process_group(group, Signal::CONT);
    }

    fn in_front(&self) -> Option<Pid> {
        tcgetpgrp(&self.tty).ok()
    }

    fn front(&self, group: Pid) -> bool {
        // Who does this from the background is stopped for it, unless the signal is blocked.
        let mut stopping = SigSet::empty();
        stopping.add(Name::SIGTTOU);
        let blocked = stopping.thread_block().is_ok();
        let done = tcsetpgrp(&self.tty, group);
        if blocked && let Err(error) = stopping.thread_unblock() {
            tracing::debug!("cannot unblock SIGTTOU: {error}");
        }
        if let Err(error) = &done {
            tracing::debug!("cannot hand the terminal over: {error}");
        }
        done.is_ok()
    }
}
