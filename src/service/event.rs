//! What the poll said of a client's socket.

/// What the poll said of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// There may be something to read.
    pub is_readable: bool,
    /// There may be room to send.
    pub is_writable: bool,
    /// The peer sends nothing more.
    pub is_read_closed: bool,
    /// The peer reset the connection, or cannot be reached.
    pub is_error: bool,
}

impl Event {
    /// Another one of the same socket, before anybody looked at this one.
    pub(super) fn merge(&mut self, later: Self) {
        self.is_readable |= later.is_readable;
        self.is_writable |= later.is_writable;
        self.is_read_closed |= later.is_read_closed;
        self.is_error |= later.is_error;
    }
}
