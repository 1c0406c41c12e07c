//! Origins of pages, as browsers send them in `Origin`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Schemes whose pages have no origin, or have the origin `null`.
const SCHEMES_WITHOUT_ORIGIN: [&str; 8] =
    ["about", "blob", "data", "file", "ftp", "javascript", "ws", "wss"];

const SYNTAX: &str = "give SCHEME://HOST or SCHEME://HOST:PORT";

/// Parses the origin of a page. Returns the text that a browser sends.
pub(crate) fn parse_origin(text: &str) -> Result<String, String> {
    if text == "null" {
        return Ok(text.to_owned());
    }
    canonical_origin(text, false).map_err(|reason| format!("'{text}' is not an origin: {reason}"))
}

/// Parses an item of `--allow-origin`: an origin, `*`, or `SCHEME://*.HOST` for all subdomains.
pub(super) fn parse_allowed_origin(text: &str) -> Result<String, String> {
    if matches!(text, "*" | "null") {
        return Ok(text.to_owned());
    }
    canonical_origin(text, true)
        .map_err(|reason| format!("'{text}' can match no origin: {reason}, or * for all"))
}

/// Returns an origin in lower case and without a default port. The error says what to give instead.
fn canonical_origin(text: &str, takes_subdomains: bool) -> Result<String, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or(SYNTAX)?;
    let scheme = scheme.to_ascii_lowercase();
    let is_in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
        || !scheme.bytes().all(is_in_scheme)
    {
        return Err(SYNTAX);
    }
    if SCHEMES_WITHOUT_ORIGIN.contains(&&*scheme) {
        return Err("no page has an origin with this scheme; give that of the page, as https://");
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Err("an origin has no user, no path and no slash at its end; give SCHEME://HOST");
    }
    let (host, port) = match (rest.rsplit_once(':'), rest.ends_with(']')) {
        (Some((host, port)), false) => (host, Some(port)),
        _ => (rest, None),
    };
    let port = port.map(|digits| parse_port(digits).ok_or("a port is 1 to 65535")).transpose()?;
    let is_web = matches!(&*scheme, "http" | "https");
    let domain = host.strip_prefix("*.").filter(|_| takes_subdomains);
    let subdomains = if domain.is_some() { "*." } else { "" };
    let host = canonical_host(domain.unwrap_or(host), is_web, domain.is_some())?;
    let port = port.filter(|port| !matches!((&*scheme, port), ("http", 80) | ("https", 443)));
    Ok(match port {
        Some(port) => format!("{scheme}://{subdomains}{host}:{port}"),
        None => format!("{scheme}://{subdomains}{host}"),
    })
}

fn parse_port(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port > 0)
}

/// Returns a host as browsers write it. Only a host of the web has to be a name of DNS or an
/// address: those of extensions and apps are their own.
fn canonical_host(host: &str, is_web: bool, is_domain: bool) -> Result<String, &'static str> {
    if host.contains('*') {
        return Err("a * stands for all subdomains, as in https://*.example.org");
    }
    if !host.is_ascii() {
        return Err("give the host in its ASCII form, which begins with xn--");
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "this is no IPv6 address")?;
        return match address.segments() {
            _ if is_domain => Err("an address has no subdomains"),
            // Browsers write no dots in an address of IPv6 (URL Standard, "host serializing").
            [0, 0, 0, 0, 0, 0xffff, high, low] => Ok(format!("[::ffff:{high:x}:{low:x}]")),
            _ => Ok(format!("[{address}]")),
        };
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let is_in_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_in_label)
    };
    let is_host = if is_web {
        labels.split('.').all(is_label)
    } else {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
    };
    if !is_host {
        return Err(SYNTAX);
    }
    // A browser takes such a host for an address of IPv4, and writes the address in decimal.
    let last = labels.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    if is_web && is_number && (is_domain || host.parse::<Ipv4Addr>().is_err()) {
        return Err("this is neither a name nor an address, as 192.0.2.1");
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_origin_is_what_browsers_send_or_all_subdomains() {
        let cases = [
            ("*", "*"),
            ("null", "null"),
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG", "https://example.org"),
            ("https://x:443", "https://x"),
            ("https://x:0443", "https://x"),
            ("http://x:80", "http://x"),
            ("http://x:443", "http://x:443"),
            ("https://x:80", "https://x:80"),
            ("https://x:8443", "https://x:8443"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://example.org.", "https://example.org."),
            ("http://under_score.example", "http://under_score.example"),
            ("http://192.0.2.1:8080", "http://192.0.2.1:8080"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[2001:DB8:0:0::1]:8080", "http://[2001:db8::1]:8080"),
            ("http://[::ffff:192.0.2.1]", "http://[::ffff:c000:201]"),
            ("https://*.Example.org", "https://*.example.org"),
            ("https://*.example.org:443", "https://*.example.org"),
            ("http://*.a.example:8080", "http://*.a.example:8080"),
            ("chrome-extension://abcdefghij", "chrome-extension://abcdefghij"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("app://.", "app://."),
        ];
        for (text, origin) in cases {
            assert_eq!(parse_allowed_origin(text).as_deref(), Ok(origin), "{text}");
            let is_one = !text.contains('*');
            assert_eq!(parse_origin(text).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn a_text_that_no_browser_sends_is_an_error() {
        let cases = [
            "",
            "example.org",
            "https:example.org",
            "https://",
            "://example.org",
            "1://example.org",
            "ht tp://example.org",
            "https://example.org/",
            "https://example.org/chat",
            "https://example.org?x",
            "https://example.org#x",
            "https://me@example.org",
            "https://ex ample.org",
            "https://b\u{fc}cher.example",
            "https://.example.org",
            "https://a..example",
            "https://a%41.example",
            "https://x:",
            "https://x:0",
            "https://x:65536",
            "https://x:+443",
            "https://x:1:2",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[::g]",
            "https://192.0.2",
            "https://192.0.2.256",
            "https://192.0.02.1",
            "https://0x7f.0.0.0x1",
            "https://*",
            "https://*.",
            "https://*example.org",
            "https://a*.example.org",
            "https://a.*.example.org",
            "https://*.*.example.org",
            "https://*.192.0.2.1",
            "https://*.[::1]",
            "*://example.org",
            "*.example.org",
            "ws://example.org",
            "file:///page",
            "file://host",
            "Null",
            "app://",
            "app://a:b:1",
        ];
        for text in cases {
            let error = parse_allowed_origin(text).expect_err(text);
            assert!(error.starts_with(&format!("'{text}' can match no origin: ")), "{error}");
        }
    }
}
