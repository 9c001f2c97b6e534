//! The host that an HTTP request addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::platform::error::{Error, one_line};

/// The host in a `Host` header or in the URL of a request: an address or a name, without its port. Names are compared
/// without case and without a dot at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpHost {
    /// An address. An IPv4 address that is written as IPv6 is an IPv4 address.
    Address(IpAddr),
    /// A name, in lower case.
    Name(String),
}

impl HttpHost {
    /// Reads the host of `HOST` or `HOST:PORT` (RFC 9110, section 7.2). An IPv6 address must be in brackets. Returns
    /// `None` for anything else.
    #[must_use]
    pub fn of_authority(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':')?),
                };
                (HttpHost::Address(IpAddr::V6(address).to_canonical()), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (HttpHost::of_text(host)?, Some(port)),
                None => (HttpHost::of_text(text)?, None),
            },
        };
        let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        port.is_none_or(is_port).then_some(host)
    }

    /// Returns true for `localhost` and the addresses of the machine itself (127.0.0.0/8 and ::1).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            HttpHost::Address(address) => address.is_loopback(),
            HttpHost::Name(name) => name == "localhost",
        }
    }

    /// Reads an IPv4 address or a name.
    fn of_text(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if let Ok(address) = text.parse() {
            return Some(HttpHost::Address(IpAddr::V4(address)));
        }
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        (text.len() <= 253 && text.split('.').all(is_label)).then_some(HttpHost::Name(text))
    }
}

/// Reads a host of a config: a name, or an address with or without brackets.
impl FromStr for HttpHost {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bare = text.trim();
        let host = match bare.parse::<IpAddr>() {
            Ok(address) => Some(HttpHost::Address(address.to_canonical())),
            Err(_) => HttpHost::of_authority(bare).filter(|_| bare.starts_with('[') || !bare.contains(':')),
        };
        host.ok_or_else(|| {
            Error::usage(format!("'{}' is not the name of a host", one_line(text)))
                .hint("write a name or an address without a scheme and a port, such as status.example.com")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_loopback_host_are_recognized() {
        for text in [
            "localhost",
            "LocalHost:8700",
            "localhost.",
            "localhost.:80",
            "127.0.0.1:8700",
            "127.8.9.10",
            "[::1]",
            "[::1]:8700",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(HttpHost::of_authority(text).is_some_and(|host| host.is_loopback()), "{text}");
        }
        for text in [
            "",
            ":80",
            ".",
            "localhost..",
            "localhost:x",
            "localhost:80:80",
            "localhost:123456",
            "user@localhost",
            "localhost/",
            "localhost.evil.example",
            "evil-localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "localhost,evil",
            "local host",
        ] {
            assert!(!HttpHost::of_authority(text).is_some_and(|host| host.is_loopback()), "{text}");
        }
    }

    #[test]
    fn hosts_of_a_config_have_neither_scheme_nor_port() {
        let name: HttpHost = " Status.Example.com. ".parse().expect("a name");
        assert_eq!(Some(name), HttpHost::of_authority("status.example.COM:8700"));
        let address: HttpHost = "fd00::5".parse().expect("an address");
        assert_eq!(Some(&address), HttpHost::of_authority("[FD00:0::5]:1").as_ref());
        assert_eq!("[fd00::5]".parse::<HttpHost>().expect("an address"), address);
        for text in ["http://x", "x:8700", "x/", "", "a b"] {
            assert!(text.parse::<HttpHost>().is_err(), "{text}");
        }
    }
}
