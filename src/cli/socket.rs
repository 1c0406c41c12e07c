//! Bytes to and from a server, each wait with an end: over TCP, a Unix socket, or the pipes of a program that speaks TLS.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::error::ClientError;
use super::server_url::{Scheme, ServerUrl};
use super::tcp::connect_tcp;
use super::tls::{Tls, Verify};

/// An open connection. Dropping it closes it.
pub(super) struct Socket {
    input: OwnedFd,
    output: OwnedFd,
    pub tls: Option<Tls>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadResult {
    Bytes(usize),
    End,
}

impl Socket {
    /// Connects to `server` before `until`, by the first of its addresses that answers.
    pub fn connect(server: &ServerUrl, trust: Verify, until: Instant) -> Result<Self, ClientError> {
        match &server.place {
            Scheme::Plain(host) => {
                let stream = connect_tcp(host, until)?;
                // A small request has nothing to wait for. Where that cannot be said, it is slower and no worse.
                let _ = stream.set_nodelay(true);
                Self::from_unix(stream.into())
            }
            Scheme::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .map_err(|error| ClientError::Connect(error.to_string()))?;
                Self::from_unix(stream.into())
            }
            Scheme::Tls(host) => {
                let (tls, input, output) = Tls::start(host, trust)?;
                Self::from_tls(input, output, Some(tls))
            }
        }
    }

    fn from_unix(socket: OwnedFd) -> Result<Self, ClientError> {
        let output = socket.try_clone().map_err(|error| ClientError::Connect(error.to_string()))?;
        Self::from_tls(socket, output, None)
    }

    fn from_tls(input: OwnedFd, output: OwnedFd, tls: Option<Tls>) -> Result<Self, ClientError> {
        for descriptor in [&input, &output] {
            rustix::io::ioctl_fionbio(descriptor, true)
                .map_err(|error| ClientError::Connect(error.to_string()))?;
        }
        Ok(Self { input, output, tls })
    }

    /// Sends all of it.
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

    /// Waits for some bytes, or the end. `watched` is a descriptor whose hanging up ends the wait.
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
                // A reset is an end too.
                Err(_) => return Ok(ReadResult::End),
            }
        }
    }

    /// Whether something has come that nobody asked for: an end, or an answer out of turn. Such a stream is of no more use.
    pub fn is_stale(&self) -> bool {
        let mut fds = [PollFd::new(&self.input, PollFlags::IN)];
        poll(&mut fds, Some(&to_timespec(Duration::ZERO))).map_or(true, |ready| ready > 0)
    }
}

/// Waits until something can be done with `fd`.
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
    // Errors and hang-ups are told without being asked for.
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

/// A time as the kernel takes it.
pub(super) fn to_timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}
