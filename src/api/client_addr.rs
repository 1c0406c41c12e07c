//! Addresses of clients, also of clients whose requests come through proxies.

use std::net::IpAddr;
use std::num::NonZeroU64;

use crate::http::Request;
use crate::hub::Address;

/// Key of the limits per address: an IPv4 address, a /64 of IPv6, or all Unix sockets. A host that
/// has one address of a /64 commonly has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey(NonZeroU64);

/// `None` is the address of a Unix socket.
impl From<Option<IpAddr>> for SourceKey {
    fn from(address: Option<IpAddr>) -> Self {
        let Some(address) = address else { return Self(UNIX_NUMBER) };
        let number = match address.to_canonical() {
            // No /64 has this number: addresses that begin with eight zero bits are reserved
            // (RFC 4291, section 2.4).
            IpAddr::V4(address) => 1 << 32 | u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        // `::1` and similar addresses are in network 0.
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

/// Number of all Unix sockets. A client of a Unix socket could open as many as it likes. As for
/// IPv4, no /64 has this number.
const UNIX_NUMBER: NonZeroU64 = NonZeroU64::new(2).unwrap();

impl SourceKey {
    /// Returns the address for the hub; `None` for the Unix sockets, whose clients have none.
    pub(super) fn hub_address(self) -> Option<Address> {
        (self.0 != UNIX_NUMBER).then(|| Address::new(self.0))
    }

    /// Returns the number of the /48 of an IPv6 address; `None` for an IPv4 address and for the
    /// Unix sockets.
    pub(super) fn site(self) -> Option<u64> {
        let number = self.0.get();
        (number >> 32 > 1).then_some(number >> 16)
    }
}

/// Set of addresses, for `--trust-proxy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cidr {
    /// Clients of a Unix socket, which have no address.
    Unix,
    /// Addresses with a common prefix.
    Ip {
        /// Prefix, shifted right by `host_bits`.
        prefix: u128,
        /// Number of lowest bits in which the addresses differ.
        host_bits: u32,
    },
}

impl Cidr {
    /// Parses `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32` or `unix`. `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "unix" {
            return Some(Self::Unix);
        }
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        let host_bits = u32::checked_sub(width, length)?;
        Some(Self::Ip { prefix: prefix(address, host_bits), host_bits })
    }

    /// Returns whether the set has this address; `None` for a client of a Unix socket.
    fn contains(self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Unix, None) => true,
            (Self::Ip { prefix: trusted, host_bits }, Some(address)) => {
                prefix(address, host_bits) == trusted
            }
            _ => false,
        }
    }
}

/// Returns an address, mapped to IPv6 and without its lowest bits.
fn prefix(address: IpAddr, host_bits: u32) -> u128 {
    let bits: u128 = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    };
    bits.checked_shr(host_bits).unwrap_or(0)
}

/// Peer of the socket that a request came from.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestSource {
    /// Key of the limits per address; `None` for no limits.
    pub address: Option<SourceKey>,
    /// The peer is a trusted proxy: `X-Forwarded-For` has the address of the client.
    pub is_proxy: bool,
    /// The peer speaks TLS.
    pub is_tls: bool,
    /// The peer is a client of the admin listener.
    pub is_admin: bool,
}

/// `--trust-proxy`: proxies whose `X-Forwarded-For` is trusted.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<Cidr>);

impl TrustedProxies {
    /// Returns the key against which a request counts. From a trusted proxy, this is the last
    /// address in `X-Forwarded-For` that is no trusted proxy: a client can forge earlier addresses.
    pub(super) fn client_addr(
        &self,
        source: RequestSource,
        request: &Request<'_>,
    ) -> Option<SourceKey> {
        if !source.is_proxy {
            return source.address;
        }
        let fields: Vec<_> = request.field("x-forwarded-for").collect();
        let hops = fields.iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b','));
        let mut client = source.address;
        for hop in hops {
            // Text that is no address: the request counts against the hop that forwarded it.
            let Some(address) = parse_hop(hop.trim_ascii()) else { break };
            client = Some(Some(address).into());
            if !self.is_trusted(Some(address)) {
                break;
            }
        }
        client
    }

    /// Returns whether this is the address of a trusted proxy; `None` for a Unix socket.
    #[must_use]
    pub fn is_trusted(&self, address: Option<IpAddr>) -> bool {
        self.0.iter().any(|cidr| cidr.contains(address))
    }
}

/// Parses an address with or without a port, which some proxies add.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?;
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse().ok().map(|address: std::net::SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, parse_complete};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv6_addresses_of_one_network_have_one_key() {
        let key = |text| SourceKey::from(Some(address(text)));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        for text in ["::", "::1", "::2", "0:0:0:1::", "0.0.0.0", "0.0.0.2"] {
            assert_ne!(key(text), SourceKey::from(None), "{text}");
        }
    }

    #[test]
    fn networks_are_parsed_and_contain_their_addresses() {
        for text in [
            "",
            "x",
            "1.2.3",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "1.2.3.4/8/8",
            "1.2.3.4:80",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
        let cases = [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ];
        for (network, inside, outside) in cases {
            let cidr = Cidr::parse(network).unwrap();
            let contains = |text| cidr.contains(Some(address(text)));
            assert!(contains(inside) && !contains(outside) && !cidr.contains(None), "{network}");
        }
        assert!(Cidr::parse("::/0").unwrap().contains(Some(address("203.0.113.9"))));
        let unix = Cidr::parse("unix").unwrap();
        assert!(unix.contains(None) && !unix.contains(Some(address("127.0.0.1"))));
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        let proxies = TrustedProxies(vec![Cidr::parse("10.0.0.0/8").unwrap()]);
        let cases = [
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7"),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.1, 192.0.2.7, 10.1.1.1\r\n", "192.0.2.7"),
            (
                "10.0.0.1",
                "X-Forwarded-For: 198.51.100.1\r\nx-forwarded-for:192.0.2.7\r\n",
                "192.0.2.7",
            ),
            ("10.0.0.1", "X-Forwarded-For: 10.2.2.2, 10.1.1.1\r\n", "10.2.2.2"),
            ("10.0.0.1", "X-Forwarded-For: 192.0.2.7:4711\r\n", "192.0.2.7"),
            ("10.0.0.1", "X-Forwarded-For: [2001:db8::1]:80\r\n", "2001:db8::"),
            ("10.0.0.1", "X-Forwarded-For: [2001:db8::1]\r\n", "2001:db8::"),
            ("10.0.0.1", "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::"),
            ("10.0.0.1", "X-Forwarded-For: 192.0.2.7, unknown, 10.1.1.1\r\n", "10.1.1.1"),
            ("10.0.0.1", "X-Forwarded-For: \r\n", "10.0.0.1"),
            ("192.0.2.1", "X-Forwarded-For: 198.51.100.1\r\n", "192.0.2.1"),
        ];
        for (peer, fields, expected) in cases {
            let head = format!("GET /write HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let (request, _) =
                parse_complete(head.as_bytes(), &Limits { head_bytes: 1000, body_bytes: 0 })
                    .unwrap();
            let is_proxy = proxies.is_trusted(Some(address(peer)));
            let source = RequestSource {
                address: Some(Some(address(peer)).into()),
                is_proxy,
                is_tls: false,
                is_admin: false,
            };
            assert_eq!(
                proxies.client_addr(source, &request),
                Some(Some(address(expected)).into()),
                "{fields}"
            );
        }
    }
}
