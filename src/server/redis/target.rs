//! Addresses of a URL.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::cluster::{ClusterUrl, Host, Servers};

/// A URL with the addresses of its names. The names are looked up once: if their addresses change,
/// the process has to start again.
#[derive(Debug)]
pub struct RedisTarget {
    url: ClusterUrl,
    /// Of the server, or of the Sentinels. At least one.
    addresses: Vec<Address>,
}

/// Address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl RedisTarget {
    /// Looks up the names of a URL. Blocks until the resolver of the system has answered. Logs each
    /// name that has no address.
    ///
    /// # Errors
    ///
    /// A description if there is no address at all.
    pub fn resolve(url: ClusterUrl) -> Result<Self, String> {
        let hosts: &[Host] = match url.servers() {
            Servers::Unix(path) => {
                let addresses = vec![Address::Unix(path.clone())];
                return Ok(Self { url, addresses });
            }
            Servers::Tcp(host) => std::slice::from_ref(host),
            Servers::Sentinels { hosts, .. } => hosts,
        };
        let mut addresses = Vec::new();
        let mut error = String::new();
        for host in hosts {
            match (&*host.name, host.port).to_socket_addrs() {
                Ok(found) => addresses.extend(found.map(Address::Tcp)),
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
        Ok(Self { url, addresses })
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
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        };
        self.addresses.iter().filter_map(port).collect()
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
