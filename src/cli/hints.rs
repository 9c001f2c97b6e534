//! Hints for a command line that cannot be carried out as it is.

use std::ffi::OsString;

use crate::platform::error::Error;
use crate::platform::shell::quote_word;

/// Returns the error with the commands to type, if a source must be chosen.
pub(super) fn with_commands(error: Error, arguments: &[OsString]) -> Error {
    /// The most commands that are shown.
    const MOST: usize = 4;
    if error.choices.is_empty() {
        return error;
    }
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let words = |arguments: &[OsString]| -> Vec<String> {
        arguments.iter().map(|argument| quote_word(&argument.to_string_lossy())).collect()
    };
    let command = |name: &String| {
        let own = words(&arguments[1.min(end)..end]);
        let option = ["--source".to_owned(), quote_word(name)];
        let all = ["lifeboat".to_owned()].into_iter().chain(own).chain(option).chain(words(&arguments[end..]));
        format!("'{}'", all.collect::<Vec<_>>().join(" "))
    };
    let commands: Vec<String> = error.choices.iter().take(MOST).map(command).collect();
    let more = if error.choices.len() > MOST { ", or another of the sources" } else { "" };
    let hint = format!("run {}{more}", commands.join(" or "));
    error.hint(hint)
}

/// The options that people try in vain, by command, and those that they mean.
const MEANT: [(&str, &str, &str); 9] = [
    ("prune", "--keep", "--keep-last N keeps the newest N snapshots; see 'lifeboat prune --help' for the other rules"),
    ("", "--at", "--before TIME takes the newest snapshot that is older than a time"),
    ("", "--time", "--before TIME takes the newest snapshot that is older than a time"),
    ("", "--date", "--before TIME takes the newest snapshot that is older than a time"),
    ("", "--since", "'lifeboat list --since TIME' lists the snapshots since then; --before TIME takes an older one"),
    ("restore", "--output", "--to PATH names the target"),
    ("restore", "--overwrite", "--replace replaces what is there"),
    (
        "",
        "--force",
        "no option skips all checks; --yes answers questions, --replace allows a restore over what is there",
    ),
    ("snapshot", "--to", "--store STORE names the place of the snapshots"),
];

/// Returns what an unknown option of a command was probably meant to be.
pub(super) fn meant(arguments: &[OsString], option: &str) -> Option<&'static str> {
    let is_command = |command: &str| command.is_empty() || arguments.iter().any(|argument| argument == command);
    MEANT.iter().find(|(command, wrong, _)| *wrong == option && is_command(command)).map(|(.., hint)| *hint)
}
