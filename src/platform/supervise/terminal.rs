//! The controlling terminal: CMD gets its foreground while it runs, so that keys reach CMD alone.

use std::fs::{File, OpenOptions};

use nix::sys::signal::{SigSet, Signal as Name};
use rustix::process::{Pid, Signal, kill_current_process_group, kill_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use crate::platform::supervise::family::own_group;

/// A terminal whose foreground group we are, or were until CMD got the foreground.
pub(super) struct Terminal {
    tty: File,
    own: Pid,
}

impl Terminal {
    /// Returns the controlling terminal, or `None` if there is none or we are not in its foreground.
    pub(super) fn ours() -> Option<Self> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let own = Pid::from_raw(own_group())?;
        let terminal = Terminal { tty, own };
        (terminal.foreground() == Some(own)).then_some(terminal)
    }

    /// Puts a process group into the foreground. The group is not continued: it may run already, and a CONT that comes late
    /// would undo a Ctrl-Z. If it was stopped for reading too early, [`stopped`](Self::stopped) continues it.
    pub(super) fn give_foreground(&self, group: Pid) {
        self.set_foreground(group);
    }

    /// Puts us back into the foreground if CMD is still there: a shell may have given it to another group.
    pub(super) fn take_foreground(&self, group: Pid) {
        if self.foreground() == Some(group) {
            self.set_foreground(self.own);
        }
    }

    /// Puts a process group into the foreground if we are there, that is, if a shell has put us there.
    pub(super) fn give_foreground_if_ours(&self, group: Pid) {
        if self.foreground() == Some(self.own) {
            self.give_foreground(group);
        }
    }

    /// Handles a stop of CMD by a signal: stops our group too, so that the shell gets the foreground, and continues CMD
    /// when the shell continues us.
    pub(super) fn stopped(&self, group: Pid, signal: Option<i32>) {
        let for_the_terminal = [Signal::TTIN, Signal::TTOU].map(Signal::as_raw);
        if signal.is_some_and(|signal| for_the_terminal.contains(&signal))
            && [Some(self.own), Some(group)].contains(&self.foreground())
        {
            // It used the terminal before it had the foreground, which it may have.
            self.give_foreground(group);
            let _ = kill_process_group(group, Signal::CONT);
            return;
        }
        self.take_foreground(group);
        // The whole group, as Ctrl-Z would: this includes a make or a script that started us.
        let _ = kill_current_process_group(Signal::STOP);
        self.give_foreground_if_ours(group);
        // Only now, and only once: CMD does nothing before. It is continued in the background too; there it is stopped
        // again when it reads.
        let _ = kill_process_group(group, Signal::CONT);
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.tty).ok()
    }

    fn set_foreground(&self, group: Pid) -> bool {
        // A background process that does this is stopped by SIGTTOU, unless the signal is blocked.
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
