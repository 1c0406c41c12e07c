//! Alerts that the server sends (RFC 8446, section 6).

/// An alert: the last message of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// The server sends nothing more: an end, and no error.
    CloseNotify = 0,
    /// A message that does not belong here.
    UnexpectedMessage = 10,
    /// The record is forged or damaged.
    BadRecordMac = 20,
    /// A record that is too long.
    RecordOverflow = 22,
    /// No agreement on how to connect.
    HandshakeFailure = 40,
    /// A value that the protocol does not allow.
    IllegalParameter = 47,
    /// A message that is no message.
    DecodeError = 50,
}

impl Alert {
    /// Encodes level and description. All but `close_notify` are fatal.
    pub(super) fn encode(self) -> [u8; 2] {
        let level = if self == Self::CloseNotify { 1 } else { 2 };
        [level, self as u8]
    }
}
