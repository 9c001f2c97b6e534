//! The forms that values have in a config. All of them may come from a variable, and so as text.

use std::fmt;
use std::str::FromStr;

use chrono::Duration;
use serde::{Deserialize, Deserializer, de};

use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result};
use crate::platform::text::parse_bytes;

/// A text; a number or a truth value will do (a password may be a number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, value: &str) -> Result<Text, E> {
                Ok(Text(value.to_owned()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A value that one of our types reads from text, in its own words where it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr<Err = Error>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map(Parsed).map_err(|error| de::Error::custom(told(&error)))
    }
}

/// An error in one line, with what to do about it.
pub(super) fn told(error: &Error) -> String {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    error.whole() + &hint
}

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl FromStr for Number {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim().replace('_', "").parse();
        number.map(Number).map_err(|_| Error::usage(format!("'{text}' is no whole number")))
    }
}

/// A truth value; None where there is nothing but an empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag(pub(super) Option<bool>);

impl FromStr for Flag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Flag(Some(true))),
            "false" | "no" | "off" | "0" => Ok(Flag(Some(false))),
            // What a variable that is not set gives says nothing.
            "" => Ok(Flag(None)),
            _ => Err(Error::usage(format!("'{text}' is neither true nor false"))),
        }
    }
}

/// A length of time, such as `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age(pub(super) Duration);

impl FromStr for Age {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_duration(text).map(Age)
    }
}

/// A size in bytes, such as `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_bytes(text).map(Size).ok_or_else(|| {
            Error::usage(format!("'{text}' is no size"))
                .hint("write a number of bytes, or one with KiB, MiB, GiB or TiB: 500MiB")
        })
    }
}

/// How often something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

impl FromStr for Count {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number: Number = text.parse()?;
        u32::try_from(number.0).map(Count).map_err(|_| Error::usage(format!("'{text}' is more than can be kept")))
    }
}

/// The status of an answer in HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16);

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let status = text.trim().parse().ok().filter(|status| (100..600).contains(status));
        status
            .map(Status)
            .ok_or_else(|| Error::usage(format!("'{text}' is no status: one is a number from 100 to 599")))
    }
}

/// An address of HTTP's, or none where it is empty. It may hold a secret: an error does not repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpUrl(pub(super) String);

impl FromStr for HttpUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || text.starts_with("http://") || text.starts_with("https://") {
            return Ok(HttpUrl(text.to_owned()));
        }
        Err(Error::usage("an address starts with http:// or https://"))
    }
}

/// One word of several.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident, $all:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(super) struct $name(pub(super) String);

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                if $all.contains(&text) {
                    return Ok($name(text.to_owned()));
                }
                Err(Error::usage(format!("'{text}' is none of {}", $all.join(", "))))
            }
        }
    };
}

choice!(
    /// What a snapshot's test must have been.
    Proof,
    ["verified", "drilled"]
);
choice!(
    /// How a notice is written.
    Form,
    ["json", "slack"]
);
choice!(
    /// When a notice is sent.
    Occasion,
    ["failure", "recovery", "always"]
);
