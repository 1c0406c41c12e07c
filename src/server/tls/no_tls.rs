//! Stands in for TLS in a build that has none. Only [`ClientSocket`] has values here, so the
//! compiler leaves out the code of the server that needs another one.

use std::io::{self, Read, Write};

use crate::metrics::TlsStats;
use crate::options::Options;
use crate::server::os_socket::OsSocket;
use crate::server::start_error::StartError;
use crate::service::Socket;

/// Socket of a client.
pub(in crate::server) struct ClientSocket(OsSocket);

impl ClientSocket {
    pub(in crate::server) fn plain(inner: OsSocket) -> Self {
        Self(inner)
    }

    pub(in crate::server) fn inner(&self) -> &OsSocket {
        &self.0
    }

    pub(in crate::server) fn inner_mut(&mut self) -> &mut OsSocket {
        &mut self.0
    }

    #[expect(clippy::unused_self, reason = "the other build has a state")]
    pub(in crate::server) fn export(&mut self) -> Option<Vec<u8>> {
        None
    }
}

impl Read for ClientSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ClientSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Socket for ClientSocket {
    fn shut_down_writing(&mut self) -> io::Result<()> {
        self.0.shut_down_writing()
    }
}

/// What a listener needs for clients that speak TLS.
#[derive(Clone)]
pub(in crate::server) enum TlsAcceptor {}

impl TlsAcceptor {
    pub(in crate::server) fn accept(&self, _: OsSocket) -> io::Result<ClientSocket> {
        match *self {}
    }
}

/// Certificates of the server.
pub(in crate::server) enum ServerTls {}

impl ServerTls {
    #[expect(clippy::unnecessary_wraps, reason = "the other build has errors")]
    pub(in crate::server) fn start(_: &Options, _: u64) -> Result<Option<Self>, StartError> {
        Ok(None)
    }

    pub(in crate::server) fn acceptor(&self) -> TlsAcceptor {
        match *self {}
    }

    pub(in crate::server) fn begin_turn(&self, _: u64) {
        match *self {}
    }

    pub(in crate::server) fn check_readable(&self) {
        match *self {}
    }

    pub(in crate::server) fn reload(&self, _: u64) {
        match *self {}
    }

    pub(in crate::server) fn stats_reader(&self) -> fn() -> TlsStats {
        match *self {}
    }

    pub(in crate::server) fn ticket_keys(&self) -> Vec<u8> {
        match *self {}
    }

    pub(in crate::server) fn set_ticket_keys(&self, _: &[u8]) {
        match *self {}
    }

    pub(in crate::server) fn adopt(&self, _: OsSocket, _: &[u8]) -> Option<ClientSocket> {
        match *self {}
    }
}
