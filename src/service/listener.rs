//! Where clients come from.

use std::io;
use std::net::IpAddr;

use super::socket::Socket;

/// Whom a door is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Everybody.
    Public,
    /// Whoever runs the server, and his tools.
    Admin,
}

/// Where clients come from: the kernel's listening sockets, or a simulation's.
pub trait Listener {
    /// What a client is spoken with.
    type Socket: Socket;
    /// A descriptor that is held only to be given up.
    type Reserve;

    /// The next connection that is there, and from which address; a Unix socket's has none.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where there is none: later ones are told anew. `EMFILE`, `ENFILE`, `ENOBUFS` or `ENOMEM` where there is
    /// no room for it; anything else is about the one that was to be accepted.
    fn accept(&mut self) -> io::Result<(Self::Socket, Option<IpAddr>)>;

    /// One descriptor more, if there is one.
    fn reserve_fd(&mut self) -> Option<Self::Reserve>;

    /// For whom it is.
    fn audience(&self) -> ListenerKind {
        ListenerKind::Public
    }
}
