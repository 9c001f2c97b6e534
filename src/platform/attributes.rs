//! The owner, the permission bits and the extended attributes of a file. They are read without opening the file, and
//! are set through a descriptor: whoever can rename files in the folder of a path cannot make root change another file.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::platform::disk::{open_plain, or_here, shown};
use crate::platform::error::{IoContext, Kind, Result, one_line};
use crate::platform::node::Node;
use crate::platform::{place, restored};

/// The attribute that holds the access control list of a file.
const ACL: &str = "system.posix_acl_access";

/// The attribute that holds the access control list of a file on NFS 4.
const NFS_ACL: &str = "system.nfs4_acl";

/// The attribute that holds the SELinux context of a file.
const SELINUX: &str = "security.selinux";

/// The greatest number of bytes of all attributes of a file that are kept.
const MAX_BYTES: usize = 64 << 10;

/// The tag of the owning group and the tag of the mask in an access control list (`acl(5)`).
const ACL_GROUP: u16 = 0x04;
const ACL_MASK: u16 = 0x10;

/// The user and the group that a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// Returns the owner that `stat` reports.
    pub(crate) fn of(facts: &fs::Metadata) -> Self {
        Owner { uid: facts.uid(), gid: facts.gid() }
    }
}

/// Formats the owner as an argument of `chown`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The group of an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// An access control list, which names users and groups of its machine.
    Acl,
    /// The SELinux context, which depends on the path.
    Selinux,
    /// An attribute that a user has set.
    User,
}

/// Returns the group of an extended attribute; `None` if it is not kept. Capabilities are never kept.
pub(crate) fn group_of(name: &str) -> Option<Group> {
    match name {
        ACL | NFS_ACL => Some(Group::Acl),
        SELINUX => Some(Group::Selinux),
        _ if name.starts_with("user.") => Some(Group::User),
        _ => None,
    }
}

/// The extended attributes of a file by name.
pub(crate) type Extended = BTreeMap<String, Vec<u8>>;

/// Reads the extended attributes of a file that are kept, without opening it or following a link. Also returns the
/// names of those that cannot be kept, with the reason.
pub(crate) fn read_extended(path: &Path) -> io::Result<(Extended, Vec<String>)> {
    let (mut extended, mut left_out) = (Extended::new(), Vec::new());
    let mut names = vec![0u8; MAX_BYTES];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok((extended, left_out)),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = 0;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(text) = std::str::from_utf8(name) else {
            left_out.push(format!("{}: its name is not UTF-8", one_line(&String::from_utf8_lossy(name))));
            continue;
        };
        if group_of(text).is_none() || text == restored::ATTRIBUTE {
            continue;
        }
        let mut value = vec![0u8; MAX_BYTES];
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value) {
            Ok(length) if bytes + length <= MAX_BYTES => {
                bytes += length;
                value.truncate(length);
                extended.insert(text.to_owned(), value);
            }
            Ok(_) | Err(Errno::RANGE) => left_out.push(format!("{}: it is too long", one_line(text))),
            // It was removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => left_out.push(format!("{}: {}", one_line(text), io::Error::from(error))),
        }
    }
    Ok((extended, left_out))
}

/// The attributes that an open file is to get.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The owner; `None` if the file keeps the owner that it has.
    pub owner: Option<Owner>,
    /// The permission bits. Other bits, such as set-user-ID, are never set.
    pub mode: u32,
    /// The extended attributes.
    pub extended: Extended,
    /// True if an access control list that the file has from its folder is removed, unless `extended` has another.
    pub is_exact: bool,
}

/// The attributes that could not be set, each with the reason.
#[derive(Debug, Default)]
pub(crate) struct NotSet {
    /// The reason why the file has another owner than the one wanted.
    pub owner: Option<io::Error>,
    /// Descriptions of the other attributes.
    pub rest: Vec<String>,
}

/// Sets the attributes of a file as far as this process may, and syncs them. The owner is set last, because only the
/// owner of a file may set the rest.
pub(crate) fn set(file: &impl Node, wanted: &Wanted) -> io::Result<NotSet> {
    let mut not_set = NotSet::default();
    let mut fail = |what: &str, error: io::Error| not_set.rest.push(format!("{what}: {error}"));
    if wanted.is_exact && !wanted.extended.contains_key(ACL) {
        match file.remove_attribute(ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => fail("the access control list of the folder", error.into()),
        }
    }
    let mut mode = wanted.mode & 0o777;
    if file.facts()?.mode() & 0o7777 != mode
        && let Err(error) = file.set_mode(mode)
    {
        fail("the mode", error);
    }
    for (name, value) in &wanted.extended {
        let Some(group) = group_of(name) else { continue };
        let Err(error) = file.set_attribute(name, value) else { continue };
        match group {
            Group::Acl => fail("the access control list", error.into()),
            Group::Selinux => fail("the SELinux context", error.into()),
            Group::User => fail(&format!("the attribute {}", one_line(name)), error.into()),
        }
        // With a list, the bits of the group are the most that anyone in the list may do. Without it, they would be
        // rights of the group.
        if name == ACL
            && let Some(group) = group_bits(value)
        {
            mode = mode & 0o707 | group << 3;
            let _ = file.set_mode(mode);
        }
    }
    if let Some(owner) = wanted.owner
        && Owner::of(&file.facts()?) != owner
    {
        let (user, group) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        if let Err(error) = file.set_owner(Some(user), group) {
            // A user may give a file to another of the own groups.
            let _ = file.set_owner(None, group);
            not_set.owner = Some(error.into());
        }
    }
    file.sync()?;
    if not_set.owner.is_some() && wanted.owner == Some(Owner::of(&file.facts()?)) {
        not_set.owner = None;
    }
    Ok(not_set)
}

/// Returns the rights of the owning group in an access control list; `None` if the list is not in the known form.
fn group_bits(acl: &[u8]) -> Option<u32> {
    // A version, then a tag, the rights and an id for each entry (linux/posix_acl_xattr.h).
    let entries = acl.strip_prefix(&2u32.to_le_bytes())?;
    let (mut group, mut mask) = (None, 0o7);
    for entry in entries.chunks_exact(8) {
        let rights = u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 0o7;
        match u16::from_le_bytes([entry[0], entry[1]]) {
            ACL_GROUP => group = Some(rights),
            ACL_MASK => mask = rights,
            _ => {}
        }
    }
    group.map(|group| group & mask)
}

/// Creates a folder and the missing ones above it. Each gets the owner of the folder that it is in, or, in a folder of
/// root, the owner `in_folder_of_root`.
pub(crate) fn create_folders(path: &Path, in_folder_of_root: Option<Owner>) -> Result<()> {
    let cannot = || format!("cannot create the folder {}", shown(path));
    let open = |flags| flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (mut folder, missing) = place::open_existing(path).io(Kind::Failed, cannot)?;
    for name in &missing {
        let enter = || -> io::Result<_> {
            let created = match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            let next = rustix::fs::openat(&folder, name, open(OFlags::RDONLY), Mode::empty())?;
            if created {
                inherit_owner(&folder, &next, in_folder_of_root)?;
            }
            Ok(next)
        };
        folder = enter().io(Kind::Failed, cannot)?;
    }
    Ok(())
}

/// Gives a folder that has just been created the owner of the folder that it is in, if this process may.
fn inherit_owner(
    parent: &rustix::fd::OwnedFd,
    created: &rustix::fd::OwnedFd,
    in_folder_of_root: Option<Owner>,
) -> io::Result<()> {
    let above = rustix::fs::fstat(parent)?;
    let mine = rustix::fs::fstat(created)?;
    let owner = match in_folder_of_root {
        Some(owner) if above.st_uid == 0 => owner,
        _ => Owner { uid: above.st_uid, gid: above.st_gid },
    };
    // The owner of the parent could have exchanged the folder for another one.
    let is_own = mine.st_uid == rustix::process::geteuid().as_raw() && is_empty(created)?;
    if (mine.st_uid, mine.st_gid) == (owner.uid, owner.gid) || !is_own {
        return Ok(());
    }
    match rustix::fs::fchown(created, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))) {
        // Only root may. In a user's own folder, the user is the owner already.
        Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a folder that root has just created in a folder of another user to that user.
pub(crate) fn give_new_folder(parent: &Path, created: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let parent = place::open_folder(parent)?;
    inherit_owner(&parent, &open_plain(created, OFlags::RDONLY | OFlags::DIRECTORY)?.into(), None)
}

/// Gives a file that root has just created below a folder of another user to that user.
pub(crate) fn give_new_file(folder: &Path, created: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = Owner::of(&fs::metadata(or_here(folder))?);
    if owner.uid == 0 {
        return Ok(());
    }
    match rustix::fs::fchown(created, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))) {
        Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_empty(folder: &rustix::fd::OwnedFd) -> io::Result<bool> {
    let own = |name: &CStr| name == c"." || name == c"..";
    for entry in rustix::fs::Dir::read_from(folder)? {
        if !own(entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_group_of_a_list_has_no_more_rights_than_its_entry_and_the_mask() {
        let acl = |entries: &[(u16, u16)]| {
            let mut bytes = 2u32.to_le_bytes().to_vec();
            for (tag, rights) in entries {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(rights.to_le_bytes());
                bytes.extend(u32::MAX.to_le_bytes());
            }
            bytes
        };
        assert_eq!(group_bits(&acl(&[(1, 6), (2, 6), (4, 4), (0x10, 6), (0x20, 0)])), Some(4));
        assert_eq!(group_bits(&acl(&[(4, 6), (0x10, 4)])), Some(4));
        assert_eq!(group_bits(&acl(&[(1, 6)])), None);
        assert_eq!(group_bits(b"other"), None);
    }

    #[test]
    fn only_attributes_without_power_are_kept() {
        for name in ["security.capability", "trusted.x", "security.ima", "system.posix_acl_default", "User.x", "user"] {
            assert_eq!(group_of(name), None, "{name}");
        }
        assert_eq!(group_of("user.x"), Some(Group::User));
    }

    #[test]
    fn missing_folders_are_created_also_behind_a_link() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        create_folders(&root.path().join("link/a/b"), None).unwrap();
        create_folders(&root.path().join("link/a/b"), None).unwrap();
        assert!(root.path().join("real/a/b").is_dir());
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        assert!(create_folders(&root.path().join("dangling/a"), None).is_err());
        assert!(!root.path().join("nowhere").exists());
    }
}
