//! SSH signatures: Ed25519, in the format of `ssh-keygen -Y sign`, so that `ssh-keygen -Y verify` checks them by hand. See
//! PROTOCOL.sshsig of OpenSSH.
//!
//! No error in this module repeats a text that may hold a secret.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use ssh_key::private::Ed25519Keypair;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, SshSig};

use crate::platform::disk::read_or_stop;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::exposed::is_mounted_secret;
use crate::platform::secret::Secret;
use crate::platform::secret_file;

/// The largest signature that is read, in bytes. One of Ed25519 has about 300.
pub const MAX_SIGNATURE_BYTES: u64 = 4096;
/// The largest key file that is read, in bytes.
const MAX_KEY_BYTES: u64 = 1 << 16;
/// The first line of a private key in the format of OpenSSH.
const PRIVATE_KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

/// A public Ed25519 key: `ssh-ed25519 AAAA... comment`.
#[derive(Clone)]
pub struct PublicKey {
    key: Ed25519PublicKey,
    comment: String,
}

/// Two keys are equal whatever their comments are.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for PublicKey {}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err(Error::usage("this is a private key; give the public key, which starts with ssh-ed25519")
                .hint("'lifeboat keygen --public FILE' prints the public key of a key file"));
        }
        let hint = "give one line such as 'ssh-ed25519 AAAA... comment': 'lifeboat keygen --signing' makes such a key";
        match ssh_key::PublicKey::from_openssh(text) {
            Ok(parsed) => match parsed.key_data() {
                KeyData::Ed25519(key) => Ok(PublicKey { key: *key, comment: one_line(parsed.comment()) }),
                _ => Err(Error::usage(format!("'{}' is not an Ed25519 key", one_line(text))).hint(hint)),
            },
            Err(_) => Err(Error::usage(format!("'{}' is not a public SSH key", one_line(text))).hint(hint)),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = ssh_key::PublicKey::new(KeyData::Ed25519(self.key), self.comment.as_str());
        f.write_str(&key.to_openssh().map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private Ed25519 key. It is never printed.
pub struct SigningKey(PrivateKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl SigningKey {
    /// Reads a private key in the format of OpenSSH that has no passphrase. As `ssh` does, it refuses a file of ours that
    /// others can read.
    pub fn read(path: &Path) -> Result<Self> {
        secret_file::refuse_key(path, "signing key")?;
        let shown = secret_file::shown_if_exists(path);
        let cannot =
            |error: std::io::Error| secret_file::cannot_read(format!("cannot read the signing key {shown}"), error);
        let facts = path.metadata().map_err(cannot)?;
        let is_ours = facts.is_file() && facts.uid() == rustix::process::geteuid().as_raw();
        if is_ours && facts.mode() & 0o077 != 0 && !is_mounted_secret(path) {
            return Err(Error::usage(format!("the signing key {shown} can be read by other users"))
                .hint("run 'chmod 600' on it; if others may have read it, make another key"));
        }
        let bytes = read_or_stop(path, MAX_KEY_BYTES).map_err(cannot)?;
        Self::parse(&String::from_utf8_lossy(&bytes), &shown)
    }

    /// Parses a private key. `name` names it in messages.
    fn parse(text: &str, name: &str) -> Result<Self> {
        let hint = "'lifeboat keygen --signing --output FILE' makes one, and so does 'ssh-keygen -t ed25519 -N \"\"'";
        // The cause may hold parts of the key.
        let key = PrivateKey::from_openssh(text.trim())
            .map_err(|_| Error::usage(format!("{name} is not a private key in the format of OpenSSH")).hint(hint))?;
        if key.is_encrypted() {
            return Err(Error::usage(format!("the signing key {name} has a passphrase, which nobody can enter here"))
                .hint("'ssh-keygen -p -f FILE' removes it from a copy of the file"));
        }
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(SigningKey(key)),
            other => {
                Err(Error::usage(format!("the signing key {name} is of the type {other}, not Ed25519")).hint(hint))
            }
        }
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self.0.public_key().key_data() {
            KeyData::Ed25519(key) => PublicKey { key: *key, comment: one_line(self.0.comment()) },
            _ => unreachable!("only Ed25519 keys are read"),
        }
    }

    /// Signs a message. The namespace keeps signatures of different documents apart. Returns the armored signature.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String> {
        let signed = self.0.sign(namespace, HashAlg::Sha512, message).and_then(|signed| signed.to_pem(LineEnding::LF));
        let mut armored = signed.map_err(|error| Error::failed("cannot sign").because(error.to_string()))?;
        if !armored.ends_with('\n') {
            armored.push('\n');
        }
        Ok(armored)
    }
}

/// Returns true if a text is a private key in the format of OpenSSH.
#[must_use]
pub fn is_private_key(text: &str) -> bool {
    text.trim_start().starts_with(PRIVATE_KEY)
}

/// Generates a key. Returns its public half and the text of the key file.
pub fn generate_key(comment: &str) -> Result<(PublicKey, Secret)> {
    let mut seed = [0; 32];
    let failed = || Error::failed("cannot make a key");
    getrandom::fill(&mut seed).map_err(|error| failed().because(error.to_string()))?;
    let pair = Ed25519Keypair::from_seed(&seed);
    seed.fill(0);
    let key = PrivateKey::new(pair.into(), comment).map_err(|error| failed().because(error.to_string()))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|error| failed().because(error.to_string()))?;
    let text = format!("{}\n", text.trim_end());
    Ok((SigningKey(key).public(), Secret::new(text)))
}

/// Checks that one of the trusted keys has signed a message in a namespace. Fails if the signature is anything but one
/// armored signature with such a key.
pub fn verify(armored: &[u8], namespace: &str, message: &[u8], trusted: &[PublicKey]) -> Result<()> {
    let (signature, key) = parse_signature(armored)?;
    if !trusted.contains(&key) {
        return Err(Error::problem(format!("it is signed with another key, {key}")));
    }
    check(&signature, &key, namespace, message)
}

/// Returns true if a signature is one of this message, whoever has made it.
#[must_use]
pub fn is_of(armored: &[u8], namespace: &str, message: &[u8]) -> bool {
    parse_signature(armored).and_then(|(signature, key)| check(&signature, &key, namespace, message)).is_ok()
}

fn check(signature: &SshSig, key: &PublicKey, namespace: &str, message: &[u8]) -> Result<()> {
    if signature.namespace() != namespace {
        let other = one_line(signature.namespace());
        return Err(Error::problem(format!("its signature is one of another kind of document, '{other}'")));
    }
    let key = ssh_key::PublicKey::new(KeyData::Ed25519(key.key), "");
    key.verify(namespace, message, signature).map_err(|_| Error::problem("its signature is one of another document"))
}

/// Parses exactly one signature that was made with an Ed25519 key.
fn parse_signature(armored: &[u8]) -> Result<(SshSig, PublicKey)> {
    let invalid = || Error::problem("its signature is not an SSH signature of an Ed25519 key");
    let text = std::str::from_utf8(armored).map_err(|_| invalid())?;
    let signature = SshSig::from_pem(text).map_err(|_| invalid())?;
    let KeyData::Ed25519(key) = signature.public_key() else { return Err(invalid()) };
    // The text must be what it stands for, and no more: nothing before it, and nothing after it.
    let canonical = signature.to_pem(LineEnding::LF).map_err(|_| invalid())?;
    let is_canonical = canonical.trim_end_matches('\n') == text.strip_suffix('\n').unwrap_or(text);
    let is_known = signature.version() == SshSig::VERSION && signature.reserved().is_empty();
    match is_canonical && is_known && signature.algorithm() == Algorithm::Ed25519 {
        true => Ok((signature.clone(), PublicKey { key: *key, comment: String::new() })),
        false => Err(invalid()),
    }
}
