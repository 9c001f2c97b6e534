//! The variable `HOME`, which systemd does not set for a system service without `User=`. Without it, libraries look for
//! their files in a folder named `~`.

use std::sync::OnceLock;

/// The variables that this process has added to its environment.
static ADDED: OnceLock<Vec<&'static str>> = OnceLock::new();

/// The variables that name the files of AWS.
const AWS_FILES: [&str; 2] = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];

/// Sets `HOME` to the home folder in the user database, if it is not set or empty: the libraries that this program uses
/// read the variable. For a user without a home folder, no files of AWS are read.
///
/// # Safety
///
/// No other thread may run.
pub unsafe fn set_if_missing() {
    if std::env::var_os("HOME").is_some_and(|home| !home.is_empty()) {
        return;
    }
    // SAFETY: the caller guarantees that no other thread reads or changes the environment.
    unsafe {
        // An empty variable would be taken for the home folder.
        std::env::remove_var("HOME");
        let mut added = Vec::new();
        match std::env::home_dir().filter(|home| home.is_absolute()) {
            Some(home) => {
                std::env::set_var("HOME", home);
                added.push("HOME");
            }
            None => {
                for name in AWS_FILES.into_iter().filter(|name| std::env::var_os(name).is_none()) {
                    std::env::set_var(name, "/dev/null");
                    added.push(name);
                }
            }
        }
        let _ = ADDED.set(added);
    }
}

/// Returns the names of the variables that [`set_if_missing`] has set. A program that this one supervises does not get
/// them.
pub(crate) fn added() -> &'static [&'static str] {
    ADDED.get().map(Vec::as_slice).unwrap_or_default()
}
