//! Commands that the user can copy. They work from any folder: they name the stores, the config, the machine and the files
//! of keys of this run, with absolute paths, and hold no secret.

use crate::ops::Context;
use crate::ops::sources::Chosen;
use crate::platform::error::{Result, one_line};
use crate::platform::shell::quote_word;
use crate::snapshots::manifest::Manifest;
use crate::store::StoreUrl;

/// The commands that have options to use snapshots which are not trusted.
const WITH_TRUST_OPTIONS: [&str; 7] = ["restore", "extract", "diff", "verify", "drill", "predeploy", "postdeploy"];

impl Context {
    /// Returns a `lifeboat` command line for `snapshot`, which is in the store at `location`.
    pub(crate) fn command_line(&self, words: &[&str], snapshot: &Manifest, location: Option<&str>) -> String {
        let mut words = self.words_on_store(words, location);
        if snapshot.encrypted {
            match self.key_flags.as_slice() {
                // No flag gave a key. If there is no key at all, the user must replace KEY.txt. Otherwise the key is
                // in the environment or the config, and the command finds it there.
                [] if self.keys.is_empty() => words.extend(option("--identity", "KEY.txt")),
                flags => words.extend(flags.iter().cloned()),
            }
        }
        joined(&words)
    }

    /// Returns a `lifeboat` command line for the store at `location` that opens no archive.
    pub(crate) fn command_line_without_keys(&self, words: &[&str], location: &str) -> String {
        joined(&self.words_on_store(words, Some(location)))
    }

    fn words_on_store(&self, words: &[&str], location: Option<&str>) -> Vec<String> {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.add_trust_options(&mut words);
        words.extend(location.iter().flat_map(|location| option("--store", &self.store_word(location))));
        words.extend(self.words_of_this_run());
        words
    }

    /// Adds the options that use snapshots which are not trusted, if they were given, to a command that has them.
    fn add_trust_options(&self, words: &mut Vec<String>) {
        if words.first().is_some_and(|command| WITH_TRUST_OPTIONS.contains(&command.as_str())) {
            words.extend(self.trust.given_options().iter().map(|option| (*option).to_owned()));
        }
    }

    /// Returns a `lifeboat` command line of a gate, on the stores of this run.
    pub(crate) fn gate_command_line(&self, words: &[String]) -> Result<String> {
        let mut words = words.to_vec();
        self.add_trust_options(&mut words);
        if self.stores_are_given {
            for store in &self.stores {
                words.extend(option("--store", &self.store_word(&store.absolute()?.to_string())));
            }
        }
        words.extend(self.words_of_this_run());
        words.extend(self.key_flags.iter().cloned());
        Ok(joined(&words))
    }

    /// Returns the options that select the config and the machine's name.
    fn words_of_this_run(&self) -> Vec<String> {
        let config = self.config.iter().flat_map(|config| option("--config", &config.path.display().to_string()));
        let host = self.host_is_given.then(|| option("--host", &self.host));
        config.chain(host.into_iter().flatten()).collect()
    }

    /// Returns the word for a store. The settings of a store of the config are found in the config. Those that another
    /// store has from the environment become a part of its URL.
    fn store_word(&self, location: &str) -> String {
        let Ok(store) = location.parse::<StoreUrl>() else { return location.to_owned() };
        let configured = self.config.as_ref().and_then(|config| config.stores().ok()).unwrap_or_default();
        match configured.iter().any(|known| known.store.is_same_place(&store)) {
            true => location.to_owned(),
            false => store.with_environment().to_string(),
        }
    }
}

/// Returns the word for a source: its name in the config, its absolute path, or its URL without a password.
pub(crate) fn source_word(chosen: &Chosen) -> String {
    match (&chosen.configured, chosen.source.file()) {
        (Some(configured), _) => configured.name.to_string(),
        (None, Some(path)) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string(),
        (None, None) => chosen.source.shown(),
    }
}

/// Returns the words of an option with its value. A value that begins with a dash would be read as another option.
pub(crate) fn option(name: &str, value: &str) -> Vec<String> {
    match value.starts_with('-') {
        true => vec![format!("{name}={value}")],
        false => vec![name.to_owned(), value.to_owned()],
    }
}

/// Returns a command line for a shell, on one line.
fn joined(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote_word(word)).collect();
    one_line(&format!("lifeboat {}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_dash_is_part_of_its_option() {
        assert_eq!(option("--commit", "abc"), ["--commit", "abc"]);
        assert_eq!(joined(&option("--commit", "-x y")), "lifeboat '--commit=-x y'");
    }
}
