//! The fixed numbers and names of the archive format, and the check of the version of what is read.

use serde_json::Value;

use crate::platform::error::{Error, Reason, Result, one_line};

/// The version of archives, manifests and stores that this program writes.
pub const FORMAT: u32 = 1;

/// The maximum number of tar bytes in a block.
pub const BLOCK_BYTES: usize = 4 << 20;

/// The first entry of every archive.
pub const README_PATH: &str = "README.txt";

/// The last entry of every archive.
pub const MANIFEST_PATH: &str = "manifest.json";

/// 2^64 as a number of JSON. An integer from there on has no exact type, but is certainly a later version.
const BEYOND_INTEGERS: f64 = 18_446_744_073_709_551_616.0;

/// Fails unless `version` is [`FORMAT`]. `object` names the object that has this version.
///
/// A greater integer is the version of a newer program: the object cannot be read, but is not damaged, and the error has
/// [`Reason::NewerFormat`]. Every other value is damage.
pub fn check_version(object: &str, version: &Value) -> Result<()> {
    if version.as_u64() == Some(u64::from(FORMAT)) {
        return Ok(());
    }
    let is_newer = match version.as_u64() {
        Some(version) => version > u64::from(FORMAT),
        None => version.as_f64().is_some_and(|version| version >= BEYOND_INTEGERS),
    };
    if is_newer {
        return Err(Error::usage(format!(
            "{object} was made by a newer lifeboat: it has the format version {version}"
        ))
        .hint("update lifeboat on this machine, then try again")
        .reason(Reason::NewerFormat));
    }
    Err(Error::problem(match version {
        Value::Number(number) => format!("{object} has the unknown format version {number}"),
        Value::String(text) => format!("{object} has the unknown format version '{}'", one_line(text)),
        _ => format!("{object} has no format version"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::error::Kind;

    fn check(json: &str) -> Result<()> {
        check_version("it", &serde_json::from_str(json).expect("valid JSON"))
    }

    #[test]
    fn only_greater_integers_are_versions_of_a_newer_program() {
        check("1").expect("the version of this program");
        for newer in ["2", "4294967297", "18446744073709551615", "18446744073709551616", "999999999999999999999999999"]
        {
            let error = check(newer).expect_err("another version");
            assert_eq!((error.kind, error.is_newer_format()), (Kind::Usage, true), "{newer}");
            assert!(error.message.contains("newer lifeboat"), "{error}");
        }
        for damaged in ["0", "-1", "1.5", "2.0", "1.0", "-99999999999999999999", "\"2\"", "null", "[2]", "{}", "true"] {
            let error = check(damaged).expect_err("no version");
            assert_eq!((error.kind, error.is_newer_format()), (Kind::Problem, false), "{damaged}");
        }
    }
}
