//! Events of clients' sockets.

/// Readiness of a client's socket, as the poll reports it.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// There may be bytes to read.
    pub is_readable: bool,
    /// The kernel's buffer may take bytes.
    pub is_writable: bool,
    /// The peer has closed its sending direction.
    pub is_read_closed: bool,
    /// The peer has reset the TCP connection, or cannot be reached.
    pub is_error: bool,
}

impl Event {
    /// Merges a later event of the same socket that arrived before this one was handled.
    pub(super) fn merge(&mut self, later: Self) {
        self.is_readable |= later.is_readable;
        self.is_writable |= later.is_writable;
        self.is_read_closed |= later.is_read_closed;
        self.is_error |= later.is_error;
    }
}
