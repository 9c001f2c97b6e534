//! The number of a run that a client requests. The client chooses it, so that it can ask again for the result of a run
//! whose answer was lost on the way.

use std::fmt;
use std::str::FromStr;

use crate::platform::error::{Error, Result};

/// The number of a run: 16 to 64 letters and digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunId(String);

impl RunId {
    /// Returns a new random number.
    pub(crate) fn random() -> Result<RunId> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::failed("cannot get random numbers from the system").because(error.to_string()))?;
        Ok(RunId(hex::encode(random)))
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if (16..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(RunId(text.to_owned()));
        }
        Err(Error::usage("the number of the run is not valid").hint("it has 16 to 64 letters and digits"))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
