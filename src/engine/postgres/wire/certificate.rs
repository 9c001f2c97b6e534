//! Reads the fields of a server's certificate that the TLS library does not expose: RFC 5280, DER (X.690).
//!
//! Nothing here decides alone whether a certificate is trusted: [`crate::engine::postgres::wire::tls`] decides,
//! together with the library's own checks.

use std::net::IpAddr;

use rustls::pki_types::UnixTime;
use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;

/// 2.5.4.3, commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17, subjectAltName.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// Within subjectAltName: a dNSName, an iPAddress.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// The parts of a certificate that this program uses.
#[derive(Debug)]
pub(in crate::engine::postgres) struct Certificate<'a> {
    /// The certificate as encoded in DER.
    der: &'a [u8],
    /// The public key with its algorithm (SubjectPublicKeyInfo), as encoded in the certificate.
    pub(in crate::engine::postgres) public_key: &'a [u8],
    signature_algorithm: &'a [u8],
    not_before: i64,
    not_after: i64,
    common_name: Option<String>,
    has_dns_names: bool,
    has_addresses: bool,
}

/// Reads DER elements one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Returns the next element: tag, content, and the whole element.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let element = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some((tag, content, element))
    }

    /// Returns the content of the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, ..)| *found == tag).map(|(_, content, _)| content)
    }
}

impl<'a> Certificate<'a> {
    /// Reads a certificate. Returns `None` if the bytes are not a certificate.
    pub(in crate::engine::postgres) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Der(Der(der).expect(SEQUENCE)?);
        let mut body = Der(outer.expect(SEQUENCE)?);
        let signature_algorithm = Der(outer.expect(SEQUENCE)?).expect(OID)?;
        let (mut tag, ..) = body.next()?;
        // The version is absent if it is the first (v1); then this element is the serial number.
        if tag == 0xa0 {
            (tag, ..) = body.next()?;
        }
        if tag != 0x02 {
            return None;
        }
        body.expect(SEQUENCE)?; // the signature's algorithm again
        body.expect(SEQUENCE)?; // the issuer
        let mut validity = Der(body.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let common_name = common_name(body.expect(SEQUENCE)?);
        let (tag, _, public_key) = body.next()?;
        if tag != SEQUENCE {
            return None;
        }
        let (mut has_dns_names, mut has_addresses) = (false, false);
        while let Some((tag, content, _)) = body.next() {
            if tag != 0xa3 {
                continue;
            }
            let mut extensions = Der(Der(content).expect(SEQUENCE)?);
            while let Some((_, extension, _)) = extensions.next() {
                let mut extension = Der(extension);
                if extension.expect(OID)? != SUBJECT_ALT_NAME {
                    continue;
                }
                // The flag that marks the extension as critical may be between its identifier and its content.
                while let Some((tag, content, _)) = extension.next() {
                    if tag == 0x04 {
                        let mut names = Der(Der(content).expect(SEQUENCE)?);
                        while let Some((tag, ..)) = names.next() {
                            has_dns_names |= tag == DNS_NAME;
                            has_addresses |= tag == IP_ADDRESS;
                        }
                    }
                }
            }
        }
        Some(Certificate {
            der,
            public_key,
            signature_algorithm,
            not_before,
            not_after,
            common_name,
            has_dns_names,
            has_addresses,
        })
    }

    /// Returns true if `now` is within the certificate's validity period.
    pub(in crate::engine::postgres) fn is_valid_at(&self, now: UnixTime) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }

    /// Returns true if the subject's common name is this host. As in libpq, the common name is ignored if the
    /// certificate has a subjectAltName of the same type as the host (DNS name or IP address).
    pub(in crate::engine::postgres) fn common_name_is(&self, host: &str) -> bool {
        let ignored = if host.parse::<IpAddr>().is_ok() { self.has_addresses } else { self.has_dns_names };
        match &self.common_name {
            Some(name) if !ignored => matches_name(name, host),
            _ => false,
        }
    }

    /// Returns the hash that binds a login to this certificate (RFC 5929, tls-server-end-point). It uses the hash
    /// function of the certificate's signature, or SHA-256 if that function is weaker. Returns `None` if the signature
    /// algorithm has no such function.
    pub(in crate::engine::postgres) fn end_point_hash(&self) -> Option<Vec<u8>> {
        // 1.2.840.113549.1.1.x (RSA), 1.2.840.10045.4.x (ECDSA).
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
        let suffix = |prefix| self.signature_algorithm.strip_prefix(prefix);
        let bits = match (suffix(RSA), suffix(ECDSA)) {
            (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => 256,
            (Some([12]), _) | (_, Some([3, 3])) => 384,
            (Some([13]), _) | (_, Some([3, 4])) => 512,
            _ => return None,
        };
        Some(match bits {
            256 => Sha256::digest(self.der).to_vec(),
            384 => Sha384::digest(self.der).to_vec(),
            _ => Sha512::digest(self.der).to_vec(),
        })
    }
}

/// Returns the first common name in a subject.
fn common_name(subject: &[u8]) -> Option<String> {
    let mut sets = Der(subject);
    while let Some(set) = sets.expect(SET) {
        let mut set = Der(set);
        while let Some(pair) = set.expect(SEQUENCE) {
            let mut pair = Der(pair);
            if pair.expect(OID)? == COMMON_NAME {
                let (_, text, _) = pair.next()?;
                // A zero byte in a name is an old trick to make the name look like another one.
                return String::from_utf8(text.to_vec()).ok().filter(|text| !text.contains('\0'));
            }
        }
    }
    None
}

/// Returns true if a name in a certificate matches this host. The name may begin with `*.`; the star matches one label.
fn matches_name(name: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(parent), Some((label, rest))) => {
            parent.contains('.') && !label.is_empty() && parent.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

/// Reads the next element as seconds since 1970: `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(der: &mut Der<'_>) -> Option<i64> {
    let (tag, content, _) = der.next()?;
    let text = std::str::from_utf8(content).ok()?;
    let full = match tag {
        // RFC 5280, 4.1.2.5.1: two digits below 50 mean this century.
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        _ => text.to_owned(),
    };
    let parsed = chrono::NaiveDateTime::parse_from_str(&full, "%Y%m%d%H%M%SZ").ok()?;
    Some(parsed.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_common_name_is_compared_as_in_libpq() {
        for (name, host, expected) in [
            ("db.example.org", "db.example.org", true),
            ("DB.example.org", "db.Example.org", true),
            ("db.example.org", "db.example.org.", true),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", false),
            ("*", "db", false),
            ("db", "db.example.org", false),
        ] {
            assert_eq!(matches_name(name, host), expected, "{name} {host}");
        }
    }

    #[test]
    fn cut_or_broken_certificates_are_none() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x02, 0x30, 0x00]]
        {
            assert!(Certificate::read(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut nested = vec![0x30, 0x81, bytes.len() as u8];
            nested.extend(&bytes);
            let _ = (Certificate::read(&bytes), Certificate::read(&nested));
        }
    }
}
