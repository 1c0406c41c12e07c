//! What two processes say to each other while one takes over from the other: messages with descriptors, over a Unix socket.
//!
//! A message is CBOR behind its length; a descriptor travels with the first byte of the message that it belongs to. Both ends are
//! of this program, perhaps of two versions of it, so what cannot be understood ends the takeover and nothing else.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use minicbor::{Decode, Encode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Descriptors that one look at the socket may bring. One is sent at a time, and the kernel does not merge those.
const FDS_PER_READ: usize = 8;

/// What is said, in the order in which it is.
#[derive(Encode, Decode)]
pub(super) enum Message<'a> {
    /// The new process is there, and which version it is of.
    #[n(0)]
    Hello {
        #[b(0)]
        version: &'a str,
    },
    /// Brings a listening socket.
    #[n(1)]
    Listener {
        #[n(0)]
        is_public: bool,
        #[b(1)]
        address: &'a str,
        /// It was passed to the process, whose options say nothing of it.
        #[cbor(n(2), default)]
        is_activated: bool,
    },
    /// The state of the hub follows, as [`state`](crate::snapshot) writes it.
    #[n(2)]
    State,
    /// The new process could serve from now on.
    #[n(3)]
    Ready,
    /// It is to serve from now on. The old one has stopped to.
    #[n(4)]
    Go,
    /// Brings a client that is between two requests, with what came of the next.
    #[n(5)]
    Client {
        #[cbor(b(0), with = "minicbor::bytes")]
        bytes: &'a [u8],
    },
}

/// One end of the line between the two.
pub(super) struct UpgradeSocket {
    socket: UnixStream,
    buffer: Vec<u8>,
    /// How much of that was taken.
    parsed_bytes: usize,
    /// Descriptors that came, and whose messages were not taken yet.
    files: VecDeque<OwnedFd>,
    is_closed: bool,
}

impl UpgradeSocket {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            parsed_bytes: 0,
            files: VecDeque::new(),
            is_closed: false,
        }
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Sends a message, with the descriptor that belongs to it.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(super) fn send(
        &mut self,
        message: &Message<'_>,
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 4];
        minicbor::encode(message, &mut bytes).expect("a Vec takes everything");
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let files: Vec<_> = file.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)), "there is room for one");
        }
        let sent =
            sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        self.socket.write_all(&bytes[sent..])
    }

    /// Takes the next message that is there whole, with the descriptor if it brought one. `None` where more has to come first.
    ///
    /// # Errors
    ///
    /// `InvalidData` for what is no message.
    pub(super) fn try_recv<T>(
        &mut self,
        handle: impl FnOnce(Message<'_>, &mut VecDeque<OwnedFd>) -> T,
    ) -> io::Result<Option<T>> {
        let Some((head, rest)) = self.buffer[self.parsed_bytes..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = minicbor::decode(bytes).map_err(|_| malformed())?;
        let result = handle(message, &mut self.files);
        self.parsed_bytes += 4 + length;
        Ok(Some(result))
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where the other end is gone, `WouldBlock` where its time is over, `InvalidData` as for [`Wire::take`].
    pub(super) fn recv<T>(
        &mut self,
        handle: impl Fn(Message<'_>, &mut VecDeque<OwnedFd>) -> T,
    ) -> io::Result<T> {
        loop {
            if let Some(result) = self.try_recv(&handle)? {
                return Ok(result);
            }
            self.fill()?;
            if self.is_closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Looks once what has come.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.parsed_bytes);
        self.parsed_bytes = 0;
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_READ))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [IoSliceMut::new(&mut self.buffer[start..])];
        let result = recvmsg(&self.socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = result.as_ref().map_or(0, |message| message.bytes);
        self.buffer.truncate(start + length);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        let message = result?;
        self.is_closed = message.bytes == 0;
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // Whose descriptor it was cannot be told, and the next one must not be taken for it.
            return Err(io::Error::other("there is no room for a descriptor"));
        }
        Ok(())
    }

    /// The other end is gone, or will say nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what it says is not understood")
}

impl AsFd for UpgradeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What stands between the messages: the state.
impl Read for UpgradeSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.parsed_bytes == self.buffer.len() {
            self.fill()?;
        }
        let mut rest = &self.buffer[self.parsed_bytes..];
        let length = rest.read(buffer)?;
        self.parsed_bytes += length;
        Ok(length)
    }
}

impl Write for UpgradeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_come_with_their_messages_and_bytes_between_them() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (UpgradeSocket::new(one), UpgradeSocket::new(other));
        let (mut here, there) = UnixStream::pair().unwrap();
        one.send(&Message::State, None).unwrap();
        one.write_all(b"state").unwrap();
        one.send(&Message::Client { bytes: b"GET" }, Some(there.as_fd())).unwrap();
        one.send(&Message::Go, None).unwrap();
        drop((one, there));
        other.recv(|message, _| assert!(matches!(message, Message::State))).unwrap();
        let mut state = [0; 5];
        other.read_exact(&mut state).unwrap();
        assert_eq!(&state, b"state");
        let file = other.recv(|message, files| match message {
            Message::Client { bytes: b"GET" } => files.pop_front().unwrap(),
            _ => panic!("something else"),
        });
        UnixStream::from(file.unwrap()).write_all(b"it is the same").unwrap();
        let mut said = String::new();
        here.read_to_string(&mut said).unwrap();
        assert_eq!(said, "it is the same");
        other.recv(|message, _| assert!(matches!(message, Message::Go))).unwrap();
        let end = other.recv(|_, _| ()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert!(other.is_closed());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&[0, 0, 0, 2, 0xff, 0xff]).unwrap();
        assert_eq!(
            UpgradeSocket::new(other).recv(|_, _| ()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
