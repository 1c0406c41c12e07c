//! Who calls: by which address a client is counted, also where proxies stand in between.

use std::net::IpAddr;
use std::num::NonZeroU64;

use crate::http::Request;

/// Whom a limit per address counts as one: an IPv4 address, or a /64 of IPv6, of which everybody who has one address
/// commonly has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey(NonZeroU64);

impl From<IpAddr> for SourceKey {
    fn from(address: IpAddr) -> Self {
        let number = match address.to_canonical() {
            // No network of IPv6 begins like this: what begins with eight zeros is reserved (RFC 4291, section 2.4).
            IpAddr::V4(address) => 1 << 32 | u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        // `::1` and its like are in network 0.
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

/// Where a proxy may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// At the other end of a Unix socket.
    Unix,
    /// At addresses with a common beginning.
    Ip {
        /// What they begin with.
        base: u128,
        /// How many of the lowest bits are free.
        free_bits: u32,
    },
}

impl Network {
    /// `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`, `unix`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "unix" {
            return Some(Self::Unix);
        }
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        let free_bits = u32::checked_sub(width, prefix)?;
        Some(Self::Ip { base: without(bits(address), free_bits), free_bits })
    }

    /// A Unix socket's other end has no address.
    fn contains(self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Unix, None) => true,
            (Self::Ip { base, free_bits }, Some(address)) => {
                without(bits(address), free_bits) == base
            }
            _ => false,
        }
    }
}

/// An address as IPv6 writes it.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn without(bits: u128, free_bits: u32) -> u128 {
    bits.checked_shr(free_bits).unwrap_or(0)
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestSource {
    /// Nothing for a Unix socket.
    pub address: Option<SourceKey>,
    /// It speaks for others, and says for whom.
    pub is_proxy: bool,
}

/// `--trust-proxy`: who may say in whose name they call.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    /// Whom a request counts for: the last in `X-Forwarded-For` who is no proxy of ours. What stands before may be
    /// invented.
    pub(super) fn client_addr(
        &self,
        peer: RequestSource,
        request: &Request<'_>,
    ) -> Option<SourceKey> {
        if !peer.is_proxy {
            return peer.address;
        }
        let fields: Vec<_> = request.field("x-forwarded-for").collect();
        let hops = fields.iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b','));
        let mut caller = peer.address;
        for hop in hops {
            // Whoever wrote something else was no proxy that is to be trusted; the one who passed it on counts.
            let Some(address) = parse_hop(hop.trim_ascii()) else { break };
            caller = Some(address.into());
            if !self.is_trusted(Some(address)) {
                break;
            }
        }
        caller
    }

    /// Whether this is one of them; without an address it is at the other end of a Unix socket.
    #[must_use]
    pub fn is_trusted(&self, address: Option<IpAddr>) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// An address, perhaps with a port: some proxies add it.
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
    fn an_address_of_ipv6_counts_by_its_network() {
        let of = |text| SourceKey::from(address(text));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn networks_are_read_and_hold_what_they_should() {
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
            assert_eq!(Network::parse(text), None, "{text}");
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
            let network = Network::parse(network).unwrap();
            let contains = |text| network.contains(Some(address(text)));
            assert!(
                contains(inside) && !contains(outside) && !network.contains(None),
                "{network:?}"
            );
        }
        assert!(Network::parse("::/0").unwrap().contains(Some(address("203.0.113.9"))));
        let unix = Network::parse("unix").unwrap();
        assert!(unix.contains(None) && !unix.contains(Some(address("127.0.0.1"))));
    }

    #[test]
    fn the_last_who_is_no_proxy_of_ours_is_who_calls() {
        let proxies = TrustedProxies(vec![Network::parse("10.0.0.0/8").unwrap()]);
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
            let peer = RequestSource { address: Some(address(peer).into()), is_proxy };
            assert_eq!(
                proxies.client_addr(peer, &request),
                Some(address(expected).into()),
                "{fields}"
            );
        }
    }
}
