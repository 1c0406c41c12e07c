//! Bytes for one client that did not fit into the kernel's buffer.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;

use crate::api::{Chunk, Payload};

/// Memory of a chunk in addition to its bytes: the queue may have twice the capacity it needs, and
/// an allocation has a header.
const CHUNK_OVERHEAD_BYTES: usize = 2 * size_of::<Chunk>() + 16;

/// Bytes of one flush, but for the rest of a chunk. A peer that reads as fast as the server writes
/// would keep a turn as long as there is anything to send.
pub(super) const FLUSH_BYTES_MAX: usize = 256 * 1024;

/// Bytes for one client, in the order of sending.
#[derive(Default)]
pub(super) struct WriteQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are already sent.
    sent: usize,
    /// Bytes in all chunks, including those already sent.
    bytes: usize,
    /// Bytes in chunks of this client alone.
    own_bytes: usize,
    /// The last flush ended before the kernel took no more: no event will say that it takes more.
    pub(super) is_cut: bool,
}

/// Result of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Everything was sent.
    Complete,
    /// The kernel takes no more bytes for now. `progress` says whether it has taken any.
    WouldBlock { progress: bool },
}

impl WriteQueue {
    /// Creates a queue with the rest of a payload, of which `sent` bytes are already sent.
    pub(super) fn from_unsent(payload: &Payload<'_>, sent: usize) -> Self {
        let mut queue = Self::default();
        queue.push_chunk(match payload {
            Payload::Shared(shared) => Chunk::Shared(Rc::clone(shared), sent..shared.bytes().len()),
            Payload::Private(bytes) => Chunk::Own(bytes[sent..].into()),
        });
        queue
    }

    /// Creates a queue of chunks, of which the first `sent` bytes are already sent.
    pub(super) fn from_chunks(chunks: Vec<Chunk>, sent: usize) -> Self {
        let mut queue = Self::default();
        for chunk in chunks {
            queue.push_chunk(chunk);
        }
        queue.advance(sent);
        queue
    }

    /// Appends a payload.
    pub(super) fn push(&mut self, payload: &Payload<'_>) {
        self.append(Self::from_unsent(payload, 0));
    }

    fn push_chunk(&mut self, chunk: Chunk) {
        self.bytes += chunk.length();
        self.own_bytes += chunk.own_bytes();
        self.chunks.push_back(chunk);
    }

    /// Encodes the first chunk, if it is not encoded yet.
    fn encode_first(&mut self) {
        if let Some(chunk @ Chunk::Events(_)) = self.chunks.front_mut() {
            let (bytes, own_bytes) = (chunk.length(), chunk.own_bytes());
            chunk.encode();
            self.bytes = self.bytes + chunk.length() - bytes;
            self.own_bytes = self.own_bytes + chunk.own_bytes() - own_bytes;
        }
    }

    /// Removes the chunks that `sent` more bytes complete.
    fn advance(&mut self, sent: usize) {
        self.sent += sent;
        while let Some(chunk) = self.chunks.front()
            && self.sent >= chunk.length()
        {
            let length = chunk.length();
            self.bytes -= length;
            self.sent -= length;
            self.own_bytes -= chunk.own_bytes();
            self.chunks.pop_front();
        }
    }

    /// Appends another queue, of which nothing was sent yet.
    pub(super) fn append(&mut self, later: Self) {
        assert!(later.sent == 0, "bytes of a later queue were sent first");
        self.bytes += later.bytes;
        self.own_bytes += later.own_bytes;
        self.chunks.extend(later.chunks);
    }

    /// Returns the number of unsent bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// Returns the memory of the queue, without bytes that other clients share.
    pub(super) fn memory(&self) -> usize {
        self.own_bytes + self.chunks.len() * CHUNK_OVERHEAD_BYTES
    }

    /// Sends as many bytes as the kernel takes, about [`FLUSH_BYTES_MAX`] at most.
    ///
    /// # Errors
    ///
    /// The socket's error. The caller closes the client.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<Flush> {
        let mut flushed = 0;
        self.encode_first();
        while let Some(chunk) = self.chunks.front() {
            self.is_cut = flushed >= FLUSH_BYTES_MAX;
            if self.is_cut {
                return Ok(Flush::WouldBlock { progress: true });
            }
            let rest = &chunk.bytes()[self.sent..];
            let (sent, wanted) = (send(socket, rest)?, rest.len());
            flushed += sent;
            self.advance(sent);
            if sent < wanted {
                return Ok(Flush::WouldBlock { progress: flushed > 0 });
            }
            self.encode_first();
        }
        Ok(Flush::Complete)
    }
}

/// Makes one `write` call, again if it is interrupted. Returns the number of bytes sent.
pub(super) fn send(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Ok(sent) => Ok(sent),
        Err(error) => send_after(error, socket, bytes),
    }
}

/// Continues [`send`] after an error of `write`.
#[cold]
#[inline(never)]
fn send_after(mut error: io::Error, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    while error.kind() == io::ErrorKind::Interrupted {
        match socket.write(bytes) {
            Ok(sent) => return Ok(sent),
            Err(later) => error = later,
        }
    }
    if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SharedBytes;

    /// A socket that takes `room` bytes, and then blocks.
    struct NarrowSocket {
        received: Vec<u8>,
        room: usize,
    }

    impl Write for NarrowSocket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.received.extend_from_slice(&bytes[..length]);
            self.room -= length;
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_narrow_socket_receives_every_byte_once() {
        let shared = SharedBytes::new(b"shared by many", &Rc::default());
        for payload in [Payload::Shared(&shared), Payload::Private(b"only for one!!")] {
            let mut queue = WriteQueue::from_unsent(&payload, 3);
            let mut socket = NarrowSocket { received: Vec::new(), room: 5 };
            assert_eq!(queue.flush(&mut socket).unwrap(), Flush::WouldBlock { progress: true });
            assert_eq!(queue.flush(&mut socket).unwrap(), Flush::WouldBlock { progress: false });
            assert_eq!(queue.bytes(), payload.bytes().len() - 8);
            queue.push(&Payload::Private(b" and more"));
            socket.room = 100;
            assert_eq!(queue.flush(&mut socket).unwrap(), Flush::Complete);
            assert_eq!(socket.received, [&payload.bytes()[3..], b" and more"].concat());
        }
    }
}
