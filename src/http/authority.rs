//! Host of an authority: of an absolute target, or of a `Host` header.

use std::net::Ipv6Addr;

/// Returns the authority of a target in absolute form. `None` for a target without one.
pub(super) fn authority_of(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") {
        return None;
    }
    let scheme_bytes = target.windows(3).position(|window| window == b"://")?;
    let rest = &target[scheme_bytes + 3..];
    rest.split(|byte| matches!(byte, b'/' | b'?')).next()
}

/// Returns the host of an authority that the parser of heads has accepted, without its port.
///
/// `None` for a host that is neither a name of letters, digits, `-`, `_` and dots, nor an IP
/// address. RFC 3986 allows other characters in a name, but no server is known by such a name, and
/// text that goes back to a client should have as few characters as possible.
pub(super) fn without_port(authority: &[u8]) -> Option<&str> {
    let authority = str::from_utf8(authority).ok()?;
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, _) = rest.split_once(']')?;
        return address.parse::<Ipv6Addr>().ok().map(|_| &authority[..address.len() + 2]);
    }
    let host = authority.split(':').next()?;
    let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_in_name)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absolute_target_has_an_authority() {
        for (target, authority) in [
            ("http://a.example/b?c", Some("a.example")),
            ("HTTPS://a.example:8443?c", Some("a.example:8443")),
            ("http://a.example", Some("a.example")),
            ("/http://a.example/", None),
            ("/", None),
            ("*", None),
            ("a.example:443", None),
        ] {
            assert_eq!(authority_of(target.as_bytes()), authority.map(str::as_bytes), "{target}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (authority, host) in [
            ("a.example", Some("a.example")),
            ("a.example.:80", Some("a.example.")),
            ("A-b_c.example:", Some("A-b_c.example")),
            ("192.0.2.7:8080", Some("192.0.2.7")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("[::1]:8080", Some("[::1]")),
            ("[::ffff:192.0.2.7]:80", Some("[::ffff:192.0.2.7]")),
            ("", None),
            (":80", None),
            ("[]", None),
            ("[::1", None),
            ("[v1.x]", None),
            ("[fe80::1%25eth0]", None),
            ("a%2eexample", None),
            ("user@a.example", None),
            ("a.example,b.example", None),
            ("a;b", None),
            ("a'b", None),
            ("a/b", None),
            ("a\\b", None),
            ("a b", None),
            ("\u{fc}.example", None),
        ] {
            assert_eq!(without_port(authority.as_bytes()), host, "{authority}");
        }
        assert_eq!(without_port(b"\xff.example"), None);
    }
}
