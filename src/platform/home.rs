//! Paths that a shell expands to a home folder, such as `~/x` and `~root/x`. This program does not expand them, and does
//! not create folders of such names by mistake.

use crate::platform::error::{Error, Result, one_line};

/// Returns true if a shell would expand the start of a path: `~`, `~/x`, `~user`, `~user/x`, `~+/x`, `~-/x`. A name with
/// a dot and without a slash is that of a file, such as `~app.db`.
pub(crate) fn is_expanded_by_shells(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('~') else { return false };
    let (user, is_folder) = rest.split_once('/').map_or((rest, false), |(user, _)| (user, true));
    let may_be_user = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
    user.bytes().all(|byte| may_be_user(byte) || (is_folder && byte == b'.'))
}

/// Fails for a path that a shell would have expanded. `hint` says what to write instead.
pub(crate) fn refuse(path: &str, hint: &str) -> Result<()> {
    if !is_expanded_by_shells(path) {
        return Ok(());
    }
    let shown = one_line(path);
    let start = one_line(path.split('/').next().unwrap_or_default());
    Err(Error::usage(format!("'{start}' is not expanded here: {shown}"))
        .hint(format!("{hint}; for a file or folder that really has this name, write ./{shown}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_a_shell_expands_are_refused() {
        for path in ["~", "~/", "~/x", "~root", "~root/x", "~www-data/x", "~a.b/x", "~+/x", "~-", "~1/x"] {
            assert!(refuse(path, "write the full path").is_err(), "{path}");
        }
        for path in ["", "x", "./~root/x", "a~/x", "~app.db", "~ x/y", "/~/x", "~$lock.db", "~a:b/c"] {
            assert!(refuse(path, "write the full path").is_ok(), "{path}");
        }
    }
}
