//! Listeners: sockets of the kernel or of a simulation.

use std::io;
use std::net::IpAddr;

use super::socket::Socket;

/// Purpose of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// For all clients.
    Public,
    /// For the operator and monitoring: `--admin-listen`.
    Admin,
}

/// A listening socket that never blocks.
pub trait Listener {
    /// Socket of an accepted client.
    type Socket: Socket;
    /// A file descriptor in reserve.
    type Reserve;

    /// Accepts the next client. The address is `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no client is waiting; later clients raise a new event. `EMFILE`, `ENFILE`,
    /// `ENOBUFS` or `ENOMEM` if there is no descriptor or memory for the client. Any other error
    /// concerns only the client that would have been accepted.
    fn accept(&mut self) -> io::Result<(Self::Socket, Option<IpAddr>)>;

    /// Opens a descriptor that the caller drops when descriptors have run out. Returns `None` if no
    /// descriptor is left.
    fn reserve_fd(&mut self) -> Option<Self::Reserve>;

    /// Returns the listener's purpose.
    fn kind(&self) -> ListenerKind {
        ListenerKind::Public
    }
}
