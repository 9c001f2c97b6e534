//! The HTTP endpoints that a config wants to answer before anything is done.

use std::time::Duration;

use crate::platform::http::Url;

/// An endpoint and the answer that it should give.
#[derive(Clone, Debug)]
pub struct HttpCheck {
    /// Its address. Messages show the path of it, and hide the query and a login.
    pub url: Url,
    /// The status that it should answer with.
    pub status: u16,
    /// A field that its answer should have.
    pub json: Option<JsonField>,
    /// A text that its answer should hold.
    pub contains: Option<String>,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// A field of a JSON document and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonField {
    /// The way to it, such as `status` or `data.0.state`: names, and places in lists from 0 on.
    pub path: String,
    /// A text as it is, anything else as JSON writes it: `ok`, `3`, `true`, `null`.
    pub expected: String,
}

impl HttpCheck {
    /// Expects 200 within 10 seconds.
    #[must_use]
    pub fn new(url: Url) -> Self {
        HttpCheck { url, status: 200, json: None, contains: None, timeout: Duration::from_secs(10) }
    }
}
