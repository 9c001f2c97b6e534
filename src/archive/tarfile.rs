//! Tar framing as the format defines it: paths, headers, padding.

use crate::platform::error::{Error, Result, one_line};

pub(super) const SECTOR: u64 = 512;
const NAME_BYTES: usize = 100;
const MAX_PATH_BYTES: usize = 4096;

/// The two empty sectors that end a tar file.
pub(super) const END: [u8; 2 * SECTOR as usize] = [0; 2 * SECTOR as usize];

/// Fails with [`Kind::Problem`](crate::platform::error::Kind::Problem) unless a path follows the format's rules: it is
/// relative, is not empty, has at most 4096 bytes, and has no part `.`, `..` or empty, no control character and no
/// backslash.
pub fn check_path(path: &str) -> Result<()> {
    let refuse = |reason: &str| Err(Error::problem(format!("the entry '{}' {reason}", one_line(path))));
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return refuse("has an empty path or a path that is too long");
    }
    if path.starts_with('/') {
        return refuse("has an absolute path");
    }
    if path.split('/').any(|part| part == "..") {
        return refuse("points outside its folder");
    }
    if path.split('/').any(|part| part.is_empty() || part == ".")
        || path.contains(['\0', '\\'])
        || path.chars().any(char::is_control)
    {
        return refuse("has a malformed path");
    }
    Ok(())
}

/// Returns the number of bytes of zero padding after `length` bytes of content.
pub(super) fn padding(length: u64) -> u64 {
    length.next_multiple_of(SECTOR) - length
}

/// Returns the length of the header (including the long-name record) of an entry with `path`.
pub(super) fn header_bytes(path: &str) -> u64 {
    if path.len() <= NAME_BYTES { SECTOR } else { 2 * SECTOR + (path.len() as u64 + 1).next_multiple_of(SECTOR) }
}

/// Returns the header of an entry, including the long-name record: all bytes that precede its content.
#[must_use]
pub fn header(path: &str, length: u64, mtime: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if path.len() > NAME_BYTES {
        bytes.extend_from_slice(&record("././@LongLink", 0, path.len() as u64 + 1, 0, tar::EntryType::GNULongName));
        bytes.extend_from_slice(path.as_bytes());
        bytes.resize(
            bytes.len().next_multiple_of(SECTOR as usize).max(bytes.len() + 1).next_multiple_of(SECTOR as usize),
            0,
        );
    }
    bytes.extend_from_slice(&record(path, 0o600, length, mtime, tar::EntryType::Regular));
    bytes
}

fn record(path: &str, mode: u32, length: u64, mtime: u64, kind: tar::EntryType) -> [u8; SECTOR as usize] {
    let mut header = tar::Header::new_gnu();
    let name = &path.as_bytes()[..path.len().min(NAME_BYTES)];
    header.as_gnu_mut().expect("made as GNU").name[..name.len()].copy_from_slice(name);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(length);
    header.set_mtime(mtime);
    header.set_entry_type(kind);
    header.as_gnu_mut().expect("made as GNU").dev_major = [0; 8];
    header.as_gnu_mut().expect("made as GNU").dev_minor = [0; 8];
    header.set_cksum();
    *header.as_bytes()
}

/// Describes how `found` differs from the header that the entry should have.
pub(super) fn explain(path: &str, found: &[u8]) -> String {
    let mut header = tar::Header::new_gnu();
    if let Some(sector) = found.get(..SECTOR as usize) {
        header.as_mut_bytes().copy_from_slice(sector);
    }
    let kind = header.entry_type();
    let name = one_line(&String::from_utf8_lossy(&header.path_bytes()));
    let difference = if kind.is_symlink() || kind.is_hard_link() {
        format!("'{name}' is a link")
    } else if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
        format!("'{name}' is a device")
    } else if kind.is_dir() {
        format!("'{name}' is a folder")
    } else if header.entry_size().is_err() || header.cksum().is_err() {
        "found no valid tar header".to_owned()
    } else if name.as_bytes() != path.as_bytes() && path.len() <= NAME_BYTES {
        format!("found the entry '{name}'")
    } else {
        "the fields of its tar header differ".to_owned()
    };
    format!("expected '{}', but {difference}", one_line(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_paths_are_refused() {
        for path in ["", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", "a\nb", "..\\x"] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        check_path("data/app.db").expect("good");
        check_path("data/..a").expect("good");
    }

    #[test]
    fn headers_are_what_tar_reads() {
        let content = b"hello";
        for path in [
            "data/app.db".to_owned(),
            format!("data/{}", "é".repeat(120)),
            "x".repeat(100),
            "x".repeat(101),
            "x".repeat(511),
            "x".repeat(512),
        ] {
            let mut bytes = header(&path, 5, 1_795_280_701);
            assert_eq!(bytes.len() as u64, header_bytes(&path), "{}", path.len());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + padding(5) as usize, 0);
            bytes.extend_from_slice(&END);
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut entries = archive.entries().expect("opens");
            let entry = entries.next().expect("one").expect("reads");
            assert_eq!(entry.path_bytes(), path.as_bytes());
            assert_eq!((entry.size(), entry.header().mtime().ok()), (5, Some(1_795_280_701)));
            assert!(entries.next().is_none());
        }
        // The length is binary from 8 GiB on.
        assert_eq!(
            tar::Header::from_byte_slice(header("x", 9 << 30, 0)[..].try_into().expect("one sector")).entry_size().ok(),
            Some(9 << 30)
        );
    }
}
