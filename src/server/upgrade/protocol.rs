//! Protocol of an upgrade: messages with descriptors, over a Unix socket between the two processes.
//!
//! A message is its length in four bytes, then CBOR. A descriptor travels with the first byte of
//! the message that it belongs to. Both ends are this program, perhaps in two versions: a message
//! that one of them does not understand ends the takeover and nothing else.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Environment variable of a process that is to take over. Its standard input is the socket to the
/// predecessor.
pub const UPGRADE_ENV: &str = "SPEAK_TAKES_OVER";

/// Time for which each process waits for the other one to send or to read. The server does not
/// serve meanwhile.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Descriptors of one read. One is sent at a time, and the kernel does not merge such messages.
const FDS_PER_READ: usize = 8;

/// Message of an upgrade, in the order in which they are sent. The numbers are frozen: an older
/// process must be able to hand over to a newer one.
#[derive(Clone, Copy, Encode, Decode)]
pub(super) enum Message<'a> {
    /// The successor has started; its version.
    #[n(0)]
    Hello {
        #[b(0)]
        version: &'a str,
    },
    /// A listening socket, as a descriptor.
    #[n(1)]
    Listener {
        #[n(0)]
        is_public: bool,
        #[b(1)]
        address: &'a str,
        /// Opened by socket activation: no option names it.
        #[cbor(n(2), default)]
        is_activated: bool,
    },
    /// The state of the hub follows, as [`snapshot`](crate::snapshot) writes it.
    #[n(2)]
    State,
    /// The successor is ready to serve.
    #[n(3)]
    Ready,
    /// The successor serves from now on. The predecessor has stopped serving.
    #[n(4)]
    Go,
    /// A client between two requests, as a descriptor, with what arrived of its next request.
    #[n(5)]
    Client {
        #[cbor(b(0), with = "minicbor::bytes")]
        bytes: &'a [u8],
        /// State of a client that speaks TLS: its keys. Empty before its handshake.
        #[b(1)]
        tls: Option<&'a ByteSlice>,
    },
    /// What the successor continues the log of the cluster with. Comes before the state, if there
    /// is a cluster.
    #[n(6)]
    ClusterLog {
        #[cbor(b(0), with = "minicbor::bytes")]
        bytes: &'a [u8],
    },
    /// Keys of the tickets of TLS. Comes before the state, if there are certificates.
    #[n(7)]
    TicketKeys {
        #[cbor(b(0), with = "minicbor::bytes")]
        bytes: &'a [u8],
    },
}

/// One end of the socket between the two processes.
pub(super) struct UpgradeSocket {
    socket: UnixStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were parsed.
    parsed_bytes: usize,
    /// Descriptors that arrived and whose messages were not parsed yet.
    fds: VecDeque<OwnedFd>,
    is_closed: bool,
}

impl UpgradeSocket {
    fn new(socket: UnixStream) -> Self {
        Self { socket, buffer: Vec::new(), parsed_bytes: 0, fds: VecDeque::new(), is_closed: false }
    }

    /// Wraps a socket on which each call waits for [`HANDOVER_TIMEOUT`] at most.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub(super) fn with_timeouts(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(HANDOVER_TIMEOUT))?;
        socket.set_write_timeout(Some(HANDOVER_TIMEOUT))?;
        Ok(Self::new(socket))
    }

    /// Makes reads and writes return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Sends a message, with the descriptor that belongs to it.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub(super) fn send(
        &mut self,
        message: &Message<'_>,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 4];
        minicbor::encode(message, &mut bytes).expect("a Vec takes everything");
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let fds: Vec<_> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "there is room for one");
        }
        let sent = retry_on_intr(|| {
            sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
        })?;
        self.socket.write_all(&bytes[sent..])
    }

    /// Parses the next message of the buffer and passes it to `handle`, with the descriptors that
    /// arrived. `None` if the message is incomplete.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a malformed message.
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
        let result = handle(message, &mut self.fds);
        self.parsed_bytes += 4 + length;
        Ok(Some(result))
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the other end is closed, `WouldBlock` after the timeout, `InvalidData` as
    /// for [`UpgradeSocket::try_recv`].
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

    /// Reads once into the buffer.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.parsed_bytes);
        self.parsed_bytes = 0;
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_READ))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [IoSliceMut::new(&mut self.buffer[start..])];
        // With a timeout, a signal interrupts the call even if its handler asks for a restart.
        let result = retry_on_intr(|| {
            recvmsg(&self.socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let length = result.as_ref().map_or(0, |message| message.bytes);
        self.buffer.truncate(start + length);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        let message = result?;
        self.is_closed = message.bytes == 0;
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // The message of the lost descriptor is unknown: it must not get the next one.
            return Err(io::Error::other("a descriptor was lost: too many open files"));
        }
        Ok(())
    }

    /// Returns whether the other end is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// Error for a message that this version does not understand, or does not expect.
pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unknown message of the upgrade protocol")
}

impl AsFd for UpgradeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads the bytes between two messages: the state.
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
    fn descriptors_arrive_with_their_messages_and_the_state_between_them() {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = (UpgradeSocket::new(sender), UpgradeSocket::new(receiver));
        let (mut peer, client) = UnixStream::pair().unwrap();
        sender.send(&Message::State, None).unwrap();
        sender.write_all(b"state").unwrap();
        let tls = Some(b"keys"[..].into());
        sender.send(&Message::Client { bytes: b"GET", tls }, Some(client.as_fd())).unwrap();
        sender.send(&Message::Go, None).unwrap();
        drop((sender, client));
        receiver.recv(|message, _| assert!(matches!(message, Message::State))).unwrap();
        let mut state = [0; 5];
        receiver.read_exact(&mut state).unwrap();
        assert_eq!(&state, b"state");
        let fd = receiver.recv(|message, fds| match message {
            Message::Client { bytes: b"GET", tls: Some(tls) } if **tls == *b"keys" => {
                fds.pop_front().unwrap()
            }
            _ => panic!("another message"),
        });
        UnixStream::from(fd.unwrap()).write_all(b"same client").unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same client");
        receiver.recv(|message, _| assert!(matches!(message, Message::Go))).unwrap();
        let end = receiver.recv(|_, _| ()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert!(receiver.is_closed());
    }

    #[test]
    fn a_malformed_message_is_an_error() {
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        sender.write_all(&[0, 0, 0, 2, 0xff, 0xff]).unwrap();
        let error = UpgradeSocket::new(receiver).recv(|_, _| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
