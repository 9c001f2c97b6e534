//! A mark on a file that a person has restored from a snapshot that is not the newest one: where it lacks rows of a newer one,
//! they were left out on purpose.

use std::path::Path;

use crate::platform::node::{FileReference, Node};
use crate::platform::place;

/// The extended attribute that holds the id of the snapshot. It is not saved with the other attributes of the file.
pub(crate) const ATTRIBUTE: &str = "user.lifeboat.restored_from";

/// The longest id that is read.
const MAX_BYTES: usize = 512;

/// Marks a file, or takes its mark away. A file system without extended attributes has no mark.
pub(crate) fn set(file: &Path, id: Option<&str>) {
    // The file, and not a link to it.
    let real = place::resolve(file).unwrap_or_else(|_| file.to_owned());
    let marked = || -> std::io::Result<()> {
        if id.is_none() && from(&real).is_none() {
            return Ok(());
        }
        let file = FileReference::open(&real)?;
        match id {
            Some(id) => file.set_attribute(ATTRIBUTE, id.as_bytes())?,
            None => file.remove_attribute(ATTRIBUTE)?,
        }
        Ok(())
    };
    if let Err(error) = marked() {
        tracing::debug!("{} is not marked as restored: {error}", crate::platform::disk::shown(file));
    }
}

/// Returns the id that a file is marked with.
pub(crate) fn from(file: &Path) -> Option<String> {
    let mut value = vec![0u8; MAX_BYTES];
    let length = rustix::fs::getxattr(file, ATTRIBUTE, &mut value).ok()?;
    value.truncate(length);
    String::from_utf8(value).ok()
}
