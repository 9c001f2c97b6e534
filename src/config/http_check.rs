//! The HTTP endpoints that must answer before a command does its work.

use std::time::Duration;

use crate::platform::http::Url;

/// An endpoint and the answer that it should give.
#[derive(Clone, Debug)]
pub struct HttpCheck {
    /// Its URL. Messages show its path, and hide its query and its credentials.
    pub url: Url,
    /// The status that it should answer with.
    pub status: u16,
    /// A field that its answer should have.
    pub json: Option<JsonField>,
    /// A text that its answer should contain.
    pub contains: Option<String>,
    /// The longest time that one answer may take.
    pub timeout: Duration,
}

/// A field of a JSON document and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonField {
    /// The path to it, such as `status` or `data.0.state`: names, and positions in lists, counted from 0.
    pub path: String,
    /// The expected value: a text as it is, anything else as JSON writes it (`ok`, `3`, `true`, `null`).
    pub expected: String,
}

impl HttpCheck {
    /// Returns a check that expects status 200 within 10 seconds.
    #[must_use]
    pub fn new(url: Url) -> Self {
        HttpCheck { url, status: 200, json: None, contains: None, timeout: Duration::from_secs(10) }
    }
}
