//! Addresses of a URL, and how the servers at them are verified.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::tls::{PeerName, Tls, check};
use crate::cluster::{ClusterUrl, Host, Servers};

const NO_CA: &str = "--cluster: rediss:// needs --cluster-ca FILE: the certificates of the \
    authorities that may issue that of Redis, for instance /etc/ssl/certs/ca-certificates.crt";
const CA_WITHOUT_TLS: &str = "--cluster-ca: only for a Redis with TLS; give --cluster rediss://…";

/// A URL with the addresses of its names. The names are looked up once: if their addresses change,
/// the process has to start again.
pub struct RedisTarget {
    url: ClusterUrl,
    /// Of the server, or of the Sentinels. At least one.
    addresses: Vec<Address>,
    /// For connections with TLS. `None` without TLS.
    tls: Option<Tls>,
}

/// Address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    /// With TLS, and the name that the certificate must have.
    Tls(SocketAddr, PeerName),
    Unix(PathBuf),
}

impl RedisTarget {
    /// Looks up the names of a URL. Blocks until the resolver of the system has answered. Logs each
    /// name that has no address. `ca` is the file with the certificates of the authorities that
    /// are trusted: one for a URL with TLS, none for another.
    ///
    /// # Errors
    ///
    /// A description if there is no address at all, or if the file is missing or of no use.
    pub fn resolve(url: ClusterUrl, ca: Option<&Path>) -> Result<Self, String> {
        let tls = match (url.is_tls(), ca) {
            (true, Some(file)) => Some(Tls::read(file)?),
            (true, None) => return Err(NO_CA.to_owned()),
            (false, Some(_)) => return Err(CA_WITHOUT_TLS.to_owned()),
            (false, None) => None,
        };
        let hosts: &[Host] = match url.servers() {
            Servers::Unix(path) => {
                let addresses = vec![Address::Unix(path.clone())];
                return Ok(Self { url, addresses, tls });
            }
            Servers::Tcp(host) => std::slice::from_ref(host),
            Servers::Sentinels { hosts, .. } => hosts,
        };
        let mut addresses = Vec::new();
        let mut error = String::new();
        for host in hosts {
            match (&*host.name, host.port).to_socket_addrs() {
                Ok(found) => {
                    for address in found {
                        addresses.push(with_tls(tls.as_ref(), address, &host.name)?);
                    }
                }
                Err(cause) => {
                    error = format!("cannot look up {}: {cause}", host.name);
                    log::warn!("{error}");
                }
            }
        }
        addresses.dedup();
        if addresses.is_empty() {
            let none = || format!("{url} has no address");
            return Err(if error.is_empty() { none() } else { error });
        }
        Ok(Self { url, addresses, tls })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &ClusterUrl {
        &self.url
    }

    /// TCP ports of the addresses.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let port = |address: &Address| match address {
            Address::Tcp(address) | Address::Tls(address, _) => Some(address.port()),
            Address::Unix(_) => None,
        };
        self.addresses.iter().filter_map(port).collect()
    }

    /// Makes a handshake of TLS with each address, or with none without TLS. Blocks. Returns the
    /// address, and the first Unix second at which the certificate of the server is no longer
    /// valid. An error of the kind `InvalidData` stays until someone mends it.
    #[must_use]
    pub fn check_tls(&self) -> Vec<(SocketAddr, io::Result<u64>)> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let handshake = |address: &Address| match address {
            Address::Tls(address, name) => Some((*address, check(tls, address, name))),
            Address::Tcp(_) | Address::Unix(_) => None,
        };
        self.addresses.iter().filter_map(handshake).collect()
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// How servers are verified. `None` without TLS.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Address of the primary that a Sentinel has named. Its certificate must have the IP address.
    pub(super) fn primary(&self, address: SocketAddr) -> Result<Address, String> {
        with_tls(self.tls.as_ref(), address, &address.ip().to_string())
    }

    /// Name of the primary to ask the Sentinels for. `None` without Sentinels.
    #[must_use]
    pub fn master(&self) -> Option<&str> {
        match self.url.servers() {
            Servers::Sentinels { master, .. } => Some(master),
            Servers::Tcp(_) | Servers::Unix(_) => None,
        }
    }
}

/// Address of a server, with the name that its certificate must have if it speaks TLS.
fn with_tls(tls: Option<&Tls>, address: SocketAddr, name: &str) -> Result<Address, String> {
    if tls.is_none() {
        return Ok(Address::Tcp(address));
    }
    let name = PeerName::parse(name);
    let name = name.ok_or("--cluster: no certificate can have the name of this host")?;
    Ok(Address::Tls(address, name))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
