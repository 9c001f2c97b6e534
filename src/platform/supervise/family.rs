//! The processes that hang on this one, as `/proc` shows them.
//!
//! CMD gets a process group of its own, and what it starts is in that one or in others, but never in ours. So what
//! hangs on this process and is in our own group was started by another part of this program, which waits for it
//! itself: it is neither reaped nor ended here. As the system calls that wait for "any child" would take those too,
//! none is used.

use std::fs;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};

/// What is asked of `/proc` about a process.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    state: u8,
    parent: i32,
    group: i32,
}

/// Reads a line of `/proc/PID/stat`: `PID (NAME) STATE PARENT GROUP ...`, where the name may hold anything.
fn parse(line: &[u8]) -> Option<Status> {
    let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
    let mut words = std::str::from_utf8(&line[after_name..]).ok()?.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    Some(Status { state, parent: words.next()?.parse().ok()?, group: words.next()?.parse().ok()? })
}

fn status(process: &str) -> Option<Status> {
    parse(&fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// False where there is no `/proc`: then nothing hangs on us, as far as can be seen.
pub(super) fn can_be_seen() -> bool {
    status("self").is_some()
}

/// Our own process group; 0 where it lies outside of what this process can see.
pub(super) fn own_group() -> i32 {
    // Not getpgrp: as the first process of a namespace we may be in a group that has no number here.
    status("self").map_or(0, |own| own.group)
}

/// Reaps the children that have ended, but for `spared` and for those in our own group; the ones that live.
pub(super) fn reap(spared: Option<Pid>) -> Vec<Pid> {
    let (own, group) = (getpid().as_raw_pid(), own_group());
    let mut living = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        let Some(process) = status(&pid.as_raw_pid().to_string()) else { continue };
        if process.parent != own || process.group == group || Some(pid) == spared {
            continue;
        }
        // A child's number is not given away before it is reaped, and only this thread reaps: it is still the same.
        if process.state != b'Z' {
            living.push(pid);
        } else if let Err(error) = waitpid(Some(pid), WaitOptions::NOHANG) {
            tracing::debug!("cannot reap process {}: {error}", pid.as_raw_pid());
        }
    }
    living
}

/// The name that a process goes by, for messages.
pub(super) fn name(pid: Pid) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid())).unwrap_or_default();
    format!("{} ({})", pid.as_raw_pid(), name.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let status = Status { state: b'Z', parent: 7, group: 12 };
        assert_eq!(parse(b"31 (sh) Z 7 12 12 0 -1"), Some(status));
        let status = Status { state: b'S', parent: 1, group: 0 };
        assert_eq!(parse(b"31 (a) Z 7 9 (\xff\n) S 1 0 0 0 -1"), Some(status));
        assert_eq!(parse(b"31 (sh"), None);
        assert_eq!(parse(b""), None);
    }
}
