//! Encoded bytes for one client, or the same bytes for many.

use std::cell::Cell;
use std::mem;
use std::ops::Range;
use std::rc::Rc;

use super::transport::Transport;
use crate::http::EventFraming;
use crate::hub::{Counted, IntroductionPage};

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
    /// Introductions that many clients share, and the channel.
    Introductions(Rc<IntroductionPage>, Range<usize>),
    /// Introductions as events, which are encoded when they are sent.
    Events(Box<IntroductionEvents>),
    /// Bytes for one client.
    Own(Box<[u8]>),
}

impl Chunk {
    /// Returns the number of bytes to send: about that, if they are not encoded yet.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            _ => self.bytes().len(),
        }
    }

    /// Returns the bytes to send: none, if they are not encoded yet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(shared, range) => &shared.bytes()[range.clone()],
            Self::Introductions(page, range) => &page.json()[range.clone()],
            Self::Events(_) => &[],
            Self::Own(bytes) => bytes,
        }
    }

    /// Encodes bytes that are not encoded yet.
    pub fn encode(&mut self) {
        if let Self::Events(events) = self {
            *self = Self::Own(events.encode().into());
        }
    }

    /// Returns the memory of the bytes that this client alone has.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        match self {
            Self::Shared(..) | Self::Introductions(..) => 0,
            Self::Events(events) => events.memory(),
            Self::Own(bytes) => bytes.len(),
        }
    }
}

/// A chunk that is to be sent after the first bytes of a response.
#[derive(Debug)]
pub struct Insertion {
    /// Number of bytes of the response before it, without other such chunks.
    pub at: usize,
    /// The chunk.
    pub chunk: Chunk,
}

/// Chunks of the responses that were appended last.
#[derive(Debug, Default)]
pub(super) struct Insertions {
    all: Vec<Insertion>,
    /// Number of chunks whose places are known. The places of others are those in the JSON that is
    /// being encoded.
    placed: usize,
    /// Bytes of the others.
    json_bytes: usize,
}

impl Insertions {
    /// Adds a chunk to the JSON that is being encoded.
    pub(super) fn push_to_json(&mut self, at: usize, chunk: Chunk) {
        self.json_bytes += chunk.length();
        self.all.push(Insertion { at, chunk });
    }

    /// Adds a chunk to the responses.
    pub(super) fn push(&mut self, at: usize, chunk: Chunk) {
        self.all.push(Insertion { at, chunk });
        self.placed = self.all.len();
    }

    /// Returns the number of chunks.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the bytes of all chunks in the JSON that is being encoded.
    #[inline]
    pub(super) fn json_bytes(&self) -> usize {
        self.json_bytes
    }

    /// Records that the JSON begins after `start` bytes of the responses.
    #[inline]
    pub(super) fn place_json(&mut self, start: usize) {
        if self.json_bytes > 0 {
            self.all[self.placed..].iter_mut().for_each(|insertion| insertion.at += start);
            (self.placed, self.json_bytes) = (self.all.len(), 0);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Insertion> {
        mem::take(self).all
    }
}

/// Introductions of one page as events of a stream. An encoding would be longer than the page, and
/// a client may have very many pages to take.
#[derive(Debug)]
pub struct IntroductionEvents {
    pub(super) page: Rc<IntroductionPage>,
    /// Places of the objects in the JSON of the page.
    pub(super) objects: Box<[(u32, u32)]>,
    /// Lines of each event up to the first key of the object.
    pub(super) prefix: Rc<[u8]>,
    pub(super) framing: EventFraming,
}

impl IntroductionEvents {
    fn len(&self) -> usize {
        let objects = self.objects.iter().map(|(start, end)| (end - start) as usize);
        objects.sum::<usize>() + self.objects.len() * self.prefix.len()
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.objects)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + 16 * self.objects.len());
        for (start, end) in &self.objects {
            let event = out.len();
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(&self.page.json()[*start as usize + 1..*end as usize]);
            out.extend_from_slice(b"\n\n");
            self.framing.end_event(&mut out, event);
        }
        out
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
