//! Finds the proxy that the environment configures for an address, if any.

use std::net::IpAddr;

use ureq::{Proxy, ProxyProtocol};

use crate::platform::error::{Error, Result};
use crate::platform::http::Url;

/// Returns the name and value of the first of these environment variables that is set and not empty.
fn variable(names: &[&'static str]) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| Some((*name, std::env::var(name).ok().filter(|value| !value.is_empty())?)))
}

/// Returns the proxy for `url`, and its address in the form that messages may show.
///
/// `HTTPS_PROXY` applies to https, `HTTP_PROXY` to http, and `ALL_PROXY` to both. The names in lower case are read too
/// and take precedence. `NO_PROXY` lists hosts that are connected to directly: names (with their subdomains),
/// addresses, networks (`10.0.0.0/8`), `*`. Loopback addresses never use a proxy. A proxy is used as a tunnel
/// (CONNECT), for http too.
pub(super) fn proxy_for(url: &Url) -> Result<Option<(Proxy, String)>> {
    let is_cgi = std::env::var_os("REQUEST_METHOD").is_some();
    let named = match url.is_https() {
        true => variable(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        // In a CGI program, HTTP_PROXY holds a request header, which any client can set.
        false if is_cgi => variable(&["http_proxy", "all_proxy", "ALL_PROXY"]),
        false => variable(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
    };
    let Some((name, value)) = named else { return Ok(None) };
    let direct = variable(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
    if is_this_machine(url.host()) || is_listed(&direct, url.host(), url.port()) {
        return Ok(None);
    }
    let refuse = |reason: &str| Error::usage(format!("{name} {reason}")).hint("write http://host:port");
    let proxy = Proxy::new(&value).map_err(|_| refuse("is not the address of a proxy"))?;
    if !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(refuse("names a proxy of an unsupported kind"));
    }
    let shown = format!("{}:{}", proxy.host(), proxy.port());
    Ok(Some((proxy, shown)))
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns true if a list in the format of `NO_PROXY` contains the host.
fn is_listed(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some(address) = address
            && let Some((network, bits)) = entry.split_once('/')
        {
            return is_within(address, network, bits);
        }
        let bare = entry.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok_and(|entry| Some(entry) == address) {
            return true;
        }
        let (name, only_port) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
            _ => (entry, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches('*');
        let name = name.trim_matches('.').to_ascii_lowercase();
        let is_below = || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'));
        only_port.is_none_or(|only| only == port) && !name.is_empty() && (host == name || is_below())
    })
}

/// Returns true if an address is in the network `network/bits`.
fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            (address.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            (address.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_listed_are_reached_directly() {
        let list = "internal.example, .corp.example,*.wild.example,10.0.0.0/8,192.168.1.7,[fd00::1],fd01::/16,api:8080";
        for (host, port) in [
            ("internal.example", 443),
            ("INTERNAL.example.", 443),
            ("a.internal.example", 443),
            ("a.corp.example", 80),
            ("b.wild.example", 80),
            ("10.200.3.4", 80),
            ("192.168.1.7", 80),
            ("fd00::1", 80),
            ("fd01:7::9", 80),
            ("api", 8080),
        ] {
            assert!(is_listed(list, host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("example", 443),
            ("notinternal.example", 443),
            ("11.0.0.1", 80),
            ("192.168.1.70", 80),
            ("fd02::1", 80),
            ("api", 80),
        ] {
            assert!(!is_listed(list, host, port), "{host}:{port}");
        }
        assert!(is_listed("*", "anything.example", 443));
        assert!(is_listed("0.0.0.0/0", "8.8.8.8", 443));
        assert!(!is_listed("", "anything.example", 443));
    }

    #[test]
    fn this_machine_needs_no_proxy() {
        assert!(["localhost", "127.0.0.1", "127.8.8.8", "::1"].into_iter().all(is_this_machine));
        assert!(!["10.0.0.1", "localhost.example"].into_iter().any(is_this_machine));
    }
}
