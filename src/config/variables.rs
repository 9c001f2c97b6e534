//! The values for `${VAR}`: the process's environment first, then a file of variables.

use std::collections::BTreeMap;
use std::path::Path;

use super::env_file::{self, is_name};
use crate::platform::error::Result;

/// The variables that a config may name.
#[derive(Clone, Default)]
pub struct Variables {
    file: BTreeMap<String, String>,
}

/// The reason why a text could not be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// A variable without a default is not set.
    Unset(String),
    /// The syntax of a variable is wrong, or its value is too large.
    Invalid(&'static str),
}

impl Variables {
    /// Combines the process's environment with the variables of a file.
    pub(super) fn new(file: BTreeMap<String, String>) -> Self {
        Variables { file }
    }

    /// Combines the process's environment with the variables of the file at `path`, if it exists.
    pub fn read(path: &Path) -> Result<Self> {
        env_file::read(path).map(Variables::new)
    }

    /// Returns all variables that a config can name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, String> {
        let own =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        self.of_file().into_iter().chain(own).filter(|(name, _)| is_name(name)).collect()
    }

    /// Returns the value of a variable. The process's environment takes precedence over the file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.file.get(name).cloned())
    }

    /// Returns the variables of the file that the process's environment does not have.
    #[must_use]
    pub fn of_file(&self) -> BTreeMap<String, String> {
        let own = |(name, _): &(&String, &String)| std::env::var_os(name).is_none();
        self.file.iter().filter(own).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Expands `${VAR}` and `${VAR:-default}`; `$${` gives a literal `${`. Returns `None` if the text contains no `${`.
    /// The values may have as many bytes as are `left`.
    pub(super) fn expand(&self, text: &str, left: &mut usize) -> Result<Option<String>, ExpandError> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, inside) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = inside;
                continue;
            }
            out.push_str(before);
            let end =
                inside.find('}').ok_or(ExpandError::Invalid("'${' is not closed; write $${ for a literal '${'"))?;
            let (name, default) = match inside[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inside[..end], None),
            };
            if !is_name(name) {
                return Err(ExpandError::Invalid(
                    "between '${' and '}' there must be a variable name, or NAME:-default",
                ));
            }
            // As in a shell, ':-' treats an empty variable as not set. In many pipelines, unset secrets are empty.
            match (self.get(name), default) {
                (Some(value), default) if default.is_none() || !value.is_empty() => {
                    *left = left.checked_sub(value.len()).ok_or(ExpandError::Invalid(env_file::TOO_LARGE))?;
                    out.push_str(&value);
                }
                (_, Some(default)) => out.push_str(default),
                (_, None) => return Err(ExpandError::Unset(name.to_owned())),
            }
            rest = &inside[end + 1..];
        }
        Ok(Some(out + rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_defaults_are_expanded() {
        let file = [("A", "1"), ("EMPTY", ""), ("DEEP", "${A}")];
        let variables = Variables::new(file.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let expand = |text: &str| variables.expand(text, &mut 100);
        for (text, expanded) in [
            ("x${A}y${A}", "x1y1"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${NOT_SET_ANYWHERE:-}", ""),
            ("${NOT_SET_ANYWHERE:-s3://b}", "s3://b"),
            ("$${A} $A", "${A} $A"),
            // The value of a variable is not expanded again: it may be a password.
            ("${DEEP}", "${A}"),
        ] {
            assert_eq!(expand(text), Ok(Some(expanded.to_owned())), "{text}");
        }
        assert_eq!(variables.expand("${A}${A}", &mut 1), Err(ExpandError::Invalid(env_file::TOO_LARGE)));
        assert_eq!(expand("pa$$word"), Ok(None));
        assert_eq!(expand("${NOT_SET_ANYWHERE}"), Err(ExpandError::Unset("NOT_SET_ANYWHERE".to_owned())));
        for text in ["${", "${}", "${A", "${a b}", "${A:?no}"] {
            assert!(matches!(expand(text), Err(ExpandError::Invalid(_))), "{text}");
        }
    }
}
