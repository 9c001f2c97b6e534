//! Computes a new signature for a request that the proxy has changed.

use sha2::{Digest as _, Sha256};

use super::request::Request;

/// Returns the value of Authorization for a request without one of its headers, or `None` if that header was not
/// signed. This is Signature Version 4, as described in the S3 API's manual under "Authenticating Requests: Using the
/// Authorization Header".
pub fn authorization_without(request: &Request, name: &str, secret: &str) -> Option<String> {
    let authorization = request.head.header("authorization")?;
    let field = |name| authorization.split([',', ' ']).find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let (credential, signed) = (field("Credential")?, field("SignedHeaders")?);
    let (_, scope) = credential.split_once('/')?;
    let kept: Vec<_> = signed.split(';').filter(|signed| !signed.eq_ignore_ascii_case(name)).collect();
    if kept.join(";") == signed {
        return None;
    }
    let signed = kept.join(";");
    // The path is used as it was sent, because the SDK encodes it in the same way as the signature does.
    let path = request.head.first_line.split([' ', '?']).nth(1)?;
    let mut query: Vec<_> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_by_key(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query: Vec<_> =
        query.iter().map(|pair| if pair.contains('=') { (*pair).to_owned() } else { format!("{pair}=") }).collect();
    let mut canonical = format!("{}\n{path}\n{}\n", request.method, query.join("&"));
    for name in kept {
        let values: Vec<_> = request.head.headers.iter().filter(|(other, _)| other == name).collect();
        let values: Vec<_> = values
            .iter()
            .map(|(_, value)| value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
            .collect();
        canonical += &format!("{name}:{}\n", values.join(","));
    }
    canonical += &format!("\n{signed}\n{}", request.head.header("x-amz-content-sha256")?);
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        request.head.header("x-amz-date")?,
        hex::encode(Sha256::digest(canonical.as_bytes()))
    );
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, word| hmac(&key, word.as_bytes()));
    let signature = hex::encode(hmac(&key, text.as_bytes()));
    Some(format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}"))
}

/// Computes HMAC-SHA256 (RFC 2104) with a key of at most 64 bytes.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |mask: u8| (0..64).map(|at| key.get(at).unwrap_or(&0) ^ mask).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
