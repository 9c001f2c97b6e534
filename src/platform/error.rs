//! The one error type: a kind (which decides the exit code), what failed on what, a hint, and causes.
//!
//! A message is lower case, has no full stop and never repeats its cause: whoever prints an error
//! walks the chain (see [`Error::causes`]). No message may carry a secret.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is; it decides the exit code and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or the configuration asks for something that cannot be (exit 2).
    Usage,
    /// The work itself failed (exit 1).
    Failed,
    /// Damage, or another problem that a check is there to find (exit 3).
    Problem,
    /// The snapshot asked for does not exist (exit 4).
    NotFound,
    /// A source, store or target cannot be reached (exit 5).
    Unreachable,
    /// A signal asked the program to stop (exit 130).
    Interrupted,
}

impl Kind {
    /// The exit code of the process, as promised to pipelines.
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

    /// The word that stands for this kind in JSON.
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

/// A failure: kind, message, hint and cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed, on what; lower case, no full stop, no cause in it.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind` that says `message`.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Error { kind, message: message.to_string(), hint: None, source: None }
    }

    /// Makes a [`Kind::Usage`] error.
    pub fn usage(message: impl fmt::Display) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// Makes a [`Kind::Failed`] error.
    pub fn failed(message: impl fmt::Display) -> Self {
        Error::new(Kind::Failed, message)
    }

    /// Makes a [`Kind::Problem`] error: damage, or what a check is there to find.
    pub fn problem(message: impl fmt::Display) -> Self {
        Error::new(Kind::Problem, message)
    }

    /// Makes a [`Kind::NotFound`] error.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Error::new(Kind::NotFound, message)
    }

    /// Makes a [`Kind::Unreachable`] error.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Error::new(Kind::Unreachable, message)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Adds what this failure comes from.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Wraps `self` as the cause of a wider failure; kind and hint are kept.
    #[must_use]
    pub fn context(mut self, message: impl fmt::Display) -> Self {
        let (kind, hint) = (self.kind, self.hint.take());
        Error { kind, message: message.to_string(), hint, source: Some(Box::new(self)) }
    }

    /// The same error once more, its causes as words.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut causes = self.causes().into_iter().rev();
        let last = causes.next().map(|cause| Error::new(self.kind, cause));
        let cause = causes.fold(last, |inner, cause| {
            let outer = Error::new(self.kind, cause);
            Some(match inner {
                Some(inner) => outer.because(inner),
                None => outer,
            })
        });
        let error = Error { kind: self.kind, message: self.message.clone(), hint: self.hint.clone(), source: None };
        match cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }

    /// Message and causes on one line, for logs.
    #[must_use]
    pub fn whole(&self) -> String {
        let mut line = one_line(&self.message);
        for cause in self.causes() {
            line.push_str(": ");
            line.push_str(&cause);
        }
        line
    }

    /// The chain of causes, nearest first, each in words; a cause that repeats the one before is left out.
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

/// An I/O error that carries one of ours (through a `Read` or `Write`) gives it back whole.
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

/// So that an error of ours can travel through a `Read` or `Write`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Says what was being done when an I/O call failed.
pub trait IoContext<T> {
    /// Turns an I/O failure into an [`Error`] of `kind` that says `message`; one of our own errors
    /// inside it is kept, kind and all, as the cause.
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

/// `text` with line breaks and other control characters made visible, so that a message stays one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
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
    }
}
