//! What waits to be sent to one client, where the kernel would not take it at once.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;

use crate::api::{Payload, SharedBytes};

/// Bytes that are sent as they are: an answer shared by many waits for a slow one at the cost of a pointer.
enum Chunk {
    Shared(Rc<SharedBytes>),
    Own(Box<[u8]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(encoded) => encoded.bytes(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// What a chunk takes beside its bytes.
const CHUNK_OVERHEAD_BYTES: usize = 2 * size_of::<Chunk>() + 16;

/// Chunks, and how much of the first is gone.
#[derive(Default)]
pub(super) struct WriteQueue {
    chunks: VecDeque<Chunk>,
    sent: usize,
    /// Bytes in all chunks, also those of the first that are gone.
    bytes: usize,
    /// Those of them that are this client's alone.
    own_bytes: usize,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Nothing is left.
    Complete,
    /// The kernel takes no more for now. Tells whether it took anything.
    WouldBlock { any: bool },
}

impl WriteQueue {
    /// What is left of a payload of which this many bytes were sent.
    pub(super) fn from_unsent(payload: &Payload<'_>, sent: usize) -> Self {
        match payload {
            Payload::Shared(encoded) => {
                let bytes = encoded.bytes().len();
                Self {
                    chunks: [Chunk::Shared(Rc::clone(encoded))].into(),
                    sent,
                    bytes,
                    own_bytes: 0,
                }
            }
            Payload::Private(bytes) => {
                let rest = &bytes[sent..];
                let bytes = rest.len();
                Self { chunks: [Chunk::Own(rest.into())].into(), sent: 0, bytes, own_bytes: bytes }
            }
        }
    }

    /// Puts a payload behind what waits already.
    pub(super) fn push(&mut self, payload: &Payload<'_>) {
        self.bytes += payload.bytes().len();
        self.chunks.push_back(match payload {
            Payload::Shared(encoded) => Chunk::Shared(Rc::clone(encoded)),
            Payload::Private(bytes) => {
                self.own_bytes += bytes.len();
                Chunk::Own((*bytes).into())
            }
        });
    }

    /// Puts what waited by itself behind.
    pub(super) fn append(&mut self, behind: Self) {
        assert!(behind.sent == 0, "nothing of it was sent before its turn");
        self.bytes += behind.bytes;
        self.own_bytes += behind.own_bytes;
        self.chunks.extend(behind.chunks);
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// Memory that it takes, but for what others hold too.
    pub(super) fn memory(&self) -> usize {
        self.own_bytes + self.chunks.len() * CHUNK_OVERHEAD_BYTES
    }

    /// Sends as much as the kernel takes.
    ///
    /// # Errors
    ///
    /// What the socket says; the client is gone then.
    pub(super) fn flush(&mut self, stream: &mut impl Write) -> io::Result<Flush> {
        let mut any = false;
        while let Some(chunk) = self.chunks.front() {
            let rest = &chunk.bytes()[self.sent..];
            let sent = send(stream, rest)?;
            any |= sent > 0;
            if sent < rest.len() {
                self.sent += sent;
                return Ok(Flush::WouldBlock { any });
            }
            self.bytes -= chunk.bytes().len();
            if let Chunk::Own(bytes) = chunk {
                self.own_bytes -= bytes.len();
            }
            self.chunks.pop_front();
            self.sent = 0;
        }
        Ok(Flush::Complete)
    }
}

/// Sends what the kernel takes in one call; a call that is interrupted is made again.
pub(super) fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then blocks.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken.extend_from_slice(&bytes[..length]);
            self.room -= length;
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_narrow_socket_gets_every_byte_once() {
        let shared = SharedBytes::new(b"shared by many", &Rc::default());
        for payload in [Payload::Shared(&shared), Payload::Private(b"only for one!!")] {
            let mut outbox = WriteQueue::from_unsent(&payload, 3);
            let mut socket = Narrow { taken: Vec::new(), room: 5 };
            assert_eq!(outbox.flush(&mut socket).unwrap(), Flush::WouldBlock { any: true });
            assert_eq!(outbox.flush(&mut socket).unwrap(), Flush::WouldBlock { any: false });
            assert_eq!(outbox.bytes(), payload.bytes().len() - 8);
            outbox.push(&Payload::Private(b" and more"));
            socket.room = 100;
            assert_eq!(outbox.flush(&mut socket).unwrap(), Flush::Complete);
            assert_eq!(socket.taken, [&payload.bytes()[3..], b" and more"].concat());
        }
    }
}
