//! Remembers which runs have failed, so that the first success after them can be reported.
//!
//! The state is a JSON file `{"failing": {KEY: TIME}}`, replaced atomically. If it cannot be read, the caller gets an
//! error and reports no recovery.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::platform::attributes::create_folders;
use crate::platform::disk::{folder_of, lock_folder, replace_file, shown};
use crate::platform::error::{Error, IoContext, Kind, Result};

/// The name of the file in its default folder.
const NAME: &str = "notices.json";
const MAX_BYTES: u64 = 1 << 20;
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Failing {
    failing: BTreeMap<String, DateTime<Utc>>,
}

/// Returns the default path: in `LIFEBOAT_STATE`, `$XDG_STATE_HOME/lifeboat` or `~/.local/state/lifeboat`.
pub(super) fn default_path() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("LIFEBOAT_STATE")
        .or_else(|| set("XDG_STATE_HOME").map(|home| home.join("lifeboat")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/lifeboat")));
    folder.map(|folder| folder.join(NAME)).ok_or_else(|| {
        Error::usage("there is no folder for the record of failures").hint("name one with LIFEBOAT_STATE")
    })
}

/// Returns true if the last run of `key` has failed.
pub(super) fn is_failing(path: &Path, key: &str) -> Result<bool> {
    Ok(read(path)?.failing.contains_key(key))
}

/// Remembers that runs of `keys` have been failing since `failed_at`, or that they are not failing if it is `None`.
/// An earlier time that is already stored is kept.
pub(super) fn remember(path: &Path, keys: &[String], failed_at: Option<DateTime<Utc>>) -> Result<()> {
    let cannot = || format!("cannot write {}", shown(path));
    let folder = folder_of(path);
    create_folders(folder, None)?;
    let _lock = lock_folder(folder, LOCK_TIMEOUT);
    let mut state = match (read(path), failed_at) {
        (Ok(state), _) => state,
        // A damaged file must not prevent the next failure from being remembered; a file that is not ours must stay.
        (Err(error), Some(_)) if error.kind == Kind::Problem => Failing::default(),
        (Err(error), _) => return Err(error),
    };
    match failed_at {
        Some(at) => keys.iter().for_each(|key| {
            state.failing.entry(key.clone()).or_insert(at);
        }),
        None => {
            let before = state.failing.len();
            state.failing.retain(|key, _| !keys.contains(key));
            if state.failing.len() == before {
                return Ok(());
            }
        }
    }
    let mut text = serde_json::to_vec_pretty(&state).expect("it has only string keys");
    text.push(b'\n');
    replace_file(path, 0o600, &text).io(Kind::Failed, cannot)
}

fn read(path: &Path) -> Result<Failing> {
    let cannot = || format!("cannot read {}", shown(path));
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Failing::default()),
        Err(error) => return Err(error).io(Kind::Failed, cannot),
        Ok(facts) if !facts.is_file() || facts.len() > MAX_BYTES => {
            return Err(Error::failed(format!("{} is not a record of failures", shown(path))));
        }
        Ok(_) => fs::read(path).io(Kind::Failed, cannot)?,
    };
    serde_json::from_slice(&text).map_err(|error| {
        Error::problem(format!("{} is damaged", shown(path))).because(error).hint("the next failure replaces it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn key(name: &str) -> [String; 1] {
        [name.to_owned()]
    }

    #[test]
    fn failures_are_remembered_by_key_since_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/state/notices.json");
        assert!(!is_failing(&path, "a").expect("nothing yet"));
        remember(&path, &key("a"), None).expect("nothing to write");
        assert!(!path.exists());
        remember(&path, &key("a"), Some(at(1))).expect("written");
        remember(&path, &["a".to_owned(), "b".to_owned()], Some(at(2))).expect("written");
        assert_eq!(read(&path).expect("there").failing, [("a".to_owned(), at(1)), ("b".to_owned(), at(2))].into());
        remember(&path, &key("a"), None).expect("written");
        assert!(!is_failing(&path, "a").expect("there") && is_failing(&path, "b").expect("there"));
    }

    #[test]
    fn a_damaged_file_is_reported_and_replaced_by_the_next_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notices.json");
        fs::write(&path, "{\"failing\": {\"a\"").expect("written");
        assert!(is_failing(&path, "a").expect_err("damaged").message.ends_with("is damaged"));
        remember(&path, &key("a"), None).expect_err("damaged");
        remember(&path, &key("a"), Some(at(1))).expect("written anew");
        assert!(is_failing(&path, "a").expect("there"));
    }
}
