//! The one error type: a kind (which decides the exit code), what failed on what, a hint, and causes.
//!
//! A message is lower case, has no full stop and does not repeat its cause: the code that prints an error walks the
//! chain of causes (see [`Error::causes`]). No message may contain a secret.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of failure of an [`Error`]; it decides the exit code and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or the configuration is invalid or asks for something impossible (exit 2).
    Usage,
    /// The operation failed (exit 1).
    Failed,
    /// A check found damage or another problem (exit 3).
    Problem,
    /// The requested snapshot does not exist (exit 4).
    NotFound,
    /// A source, store or target cannot be reached (exit 5).
    Unreachable,
    /// A signal asked the program to stop (exit 130).
    Interrupted,
}

impl Kind {
    /// Returns the exit code of the process, which scripts and pipelines rely on.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Problem => 3,
            Kind::NotFound => 4,
            Kind::Unreachable => 5,
            Kind::Interrupted => 130,
        }
    }

    /// Returns the name of this kind in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Failed => "failed",
            Kind::Problem => "problem",
            Kind::NotFound => "not_found",
            Kind::Unreachable => "unreachable",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// The reason of a failure, where a caller must know it. A kind decides the exit code and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The place was reached, and there is no store in it.
    StoreIsAbsent,
    /// The object exists, but is in an archive tier of the service, and cannot be read at this moment.
    ObjectIsArchived,
    /// The object was made by a newer version of this program, and cannot be read by this one. It is not damaged.
    NewerFormat,
    /// The manifest was cut, emptied or overwritten: it is not a JSON document. The archive holds its own manifest.
    ManifestIsLost,
    /// The file is not a database of its engine: its first bytes are others.
    NotADatabase,
    /// The snapshot may be whole, but it is not trusted: it is not encrypted, although it should be.
    NotTrusted,
}

/// A failure: kind, message, hint and cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind, which decides the exit code.
    pub kind: Kind,
    /// The failed operation and its object; lower case, without a full stop and without the cause.
    pub message: String,
    /// The hint: the action that the user can take.
    pub hint: Option<String>,
    /// The reason, if callers must know it.
    pub reason: Option<Reason>,
    /// The values of the option `--source` of which the user must choose one.
    pub choices: Vec<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error with this kind and message.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Error { kind, message: message.to_string(), hint: None, reason: None, choices: Vec::new(), source: None }
    }

    /// Creates a [`Kind::Usage`] error.
    pub fn usage(message: impl fmt::Display) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// Creates a [`Kind::Failed`] error.
    pub fn failed(message: impl fmt::Display) -> Self {
        Error::new(Kind::Failed, message)
    }

    /// Creates a [`Kind::Problem`] error.
    pub fn problem(message: impl fmt::Display) -> Self {
        Error::new(Kind::Problem, message)
    }

    /// Creates a [`Kind::NotFound`] error.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Error::new(Kind::NotFound, message)
    }

    /// Creates a [`Kind::Unreachable`] error.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Error::new(Kind::Unreachable, message)
    }

    /// Adds a hint: the action that the user can take.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Sets the values of `--source` of which the user must choose one.
    #[must_use]
    pub fn choices(self, choices: Vec<String>) -> Self {
        Error { choices, ..self }
    }

    /// Sets the reason, for callers that must know it.
    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Returns true if the object was made by a newer version of this program. See [`Reason::NewerFormat`].
    #[must_use]
    pub fn is_newer_format(&self) -> bool {
        self.reason == Some(Reason::NewerFormat)
    }

    /// Returns true if the snapshot may be whole, but is not trusted. See [`Reason::NotTrusted`].
    #[must_use]
    pub fn is_not_trusted(&self) -> bool {
        self.reason == Some(Reason::NotTrusted)
    }

    /// Adds the cause of this failure. If a signal ended the reading of a file, this is no other failure.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        let carried = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if carried.and_then(|inner| inner.downcast_ref::<Error>()).is_some_and(|inner| inner.kind == Kind::Interrupted)
        {
            (self.kind, self.hint) = (Kind::Interrupted, None);
        }
        self.source = Some(cause);
        self
    }

    /// Wraps `self` as the cause of a wider failure; kind and hint are kept.
    #[must_use]
    pub fn context(mut self, message: impl fmt::Display) -> Self {
        let (kind, hint, reason) = (self.kind, self.hint.take(), self.reason);
        let choices = std::mem::take(&mut self.choices);
        Error { kind, message: message.to_string(), hint, reason, choices, source: Some(Box::new(self)) }
    }

    /// Returns a copy of the error, with its causes as text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut causes = self.causes().into_iter().rev();
        let last = causes.next().map(|cause| Error::new(self.kind, cause));
        let cause = causes.fold(last, |inner, cause| {
            let outer = Error::new(self.kind, cause);
            Some(match inner {
                Some(inner) => outer.because(inner),
                None => outer,
            })
        });
        let error = Error {
            kind: self.kind,
            message: self.message.clone(),
            hint: self.hint.clone(),
            reason: self.reason,
            choices: self.choices.clone(),
            source: None,
        };
        match cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }

    /// Returns the message and the causes on one line, for logs.
    #[must_use]
    pub fn full_message(&self) -> String {
        let mut line = one_line(&self.message);
        for cause in self.causes() {
            line.push_str(": ");
            line.push_str(&cause);
        }
        line
    }

    /// Returns the message, the causes and the hint on one line: for checks and notices, which have no line for a hint.
    #[must_use]
    pub fn full_message_with_hint(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(" ({})", one_line(hint))).unwrap_or_default();
        self.full_message() + &hint
    }

    /// Returns the chain of causes as texts, nearest first. A cause that repeats the one before it is left out.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            let text = one_line(&cause.to_string());
            if causes.last().unwrap_or(&self.message) != &text {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }
}

/// Converts an I/O error. If it carries an [`Error`] (through a `Read` or `Write`), that error is returned unchanged.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            if let Some(Ok(inner)) = error.into_inner().map(|inner| inner.downcast::<Error>()) {
                return *inner;
            }
            return Error::failed("input or output failed");
        }
        Error::failed("input or output failed").because(error)
    }
}

/// Wraps an [`Error`], so that it can pass through a `Read` or `Write`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Adds the failed operation to the error of an I/O call.
pub trait IoContext<T> {
    /// Turns an I/O failure into an [`Error`] with this kind and message. If it carries an [`Error`], that one becomes
    /// the cause, and its kind and hint are kept.
    fn io(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn io(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                Error::from(error).context(message())
            } else {
                let full = error.kind() == io::ErrorKind::StorageFull;
                let wrapped = Error::new(kind, message()).because(error);
                if full { wrapped.hint("the disk is full: free some space, or use another place") } else { wrapped }
            }
        })
    }
}

/// Returns `text` with line breaks and other control characters escaped, so that a message stays on one line and changes
/// neither the state of a terminal nor the order in which it shows the rest of the line.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || changes_layout(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Returns true for the characters that begin a new line, or that change the direction of the text after them.
fn changes_layout(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_trip_through_io() {
        let back = Error::from(io::Error::from(Error::problem("block 3 is damaged").hint("verify")));
        assert_eq!((back.kind, back.message.as_str()), (Kind::Problem, "block 3 is damaged"));
        assert_eq!(back.hint.as_deref(), Some("verify"));
    }

    #[test]
    fn causes_are_listed_nearest_first_and_once() {
        let error = Error::from(io::Error::other("disk on fire")).context("cannot write").context("cannot snapshot");
        assert_eq!(error.causes(), ["cannot write", "input or output failed", "disk on fire"]);
    }

    #[test]
    fn a_message_is_one_line_whatever_the_name() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line("a\u{202e}b\u{2028}c\u{9b}d"), "a\\u{202e}b\\u{2028}c\\u{9b}d");
    }
}
