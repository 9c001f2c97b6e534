//! The folder and the variables that the values of all sections are read with.

use std::path::{Path, PathBuf};

use crate::config::values::{Flag, Parsed, Text};
use crate::config::variables::Variables;
use crate::platform::disk;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::exposed;
use crate::platform::home;
use crate::platform::secret::Secret;
use crate::platform::secret_file;

/// The folder and the variables that sections are read with.
pub(in crate::config) struct ReadContext<'a> {
    /// The folder that relative paths start from.
    pub(in crate::config) folder: &'a Path,
    /// The variables and their values.
    pub(in crate::config) variables: &'a Variables,
}

impl ReadContext<'_> {
    /// Returns the path that a value of the config names. Fails if a shell would expand it: Lifeboat does not.
    pub(in crate::config) fn path(&self, text: &str) -> Result<PathBuf> {
        secret_file::refuse_key(Path::new(text), "file")?;
        home::refuse(text, TILDE_HINT)?;
        Ok(self.folder.join(text.strip_prefix("./").unwrap_or(text)))
    }

    /// Returns the text of the path that a value of the config names, or `None` if the value is blank.
    pub(in crate::config) fn path_text(&self, text: Option<Text>) -> Result<Option<Text>> {
        let path = filled(text).map(|path| self.path(&path)).transpose()?;
        Ok(path.map(|path| Text(path.display().to_string())))
    }

    pub(in crate::config) fn secret_file(&self, path: &str) -> Result<Secret> {
        let path = self.path(path)?;
        let shown = secret_file::shown_if_exists(&path);
        let read = disk::read_bounded(&path, MAX_SECRET_BYTES).map_err(|error| {
            let mut error = secret_file::cannot_read(format!("cannot read the secret in {shown}"), error);
            if error.kind == Kind::Usage {
                error.kind = Kind::Unreachable;
            }
            error
        })?;
        exposed::warn(&path, "file with a secret", exposed::Content::Key);
        let bytes = read.ok_or_else(|| Error::unreachable(format!("{shown} is too large for a secret")))?;
        // The error of `from_utf8` contains the bytes, so it is not kept as the cause.
        let text =
            String::from_utf8(bytes).map_err(|_| Error::unreachable(format!("the secret in {shown} is not UTF-8")))?;
        Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
    }
}

/// The maximum size of the file of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 16;

/// The hint for a path that a shell would expand.
pub(in crate::config) const TILDE_HINT: &str = "write the full path, or ${HOME}/...";

/// Returns the value of a flag, or the default if it has none.
pub(in crate::config) fn is_on(flag: Option<Parsed<Flag>>, default: bool) -> bool {
    flag.and_then(|flag| flag.0.0).unwrap_or(default)
}

/// Returns the text, or `None` if it is blank: a variable that is not set may give an empty text.
pub(in crate::config) fn filled(text: Option<Text>) -> Option<String> {
    text.map(|text| text.0).filter(|text| !text.trim().is_empty())
}

/// Returns an error with its causes and its hint in one message; its kind is `Unreachable` or else `Usage`.
pub(in crate::config) fn on_one_line(error: &Error) -> Error {
    let kind = if error.kind == Kind::Unreachable { Kind::Unreachable } else { Kind::Usage };
    Error::new(kind, error.full_message_with_hint())
}
