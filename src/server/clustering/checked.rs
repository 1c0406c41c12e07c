//! What `--check` finds about a cluster.

use std::io;
use std::net::SocketAddr;

use crate::sandbox::OutgoingPorts;

/// Findings about a cluster.
pub(in crate::server) struct CheckedCluster {
    /// Ports to which the server would connect.
    pub(in crate::server) outgoing: OutgoingPorts,
    /// With TLS, what a handshake with each address has shown: the first Unix second at which the
    /// server's certificate is no longer valid.
    pub(in crate::server) certificates: Vec<(SocketAddr, io::Result<u64>)>,
}
