//! Checks that a folder is a mount point. Files in a folder of the container itself are deleted with the container.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::ops::summary::Check;
use crate::platform::disk::{free_bytes, real_path, shown};
use crate::platform::error::one_line;
use crate::platform::text;

/// The kernel's list of the mounts of this process (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";
/// Types of file systems whose files are lost when the machine or the container stops.
const VOLATILE: [&str; 4] = ["tmpfs", "ramfs", "overlay", "aufs"];

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    /// The id of the mount that contains the mount point.
    parent: u64,
    /// The part of the file system that is mounted; `/` for all of it.
    root: PathBuf,
    /// The mount point.
    point: PathBuf,
    read_only: bool,
    file_system: String,
    /// The device, or the name that the kernel lists instead of a device.
    source: String,
}

impl Mount {
    /// Parses a line such as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let (root, point) = (fields.nth(1)?, fields.next()?);
        let options = fields.next()?;
        // Any number of optional fields precedes the single dash.
        fields.find(|field| *field == b"-")?;
        let (file_system, source) = (fields.next()?, fields.next().unwrap_or_default());
        let super_options = fields.next().unwrap_or_default();
        let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
        Some(Mount {
            id,
            parent,
            root: PathBuf::from(unescape(root)),
            point: PathBuf::from(unescape(point)),
            read_only: is_read_only(options) || is_read_only(super_options),
            file_system: unescape(file_system).to_string_lossy().into_owned(),
            source: unescape(source).to_string_lossy().into_owned(),
        })
    }

    /// Returns the device, followed by the mounted folder if only a part is mounted (a bind mount, a subvolume).
    fn from(&self) -> String {
        let source = if self.source.is_empty() { "no device" } else { &self.source };
        if self.root == Path::new("/") {
            return one_line(source);
        }
        format!("{}[{}]", one_line(source), shown(&self.root))
    }
}

/// Decodes the escapes of the kernel in a field: `\040` for a space, and similar ones for tab, line feed and `\`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(field[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(bytes)
}

/// Returns the mount that contains `path`, which must be absolute and without links.
///
/// Follows the path from the root, from mount to mount, as the kernel does. This is necessary because neither the order
/// of the list nor the length of a mount point shows which of two mounts hides the other: a mount point may be hidden
/// below another mount, or have several mounts on top of each other.
fn mount_of(table: &[u8], path: &Path) -> Option<Mount> {
    let mounts: Vec<Mount> = table.split(|byte| *byte == b'\n').filter_map(Mount::read).collect();
    // If the root of the process is a folder inside a mount (chroot), that mount is not in the list.
    let is_listed = |id: u64| mounts.iter().any(|mount| mount.id == id);
    let mut current: Option<&Mount> = None;
    let mut folders: Vec<&Path> = path.ancestors().collect();
    folders.reverse();
    for folder in folders {
        let is_next = |mount: &&Mount| match current {
            Some(current) => mount.parent == current.id && mount.id != current.id,
            None => mount.parent == mount.id || !is_listed(mount.parent),
        };
        let here = || mounts.iter().filter(|mount| mount.point == folder);
        let Some(mut top) = here().find(is_next) else { continue };
        // Another mount on top of this one hides it. There are at most as many steps as mounts, so the loop ends.
        for _ in 0..mounts.len() {
            match here().find(|mount| mount.parent == top.id && mount.id != top.id) {
                Some(upper) => top = upper,
                None => break,
            }
        }
        current = Some(top);
    }
    current.cloned()
}

/// Checks that `path` is a mount point, and that its file system keeps its files: `tmpfs` and the layer of a container
/// do not, and are refused unless `allow_tmpfs` is set.
#[must_use]
pub fn mount(path: &Path, allow_tmpfs: bool) -> Check {
    let name = format!("mount {}", shown(path));
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::bad(name, format!("{} does not exist: nothing is mounted there", shown(path)));
        }
        Err(error) => return Check::bad(name, format!("cannot inspect {}: {error}", shown(path))),
    };
    let table = match fs::read(MOUNTS) {
        Ok(table) => table,
        Err(error) => return Check::bad(name, format!("cannot read {MOUNTS}: {error}")),
    };
    let Some(mount) = mount_of(&table, &real) else {
        return Check::bad(name, format!("{} is neither a mount point nor below a known mount", shown(path)));
    };
    match check_mount(path, &real, &mount, allow_tmpfs, real.is_dir()) {
        Err(message) => Check::bad(name, message),
        Ok(message) => {
            let free = free_bytes(&real).map_or_else(
                |error| format!("free space unknown: {error}"),
                |free| format!("{} free", text::bytes(free)),
            );
            Check::good(name, format!("{message}, {free}"))
        }
    }
}

/// Checks that `path` lies on one of `mounts`, which are mounted: in another place, it may be in the container itself.
/// Neither the path nor its folder needs to exist. `name` is the name of the check.
#[must_use]
pub fn on_mount(name: String, path: &Path, mounts: &[PathBuf], allow_tmpfs: bool) -> Check {
    let table = match fs::read(MOUNTS) {
        Ok(table) => table,
        Err(error) => return Check::bad(name, format!("cannot read {MOUNTS}: {error}")),
    };
    let mounts: Vec<PathBuf> = mounts.iter().map(|mount| real_path(mount)).collect();
    match place_on_mounts(path, &real_path(path), &mounts, &table, allow_tmpfs) {
        Ok(message) => Check::good(name, message),
        Err(message) => Check::bad(name, message),
    }
}

fn place_on_mounts(
    path: &Path,
    real: &Path,
    mounts: &[PathBuf],
    table: &[u8],
    allow_tmpfs: bool,
) -> Result<String, String> {
    let named = if path == real { shown(path) } else { format!("{} ({})", shown(path), shown(real)) };
    let (point, file_system) = match mount_of(table, real) {
        Some(mount) => (mount.point, mount.file_system),
        None => (PathBuf::from("/"), "unknown".to_owned()),
    };
    let place = format!("{named} lies on {} ({})", shown(&point), one_line(&file_system));
    let Some(mount) = mounts.iter().find(|mount| real.starts_with(mount)) else {
        let list: Vec<String> = mounts.iter().map(|mount| shown(mount)).collect();
        return Err(format!(
            "{place}, and not on a mount of [preflight] mounts ({}): the next deploy may delete it; move it there, or, \
             if it may be lost, add it to outside_mounts",
            list.join(", ")
        ));
    };
    // Another file system may be mounted in a folder of the mount.
    if point != *mount && VOLATILE.contains(&file_system.as_str()) && !allow_tmpfs {
        return Err(format!("{place} in the mount {}, whose files are lost at a restart; move it", shown(mount)));
    }
    Ok(format!("{named} lies on the mount {}", shown(mount)))
}

fn check_mount(path: &Path, real: &Path, mount: &Mount, allow_tmpfs: bool, is_folder: bool) -> Result<String, String> {
    let what = if is_folder { "folder" } else { "file" };
    let named = if path == real { shown(path) } else { format!("{} ({})", shown(path), shown(real)) };
    let (point, file_system) = (shown(&mount.point), one_line(&mount.file_system));
    if mount.point != real {
        return Err(format!(
            "{named} is a {what} on {point} ({file_system}), not a mount point: files written there may be lost at the \
             next deploy; mount a volume there"
        ));
    }
    if VOLATILE.contains(&mount.file_system.as_str()) && !allow_tmpfs {
        return Err(format!(
            "{named} is a mount of {file_system}, whose files are lost at a restart; mount a volume there, or \
             allow it with allow_tmpfs"
        ));
    }
    let read_only = if mount.read_only { ", read-only" } else { "" };
    Ok(format!("{named} is a mount of {} ({file_system}{read_only})", mount.from()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    // The list of a machine on which the first mounts were made before the root was mounted.
    const TABLE: &str = "\
22 27 0:21 / /proc rw,nosuid - proc proc rw
24 27 0:6 / /dev rw - devtmpfs devtmpfs rw
26 24 0:24 / /dev/pts rw - devpts devpts rw
1 1 0:2 / / rw - rootfs rootfs rw
27 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
29 26 0:27 / /dev/pts rw - devpts over rw
30 27 254:1 /var/lib/docker/volumes/app/_data /app/data rw,relatime master:1 shared:7 - ext4 /dev/vda1 rw,errors=remount-ro
31 27 0:40 / /app/my\\040data\\134x rw - tmpfs tmpfs rw,size=65536k
33 32 254:3 / /over ro,noatime - xfs /dev/vdc ro
32 27 254:2 / /over rw - ext4 /dev/vdb rw
34 27 254:1 /etc/app.toml /etc/app.toml rw - ext4 /dev/vda1 rw
35 27 254:4 / /hidden/below rw - ext4 /dev/vdd rw
36 27 254:5 / /hidden rw - ext4 /dev/vde rw
38 36 254:6 / /hidden/new rw - ext4 /dev/vdf rw
37 27 0:50 / /bare rw - fuse  rw
";

    fn found(path: &str) -> Mount {
        mount_of(TABLE.as_bytes(), Path::new(path)).expect(path)
    }

    fn checked(path: &str, allow_tmpfs: bool) -> Result<String, String> {
        check_mount(Path::new(path), Path::new(path), &found(path), allow_tmpfs, true)
    }

    #[test]
    fn the_message_for_a_bind_mount_names_device_and_part() {
        let text = checked("/app/data", false).expect("a mount");
        assert_eq!(text, "/app/data is a mount of /dev/vda1[/var/lib/docker/volumes/app/_data] (ext4)");
    }

    #[test]
    fn the_message_for_a_folder_names_the_mount_that_contains_it() {
        for (path, expected) in [
            ("/app", "a folder on / (overlay), not a mount point"),
            ("/app/data/db", "a folder on /app/data (ext4), not a mount point"),
            ("/app/data2", "a folder on / (overlay), not a mount point"),
            ("/procedure", "a folder on / (overlay), not a mount point"),
        ] {
            let text = checked(path, true).expect_err(path);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_volatile_file_system_is_refused_unless_allowed() {
        let text = checked("/app/my data\\x", false).expect_err("a tmpfs");
        assert!(text.starts_with("/app/my data\\x is a mount of tmpfs"), "{text}");
        checked("/app/my data\\x", true).expect("allowed");
        checked("/", false).expect_err("the container's own layer");
    }

    #[test]
    fn the_mount_on_top_is_the_one_that_counts() {
        assert_eq!(checked("/over", false).expect("a mount"), "/over is a mount of /dev/vdc (xfs, read-only)");
        assert_eq!(found("/hidden/below").source, "/dev/vde");
        checked("/hidden/below", false).expect_err("it is covered");
        checked("/hidden/new", false).expect("it is not");
        assert_eq!(found("/dev/pts/0").source, "over");
        assert_eq!((found("/proc/self").source.as_str(), found("/proc/self").id), ("proc", 22));
        assert_eq!(found("/").file_system, "overlay");
    }

    #[test]
    fn a_path_lies_on_a_mount_only_if_no_volatile_mount_is_between_them() {
        let mounts = ["/app".into(), "/app/data".into(), "/over".into()];
        let placed = |path: &str, mounts: &[PathBuf], allow_tmpfs| {
            place_on_mounts(Path::new(path), Path::new(path), mounts, TABLE.as_bytes(), allow_tmpfs)
        };
        assert_eq!(
            placed("/over/new/app.db", &mounts, false).expect("on it"),
            "/over/new/app.db lies on the mount /over"
        );
        placed("/app/data/app.db", &mounts[1..], false).expect("on it");
        placed("/app/data/app.db", &mounts[..1], false).expect("on a disk that is mounted in the mount");
        let text = placed("/app/my data\\x/app.db", &mounts[..1], false).expect_err("on a tmpfs");
        assert!(text.contains("lies on /app/my data\\x (tmpfs) in the mount /app"), "{text}");
        placed("/app/my data\\x/app.db", &mounts[..1], true).expect("allowed");
        for path in ["/app/data2/app.db", "/app/app.db", "/data/app.db"] {
            let text = placed(path, &mounts[1..], true).expect_err(path);
            let start =
                format!("{path} lies on / (overlay), and not on a mount of [preflight] mounts (/app/data, /over)");
            assert!(text.starts_with(&start), "{text}");
        }
    }

    #[test]
    fn a_file_may_be_a_mount_and_a_device_may_have_no_name() {
        assert_eq!(found("/etc/app.toml").from(), "/dev/vda1[/etc/app.toml]");
        assert_eq!(found("/bare").file_system, "fuse");
    }

    #[test]
    fn the_mount_of_a_root_that_is_a_folder_inside_a_mount_is_not_in_the_list() {
        let table = b"41 27 254:1 / /data rw - ext4 /dev/vda1 rw\n42 41 254:2 / /data/deep rw - ext4 /dev/vdb rw\n";
        let found = |path: &str| mount_of(table, Path::new(path)).map(|mount| mount.id);
        assert_eq!([found("/"), found("/data"), found("/data/deep/x")], [None, Some(41), Some(42)]);
    }

    #[test]
    fn invalid_lines_are_skipped() {
        for line in
            ["", "1 2 3", "36 35 98:0 / /mnt rw", "36 35 98:0 / /mnt rw -", "a 1 98:0 / /mnt rw - ext4 /dev/x rw"]
        {
            assert_eq!(Mount::read(line.as_bytes()), None, "{line}");
        }
        assert_eq!(unescape(b"a\\040b\\1\\9zz\\").as_bytes(), b"a b\\1\\9zz\\");
    }
}
