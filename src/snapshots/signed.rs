//! Documents that hold their own signature: proofs, and the leases of guards. Its field is the last one, and the signature
//! is that of the document without it.
//!
//! The signed bytes are found by position, and only they are parsed, so that nothing is believed which was not signed.

use crate::platform::error::{Error, Result};
use crate::platform::signature::{SigningKey, verify};
use crate::snapshots::trust::Trust;

/// The text between the document and its signature.
const FIELD: &str = ",\n  \"signature\": \"";
/// The end of an indented JSON object.
const END: &str = "\n}";

/// The namespace of the signatures of proofs.
pub(super) const PROOF: &str = "lifeboat-proof";
/// The namespace of the signatures of leases.
pub(super) const LEASE: &str = "lifeboat-lease";

/// Returns an indented JSON object with its signature.
pub(super) fn sign(document: &[u8], namespace: &str, key: &SigningKey) -> Result<Vec<u8>> {
    let signature = key.sign(namespace, document)?;
    let fields = document.strip_suffix(END.as_bytes()).ok_or_else(|| Error::failed("the document is not an object"))?;
    // Base64, dashes and line breaks: no other character needs an escape.
    let signature = signature.replace('\n', "\\n");
    Ok([fields, FIELD.as_bytes(), signature.as_bytes(), b"\"", END.as_bytes()].concat())
}

/// Returns the signed part of a document, and its signature. Without one, returns the whole document.
fn split(bytes: &[u8]) -> (Vec<u8>, Option<String>) {
    let parts = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let (fields, signature) = text.strip_suffix(END)?.rsplit_once(FIELD)?;
        let signature = signature.strip_suffix('"').filter(|signature| !signature.contains('"'))?;
        Some((format!("{fields}{END}").into_bytes(), Some(signature.replace("\\n", "\n"))))
    };
    parts().unwrap_or_else(|| (bytes.to_vec(), None))
}

/// Returns the part of a document that may be believed by the rules of trust. Fails with
/// [`Reason::NotTrusted`](crate::platform::error::Reason::NotTrusted) if it must be signed, and is not.
pub(super) fn trusted_part(bytes: Vec<u8>, namespace: &str, trust: &Trust) -> Result<Vec<u8>> {
    let Some(trusted) = trust.trusted() else { return Ok(bytes) };
    let (document, signature) = split(&bytes);
    let signature = signature.ok_or_else(|| Error::problem("it is not signed"));
    let checked = signature.and_then(|signature| verify(signature.as_bytes(), namespace, &document, trusted));
    checked.map(|()| document).map_err(|error| error.reason(crate::platform::error::Reason::NotTrusted))
}
