//! One process takes over from another, and nobody loses anything by it.
//!
//! The old one starts the new one and serves on until that says hello. Then it stands still, gives away its doors and the
//! state of its hub, and waits for the word that all of it has arrived. Up to there nothing has changed, and if anything fails
//! the old one ends the new one and serves on. With [`Message::Go`] the new one serves; the old one passes on its clients, each as
//! soon as it has its answer. If the old one dies before that word, the new one serves without it.

mod protocol;

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::stdio;

use self::protocol::{Message, UpgradeSocket, malformed};
use crate::hub::{Config, Hub, Now};
use crate::options::{ListenAddr, NAME_AND_VERSION};
use crate::server::activation;
use crate::server::systemd::WATCHDOG_PID;
use crate::service::ListenerKind;
use crate::snapshot::{self, LoadError};

/// Set for a process that is to take over; its standard input is the line to the one before.
const UPGRADE_ENV: &str = "SPEAK_TAKES_OVER";

/// How long either waits for the other to say or to take anything. The server stands still meanwhile.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take the new process to start.
pub(super) const START_TIMEOUT_MS: u64 = 10_000;

/// Those who wait are answered over this time, so that they do not all come back at once.
pub(super) const DRAIN_SPREAD_MS: u64 = 1_000;

/// How much later than that an answer may be on its way.
const DRAIN_SLACK_MS: u64 = 250;

/// The process that is to serve instead of this one.
pub(super) struct Successor {
    child: Child,
    wire: UpgradeSocket,
}

/// A door that changes hands.
pub(super) struct TransferredListener<'a> {
    pub(super) audience: ListenerKind,
    /// As the operator named it.
    pub(super) address: &'a ListenAddr,
    /// No option names it.
    pub(super) is_activated: bool,
    pub(super) file: BorrowedFd<'a>,
}

impl Successor {
    /// Starts the program of this process anew, as it is now, with the same arguments.
    ///
    /// # Errors
    ///
    /// What keeps it from starting.
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(HANDOVER_TIMEOUT))?;
        ours.set_write_timeout(Some(HANDOVER_TIMEOUT))?;
        let mut arguments = env::args_os();
        // By the name by which it was called: behind a link there may be another program by now.
        let program = arguments
            .next()
            .filter(|name| !name.is_empty())
            .map_or_else(env::current_exe, |it| Ok(it.into()))?;
        let arguments: Vec<OsString> = arguments.collect();
        let mut command = Command::new(program);
        // What was said to this process alone.
        for name in activation::VARIABLES.into_iter().chain([WATCHDOG_PID]) {
            command.env_remove(name);
        }
        let child = command
            .args(arguments)
            .env(UPGRADE_ENV, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self { child, wire: UpgradeSocket::new(ours) })
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// It has said something, or is gone: gives it all that it needs to serve, and has it begin.
    ///
    /// # Errors
    ///
    /// Where it did not take over. It is to be given up then.
    pub(super) fn hand_over(
        &mut self,
        doors: &[TransferredListener<'_>],
        hub: &Hub,
        now: Now,
    ) -> io::Result<()> {
        let hello = |message: Message<'_>, _: &mut _| matches!(message, Message::Hello { .. });
        if !self.wire.recv(hello)? {
            return Err(malformed());
        }
        for door in doors {
            let is_public = door.audience == ListenerKind::Public;
            let message = Message::Listener {
                is_public,
                address: &door.address.to_string(),
                is_activated: door.is_activated,
            };
            self.wire.send(&message, Some(door.file))?;
        }
        self.wire.send(&Message::State, None)?;
        let mut out = io::BufWriter::new(&mut self.wire);
        snapshot::write(hub, now, DRAIN_SPREAD_MS + DRAIN_SLACK_MS, &mut out)?;
        drop(out);
        let is_ready = self.wire.recv(|message, _| matches!(message, Message::Ready))?;
        if is_ready { self.wire.send(&Message::Go, None) } else { Err(malformed()) }
    }

    /// Passes on a client that is between two requests, with what came of the next.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(super) fn send_client(&mut self, client: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(&Message::Client { bytes }, Some(client))
    }

    /// Ends it: it has not begun to serve, and must not.
    pub(super) fn kill(mut self) {
        // Fails only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

/// The process that served until now.
pub(super) struct Predecessor {
    wire: UpgradeSocket,
    doors: Vec<InheritedListener>,
}

/// A listening socket that another process opened.
struct InheritedListener {
    is_public: bool,
    address: String,
    is_activated: bool,
    file: OwnedFd,
}

/// What came from the process before.
enum Received {
    Door(InheritedListener),
    State,
    Client(OwnedFd, Vec<u8>),
    Go,
    Unexpected,
}

impl Received {
    fn of(message: Message<'_>, files: &mut std::collections::VecDeque<OwnedFd>) -> Self {
        match (message, files) {
            (Message::State, _) => Self::State,
            (Message::Go, _) => Self::Go,
            (Message::Listener { is_public, address, is_activated }, files) => {
                files.pop_front().map_or(Self::Unexpected, |file| {
                    Self::Door(InheritedListener {
                        is_public,
                        address: address.to_owned(),
                        is_activated,
                        file,
                    })
                })
            }
            (Message::Client { bytes }, files) => files
                .pop_front()
                .map_or(Self::Unexpected, |file| Self::Client(file, bytes.to_vec())),
            (Message::Hello { .. } | Message::Ready, _) => Self::Unexpected,
        }
    }
}

impl Predecessor {
    /// The one from which this process is to take over, if it is.
    ///
    /// # Errors
    ///
    /// Where the line to it is none.
    pub(super) fn from_env() -> io::Result<Option<Self>> {
        if env::var_os(UPGRADE_ENV).is_none() {
            return Ok(None);
        }
        let socket = UnixStream::from(stdio::stdin().try_clone_to_owned()?);
        stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        socket.set_read_timeout(Some(HANDOVER_TIMEOUT))?;
        socket.set_write_timeout(Some(HANDOVER_TIMEOUT))?;
        Ok(Some(Self { wire: UpgradeSocket::new(socket), doors: Vec::new() }))
    }

    /// Says hello, and takes its doors and the hub. It is `unix_ms` since 1970 now.
    ///
    /// # Errors
    ///
    /// Where it is gone, or gave something that is not understood.
    pub(super) fn receive_state(
        &mut self,
        config: &Config,
        unix_ms: u64,
    ) -> io::Result<(Hub, Now)> {
        self.wire.send(&Message::Hello { version: NAME_AND_VERSION }, None)?;
        loop {
            match self.wire.recv(Received::of)? {
                Received::Door(door) => self.doors.push(door),
                Received::State => break,
                Received::Client(..) | Received::Go | Received::Unexpected => {
                    return Err(malformed());
                }
            }
        }
        snapshot::read(config, unix_ms, &mut self.wire).map_err(|fault| match fault {
            LoadError::Io(error) => error,
            LoadError::Truncated => io::ErrorKind::UnexpectedEof.into(),
            fault => io::Error::other(fault.to_string()),
        })
    }

    /// The door that it had at this address, if it had one.
    pub(super) fn take_listener(
        &mut self,
        audience: ListenerKind,
        address: &ListenAddr,
    ) -> Option<OwnedFd> {
        let (is_public, address) = (audience == ListenerKind::Public, address.to_string());
        let place = self
            .doors
            .iter()
            .position(|door| door.is_public == is_public && door.address == address)?;
        Some(self.doors.swap_remove(place).file)
    }

    /// The doors that were passed to it, or to one before it.
    pub(super) fn take_activated(&mut self) -> Vec<(ListenerKind, OwnedFd)> {
        let audience = |door: &InheritedListener| {
            if door.is_public { ListenerKind::Public } else { ListenerKind::Admin }
        };
        self.doors
            .extract_if(.., |door| door.is_activated)
            .map(|door| (audience(&door), door.file))
            .collect()
    }

    /// Says that this process could serve, and waits for the word to. It comes also when the other one is gone.
    ///
    /// # Errors
    ///
    /// Where it says something else.
    pub(super) fn wait_for_go(&mut self) -> io::Result<()> {
        if self.wire.is_closed() {
            return Ok(());
        }
        let result =
            self.wire.send(&Message::Ready, None).and_then(|()| self.wire.recv(Received::of));
        match result {
            Ok(Received::Go) => {}
            Ok(_) => return Err(malformed()),
            Err(error) if is_disconnected(&error) => {
                log::warn!("the process before ended while this one took over");
            }
            Err(error) => return Err(error),
        }
        self.doors.clear();
        self.wire.socket().set_nonblocking(true)
    }

    /// Takes the clients that it has passed on. Tells whether there will be more.
    pub(super) fn take_clients(
        &mut self,
        mut admit: impl FnMut(OwnedFd, Vec<u8>),
    ) -> TransferStatus {
        loop {
            while let Ok(Some(came)) = self.wire.try_recv(Received::of) {
                if let Received::Client(socket, bytes) = came {
                    admit(socket, bytes);
                }
            }
            match self.wire.fill() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return TransferStatus::More;
                }
                Ok(()) if !self.wire.is_closed() => {}
                _ => return TransferStatus::Done,
            }
        }
    }
}

/// Whether the process before has clients yet to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferStatus {
    More,
    Done,
}

/// Whether the other process has ended.
pub(super) fn is_disconnected(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

impl AsFd for Predecessor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
