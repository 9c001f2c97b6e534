//! Keys of encrypted archives: recipients to encrypt to, identities and passphrases to decrypt with, and their text
//! forms.
//!
//! No error in this module repeats a text that may hold a secret.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::platform::disk::{read_or_stop, shown};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::exposed;
use crate::platform::secret::Secret;
use crate::platform::secret_file;

/// The maximum number of recipients of an archive. This bounds the size of the header that is written.
pub const MAX_RECIPIENTS: usize = 256;

/// The length of `age1...`.
const RECIPIENT_CHARACTERS: usize = 62;

/// The maximum number of bytes of a file of identities or of a passphrase.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The public half of a key, `age1...`. The secret half decrypts archives that are encrypted to it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    /// Returns the recipient as the `age` crate's trait.
    pub(super) fn as_age(&self) -> &dyn age::Recipient {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = Error;

    /// Parses `age1...`. A secret key is refused, and the error does not repeat it.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if secret_file::holds_key(text) {
            return Err(Error::usage("this is a secret key; encryption needs the public key, which starts with age1")
                .hint("'lifeboat keygen --public FILE' prints the public keys of an identity file"));
        }
        if let Ok(recipient) = text.parse() {
            return Ok(Recipient(recipient));
        }
        let printable = one_line(text);
        if let Some(key_type) = foreign_recipient(text) {
            return Err(Error::usage(format!("'{printable}' is {key_type}, which is not supported"))
                .hint("give a key of the form age1..., created by 'lifeboat keygen' or 'age-keygen'"));
        }
        Err(Error::usage(format!("'{printable}' is not an age public key")).hint(format!(
            "check that it is complete: it starts with age1 and has {RECIPIENT_CHARACTERS} letters and digits"
        )))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The recipients or the passphrase that archives are encrypted with.
#[derive(Clone, Debug)]
pub enum EncryptWith {
    /// The secret half of any one of these keys decrypts the archive.
    Recipients(Vec<Recipient>),
    /// The passphrase decrypts the archive.
    Passphrase(Secret),
}

/// Identities (secret keys) and passphrases that open encrypted archives. `{:?}` prints only their numbers.
#[derive(Clone, Default)]
pub struct Keys {
    pub(super) identities: Vec<x25519::Identity>,
    pub(super) passphrases: Vec<Secret>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} identities, {} passphrases)", self.identities.len(), self.passphrases.len())
    }
}

impl Keys {
    /// Creates an empty set of keys.
    #[must_use]
    pub fn new() -> Self {
        Keys::default()
    }

    /// Returns true if there is neither an identity nor a passphrase.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.passphrases.is_empty()
    }

    /// Adds the identities in a file of the form that `age-keygen` writes: one per line, comments, empty lines.
    /// Warns if other users can read the file.
    pub fn add_identity_file(&mut self, path: &Path) -> Result<()> {
        let text = read_secret_file(path, "identity")?;
        self.add_identities(text.expose(), &shown(path))
    }

    /// Adds identities from a text, such as an environment variable's value, that holds either the identities
    /// themselves or the path of a file of them. Errors call the text `name`.
    pub fn add_identity(&mut self, text: &str, name: &str) -> Result<()> {
        if text.lines().any(|line| is_secret(line.trim()) || is_encrypted(line)) {
            self.add_identities(text, name)
        } else if text.trim().is_empty() {
            Err(Error::usage(format!("{name} is empty")).hint("give an age secret key or the path of an identity file"))
        } else {
            self.add_identity_file(Path::new(text.trim()))
        }
    }

    /// Adds the passphrase in a file: its first line (see [`read_passphrase_file`]).
    pub fn add_passphrase_file(&mut self, path: &Path) -> Result<()> {
        self.passphrases.push(read_passphrase_file(path)?);
        Ok(())
    }

    /// Adds a passphrase.
    pub fn add_passphrase(&mut self, passphrase: Secret) {
        self.passphrases.push(passphrase);
    }

    /// Returns the public halves of the identities.
    #[must_use]
    pub fn recipients(&self) -> Vec<Recipient> {
        self.identities.iter().map(recipient_of).collect()
    }

    /// Returns all these identities' recipients or, if there is no identity, the first passphrase. Returns `None` if
    /// there is no key.
    #[must_use]
    pub fn encrypt_with(&self) -> Option<EncryptWith> {
        if self.identities.is_empty() {
            return self.passphrases.first().cloned().map(EncryptWith::Passphrase);
        }
        Some(EncryptWith::Recipients(self.recipients()))
    }

    fn add_identities(&mut self, text: &str, name: &str) -> Result<()> {
        let before = self.identities.len();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = || format!("line {} of {name}", number + 1);
            if is_encrypted(line) {
                return Err(Error::usage(format!("{name} is itself encrypted"))
                    .hint("decrypt it first: age --decrypt --output KEY.txt FILE"));
            }
            match line.parse() {
                Ok(identity) => self.identities.push(identity),
                Err(_) if line.parse::<Recipient>().is_ok() => {
                    return Err(Error::usage(format!("{} is a public key, which cannot decrypt", at()))
                        .hint("give the file that contains the secret key, which starts with AGE-SECRET-KEY-1"));
                }
                Err(_) => {
                    let problem = foreign_identity(line).map_or_else(
                        || "is not an age secret key".to_owned(),
                        |key_type| format!("is {key_type}, which is not supported"),
                    );
                    return Err(Error::usage(format!("{} {problem}", at())).hint(
                        "give a key of the form AGE-SECRET-KEY-1..., created by 'lifeboat keygen' or 'age-keygen'",
                    ));
                }
            }
        }
        if self.identities.len() == before {
            return Err(Error::usage(format!("{name} contains no secret key"))
                .hint("a secret key is a line that starts with AGE-SECRET-KEY-1"));
        }
        Ok(())
    }
}

/// Returns the public half of an identity.
pub(super) fn recipient_of(identity: &x25519::Identity) -> Recipient {
    Recipient(identity.to_public())
}

/// Generates a key. Returns its public half and the text of an identity file, in the form that `age-keygen` writes.
#[must_use]
pub fn generate_key(now: DateTime<Utc>) -> (Recipient, Secret) {
    let identity = x25519::Identity::generate();
    let public = recipient_of(&identity);
    let created = now.to_rfc3339_opts(SecondsFormat::Secs, true);
    let secret = identity.to_string();
    let text = format!("# created: {created}\n# public key: {public}\n{}\n", secret.expose_secret());
    (public, Secret::new(text))
}

/// Reads a passphrase: the first line of a file, without its line break. Warns if other users can read the file.
pub fn read_passphrase_file(path: &Path) -> Result<Secret> {
    let text = read_secret_file(path, "passphrase")?;
    let line = text.expose().lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Error::usage(format!("the first line of {} is empty", shown(path)))
            .hint("the passphrase is the first line of the file"));
    }
    Ok(Secret::new(line))
}

/// Reads a file of at most [`MAX_FILE_BYTES`] that holds a secret.
fn read_secret_file(path: &Path, what: &str) -> Result<Secret> {
    secret_file::refuse_key(path, &format!("{what} file"))?;
    // A key would have been recognized. A passphrase would not.
    let name = if what == "identity" { shown(path) } else { secret_file::shown_if_exists(path) };
    let cannot = |error: std::io::Error| secret_file::cannot_read(format!("cannot read the {what} file {name}"), error);
    let bytes = read_or_stop(path, MAX_FILE_BYTES).map_err(cannot)?;
    exposed::warn(path, &format!("{what} file"), exposed::Content::Key);
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::usage(format!("the {what} file {} is too large", shown(path)))
            .hint(format!("check that this is the path of the {what} file")));
    }
    // The error of `from_utf8` holds the bytes of the secret: it must not become the cause.
    let text = String::from_utf8(bytes).map_err(|error| {
        let encrypted = error.as_bytes().starts_with(ENCRYPTED.as_bytes());
        let refused = Error::usage(if encrypted {
            format!("{} is itself encrypted", shown(path))
        } else {
            format!("the {what} file {} is not UTF-8", shown(path))
        });
        if encrypted { refused.hint("decrypt it first: age --decrypt --output KEY.txt FILE") } else { refused }
    })?;
    Ok(Secret::new(text))
}

/// The first bytes of every file that age encrypted.
const ENCRYPTED: &str = "age-encryption.org/";

/// Returns true if a line is the start of a file that age encrypted, binary or armored.
fn is_encrypted(line: &str) -> bool {
    line.starts_with(ENCRYPTED) || line.starts_with("-----BEGIN AGE ENCRYPTED FILE")
}

/// The prefixes of secret keys of all types.
const SECRET: [&str; 2] = ["AGE-SECRET-KEY-", "AGE-PLUGIN-"];

/// Returns true if a text begins like a secret key.
fn is_secret(text: &str) -> bool {
    SECRET.iter().any(|prefix| begins(text, prefix))
}

/// Returns true if a text begins with `prefix`, in upper or lower case: both are valid for keys.
fn begins(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Returns the name of an unsupported type of recipient; `None` if the text is not of a known type.
fn foreign_recipient(text: &str) -> Option<&'static str> {
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
        return Some("an SSH key");
    }
    // `age1NAME1...`: the last 1 separates name and data. A text as long as an X25519 recipient is a mistyped one.
    let rest = text.get(4..).filter(|_| begins(text, "age1") && text.len() != RECIPIENT_CHARACTERS)?;
    let name = rest.rsplit_once('1')?.0;
    match name.to_ascii_lowercase().as_str() {
        "pq" => Some("a post-quantum key"),
        "tag" | "tagpq" => Some("a tagged key"),
        _ => Some("a plugin key"),
    }
}

/// Returns the name of an unsupported type of identity; `None` if the line is not of a known type.
fn foreign_identity(line: &str) -> Option<&'static str> {
    if begins(line, "AGE-PLUGIN-") {
        Some("a plugin key")
    } else if begins(line, "AGE-SECRET-KEY-PQ-1") {
        Some("a post-quantum key")
    } else if line.starts_with("-----BEGIN") {
        Some("an SSH key or a key of another program")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::platform::error::Kind;

    const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    /// Returns the text of an error, after checking that it shows no part of the key.
    #[track_caller]
    fn refused<T>(result: Result<T>) -> String {
        let Err(error) = result else { panic!("nothing was refused") };
        assert_eq!(error.kind, Kind::Usage, "{}", error.full_message());
        let text = format!("{} {} {error:?}", error.full_message(), error.hint.clone().unwrap_or_default());
        for part in ["GQ9778", "gq9778", "Y5J33", "y5j33", "hunter2"] {
            assert!(!text.contains(part), "{text}");
        }
        format!("{} / {}", error.full_message(), error.hint.unwrap_or_default())
    }

    fn read(text: &str) -> Result<Vec<Recipient>> {
        let mut keys = Keys::new();
        keys.add_identities(text, "keys.txt").map(|()| keys.recipients())
    }

    #[test]
    fn a_recipient_is_read_and_written_back() {
        let recipient: Recipient = PUBLIC.parse().unwrap();
        assert_eq!(recipient.to_string(), PUBLIC);
        assert_eq!(format!(" {PUBLIC}\n").parse::<Recipient>().unwrap(), recipient);
    }

    #[test]
    fn a_mistyped_recipient_is_shown() {
        let mistyped = PUBLIC.replace("t7rx", "t7ry");
        assert!(refused(mistyped.parse::<Recipient>()).contains(&format!("'{mistyped}' is not an age public key")));
        assert!(refused(PUBLIC[..40].parse::<Recipient>()).contains("check that it is complete"));
        assert!(refused(PUBLIC.replace("7rx", "1rx").parse::<Recipient>()).contains("check that it is complete"));
        assert!(refused("".parse::<Recipient>()).contains("'' is not an age public key"));
        assert!(refused("a\nb".parse::<Recipient>()).contains("'a\\nb'"));
    }

    #[test]
    fn a_secret_key_as_a_recipient_is_refused_and_not_repeated() {
        for text in [SECRET.to_owned(), SECRET.to_lowercase(), format!(" {SECRET}"), SECRET[..30].to_owned()] {
            assert!(refused(text.parse::<Recipient>()).contains("secret key"));
        }
    }

    #[test]
    fn recipients_of_other_types_are_named() {
        for (text, key_type) in [
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO me@here", "an SSH key"),
            ("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "a plugin key"),
            ("age1pq1qqqqqqqqqqqqqqqqqqqqqqqqq", "a post-quantum key"),
            ("age1tag1qqqqqqqqqqqqqqqqqqqqqqqq", "a tagged key"),
        ] {
            let message = refused(text.parse::<Recipient>());
            assert!(message.contains(key_type) && message.contains("not supported"), "{message}");
        }
    }

    #[test]
    fn identities_are_read_as_age_keygen_writes_them_and_people_edit_them() {
        let other = x25519::Identity::generate();
        let (secret, public) = (other.to_string().expose_secret().to_owned(), other.to_public().to_string());
        for text in [
            format!("# created: 2026-11-21T17:05:00Z\n# public key: {PUBLIC}\n{SECRET}\n\n{secret}"),
            format!("\u{feff}# of the office\r\n\r\n{SECRET}\r\n  {secret}  \r\n"),
            format!("{}\n{secret}", SECRET.to_lowercase()),
        ] {
            let found: Vec<String> = read(&text).unwrap().iter().map(Recipient::to_string).collect();
            assert_eq!(found, [PUBLIC, &public]);
        }
    }

    #[test]
    fn a_text_without_an_identity_is_refused_and_never_shown() {
        let mistyped = SECRET.replace("PVQ2", "PVQ3");
        for (text, words) in [
            ("", "contains no secret key"),
            ("# nothing\n", "contains no secret key"),
            (&format!("# x\n{PUBLIC}"), "line 2 of keys.txt is a public key"),
            (&mistyped, "line 1 of keys.txt is not an age secret key"),
            (&SECRET[..40], "line 1 of keys.txt is not an age secret key"),
            (&format!("{SECRET}\nhunter2"), "line 2 of keys.txt is not an age secret key"),
            ("AGE-PLUGIN-YUBIKEY-1GQ9778", "a plugin key, which is not supported"),
            ("AGE-SECRET-KEY-PQ-1GQ9778", "a post-quantum key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nGQ9778", "an SSH key"),
            ("age-encryption.org/v1\n-> scrypt x 18\n", "keys.txt is itself encrypted / decrypt it first"),
            ("-----BEGIN AGE ENCRYPTED FILE-----\nGQ9778", "keys.txt is itself encrypted / decrypt it first"),
        ] {
            let message = refused(read(text));
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_variable_holds_an_identity_or_the_path_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.txt");
        fs::write(&path, format!("# mine\n{SECRET}\n")).unwrap();
        for text in [
            SECRET,
            &SECRET.to_lowercase(),
            &format!("# created: now\n{SECRET}\n"),
            path.to_str().unwrap(),
            &format!("{}\n", path.to_str().unwrap()),
        ] {
            let mut keys = Keys::new();
            keys.add_identity(text, "LIFEBOAT_IDENTITY").unwrap();
            assert_eq!(keys.recipients(), [PUBLIC.parse().unwrap()]);
        }
        let add = |text: &str| Keys::new().add_identity(text, "LIFEBOAT_IDENTITY");
        assert!(refused(add(&SECRET[..50])).contains("line 1 of LIFEBOAT_IDENTITY is not an age secret key"));
        assert!(refused(add("AGE-SECRET-KEY-PQ-1GQ9778")).contains("a post-quantum key"));
        assert!(refused(add(" ")).contains("LIFEBOAT_IDENTITY is empty"));
        assert!(refused(add("/nowhere/key.txt")).contains("cannot read the identity file /nowhere/key.txt"));
        assert!(refused(Keys::new().add_identity_file(Path::new(SECRET))).contains("a secret key is given instead"));
        assert!(refused(Keys::new().add_passphrase_file(Path::new(SECRET))).contains("a secret key is given instead"));
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        let write = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            read_passphrase_file(&path)
        };
        for (bytes, passphrase) in [
            (&b"correct horse"[..], "correct horse"),
            (b"correct horse\n", "correct horse"),
            (b"correct horse\r\nsecond line\n", "correct horse"),
            (b" spaces count \n", " spaces count "),
            ("gr\u{fc}\u{df}e\n".as_bytes(), "gr\u{fc}\u{df}e"),
        ] {
            assert_eq!(write(bytes).unwrap().expose(), passphrase);
        }
        assert!(refused(write(b"")).contains("is empty"));
        assert!(refused(write(b"\nhunter2\n")).contains("is empty"));
        assert!(refused(write(b"hunter2\xff\n")).contains("is not UTF-8"));
        assert!(refused(write(b"age-encryption.org/v1\n\xff\xfe")).contains("itself encrypted"));
        assert!(refused(write(&vec![b'x'; 2 << 20])).contains("too large"));
        assert!(refused(read_passphrase_file(&path.join("no"))).contains("cannot read the passphrase file"));
    }

    #[test]
    fn a_new_key_is_written_as_age_keygen_does_and_opens_what_is_encrypted_to_it() {
        let now = "2026-11-21T17:05:01.25Z".parse().unwrap();
        let (public, text) = generate_key(now);
        let lines: Vec<&str> = text.expose().lines().collect();
        assert_eq!(lines[..2], ["# created: 2026-11-21T17:05:01Z", &format!("# public key: {public}")]);
        assert!(lines.len() == 3 && lines[2].starts_with("AGE-SECRET-KEY-1"));
        assert_eq!(read(text.expose()).unwrap(), [public]);
    }

    #[test]
    fn keys_are_not_printed() {
        let mut keys = Keys::new();
        keys.add_identities(SECRET, "x").unwrap();
        keys.add_passphrase(Secret::new("hunter2"));
        assert_eq!(format!("{keys:?}"), "Keys(1 identities, 1 passphrases)");
        assert_eq!(format!("{:?}", EncryptWith::Passphrase(Secret::new("hunter2"))), "Passphrase([hidden])");
        let recipients = keys.recipients();
        assert!(matches!(keys.encrypt_with(), Some(EncryptWith::Recipients(same)) if same == recipients));
        assert!(Keys::new().encrypt_with().is_none());
    }
}
