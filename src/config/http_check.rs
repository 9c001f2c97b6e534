//! Checks of HTTP endpoints, which must pass before a command starts its work.

use std::time::Duration;

use crate::platform::http::Url;

/// An endpoint and the response that is expected from it.
#[derive(Clone, Debug)]
pub struct HttpCheck {
    /// Its URL. Messages show its path, and hide its query and its credentials.
    pub url: Url,
    /// The expected status code.
    pub status: u16,
    /// A field that the response must have, if any.
    pub json: Option<JsonField>,
    /// A text that the response must contain, if any.
    pub contains: Option<String>,
    /// The maximum time for one request and its response.
    pub timeout: Duration,
}

/// A field of a JSON document and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonField {
    /// The path of the field, such as `status` or `data.0.state`: field names and array indexes, which start at 0.
    pub path: String,
    /// The expected value: a string without its quotes, any other value as in JSON (`ok`, `3`, `true`, `null`).
    pub expected: String,
}

impl HttpCheck {
    /// Returns a check that expects status 200 within 10 seconds.
    #[must_use]
    pub fn new(url: Url) -> Self {
        HttpCheck { url, status: 200, json: None, contains: None, timeout: Duration::from_secs(10) }
    }
}
