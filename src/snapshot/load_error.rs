//! The error of a snapshot that cannot be loaded.

use std::fmt;
use std::io;

use crate::hub::Corrupt;

/// Reason why a snapshot was not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The bytes cannot be read.
    Io(io::Error),
    /// The bytes are no snapshot.
    NotASnapshot,
    /// The snapshot has another version of the format.
    OtherVersion,
    /// The snapshot ends too early.
    Truncated,
    /// The snapshot was changed since it was written.
    Corrupt(&'static str),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read it: {error}"),
            Self::NotASnapshot => f.write_str("not a state file of Speak"),
            Self::OtherVersion => {
                f.write_str("written by another version of Speak, in another format")
            }
            Self::Truncated => f.write_str("truncated"),
            Self::Corrupt(fault) => write!(f, "corrupt: {fault}"),
        }
    }
}

impl From<Corrupt> for LoadError {
    fn from(Corrupt(fault): Corrupt) -> Self {
        Self::Corrupt(fault)
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(error) }
    }
}
