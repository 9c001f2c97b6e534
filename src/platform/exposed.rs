//! Files with secrets that other users can read, and files that decide what is done and that other users can change.
//!
//! The rules are those of ssh and libpq, but for files whose mode nobody here can change: those of a mount that is
//! read-only, and those that Docker, Podman or Kubernetes put in `/run/secrets` (mode 0444), where a warning could not be
//! acted upon. The same holds for a file of another user that only can be read, unless this process is root.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::StatVfsMountFlags;

use crate::platform::disk::shown;
use crate::platform::shell::quote_path;

/// The folders in which container engines mount secrets.
const MOUNTED_SECRETS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A key or a passphrase, which is nobody else's.
    Key,
    /// Secrets among other things, which a group may share.
    Secrets,
    /// No secrets, but whoever can change it decides what is done.
    Instructions,
}

/// The messages about the files that were found, by path.
static FOUND: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// Warns, once in each process, if other users can read or change a file. `what` names its kind.
pub(crate) fn warn(path: &Path, what: &str, content: Content) {
    let Ok(facts) = fs::metadata(path) else { return };
    let Some(message) = message(path, what, content, &facts) else { return };
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if found.insert(path.to_owned(), message.clone()).is_none() {
        tracing::warn!("{message}");
    }
}

/// Returns the messages about all files that were found in this process.
pub(crate) fn found() -> Vec<String> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

fn message(path: &Path, what: &str, content: Content, facts: &Metadata) -> Option<String> {
    // Not a pipe, such as <(pass show backup): only its own processes can read it.
    if !facts.is_file() || is_mounted_secret(path) {
        return None;
    }
    let user = rustix::process::geteuid();
    let (read, write) = bits(content, facts.mode(), facts.uid(), facts.gid());
    let may_change_mode = user.is_root() || facts.uid() == user.as_raw();
    let (verb, bits) = match (write, read) {
        (0, 0) => return None,
        (0, _) if !may_change_mode => return None,
        (0, read) => ("read", read),
        (write, read) => ("changed", write | read),
    };
    let mode = facts.mode() & 0o777;
    let word = quote_path(path);
    let command = match content {
        Content::Key => format!("chmod 600 {word}"),
        _ => format!("chmod {:o} {word}", mode & !bits),
    };
    Some(format!("the {what} {} can be {verb} by other users (mode {mode:04o}): run '{command}'", shown(path)))
}

/// Returns the permission bits that give others too much: those for reading, and those for writing.
fn bits(content: Content, mode: u32, owner: u32, group: u32) -> (u32, u32) {
    // On most systems, each user has a group with the same number.
    let own_group = if owner == group { 0 } else { 0o020 };
    match content {
        Content::Key => (mode & 0o044, mode & 0o022),
        Content::Secrets => (mode & 0o004, mode & (0o002 | own_group)),
        Content::Instructions => (0, mode & (0o002 | own_group)),
    }
}

/// Returns true if nobody here can change the mode of a file: its mount is read-only, or a container engine has put it there.
pub(crate) fn is_mounted_secret(path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_in = |folder: &&str| real.starts_with(folder) || path.starts_with(folder);
    let is_read_only = rustix::fs::statvfs(&real).is_ok_and(|state| state.f_flag.contains(StatVfsMountFlags::RDONLY));
    is_read_only || MOUNTED_SECRETS.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_of_others_and_of_another_group_are_found() {
        for (content, mode, owner, group, expected) in [
            (Content::Secrets, 0o600, 1000, 1000, (0, 0)),
            (Content::Secrets, 0o640, 1000, 33, (0, 0)),
            (Content::Secrets, 0o644, 1000, 1000, (0o004, 0)),
            (Content::Secrets, 0o664, 1000, 1000, (0o004, 0)),
            (Content::Secrets, 0o660, 1000, 33, (0, 0o020)),
            (Content::Key, 0o640, 1000, 1000, (0o040, 0)),
            (Content::Key, 0o606, 0, 0, (0o004, 0o002)),
            (Content::Instructions, 0o644, 1000, 33, (0, 0)),
            (Content::Instructions, 0o666, 1000, 1000, (0, 0o002)),
        ] {
            assert_eq!(bits(content, mode, owner, group), expected, "{content:?} {mode:o} {owner} {group}");
        }
    }
}
