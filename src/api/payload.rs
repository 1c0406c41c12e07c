//! Encoded bytes for one client, or the same bytes for many.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use super::transport::Transport;

/// Bytes that are counted in a total until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    bytes: usize,
    total: Rc<Cell<usize>>,
}

impl Counted {
    pub(super) fn new(bytes: usize, total: &Rc<Cell<usize>>) -> Self {
        total.set(total.get() + bytes);
        Self { bytes, total: Rc::clone(total) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.bytes);
    }
}

/// Bytes that many clients share. They are counted until the cache and all clients have dropped
/// them.
#[derive(Debug)]
pub struct SharedBytes {
    bytes: Box<[u8]>,
    _counted: Counted,
}

impl SharedBytes {
    /// Copies `bytes` and adds their number to `total` until the copy is dropped.
    #[must_use]
    pub fn new(bytes: &[u8], total: &Rc<Cell<usize>>) -> Rc<Self> {
        Rc::new(Self { bytes: bytes.into(), _counted: Counted::new(bytes.len(), total) })
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Part of a response.
#[derive(Debug)]
pub enum Chunk {
    /// A part of the bytes that many clients share. It costs a slow client one pointer.
    Shared(Rc<SharedBytes>, Range<usize>),
    /// Bytes for one client.
    Own(Box<[u8]>),
}

impl Chunk {
    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(shared, range) => &shared.bytes()[range.clone()],
            Self::Own(bytes) => bytes,
        }
    }
}

/// Encoded response, event or frame.
pub enum Payload<'a> {
    /// The same bytes for many clients.
    Shared(&'a Rc<SharedBytes>),
    /// Bytes for one client.
    Private(&'a [u8]),
}

impl Payload<'_> {
    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(shared) => shared.bytes(),
            Self::Private(bytes) => bytes,
        }
    }
}

/// Encodings of the last wake-up, one for each kind of reader that shares its bytes.
#[derive(Default)]
pub(super) struct EncodeCache {
    /// Response to a long poll.
    pub(super) response: Option<Rc<SharedBytes>>,
    /// Update of a stream, by [`Transport::index`].
    pub(super) updates: [Option<Rc<SharedBytes>>; Transport::COUNT],
}
