//! What a client is spoken with: the kernel's sockets, or a simulation's.

use std::io::{self, Read, Write};

/// A connected socket that never blocks: where it cannot go on, it says `WouldBlock`, and whoever watches it tells when
/// it can. Dropping it closes it.
///
/// A read that fills less than its buffer has taken all that is there, and what comes later is told anew: the loop
/// relies on both, and on nothing else that sockets have.
pub trait Socket: Read + Write {
    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    ///
    /// What the socket says, for instance that the peer is gone.
    fn shut_down_writing(&self) -> io::Result<()>;
}
