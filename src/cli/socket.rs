//! A connection to a server: TCP, a Unix socket, or the pipes of a program that implements TLS.
//! Every wait has a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::error::ClientError;
use super::server_url::{Scheme, ServerUrl};
use super::tcp::connect_tcp;
use super::tls::{Tls, Verify};

/// An open connection. Dropping the socket closes it.
pub(super) struct Socket {
    input: OwnedFd,
    output: OwnedFd,
    pub tls: Option<Tls>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadResult {
    Bytes(usize),
    /// The peer closed or reset the connection.
    End,
}

impl Socket {
    /// Connects to the first reachable address of `server`, before `until`.
    pub fn connect(
        server: &ServerUrl,
        verify: Verify,
        until: Instant,
    ) -> Result<Self, ClientError> {
        match &server.scheme {
            Scheme::Http(host) => {
                let stream = connect_tcp(host, until)?;
                // Small requests are sent at once. If this fails, requests are slower but correct.
                let _ = stream.set_nodelay(true);
                Self::from_socket(stream.into())
            }
            Scheme::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .map_err(|error| ClientError::Connect(error.to_string()))?;
                Self::from_socket(stream.into())
            }
            Scheme::Https(host) => {
                let (tls, input, output) = Tls::start(host, verify)?;
                Self::from_pipes(input, output, Some(tls))
            }
        }
    }

    fn from_socket(socket: OwnedFd) -> Result<Self, ClientError> {
        let output = socket.try_clone().map_err(|error| ClientError::Connect(error.to_string()))?;
        Self::from_pipes(socket, output, None)
    }

    fn from_pipes(input: OwnedFd, output: OwnedFd, tls: Option<Tls>) -> Result<Self, ClientError> {
        for descriptor in [&input, &output] {
            rustix::io::ioctl_fionbio(descriptor, true)
                .map_err(|error| ClientError::Connect(error.to_string()))?;
        }
        Ok(Self { input, output, tls })
    }

    /// Sends all of `bytes`.
    pub fn send(&self, mut bytes: &[u8], until: Instant) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.output, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(self.output.as_fd(), PollFlags::OUT, until, None)?,
                Err(_) => return Err(ClientError::ClosedBeforeResponse),
            }
        }
        Ok(())
    }

    /// Waits for bytes or the end. A hang-up of the descriptor `watched` ends the wait.
    pub fn read(
        &self,
        buffer: &mut [u8],
        until: Instant,
        watched: Option<BorrowedFd>,
    ) -> Result<ReadResult, ClientError> {
        loop {
            match rustix::io::read(&self.input, &mut *buffer) {
                Ok(0) => return Ok(ReadResult::End),
                Ok(count) => return Ok(ReadResult::Bytes(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(self.input.as_fd(), PollFlags::IN, until, watched)?,
                Err(_) => return Ok(ReadResult::End),
            }
        }
    }

    /// Returns whether an idle connection has input: its end, or a response without a request. Such
    /// a connection cannot be reused.
    pub fn is_stale(&self) -> bool {
        let mut fds = [PollFd::new(&self.input, PollFlags::IN)];
        poll(&mut fds, Some(&to_timespec(Duration::ZERO))).map_or(true, |ready| ready > 0)
    }
}

/// Waits until `fd` is ready for `flags`.
fn wait(
    fd: BorrowedFd,
    flags: PollFlags,
    until: Instant,
    watched: Option<BorrowedFd>,
) -> Result<(), ClientError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ClientError::Timeout);
    }
    // poll(2) reports errors and hang-ups even without flags.
    let mut fds = [
        PollFd::from_borrowed_fd(fd, flags),
        PollFd::from_borrowed_fd(watched.unwrap_or(fd), PollFlags::empty()),
    ];
    let count = if watched.is_some() { 2 } else { 1 };
    match poll(&mut fds[..count], Some(&to_timespec(left))) {
        Ok(_) if count == 2 && !fds[1].revents().is_empty() => Err(ClientError::OutputClosed),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(ClientError::Connect(error.to_string())),
    }
}

pub(super) fn to_timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}
