//! The child processes of this process, as `/proc` shows them.
//!
//! CMD gets a process group of its own, and its descendants are in that group or in others, but never in ours. So a
//! child in our own group was started by another part of this program, which waits for it itself: such children are
//! neither reaped nor ended here. System calls that wait for any child would reap them too, so none of them is used.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use crate::platform::error::one_line;

/// The fields of `/proc/PID/stat` that are used.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    state: u8,
    parent: i32,
    group: i32,
}

/// Parses a line of `/proc/PID/stat`: `PID (NAME) STATE PARENT GROUP ...`, where the name may contain any bytes.
fn parse(line: &[u8]) -> Option<Status> {
    let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
    let mut words = std::str::from_utf8(&line[after_name..]).ok()?.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    Some(Status { state, parent: words.next()?.parse().ok()?, group: words.next()?.parse().ok()? })
}

fn status(process: &str) -> Option<Status> {
    parse(&fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// Returns true if `/proc` is available. Without it, child processes cannot be found.
pub(super) fn is_available() -> bool {
    status("self").is_some()
}

/// Returns our own process group, or 0 if it is outside of the PID namespace of this process.
pub(super) fn own_group() -> i32 {
    // Not getpgrp: the first process of a namespace may be in a group that has no number in the namespace.
    status("self").map_or(0, |own| own.group)
}

/// Reaps the children that have ended, except `excluded` and those in our own group. Returns the children that still
/// run.
pub(super) fn reap(excluded: Option<Pid>) -> Vec<Pid> {
    let (own, group) = (getpid().as_raw_pid(), own_group());
    let mut living = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        let Some(process) = status(&pid.as_raw_pid().to_string()) else { continue };
        if process.parent != own || process.group == group || Some(pid) == excluded {
            continue;
        }
        // A PID is not reused before its process is reaped, and only this thread reaps: it is still the same process.
        if process.state != b'Z' {
            living.push(pid);
        } else if let Err(error) = waitpid(Some(pid), WaitOptions::NOHANG) {
            tracing::debug!("cannot reap process {}: {error}", pid.as_raw_pid());
        }
    }
    living
}

/// Returns the processes that CMD has left behind and that still run: our children outside of our own group, and all
/// their descendants.
pub(super) fn left_behind() -> Vec<Pid> {
    let (own, group) = (getpid().as_raw_pid(), own_group());
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(process) = status(&pid.to_string()) else { continue };
        let is_other_part = process.parent == own && process.group == group;
        if process.state != b'Z' && !is_other_part {
            children.entry(process.parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&own).unwrap_or_default();
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// Returns the PID and name of a process, for messages.
pub(super) fn name(pid: Pid) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid())).unwrap_or_default();
    one_line(&format!("{} ({})", pid.as_raw_pid(), name.trim_end()))
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
