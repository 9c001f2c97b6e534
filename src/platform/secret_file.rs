//! The names of files that hold a secret: a key, a passphrase or a password.
//!
//! Instead of the path, a user may give the secret itself, for example by a variable with the wrong value. So a text that
//! looks like a key is refused, and a name that no file has is not shown.

use std::path::Path;

use crate::platform::disk::shown;
use crate::platform::error::{Error, Result};

/// The marks of secret keys, in upper case: those of age, of PEM files, and the text of a key of OpenSSH in base64.
const KEYS: [&str; 4] = ["AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY-----", "B3BLBNNZAC1RZXKTDJE"];

/// Returns true if a text contains a secret key, perhaps in quotes or after a name.
pub(crate) fn holds_key(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    KEYS.iter().any(|part| text.contains(part))
}

/// Fails if a secret key is given as the path of a file. `what` names the file that is meant.
pub(crate) fn refuse_key(path: &Path, what: &str) -> Result<()> {
    if !holds_key(&path.to_string_lossy()) {
        return Ok(());
    }
    Err(Error::usage(format!("a secret key is given instead of the path of the {what}"))
        .hint("write it to a file that only you can read, and give its path: other users can see command lines"))
}

/// Returns the path of a file with a secret for a message. If there is no such file, only the folder is shown.
pub(crate) fn shown_if_exists(path: &Path) -> String {
    if path.symlink_metadata().is_ok() && !holds_key(&path.to_string_lossy()) {
        return shown(path);
    }
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir());
    folder.map_or_else(|| HIDDEN.to_owned(), |folder| shown(&folder.join(HIDDEN)))
}

/// Returns the error for a file with a secret that cannot be read. `message` ends with what [`shown_if_exists`] returns.
pub(crate) fn cannot_read(message: String, cause: std::io::Error) -> Error {
    let is_hidden = message.ends_with(HIDDEN);
    let error = Error::usage(message).because(cause);
    if is_hidden {
        error.hint("give the path of a file, not the secret itself; the name is hidden because it may be the secret")
    } else {
        error
    }
}

/// Stands for a name that may be a secret.
const HIDDEN: &str = "[hidden]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_file_has_is_hidden() {
        for (path, expected) in [
            ("hunter2", HIDDEN),
            ("/usr/hunter2", "/usr/[hidden]"),
            ("/usr/none/hunter2", "/usr/[hidden]"),
            ("/usr/hun/ter2/x", "/usr/[hidden]"),
            ("/usr", "/usr"),
        ] {
            assert_eq!(shown_if_exists(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_key_is_not_the_path_of_a_file() {
        for text in [
            "AGE-SECRET-KEY-1QQ",
            "/etc/age-secret-key-1qq",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3",
            "x/b3BlbnNzaC1rZXktdjEA",
        ] {
            assert!(refuse_key(Path::new(text), "key file").is_err(), "{text}");
        }
        assert!(refuse_key(Path::new("/etc/keys/private.key"), "key file").is_ok());
    }
}
