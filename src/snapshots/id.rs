//! Names of sources and ids of snapshots. They are parsed when they enter the program; inside, they are not strings.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::platform::error::{Error, Result};

/// The short name of a source: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
///
/// It is a folder's name in every kind of store, so it has no character with a special meaning in a shell, a URL or a
/// file system. `lifeboat.json` is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(String);

impl SourceName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Derives a name from the name of a file or database: removes the extension, and replaces every run of characters
    /// that are not allowed by one `-`. Returns `None` if nothing is left.
    #[must_use]
    pub fn derive(file_name: &str) -> Option<Self> {
        let stem = match file_name.rsplit_once('.') {
            Some((stem, _)) if !stem.is_empty() => stem,
            _ => file_name,
        };
        let mut name = String::new();
        for character in stem.chars() {
            match character {
                'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '.' => name.push(character),
                _ if name.ends_with('-') => {}
                _ => name.push('-'),
            }
        }
        let name = name.trim_start_matches(['-', '.', '_']).trim_end_matches('-');
        name.get(..name.len().min(Self::MAX_BYTES)).and_then(|name| name.parse().ok())
    }
}

impl FromStr for SourceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = text.len() <= Self::MAX_BYTES
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && text != "lifeboat.json";
        if fits {
            Ok(SourceName(text.to_owned()))
        } else {
            Err(Error::usage(format!("'{}' is not a valid name", crate::platform::error::one_line(text)))
                .hint("a name is 1 to 64 letters, digits, '.', '_' and '-', and starts with a letter or digit"))
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a snapshot: `<source>-<YYYYMMDD>T<HHMMSS>Z-<4 letters or digits>`, UTC.
///
/// The first two of the four count 1/1296ths of the second, so that ids of one source sort by time
/// as text, also within a second; the last two are random.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    source: SourceName,
    /// `<YYYYMMDD>T<HHMMSS>Z-<4>`: sorts by time.
    stamp: String,
}

/// The length of an id's stamp, in bytes.
pub(crate) const STAMP_BYTES: usize = "20261121T170501Z-7f3a".len();
const STAMP_TIME: &str = "%Y%m%dT%H%M%SZ";
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl SnapshotId {
    /// Creates the id of a snapshot of `source` taken at `time`. `random` distinguishes snapshots of the same instant.
    #[must_use]
    pub fn new(source: &SourceName, time: DateTime<Utc>, random: u16) -> Self {
        let fraction =
            usize::try_from(u64::from(time.nanosecond() % 1_000_000_000) * 1296 / 1_000_000_000).unwrap_or(0);
        let random = usize::from(random) % 1296;
        let suffix: String =
            [fraction / 36, fraction % 36, random / 36, random % 36].map(|d| char::from(DIGITS[d])).iter().collect();
        SnapshotId { source: source.clone(), stamp: format!("{}-{suffix}", time.format(STAMP_TIME)) }
    }

    /// Returns the source of the snapshot.
    #[must_use]
    pub fn source(&self) -> &SourceName {
        &self.source
    }

    /// Returns the time in the id, to the second.
    #[must_use]
    pub fn time(&self) -> DateTime<Utc> {
        let time = NaiveDateTime::parse_from_str(&self.stamp[..16], STAMP_TIME);
        time.map(|naive| naive.and_utc()).unwrap_or_default()
    }

    /// Returns the part after the source, which sorts by time across sources: `<YYYYMMDD>T<HHMMSS>Z-<4>`.
    #[must_use]
    pub fn stamp(&self) -> &str {
        &self.stamp
    }
}

impl FromStr for SnapshotId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let (source, stamp) = text.split_at_checked(text.len().checked_sub(STAMP_BYTES)?)?;
            let source = source.strip_suffix('-')?.parse().ok()?;
            let (time, suffix) = stamp.split_at_checked(16)?;
            let naive = NaiveDateTime::parse_from_str(time, STAMP_TIME).ok()?;
            let suffix = suffix.strip_prefix('-')?;
            let canonical = naive.format(STAMP_TIME).to_string() == time;
            let fits = canonical && suffix.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
            fits.then(|| SnapshotId { source, stamp: stamp.to_owned() })
        };
        parsed()
            .ok_or_else(|| Error::usage(format!("'{}' is not a snapshot id", crate::platform::error::one_line(text))))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.source, self.stamp)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|error: Error| serde::de::Error::custom(error.message))
            }
        }
    };
}
serde_as_text!(SourceName);
serde_as_text!(SnapshotId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_sort_by_time() {
        let source: SourceName = "my-app.v2".parse().expect("a good name");
        let time = DateTime::from_timestamp(1_795_280_701, 5_000_000).expect("in range");
        let earlier = SnapshotId::new(&source, time, 1295);
        let later = SnapshotId::new(&source, time + chrono::Duration::milliseconds(2), 0);
        assert!(earlier < later, "{earlier} {later}");
        assert_eq!(earlier.to_string().parse::<SnapshotId>().expect("its own text"), earlier);
        assert_eq!(earlier.time().timestamp(), 1_795_280_701);
        assert_eq!(earlier.source(), &source);
    }

    #[test]
    fn invalid_ids_are_refused() {
        for text in [
            "",
            "app",
            "app-20261121T170501Z-7f3",
            "app-20261321T170501Z-7f3a",
            "-20261121T170501Z-7f3a",
            "app-20261121T170501Z-7F3A",
            "app-20261121T170501Z_7f3a",
            "../x-20261121T170501Z-7f3a",
            "äpp20261121T170501Z-7f3a",
        ] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_derived_from_files() {
        let derived = |name: &str| SourceName::derive(name).map(|name| name.to_string());
        assert_eq!(derived("app.db").as_deref(), Some("app"));
        assert_eq!(derived("my app (1).sqlite3").as_deref(), Some("my-app-1"));
        assert_eq!(derived("we\"ird\nname.db").as_deref(), Some("we-ird-name"));
        assert_eq!(derived("data.v2.db").as_deref(), Some("data.v2"));
        assert_eq!(derived("数据.db"), None);
        assert_eq!(derived(".hidden").as_deref(), Some("hidden"));
    }
}
