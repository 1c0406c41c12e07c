//! Sealed bytes that the socket did not take yet.

use std::io::{self, ErrorKind, Write};

/// Bytes that the socket did not take yet.
#[derive(Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    /// Number of those already sent.
    sent: usize,
}

impl Unsent {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), sent: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the number of bytes that the socket did not take.
    pub(super) fn rest(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends what the socket takes. `WouldBlock` if that is not all.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            self.sent += write(socket, &self.bytes[self.sent..])?;
        }
        *self = Self::default();
        Ok(())
    }
}

/// Makes one `write` call, again if it is interrupted.
pub(super) fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) => return Err(ErrorKind::WouldBlock.into()),
            result => return result,
        }
    }
}
