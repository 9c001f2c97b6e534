//! The first entry of every archive. It explains the archive, and how to get the data back without this program.

use chrono::{DateTime, Utc};

use crate::engine::saving::Identity;
use crate::platform::error::one_line;
use crate::platform::text;
use crate::snapshots::names::ENCRYPTED_ENDING;

/// The commands that read an archive.
pub(super) struct Commands {
    /// The shell command that unpacks it with common tools.
    pub(super) unpack: String,
    /// The extra arguments that `lifeboat restore` needs for it.
    pub(super) key: &'static str,
}

/// Returns the commands for the archive of that file name.
pub(super) fn commands(archive: &str) -> Commands {
    let is_zstd = archive.contains(".tar.zst");
    match archive.ends_with(ENCRYPTED_ENDING) {
        true => Commands {
            unpack: format!("age -d -i KEY.txt {archive} | tar {}", if is_zstd { "--zstd -x" } else { "xz" }),
            key: " --identity KEY.txt",
        },
        false => Commands { unpack: format!("tar {} {archive}", if is_zstd { "--zstd -xf" } else { "xzf" }), key: "" },
    }
}

/// Returns the beginning of the text: `what` the archive is, and the snapshot's id, time and origin.
pub(super) fn head(what: &str, identity: Identity<'_>, taken: DateTime<Utc>) -> String {
    format!(
        "{what} by lifeboat {version}.\n\
         \n\
         snapshot  {id}\n\
         taken     {taken}\n\
         from      {origin}\n\
         \n",
        version = env!("CARGO_PKG_VERSION"),
        id = identity.id,
        taken = text::time(taken),
        origin = one_line(&identity.origin.to_string()),
    )
}
