//! Encloses SQL in `\restrict` and `\unrestrict`, as pg_dump does.
//!
//! Between these two commands, psql runs no backslash command. The key is random, so text in between cannot end the
//! restriction. A psql that does not know `\restrict` would stop at it: psql has them since 18.0, 17.6, 16.10, 15.14, 14.19
//! and 13.22. So each command is the value of a variable, which is empty for an older psql. The names of the variables
//! contain the key too. The shell compares the version, because a server that were asked to do so could lie.

use crate::platform::error::{Error, Result};

/// A shell pattern for the values of psql's variable `VERSION_NUM` that know `\restrict`.
const VERSIONS: &str =
    "13002[2-9]|14001[9]|14002?|15001[4-9]|15002?|16001?|16002?|17000[6-9]|17001?|1[89]????|[2-9]?????";

/// The key of one archive.
pub(in crate::engine::postgres) struct Restriction {
    key: String,
}

impl Restriction {
    /// Makes a random key.
    pub(in crate::engine::postgres) fn new() -> Result<Self> {
        let mut random = [0; 24];
        getrandom::fill(&mut random)
            .map_err(|error| Error::failed("cannot get random numbers from the system").because(error))?;
        Ok(Restriction { key: hex::encode(random) })
    }

    /// Returns a file for psql with these statements.
    #[must_use]
    pub(in crate::engine::postgres) fn enclose(&self, sql: &str) -> String {
        let key = &self.key;
        format!(
            "-- psql runs no command that begins with a backslash until it reads the key again. Versions of psql that do\n\
             -- not know \\restrict read the statements without it.\n\
             \\if `case :VERSION_NUM in {VERSIONS}) echo on;; *) echo off;; esac`\n\
             \\set restrict_{key} '\\\\restrict {key}'\n\
             \\set unrestrict_{key} '\\\\unrestrict {key}'\n\
             \\else\n\
             \\set restrict_{key} ''\n\
             \\set unrestrict_{key} ''\n\
             \\endif\n\
             :restrict_{key}\n\
             \n\
             {sql}\n\
             :unrestrict_{key}\n"
        )
    }
}
