//! Names that operating systems, file managers, NAS devices and synchronization programs create in any folder.

/// The names, in lower case.
const NAMES: &[&str] = &[
    "lost+found",
    "aquota.user",
    "aquota.group",
    // Git, and placeholders that keep an empty folder in a repository.
    ".gitkeep",
    ".keep",
    ".gitignore",
    ".gitattributes",
    // Snapshots of file systems.
    ".snapshot",
    ".snapshots",
    ".snap",
    ".zfs",
    "#snapshot",
    "@recently-snapshot",
    // macOS.
    ".ds_store",
    ".apdisk",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    ".trashes",
    ".trash",
    ".volumeicon.icns",
    ".localized",
    ".metadata_never_index",
    // Windows.
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "system volume information",
    "$recycle.bin",
    // Linux desktops and Android.
    ".directory",
    ".nomedia",
    // NAS devices.
    "@eadir",
    "#recycle",
    "@recycle",
    ".@__thumb",
    // Synchronization programs.
    ".stfolder",
    ".stignore",
    ".stversions",
    ".sync",
    ".syncignore",
    ".dropbox",
    ".dropbox.attr",
    ".dropbox.cache",
    ".nextcloudsync.log",
    ".owncloudsync.log",
];

/// The beginnings of names, in lower case.
const PREFIXES: &[&str] = &["._", ".trash-", ".nfs", ".fuse_hidden", ".smbdelete", ".sync_", ".~lock."];

/// Returns true if a file or folder of this name says nothing about the use of the folder that it is in.
#[must_use]
pub(crate) fn is_incidental(name: &str) -> bool {
    let name = name.to_lowercase();
    NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems_are_known_and_those_of_users_are_not() {
        for name in ["lost+found", ".DS_Store", "._app.db", "Thumbs.db", "$RECYCLE.BIN", ".Trash-1000", ".nfs0000000a"]
        {
            assert!(is_incidental(name), "{name}");
        }
        for name in ["", "app", "lifeboat.json", ".env", "thumbs", ".git", "app.db", "recycle"] {
            assert!(!is_incidental(name), "{name}");
        }
    }
}
