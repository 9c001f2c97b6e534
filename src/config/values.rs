//! The types of values in a config. Any value may come from a variable, and is a text then.

use std::fmt;
use std::str::FromStr;

use chrono::Duration;
use serde::{Deserialize, Deserializer, de};

use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result};
use crate::platform::text::parse_bytes;

/// A text. Numbers and booleans are accepted too (a password may be a number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
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

/// A value that a type of this program parses from text. Errors contain the message of that type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr<Err = Error>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map(Parsed).map_err(|error: Error| de::Error::custom(error.full_message_with_hint()))
    }
}

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl FromStr for Number {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim().replace('_', "").parse();
        number.map(Number).map_err(|_| Error::usage(format!("'{text}' is not a whole number")))
    }
}

/// A boolean; `None` if the text is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag(pub(super) Option<bool>);

impl FromStr for Flag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Flag(Some(true))),
            "false" | "no" | "off" | "0" => Ok(Flag(Some(false))),
            // A variable that is not set may give an empty text: that is not a value.
            "" => Ok(Flag(None)),
            _ => Err(Error::usage(format!("'{text}' is neither true nor false"))),
        }
    }
}

/// A duration, such as `24h`.
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
            Error::usage(format!("'{text}' is not a size"))
                .hint("write a number of bytes, or one with KiB, MiB, GiB or TiB: 500MiB")
        })
    }
}

/// The number of snapshots that a retention rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

impl FromStr for Count {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number: Number = text.parse()?;
        u32::try_from(number.0).map(Count).map_err(|_| Error::usage(format!("'{text}' is too large")))
    }
}

/// The status of an HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16);

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let status = text.trim().parse().ok().filter(|status| (100..600).contains(status));
        status
            .map(Status)
            .ok_or_else(|| Error::usage(format!("'{text}' is not an HTTP status: use a number from 100 to 599")))
    }
}

/// An HTTP URL, or an empty text for none. It may contain a secret: an error does not repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpUrl(pub(super) String);

impl FromStr for HttpUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || text.starts_with("http://") || text.starts_with("https://") {
            return Ok(HttpUrl(text.to_owned()));
        }
        Err(Error::usage("the URL must start with http:// or https://"))
    }
}

/// Defines a type that accepts one of several words.
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
                Err(Error::usage(format!("unknown value '{text}': must be one of {}", $all.join(", "))))
            }
        }
    };
}

choice!(
    /// The level that a snapshot's proof must have.
    Proof,
    ["verified", "drilled"]
);
choice!(
    /// The form of a notice.
    Form,
    ["json", "slack", "discord", "teams", "ntfy"]
);
choice!(
    /// The runs after which a notice is sent.
    Occasion,
    ["failure", "recovery", "always"]
);
choice!(
    /// The decision of a guard that finds another one at work.
    OverlapWord,
    ["refuse", "start"]
);
