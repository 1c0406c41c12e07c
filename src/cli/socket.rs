//! Bytes to and from a server, each wait with an end: over TCP, a Unix socket, or the pipes of a program that speaks TLS.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::error::Fault;
use super::server_url::{Place, Server};
use super::tcp::connect_tcp;
use super::tls::{Tls, Trust};

/// An open connection. Dropping it closes it.
pub(super) struct Stream {
    input: OwnedFd,
    output: OwnedFd,
    pub tls: Option<Tls>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    Bytes(usize),
    End,
}

impl Stream {
    /// Connects to `server` before `until`, by the first of its addresses that answers.
    pub fn connect(server: &Server, trust: Trust, until: Instant) -> Result<Self, Fault> {
        match &server.place {
            Place::Plain(host) => {
                let stream = connect_tcp(host, until)?;
                // A small request has nothing to wait for. Where that cannot be said, it is slower and no worse.
                let _ = stream.set_nodelay(true);
                Self::of_socket(stream.into())
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(|error| Fault::Connect(error.to_string()))?;
                Self::of_socket(stream.into())
            }
            Place::Tls(host) => {
                let (tls, input, output) = Tls::start(host, trust)?;
                Self::of(input, output, Some(tls))
            }
        }
    }

    fn of_socket(socket: OwnedFd) -> Result<Self, Fault> {
        let output = socket.try_clone().map_err(|error| Fault::Connect(error.to_string()))?;
        Self::of(socket, output, None)
    }

    fn of(input: OwnedFd, output: OwnedFd, tls: Option<Tls>) -> Result<Self, Fault> {
        for descriptor in [&input, &output] {
            rustix::io::ioctl_fionbio(descriptor, true).map_err(|error| Fault::Connect(error.to_string()))?;
        }
        Ok(Self { input, output, tls })
    }

    /// Sends all of it.
    pub fn send(&self, mut bytes: &[u8], until: Instant) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.output, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(self.output.as_fd(), PollFlags::OUT, until, None)?,
                Err(_) => return Err(Fault::Ended),
            }
        }
        Ok(())
    }

    /// Waits for some bytes, or the end. `watched` is a descriptor whose hanging up ends the wait.
    pub fn read(&self, buffer: &mut [u8], until: Instant, watched: Option<BorrowedFd>) -> Result<Came, Fault> {
        loop {
            match rustix::io::read(&self.input, &mut *buffer) {
                Ok(0) => return Ok(Came::End),
                Ok(count) => return Ok(Came::Bytes(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(self.input.as_fd(), PollFlags::IN, until, watched)?,
                // A reset is an end too.
                Err(_) => return Ok(Came::End),
            }
        }
    }

    /// Whether something has come that nobody asked for: an end, or an answer out of turn. Such a stream is of no more use.
    pub fn is_stale(&self) -> bool {
        let mut fds = [PollFd::new(&self.input, PollFlags::IN)];
        poll(&mut fds, Some(&span(Duration::ZERO))).map_or(true, |ready| ready > 0)
    }
}

/// Waits until something can be done with `fd`.
fn wait(fd: BorrowedFd, flags: PollFlags, until: Instant, watched: Option<BorrowedFd>) -> Result<(), Fault> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Fault::Late);
    }
    // Errors and hang-ups are told without being asked for.
    let mut fds =
        [PollFd::from_borrowed_fd(fd, flags), PollFd::from_borrowed_fd(watched.unwrap_or(fd), PollFlags::empty())];
    let count = if watched.is_some() { 2 } else { 1 };
    match poll(&mut fds[..count], Some(&span(left))) {
        Ok(_) if count == 2 && !fds[1].revents().is_empty() => Err(Fault::Deaf),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Fault::Connect(error.to_string())),
    }
}

/// A time as the kernel takes it.
pub(super) fn span(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}
