//! Stands in for TLS in a build that has none. No type here has a value.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Name of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerName {}

impl PeerName {
    pub(super) fn parse(_: &str) -> Option<Self> {
        None
    }
}

/// How the servers of a URL are verified.
pub(super) enum Tls {}

impl Tls {
    pub(super) fn read(_: &Path) -> Result<Self, String> {
        Err("--cluster-ca: this build has no TLS for a cluster; use the full one".to_owned())
    }
}

pub(super) fn check(tls: &Tls, _: &SocketAddr, _: &PeerName) -> io::Result<u64> {
    match *tls {}
}

/// A connection with TLS.
pub(super) struct Channel {
    pub(super) records: Vec<u8>,
    never: Tls,
}

impl Channel {
    pub(super) fn start(tls: &Tls, _: &PeerName) -> io::Result<Self> {
        match *tls {}
    }

    pub(super) fn seal(&mut self, _: &mut Vec<u8>) {
        match self.never {}
    }

    pub(super) fn open(&mut self, _: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self.never {}
    }

    pub(super) fn close(&mut self) {
        match self.never {}
    }

    pub(super) fn is_open(&self) -> bool {
        match self.never {}
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        match self.never {}
    }
}
