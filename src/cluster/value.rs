//! Replies of Redis.

use std::ops::Deref;

use bytes::Bytes;

/// One reply, or an element of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value: a null string or a null array.
    Nil,
    /// A number.
    Int(i64),
    /// A bulk string or a simple string.
    Text(Text),
    /// An error. It may quote the command, so it is not for a log; see [`Value::error_kind`].
    Error(Box<str>),
    /// Several values.
    Array(Vec<Value>),
}

/// Bytes of a string: a part of the reply, whose memory lives as long as one of its strings. So a
/// page of records takes no memory for each of their strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Bytes);

/// Errors that callers treat in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// `READONLY`: the server is a replica, after a failover for instance.
    ReadOnly,
    /// `LOADING`: the server reads its data from the disk.
    Loading,
    /// `MASTERDOWN`: a replica without its primary refuses to answer.
    MasterDown,
    /// `OOM`: `maxmemory` is reached. Reads succeed.
    OutOfMemory,
    /// `MISCONF`: the server cannot save to its disk. Reads succeed.
    CannotSave,
    /// `NOREPLICAS`: fewer replicas than `min-replicas-to-write`. Reads succeed.
    NoReplicas,
    /// `NOAUTH`: the server wants a password.
    NoAuth,
    /// `WRONGPASS`: the password is wrong, or the user is unknown or disabled.
    WrongPassword,
    /// `NOPERM`: the ACL of the user forbids the command or the key.
    NoPermission,
    /// `WRONGTYPE`: another program uses the key.
    WrongType,
    /// Any other error.
    Other,
}

impl Value {
    /// Returns the bytes of a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&[u8]> {
        if let Self::Text(bytes) = self { Some(bytes) } else { None }
    }

    /// Returns the elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    /// Returns the kind of an error. `None` for any other value.
    #[must_use]
    pub fn error_kind(&self) -> Option<ErrorKind> {
        if let Self::Error(text) = self { Some(ErrorKind::of(text)) } else { None }
    }

    /// Bytes of memory that the value takes. The cost is that of a walk over all elements.
    #[must_use]
    pub fn memory(&self) -> usize {
        let content = match self {
            Self::Nil | Self::Int(_) => 0,
            Self::Text(bytes) => bytes.len(),
            Self::Error(text) => text.len(),
            Self::Array(values) => values.iter().map(Self::memory).sum(),
        };
        size_of::<Self>() + content
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl ErrorKind {
    fn of(text: &str) -> Self {
        match text.split(' ').next().unwrap_or_default() {
            "READONLY" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "MASTERDOWN" => Self::MasterDown,
            "OOM" => Self::OutOfMemory,
            "MISCONF" => Self::CannotSave,
            "NOREPLICAS" => Self::NoReplicas,
            "NOAUTH" => Self::NoAuth,
            "WRONGPASS" => Self::WrongPassword,
            "NOPERM" => Self::NoPermission,
            "WRONGTYPE" => Self::WrongType,
            _ => Self::Other,
        }
    }

    /// The server takes no data for now, and has not taken the one that it was given.
    #[must_use]
    pub fn is_full(self) -> bool {
        matches!(self, Self::OutOfMemory | Self::CannotSave | Self::NoReplicas)
    }

    /// Returns what the error means, and what the operator can do.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::ReadOnly => "it is a replica",
            Self::Loading => "it is loading its data",
            Self::MasterDown => "it has no connection to its primary",
            Self::OutOfMemory => "its memory is full: raise its maxmemory",
            Self::CannotSave => "it cannot save to its disk: look at its log",
            Self::NoReplicas => "it has fewer replicas than min-replicas-to-write",
            Self::NoAuth | Self::WrongPassword => "it wants another password",
            Self::NoPermission => "its ACL forbids this user a command or a key",
            Self::WrongType => "another program uses the key of the log: set another prefix",
            Self::Other => "it does not know a command",
        }
    }

    /// Another connection may find a server that can answer: after a failover, or later.
    #[must_use]
    pub fn is_of_the_server(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Loading | Self::MasterDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_known_by_its_first_word() {
        let kind = |text: &str| Value::Error(text.into()).error_kind();
        assert_eq!(kind("OOM command not allowed"), Some(ErrorKind::OutOfMemory));
        assert_eq!(kind("LOADING"), Some(ErrorKind::Loading));
        assert_eq!(kind("OOMPH"), Some(ErrorKind::Other));
        assert_eq!(kind("ERR OOM"), Some(ErrorKind::Other));
        assert_eq!(kind(""), Some(ErrorKind::Other));
        assert_eq!(Value::Text(b"OOM".as_slice().into()).error_kind(), None);
        assert!(kind("READONLY x").unwrap().is_of_the_server());
        assert!(!kind("NOAUTH x").unwrap().is_of_the_server());
    }
}
