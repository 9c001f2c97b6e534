//! Other guards of the same source, as their leases show them: at work, ended, or killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::ops::host_name;
use crate::platform::error::one_line;
use crate::platform::text;
use crate::snapshots::guard_leases::{EXPIRES_AFTER, FoundLease, GuardState, ProcessMark};

/// The status of another guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is at work, as far as is known here.
    AtWork(GuardState),
    /// It has ended, and has not saved all.
    Unsaved,
    /// It was killed: its process is gone, or it no longer renews its lease.
    Killed,
}

impl Status {
    /// Determines the status of a guard. `now` is a time of the store's clock.
    pub(super) fn of(found: &FoundLease, now: SystemTime, own: &ProcessMark) -> Self {
        let is_expired = now.duration_since(found.renewed).is_ok_and(|age| age > EXPIRES_AFTER);
        match &found.lease {
            Ok(lease) if lease.state == GuardState::Unsaved => Status::Unsaved,
            // A process that is seen needs no lease: a clock may have jumped.
            Ok(lease) => match is_running(&lease.process, own) {
                Some(true) => Status::AtWork(lease.state),
                None if !is_expired => Status::AtWork(lease.state),
                Some(false) | None => Status::Killed,
            },
            Err(_) if is_expired => Status::Killed,
            // It may be the lease of a newer version.
            Err(_) => Status::AtWork(GuardState::Running),
        }
    }
}

/// Describes a guard for people: its machine and its start.
pub(super) fn described(found: &FoundLease) -> String {
    match &found.lease {
        Ok(lease) => {
            let host: String = one_line(&lease.process.node).chars().take(80).collect();
            format!("on {host} since {}", text::time(lease.started_at))
        }
        Err(error) => format!("({}, guard {})", one_line(&error.message), one_line(&found.id)),
    }
}

/// Returns true if a process certainly runs, and false if it certainly does not.
fn is_running(other: &ProcessMark, own: &ProcessMark) -> Option<bool> {
    let is_known = |text: &str| !text.is_empty();
    let is_same_kernel = is_known(&other.boot) && other.boot == own.boot;
    let is_same_namespace = is_known(&other.namespace) && other.namespace == own.namespace;
    if is_same_kernel && is_same_namespace {
        return is_running_here(other);
    }
    // The name of a container is that of no other one. It was started again, so its earlier processes are gone.
    let is_unique = host_name::is_generated(&other.node) && !other.node.starts_with("localhost");
    (other.node == own.node && is_unique).then_some(false)
}

/// Returns the mark of this process.
pub(super) fn own_process() -> ProcessMark {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let pid = rustix::process::getpid().as_raw_pid();
    ProcessMark {
        node: text("/proc/sys/kernel/hostname"),
        boot: text("/proc/sys/kernel/random/boot_id"),
        namespace: fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default(),
        pid,
        started: status(pid).map_or(0, |(_, started)| started),
    }
}

/// Returns a mark of a database file, which is equal for two guards only if both have the same file, as on a volume that
/// two containers share.
pub(super) fn file_mark(path: &Path) -> Option<String> {
    let facts = fs::metadata(path).ok()?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{} {} {}", boot.trim(), facts.dev(), facts.ino()))
}

/// Returns true if a process of our namespace certainly runs, and false if it has ended.
fn is_running_here(process: &ProcessMark) -> Option<bool> {
    let pid = Pid::from_raw(process.pid)?;
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return Some(false);
    }
    // The processes of other users may be hidden.
    status(process.pid).map(|(state, started)| state != "Z" && started == process.started)
}

/// Returns the state of a process, and the time at which it started, in ticks since the boot.
fn status(pid: i32) -> Option<(String, u64)> {
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
    let words: Vec<&str> = std::str::from_utf8(&line[after_name..]).ok()?.split_ascii_whitespace().collect();
    // The start is the 22nd field, and the first one after the name is the third.
    Some(((*words.first()?).to_owned(), words.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_or_is_gone_only_if_that_is_certain() {
        let own = own_process();
        assert!(own.started > 0 && !own.boot.is_empty() && own.namespace.starts_with("pid:"), "{own:?}");
        assert_eq!(is_running(&own, &own), Some(true));
        let reused = ProcessMark { started: own.started + 1, ..own.clone() };
        assert_eq!(is_running(&reused, &own), Some(false), "another process has the number now");
        let elsewhere = ProcessMark { namespace: "pid:[1]".to_owned(), node: "shop".to_owned(), pid: 1, ..own.clone() };
        let here = ProcessMark { node: "shop".to_owned(), ..own.clone() };
        assert_eq!(is_running(&elsewhere, &here), None, "two containers may have a name that a person gave");
        let before = ProcessMark { node: "0123456789ab".to_owned(), boot: "another".to_owned(), ..elsewhere };
        assert_eq!(is_running(&before, &ProcessMark { node: "0123456789ab".to_owned(), ..own }), Some(false));
        assert_eq!(is_running(&ProcessMark::default(), &ProcessMark::default()), None);
    }
}
